//! Results on the caller's side: [`AsyncResult`] and [`GroupResult`].

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use celery_protocol::canvas::IntoCanvas;
use celery_protocol::{
    Canvas, Chain, Chord, Group, GroupId, RemoteException, ResultMeta, ResultTuple, Sig, Signature, TaskId,
    TaskState, pyjson,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};

use crate::celery::Celery;
use crate::error::BackendError;

/// Members of a group that are waited for at a time.
const WATCHED: usize = 512;
/// Pause before a failing backend is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// What can be sent, and what one holds afterwards.
pub trait Runnable: IntoCanvas {
    /// The handle to the result.
    type Handle;

    /// Makes the handle.
    fn handle(celery: &Celery, result: ResultTuple) -> Self::Handle;
}

macro_rules! runnable {
    ($($workflow:ty => $output:ty),*) => {
        $(impl Runnable for $workflow {
            type Handle = AsyncResult<$output>;

            fn handle(celery: &Celery, result: ResultTuple) -> Self::Handle {
                AsyncResult::new(celery.clone(), result)
            }
        })*
    };
    (typed $($workflow:ident),*) => {
        $(impl<O> Runnable for $workflow<O> {
            type Handle = AsyncResult<O>;

            fn handle(celery: &Celery, result: ResultTuple) -> Self::Handle {
                AsyncResult::new(celery.clone(), result)
            }
        })*
    };
}

runnable!(Canvas => Value, Signature => Value);
runnable!(typed Sig, Chain, Chord);

impl<O> Runnable for Group<O> {
    type Handle = GroupResult<O>;

    fn handle(celery: &Celery, result: ResultTuple) -> Self::Handle {
        GroupResult::new(celery, result)
    }
}

/// The result of a task, now or later. Cheap to make from an id: nothing is asked until a method is called.
pub struct AsyncResult<O> {
    celery: Celery,
    tuple: ResultTuple,
    output: PhantomData<fn() -> O>,
}

/// A task that did not succeed, as its worker reported it.
#[derive(Debug, Clone)]
pub struct RemoteFailure {
    /// The task.
    pub task_id: TaskId,
    /// What it raised.
    pub exception: RemoteException,
    /// Where, as text, if the worker said so.
    pub traceback: Option<String>,
}

impl fmt::Display for RemoteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} raised {}", self.task_id, self.exception.repr())
    }
}

impl std::error::Error for RemoteFailure {}

/// Why there is no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError {
    /// The task failed.
    Failed(RemoteFailure),
    /// The task was revoked, or it expired.
    Revoked(RemoteFailure),
    /// The task has not ended in time; it may still do so.
    Timeout,
    /// The result backend cannot be asked.
    Backend(BackendError),
    /// The value is of another type than expected.
    Type {
        /// The task.
        task_id: TaskId,
        /// What did not fit.
        problem: String,
    },
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Revoked(failure) => write!(f, "task {} was revoked", failure.task_id),
            Self::Timeout => f.write_str("the task has not ended in time"),
            Self::Backend(err) => err.fmt(f),
            Self::Type { task_id, problem } => {
                write!(f, "the result of task {task_id} is of another type: {problem}")
            }
        }
    }
}

impl std::error::Error for GetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(failure) | Self::Revoked(failure) => Some(failure),
            Self::Backend(err) => Some(err),
            Self::Timeout | Self::Type { .. } => None,
        }
    }
}

impl Celery {
    /// The result of the task `id`, whoever sent it.
    pub fn result<O>(&self, id: TaskId) -> AsyncResult<O> {
        AsyncResult::new(self.clone(), ResultTuple::task(id))
    }

    /// The group `id`, if its shape was [saved](GroupResult::save).
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn group<O>(&self, id: &GroupId) -> Result<Option<GroupResult<O>>, BackendError> {
        let shape = self.backend().get_group(id).await?;
        Ok(shape.map(|shape| GroupResult::new(self, shape)))
    }
}

