//! From a stranger's event to something that can be kept: bounded, believable, and one copy of each name.
//!
//! What can be saved of an event is taken; what says nothing at all is refused, and counted by the caller.

use std::sync::Arc;

use celery_protocol::WireTime;
use celery_protocol::event::{
    Event, EventBody, TaskEvent, TaskEventKind, TaskFields, WorkerEvent, WorkerEventKind, WorkerStatus,
};
use serde_json::{Map, Value};

use super::Limits;
use super::key::TaskKey;
use super::mark::{Call, Custom, Mark, Revocation, Sent, Success, Trouble, What};
use super::names::Names;
use super::text::bounded;
use super::time::UnixTime;
use super::worker::{Facts, Instant};

/// The longest name of a worker, a task, a queue or a state, in bytes.
const MAX_NAME: usize = 255;
/// Heartbeats further apart than a day are no heartbeats.
const MAX_INTERVAL: f64 = 86_400.0;

/// Celery's interval between heartbeats, for a worker whose own claim makes no sense.
pub const USUAL_INTERVAL: f64 = 2.0;

/// What an event tells.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Something happened to a task.
    Task {
        /// Which.
        id: TaskKey,
        /// What.
        mark: Mark,
    },
    /// Something about a worker.
    Worker {
        /// Which.
        name: Arc<str>,
        /// When, by the worker.
        sent: Instant,
        /// What.
        news: News,
    },
}

/// What a worker tells.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It lives, and how it is doing.
    Alive(Facts),
    /// It stops.
    Offline,
}

/// Why an event can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It doesn't say who sent it.
    #[error("the event names no host")]
    NoHost,
    /// A task's id is missing or too long.
    #[error("the event has no usable task id")]
    NoTask,
    /// Neither about a task nor about a worker.
    #[error("the event is of an unknown kind")]
    UnknownKind,
}

/// Reads an event that was received at `received`.
///
/// # Errors
/// When it says nothing that can be used.
pub fn observe(
    event: &Event,
    names: &mut Names,
    limits: &Limits,
    received: UnixTime,
) -> Result<Seen, Refusal> {
    if event.hostname.is_empty() {
        return Err(Refusal::NoHost);
    }
    let mut name = |text: &str| names.share(&bounded(text, MAX_NAME));
    let host = name(&event.hostname);
    let at = UnixTime::claimed(event.timestamp, received);
    match &event.body {
        EventBody::Task(task) => {
            if task.uuid.is_empty() || task.uuid.len() > TaskKey::MAX {
                return Err(Refusal::NoTask);
            }
            let what = what(task, limits, &mut name);
            Ok(Seen::Task {
                id: task.uuid.as_str().into(),
                mark: Mark { at, clock: event.clock, origin: host, what, stored: false },
            })
        }
        EventBody::Worker(worker) => {
            let news = match worker.kind {
                WorkerEventKind::Offline => News::Offline,
                _ => News::Alive(facts(worker, event.pid, &mut name)),
            };
            Ok(Seen::Worker { name: host, sent: (at, event.clock), news })
        }
        EventBody::Other { .. } => Err(Refusal::UnknownKind),
    }
}

fn what(task: &TaskEvent, limits: &Limits, name: &mut dyn FnMut(&str) -> Arc<str>) -> What {
    let fields = &task.fields;
    let text = |text: &Option<String>| text.as_deref().map(|text| bounded(text, limits.max_text));
    let trouble = || {
        Box::new(Trouble {
            exception: text(&fields.exception),
            traceback: fields.traceback.as_deref().map(|text| bounded(text, limits.max_traceback)),
        })
    };
    match &task.kind {
        TaskEventKind::Sent => {
            let call = call(fields, limits, name);
            let mut name = |text: &Option<String>| text.as_deref().map(&mut *name);
            What::Sent(Box::new(Sent {
                call,
                queue: name(&fields.queue),
                exchange: name(&fields.exchange),
                routing_key: name(&fields.routing_key),
            }))
        }
        TaskEventKind::Received => What::Received(Box::new(call(fields, limits, name))),
        TaskEventKind::Started => What::Started,
        TaskEventKind::Succeeded => What::Succeeded(Box::new(Success {
            result: text(&fields.result),
            runtime: fields.runtime.filter(|runtime| *runtime >= 0.0 && runtime.is_finite()),
        })),
        TaskEventKind::Failed => What::Failed(trouble()),
        TaskEventKind::Retried => What::Retried(trouble()),
        TaskEventKind::Revoked => What::Revoked(Box::new(Revocation {
            terminated: fields.terminated.unwrap_or(false),
            signal: fields.signum.as_ref().map(|signal| match signal {
                Value::String(name) => bounded(name, MAX_NAME),
                other => bounded(&other.to_string(), MAX_NAME),
            }),
            expired: fields.expired.unwrap_or(false),
        })),
        TaskEventKind::Rejected => What::Rejected { requeue: fields.requeue.unwrap_or(false) },
        other => {
            let kind = other.type_name();
            What::Custom(Box::new(Custom {
                name: bounded(kind.strip_prefix("task-").unwrap_or(&kind), MAX_NAME),
                fields: bounded_map(&fields.extra, limits.max_text),
            }))
        }
    }
}

fn call(fields: &TaskFields, limits: &Limits, name: &mut dyn FnMut(&str) -> Arc<str>) -> Call {
    let text = |text: &Option<String>| text.as_deref().map(|text| bounded(text, limits.max_text));
    let id = |text: &Option<String>| {
        text.as_deref().filter(|id| !id.is_empty() && id.len() <= TaskKey::MAX).map(TaskKey::from)
    };
    let time = |text: &Option<String>| {
        let time = text.as_deref().and_then(|text| WireTime::parse(text).ok());
        time.and_then(|time| UnixTime::new(time.unix_seconds()))
    };
    Call {
        name: fields.name.as_deref().map(&mut *name),
        args: text(&fields.args),
        kwargs: text(&fields.kwargs),
        root: id(&fields.root_id),
        parent: id(&fields.parent_id),
        retries: fields.retries.map_or(0, |retries| u32::try_from(retries).unwrap_or(u32::MAX)),
        eta: time(&fields.eta),
        expires: time(&fields.expires),
    }
}

fn facts(worker: &WorkerEvent, pid: Option<i64>, name: &mut dyn FnMut(&str) -> Arc<str>) -> Facts {
    let WorkerStatus { freq, active, processed, loadavg, sw_ident, sw_ver, sw_sys, .. } = &worker.status;
    let mut name = |text: &Option<String>| text.as_deref().map(&mut *name);
    Facts {
        freq: freq.map(|freq| if freq > 0.0 && freq <= MAX_INTERVAL { freq } else { USUAL_INTERVAL }),
        pid,
        sw_ident: name(sw_ident),
        sw_ver: name(sw_ver),
        sw_sys: name(sw_sys),
        loadavg: loadavg.filter(|load| load.iter().all(|value| value.is_finite())),
        active: *active,
        processed: *processed,
    }
}

/// The map, if it is of a bearable size; else a map that says so.
fn bounded_map(map: &Map<String, Value>, limit: usize) -> Map<String, Value> {
    let size = serde_json::to_string(map).map_or(usize::MAX, |text| text.len());
    if size <= limit {
        return map.clone();
    }
    let note = format!("{size} bytes of fields were dropped");
    Map::from_iter([("truncated".to_owned(), Value::String(note))])
}
