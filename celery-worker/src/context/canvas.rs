//! Work sent by a running task: children, a replacement for itself, further members of its chord.

use celery_broker::{Celery, Children, SendContext};
use celery_protocol::canvas::{Call, Freeze, IdSource, Replacement};
use celery_protocol::{Canvas, IntoCanvas, ResultTuple, TaskId};
use uuid::Uuid;

use super::Context;
use crate::task::{Failure, TaskError, TaskResult};

impl Context {
    /// The client handle. What is sent through it becomes a child of this task: it carries its root and parent, and is
    /// listed with its result.
    #[must_use]
    pub fn celery(&self) -> &Celery {
        &self.own().0
    }

    /// What was sent so far.
    pub(crate) fn children(&self) -> Vec<ResultTuple> {
        self.0.own.get().map(|(_, children)| children.snapshot()).unwrap_or_default()
    }

    /// Lists what was sent, but not through [`celery`](Self::celery), as a child.
    pub(crate) fn add_child(&self, child: ResultTuple) {
        self.own().1.push(child);
    }

    pub(super) fn own(&self) -> &(Celery, Children) {
        self.0.own.get_or_init(|| {
            let (request, children) = (self.request(), Children::default());
            let context = SendContext {
                root_id: Some(request.headers().root().clone()),
                parent_id: Some(request.id().clone()),
                children: Some(children.clone()),
                ..SendContext::default()
            };
            (self.0.env.celery.within(context), children)
        })
    }

    /// Puts another task, or a whole workflow, in this one's place: it takes over the id, the callbacks, and the place in
    /// a chain, group or chord. The caller gets its result as this task's.
    ///
    /// ```
    /// use celery_worker::prelude::*;
    ///
    /// # #[task(name = "docs.add")] async fn add(x: i64, y: i64) -> TaskResult<i64> { Ok(x + y) }
    /// #[task(name = "docs.add_later")]
    /// async fn add_later(#[ctx] ctx: Context, x: i64, y: i64) -> TaskResult<i64> {
    ///     Err(ctx.replace(add::s(x, y)).await)
    /// }
    /// ```
    pub async fn replace(&self, with: impl IntoCanvas) -> TaskError {
        self.replaced(with).await.map_or_else(|error| error, |()| TaskError::Replaced)
    }

    async fn replaced(&self, with: impl IntoCanvas) -> TaskResult<()> {
        let (request, canvas) = (self.request(), with.into_canvas()?);
        let replacement = Replacement { headers: request.headers(), embed: request.embed() };
        let canvas = replacement
            .of(canvas, &mut IdSource::new(&mut random_id))
            .map_err(|error| Failure::improperly_configured(&error.to_string()))?;
        self.send(canvas).await
    }

    /// Adds a member to the chord that this task is a member of: the body waits for it, and gets its result too.
    ///
    /// # Errors
    /// This task is not a member of a chord (`ValueError`), or the new member could not be sent.
    pub async fn add_to_chord(&self, member: impl IntoCanvas) -> TaskResult<()> {
        let request = self.request();
        let (Some(body), Some(group)) = (&request.embed().chord, request.group()) else {
            return Err(Failure::new("ValueError", "Current task is not member of any chord").into());
        };
        let mut canvas = member.into_canvas()?;
        let options = canvas.options_mut();
        options.set_raw("chord", body.to_raw());
        options.set("group_id", group);
        options.set("group_index", &request.group_index());
        options.set("root_id", &request.root_id());
        canvas.freeze(Freeze::default(), &mut IdSource::new(&mut random_id))?;
        self.celery().backend().chord_grow(group, 1).await?;
        self.send(canvas).await
    }

    async fn send(&self, canvas: Canvas) -> TaskResult<()> {
        let celery = self.celery();
        let plan = celery.plan(canvas, Call::default())?;
        Ok(celery.run(&plan).await?)
    }
}

fn random_id() -> TaskId {
    TaskId::from(Uuid::new_v4())
}
