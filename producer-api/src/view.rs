//! What a client is shown of a task: the record of its submission and the state in the result backend, put together.
//! Pure; the only place that makes [`Handle`]s and [`Task`]s.

use celery_protocol::TaskId;
use celery_protocol::result::{RemoteException, ResultMeta, TaskState};
use serde_json::value::RawValue;

use crate::dto::task::{Handle, Links, Sources, Task, TaskError, Warning};
use crate::json;
use crate::problem::{Kind, Problem};
use crate::submission::Record;

/// Parts of a task that are only shown when asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Include {
    /// The stored arguments.
    pub args: bool,
    /// The traceback.
    pub traceback: bool,
}

impl Include {
    /// Reads `args,traceback,children`.
    ///
    /// # Errors
    /// `invalid-parameter` for another word.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut include = Include::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "args" => include.args = true,
                "traceback" => include.traceback = true,
                "children" => {}
                _ => {
                    let detail = "must be a list of args, traceback, children".to_owned();
                    return Err(Problem::field(Kind::InvalidParameter, "include", detail));
                }
            }
        }
        Ok(include)
    }
}

/// The answer to a submission, or to a question about one that has no state yet.
pub fn handle(id: &TaskId, record: Option<&Record>, state: &str) -> Handle {
    let id = id.as_str();
    let mut handle = Handle {
        id: id.to_owned(),
        task: None,
        state: state.to_owned(),
        queue: None,
        exchange: None,
        routing_key: None,
        submitted_at: None,
        eta: None,
        expires_at: None,
        group_id: None,
        root_id: None,
        parent_id: None,
        ignore_result: None,
        deduplicated: false,
        warnings: Vec::new(),
        links: Links::of(id),
    };
    if let Some(record) = record {
        handle.task = Some(record.task.clone());
        handle.queue.clone_from(&record.queue);
        handle.exchange = Some(record.exchange.clone());
        handle.routing_key = Some(record.routing_key.clone());
        handle.submitted_at = Some(record.submitted_at.clone());
        handle.eta.clone_from(&record.eta);
        handle.expires_at.clone_from(&record.expires_at);
        handle.group_id.clone_from(&record.group_id);
        handle.root_id.clone_from(&record.root_id);
        handle.parent_id.clone_from(&record.parent_id);
        handle.ignore_result = record.ignore_result;
    }
    handle
}

/// The state of a task. Without a state in the backend it is PENDING.
pub fn task(id: &TaskId, record: Option<&Record>, meta: Option<&ResultMeta>, include: Include) -> Task {
    let state = meta.map_or(TaskState::Pending, |meta| meta.status.clone());
    let mut task = Task {
        handle: handle(id, record, state.as_str()),
        ready: state.is_ready(),
        successful: state == TaskState::Success,
        result: None,
        error: None,
        progress: None,
        finished_at: None,
        worker: None,
        retries: None,
        children: Vec::new(),
        stamps: record.map(|record| record.stamps.clone()).unwrap_or_default(),
        meta: record.map(|record| record.meta.clone()).unwrap_or_default(),
        args: record.and_then(|record| record.args.clone()).filter(|_| include.args),
        kwargs: record.and_then(|record| record.kwargs.clone()).filter(|_| include.args),
        sources: Sources { submission: record.is_some(), backend: meta.is_some() },
    };
    let Some(meta) = meta else { return task };
    match &state {
        TaskState::Success => task.result = Some(showable(&meta.result)),
        TaskState::Started | TaskState::Pending | TaskState::Received => {
            task.worker = started_by(&meta.result);
        }
        state if state.is_exception() => task.error = Some(error(meta, include.traceback)),
        _ => task.progress = Some(showable(&meta.result)),
    }
    if task.ready {
        task.finished_at = meta.date_done.map(|done| done.in_utc().isoformat());
    }
    if let Some(group) = &meta.group_id {
        task.handle.group_id.get_or_insert_with(|| group.to_string());
    }
    if let Some(parent) = &meta.parent_id {
        task.handle.parent_id.get_or_insert_with(|| parent.to_string());
    }
    if let Some(extended) = &meta.extended {
        task.handle.task = task.handle.task.or_else(|| extended.name.clone());
        task.handle.queue = task.handle.queue.or_else(|| extended.queue.clone());
        task.worker = task.worker.or_else(|| extended.worker.clone());
        task.retries = extended.retries.map(u64::from);
    }
    task.children = children(meta).map(|id| id.to_string()).collect();
    task
}

/// The tasks that a task started; of a group its members.
pub fn children(meta: &ResultMeta) -> impl Iterator<Item = &TaskId> {
    meta.children.iter().flatten().flat_map(|child| {
        let members = child.members.iter().flatten().map(|member| &member.id);
        members.chain(child.members.is_none().then_some(&child.id))
    })
}

/// A submission that was answered before, with a remark or not.
pub fn warned(mut handle: Handle, warnings: Vec<Warning>) -> Handle {
    handle.warnings = warnings;
    handle
}

/// The exception of a failed, revoked or retried task. What cannot be read as one is shown as its text.
pub fn error(meta: &ResultMeta, traceback: bool) -> TaskError {
    let traceback = meta.traceback.clone().filter(|_| traceback);
    match RemoteException::from_raw(&meta.result).ok() {
        Some(exception) => TaskError {
            r#type: Some(exception.exc_type),
            module: exception.exc_module,
            message: exception.exc_message.iter().map(showable).collect(),
            traceback,
        },
        None => TaskError { r#type: None, module: None, message: vec![showable(&meta.result)], traceback },
    }
}

/// A stored value as it may stand in a JSON answer. Python writes NaN and Infinity, which JSON does not have: such a
/// value is shown as a string of its text rather than making the whole answer unreadable.
pub fn showable(raw: &RawValue) -> Box<RawValue> {
    match json::check(raw.get().as_bytes(), 1024) {
        Ok(_) => raw.to_owned(),
        Err(_) => serde_json::value::to_raw_value(raw.get()).unwrap_or_else(|_| RawValue::NULL.to_owned()),
    }
}

/// The worker's name in the meta of STARTED.
fn started_by(result: &RawValue) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(result.get()).ok()?;
    Some(value.get("hostname")?.as_str()?.to_owned())
}