impl<O> AsyncResult<O> {
    fn new(celery: Celery, tuple: ResultTuple) -> Self {
        Self { celery, tuple, output: PhantomData }
    }

    /// The task's id; of a chain, that of its last step.
    pub fn id(&self) -> &TaskId {
        &self.tuple.id
    }

    /// The ids of the workflow: this task's and those before it.
    pub fn tuple(&self) -> &ResultTuple {
        &self.tuple
    }

    /// The task before this one in a chain, or the header of a chord.
    pub fn parent(&self) -> Option<AsyncResult<Value>> {
        self.tuple.parent.as_deref().map(|parent| AsyncResult::new(self.celery.clone(), parent.clone()))
    }

    /// What is stored now; `None` if nothing is.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn meta(&self) -> Result<Option<ResultMeta>, BackendError> {
        self.celery.backend().get(self.id()).await
    }

    /// The state now. A task of which nothing is known is pending: it may wait, have been forgotten, or never existed.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn state(&self) -> Result<TaskState, BackendError> {
        Ok(self.meta().await?.map_or(TaskState::Pending, |meta| meta.status))
    }

    /// What the task has sent, if that is stored.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn children(&self) -> Result<Vec<AsyncResult<Value>>, BackendError> {
        let children = self.meta().await?.and_then(|meta| meta.children).unwrap_or_default();
        Ok(children.into_iter().map(|child| AsyncResult::new(self.celery.clone(), child)).collect())
    }

    /// All states from now on; ends with the final one.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn watch(&self) -> Result<BoxStream<'static, ResultMeta>, BackendError> {
        self.celery.backend().watch(self.id()).await
    }

    /// Waits for the final state.
    ///
    /// # Errors
    /// [`GetError::Timeout`], or the backend cannot be asked.
    pub async fn wait(&self, timeout: Duration) -> Result<ResultMeta, GetError> {
        wait(&self.celery, self.id(), Instant::now() + timeout).await
    }

    /// Deletes what is stored.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn forget(&self) -> Result<(), BackendError> {
        self.celery.backend().forget(self.id()).await
    }
}

impl<O: DeserializeOwned> AsyncResult<O> {
    /// Waits for the value.
    ///
    /// # Errors
    /// The task failed or was revoked, has not ended in time, returned something else, or the backend cannot be asked.
    pub async fn get(&self, timeout: Duration) -> Result<O, GetError> {
        let value = value(&self.celery, &self.tuple, Instant::now() + timeout).await?;
        typed(self.id(), &value)
    }
}

impl<O> Clone for AsyncResult<O> {
    fn clone(&self) -> Self {
        Self::new(self.celery.clone(), self.tuple.clone())
    }
}

impl<O> fmt::Debug for AsyncResult<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncResult").field(self.id()).finish()
    }
}

/// The results of a group.
pub struct GroupResult<O> {
    celery: Celery,
    tuple: ResultTuple,
    results: Vec<AsyncResult<O>>,
}

impl<O> GroupResult<O> {
    fn new(celery: &Celery, tuple: ResultTuple) -> Self {
        let members = match &tuple.members {
            Some(members) => members.clone(),
            None => vec![tuple.clone()],
        };
        let results = members.into_iter().map(|member| AsyncResult::new(celery.clone(), member)).collect();
        Self { celery: celery.clone(), tuple, results }
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        GroupId::from(self.tuple.id.clone())
    }

    /// The members, in order.
    pub fn results(&self) -> &[AsyncResult<O>] {
        &self.results
    }

    /// How many members have succeeded.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn completed(&self) -> Result<usize, BackendError> {
        let ids: Vec<TaskId> = self.results.iter().map(|result| result.id().clone()).collect();
        let metas = self.celery.backend().get_many(&ids).await?;
        Ok(metas.iter().flatten().filter(|meta| meta.status == TaskState::Success).count())
    }

    /// Stores the shape of the group, so that [`Celery::group`] finds it by its id.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn save(&self) -> Result<(), BackendError> {
        self.celery.backend().store_group(&self.tuple).await
    }

    /// Deletes the shape and the members' results.
    ///
    /// # Errors
    /// The backend cannot be asked.
    pub async fn forget(&self) -> Result<(), BackendError> {
        for result in &self.results {
            result.forget().await?;
        }
        self.celery.backend().forget_group(&self.id()).await
    }
}

