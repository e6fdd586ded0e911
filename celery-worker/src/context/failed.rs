//! What a new-style errback is called with: the call that failed, its exception, its traceback.

use celery_protocol::{GroupId, RawArgs, RawKwargs, Signature, TaskId, TaskName, pyjson};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Request;
use crate::task::Failure;

/// A call that failed, for the first parameter of a task with the option `errback`. The second is its exception (a
/// [`RemoteException`](celery_protocol::result::RemoteException) or any JSON), the third its traceback as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedCall {
    /// Its id.
    pub id: TaskId,
    /// Its name.
    pub task: TaskName,
    /// Its positional arguments.
    pub args: RawArgs,
    /// Its keyword arguments.
    pub kwargs: RawKwargs,
    /// How often it was retried.
    pub retries: u32,
    /// The first task of its workflow.
    pub root_id: Option<TaskId>,
    /// The task that sent it.
    pub parent_id: Option<TaskId>,
    /// The group that it was a member of.
    pub group: Option<GroupId>,
}

impl From<&Request> for FailedCall {
    fn from(request: &Request) -> Self {
        Self {
            id: request.id().clone(),
            task: request.task().clone(),
            args: request.args().clone(),
            kwargs: request.kwargs().clone(),
            retries: request.retries(),
            root_id: request.root_id().cloned(),
            parent_id: request.parent_id().cloned(),
            group: request.group().cloned(),
        }
    }
}

impl FailedCall {
    /// The arguments of an errback, before those that its signature has itself.
    pub(crate) fn arguments(request: &Request, failure: &Failure) -> [Box<RawValue>; 3] {
        // Ids, texts and raw JSON always have a JSON form.
        let call = pyjson::to_raw(&Self::from(request)).unwrap_or_else(|_| pyjson::null());
        let traceback = pyjson::to_raw(&failure.traceback(request.task())).unwrap_or_else(|_| pyjson::null());
        [call, failure.exception().to_raw(), traceback]
    }
}

impl FailedCall {
    /// As [`arguments`](Self::arguments), for a call that failed before it was sent.
    pub(crate) fn unsent(
        call: &Signature,
        id: &TaskId,
        root_id: &TaskId,
        failure: &Failure,
    ) -> [Box<RawValue>; 3] {
        let call = Self {
            id: id.clone(),
            task: call.task.clone(),
            args: call.args.clone(),
            kwargs: call.kwargs.clone(),
            retries: 0,
            root_id: Some(root_id.clone()),
            parent_id: None,
            group: call.options.group_id().ok().flatten(),
        };
        let call = pyjson::to_raw(&call).unwrap_or_else(|_| pyjson::null());
        [call, failure.exception().to_raw(), pyjson::null()]
    }
}
