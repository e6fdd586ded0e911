//! Task events of a worker, with the fields that Celery gives each, without the envelope that the emitter adds.

use std::time::Duration;

use celery_protocol::event::{TaskEvent, TaskEventKind};
use celery_protocol::{TaskId, WireTime};
use serde_json::Value;

use crate::consumer::admit::Revocation;
use crate::context::Request;

/// `task-received`
pub(crate) fn received(request: &Request) -> TaskEvent {
    let headers = request.headers();
    let mut event = TaskEvent::new(TaskEventKind::Received, request.id().as_str());
    let fields = &mut event.fields;
    fields.name = Some(headers.task.to_string());
    fields.args = Some(request.argsrepr().into_owned());
    fields.kwargs = Some(request.kwargsrepr().into_owned());
    fields.root_id = headers.root_id.as_ref().map(ToString::to_string);
    fields.parent_id = headers.parent_id.as_ref().map(ToString::to_string);
    fields.retries = Some(headers.retries.into());
    fields.eta = headers.eta.map(WireTime::isoformat);
    fields.expires = headers.expires.map(WireTime::isoformat);
    event
}

/// `task-started`
pub(crate) fn started(id: &TaskId) -> TaskEvent {
    TaskEvent::new(TaskEventKind::Started, id.as_str())
}

/// `task-succeeded`; `result` as Python prints it.
pub(crate) fn succeeded(id: &TaskId, result: String, runtime: Duration) -> TaskEvent {
    let mut event = TaskEvent::new(TaskEventKind::Succeeded, id.as_str());
    event.fields.result = Some(result);
    event.fields.runtime = Some(runtime.as_secs_f64());
    event
}

/// `task-failed`; `exception` as Python prints it.
pub(crate) fn failed(id: &TaskId, exception: String, traceback: Option<String>) -> TaskEvent {
    let mut event = TaskEvent::new(TaskEventKind::Failed, id.as_str());
    event.fields.exception = Some(exception);
    event.fields.traceback = traceback;
    event
}

/// `task-retried`; `exception` as Python prints it.
pub(crate) fn retried(id: &TaskId, exception: String, traceback: String) -> TaskEvent {
    let mut event = TaskEvent::new(TaskEventKind::Retried, id.as_str());
    event.fields.exception = Some(exception);
    event.fields.traceback = Some(traceback);
    event
}

/// `task-revoked`
pub(crate) fn revoked(id: &TaskId, why: Revocation) -> TaskEvent {
    let mut event = TaskEvent::new(TaskEventKind::Revoked, id.as_str());
    let terminated = why == Revocation::Terminated;
    event.fields.terminated = Some(terminated);
    event.fields.signum = Some(if terminated { Value::from(15) } else { Value::Null });
    event.fields.expired = Some(why == Revocation::Expired);
    event
}

/// `task-rejected`
pub(crate) fn rejected(id: &TaskId, requeue: bool) -> TaskEvent {
    let mut event = TaskEvent::new(TaskEventKind::Rejected, id.as_str());
    event.fields.requeue = Some(requeue);
    event
}