impl<O: DeserializeOwned> GroupResult<O> {
    /// Waits for the values of all members, in order.
    ///
    /// # Errors
    /// The first member in order that has no value.
    pub async fn get(&self, timeout: Duration) -> Result<Vec<O>, GetError> {
        let deadline = Instant::now() + timeout;
        let values = values(&self.celery, self.results.iter().map(|result| &result.tuple), deadline).await?;
        self.results.iter().zip(&values).map(|(result, value)| typed(result.id(), value)).collect()
    }
}

impl<O> fmt::Debug for GroupResult<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupResult")
            .field("id", &self.tuple.id)
            .field("members", &self.results.len())
            .finish()
    }
}

fn typed<O: DeserializeOwned>(task_id: &TaskId, value: &RawValue) -> Result<O, GetError> {
    pyjson::from_str(value.get())
        .map_err(|err| GetError::Type { task_id: task_id.clone(), problem: err.to_string() })
}

/// The value of a task, or of a group the list of its members' values.
fn value<'a>(
    celery: &'a Celery,
    tuple: &'a ResultTuple,
    deadline: Instant,
) -> BoxFuture<'a, Result<Box<RawValue>, GetError>> {
    Box::pin(async move {
        let Some(members) = &tuple.members else {
            let meta = wait(celery, &tuple.id, deadline).await?;
            return succeeded(meta);
        };
        let values = values(celery, members.iter(), deadline).await?;
        pyjson::to_raw(&values)
            .map_err(|err| GetError::Type { task_id: tuple.id.clone(), problem: err.to_string() })
    })
}

async fn values<'a>(
    celery: &'a Celery,
    members: impl Iterator<Item = &'a ResultTuple>,
    deadline: Instant,
) -> Result<Vec<Box<RawValue>>, GetError> {
    let waits: Vec<_> = members.map(|member| value(celery, member, deadline)).collect();
    futures_util::stream::iter(waits).buffered(WATCHED).try_collect().await
}

fn succeeded(meta: ResultMeta) -> Result<Box<RawValue>, GetError> {
    if meta.status == TaskState::Success {
        return Ok(meta.result);
    }
    let exception = meta.exception().unwrap_or_else(|| {
        // Celery's own client crashes on such a record.
        RemoteException::new("UnreadableException", "celery.exceptions", meta.result.get())
    });
    let failure =
        RemoteFailure { task_id: meta.task_id.clone(), exception, traceback: meta.traceback.clone() };
    Err(match meta.status {
        TaskState::Revoked => GetError::Revoked(failure),
        _ => GetError::Failed(failure),
    })
}

/// Waits for the final state, whatever the backend goes through meanwhile.
async fn wait(celery: &Celery, id: &TaskId, deadline: Instant) -> Result<ResultMeta, GetError> {
    loop {
        let attempt = async {
            let mut states = celery.backend().watch(id).await?;
            while let Some(meta) = states.next().await {
                if meta.status.is_ready() {
                    return Ok(Some(meta));
                }
            }
            Ok::<_, BackendError>(None)
        };
        match timeout_at(deadline, attempt).await {
            Ok(Ok(Some(meta))) => return Ok(meta),
            // The backend was closed under the watch.
            Ok(Ok(None)) => {}
            Ok(Err(err)) if err.is_transient() && Instant::now() + RETRY < deadline => {
                tracing::debug!(%id, "waiting for a result: {err}");
            }
            Ok(Err(err)) => return Err(GetError::Backend(err)),
            Err(_) => return Err(GetError::Timeout),
        }
        if Instant::now() + RETRY >= deadline {
            return Err(GetError::Timeout);
        }
        sleep(RETRY).await;
    }
}
