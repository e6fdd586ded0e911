//! Putting a workflow in the place of a running call: Python's `self.replace(…)`.

use super::{Canvas, Freeze, IdSource, Signature, SignatureError};
use crate::{Embed, Headers, TaskName};

/// The running call that is to be replaced.
#[derive(Debug, Clone, Copy)]
pub struct Replacement<'a> {
    /// Its headers.
    pub headers: &'a Headers,
    /// What was to follow it.
    pub embed: &'a Embed,
}

impl Replacement<'_> {
    /// The workflow that takes the call's place: with its id, its callbacks, its rest of a chain, its place in a group
    /// and chord. It is to be planned and sent; after that the call is to be ignored.
    ///
    /// # Errors
    /// The workflow is part of a chord already, or an empty chain.
    pub fn of(&self, with: Canvas, ids: &mut IdSource<'_>) -> Result<Canvas, SignatureError> {
        if with.options().as_map().contains("chord") {
            return Err(SignatureError(
                "A signature replacing a task must not be part of a chord".to_owned(),
            ));
        }
        if with.is_empty_chain() {
            return Err(SignatureError("Cannot replace with an empty chain".to_owned()));
        }
        let mut with = collected(with)?;
        for callback in self.embed.callbacks.iter() {
            with.link(callback)?;
        }
        for errback in self.embed.errbacks.iter() {
            with.link_error(errback)?;
        }
        // a chain's callbacks go to its last step, since more steps may follow
        if let Canvas::Chain(chain) = &mut with {
            let callbacks = chain.frame.options.link()?;
            chain.frame.options.remove("link");
            if let Some(last) = chain.steps.last_mut() {
                callbacks.iter().try_for_each(|callback| last.link(callback))?;
            }
        }
        let id = self.headers.id.clone();
        with.freeze(Freeze { id: Some(id), ..Freeze::default() }, ids)?;
        let nesting = self.headers.replaced_task_nesting.saturating_add(1);
        let options = with.options_mut();
        match &self.embed.chord {
            Some(chord) => options.set_raw("chord", chord.to_raw()),
            None => options.set("chord", &()),
        }
        options.set("group_id", &self.headers.group);
        options.set("group_index", &self.headers.group_index);
        options.set("root_id", &self.headers.root_id);
        options.set("replaced_task_nesting", &nesting);
        if let Canvas::Chain(chain) = &mut with {
            for step in &mut chain.steps {
                step.options_mut().set("replaced_task_nesting", &nesting);
            }
        }
        for step in self.embed.chain.iter().rev() {
            let mut step = step.clone();
            step.options.set("replaced_task_nesting", &nesting);
            with = with.then(Canvas::from_signature(step)?)?;
        }
        Ok(with)
    }
}

/// A group, or a chain that ends in one, with something behind it that callbacks can be linked to.
fn collected(canvas: Canvas) -> Result<Canvas, SignatureError> {
    match canvas {
        group @ Canvas::Group(_) => group.then(accumulate()?),
        Canvas::Chain(mut chain) => {
            if let Some(last) = chain.steps.pop() {
                let last = if matches!(last, Canvas::Group(_)) { last.then(accumulate()?)? } else { last };
                chain.steps.push(last);
            }
            Ok(Canvas::Chain(chain))
        }
        other => Ok(other),
    }
}

/// Celery's own task that returns the first of its arguments.
fn accumulate() -> Result<Canvas, SignatureError> {
    let signature = Signature::new(TaskName::builtin("accumulate"));
    Ok(Canvas::Task(signature.kwarg("index", &0)?))
}
