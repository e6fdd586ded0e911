//! What single events say about a task: the entries of its timeline.

use std::cmp::Ordering;
use std::sync::Arc;

use celery_protocol::TaskState;
use serde_json::{Map, Value};

use super::key::TaskKey;
use super::time::UnixTime;

/// One event in the life of a task.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When it happened, by the clock of whoever sent the event.
    pub at: UnixTime,
    /// The sender's logical clock.
    pub clock: u64,
    /// Who sent the event: a worker, or for [`What::Sent`] a client.
    pub origin: Arc<str>,
    /// What happened.
    pub what: What,
    /// Not an event told so, but the result backend.
    pub stored: bool,
}

/// What happened to a task, with what the event tells about it.
///
/// Payloads are boxed: most marks have none or one, and a task keeps several marks.
#[derive(Clone, Debug)]
pub enum What {
    /// A client published it.
    Sent(Box<Sent>),
    /// A worker took it from its queue.
    Received(Box<Call>),
    /// A worker began to run it.
    Started,
    /// It ended well.
    Succeeded(Box<Success>),
    /// It ended with an exception.
    Failed(Box<Trouble>),
    /// It will be tried again.
    Retried(Box<Trouble>),
    /// It was revoked, terminated, or had expired.
    Revoked(Box<Revocation>),
    /// A worker refused it.
    Rejected {
        /// Whether it went back to its queue.
        requeue: bool,
    },
    /// An event of the application's own, `task-<name>`.
    Custom(Box<Custom>),
}

/// Which kind of event a mark is. The order is that of a life by the book; it decides between events of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is a variant of `What`")]
pub enum Kind {
    Sent,
    Received,
    Started,
    Custom,
    Retried,
    Rejected,
    Revoked,
    Failed,
    Succeeded,
}

/// What was called: told when a task is sent and again when it is received.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// The registered name.
    pub name: Option<Arc<str>>,
    /// Python's repr of the positional arguments.
    pub args: Option<Box<str>>,
    /// Python's repr of the keyword arguments.
    pub kwargs: Option<Box<str>>,
    /// The task at the root of the workflow.
    pub root: Option<TaskKey>,
    /// The task that called it.
    pub parent: Option<TaskKey>,
    /// How often it had been tried before.
    pub retries: u32,
    /// Not to be run before this time.
    pub eta: Option<UnixTime>,
    /// Not to be run after this time.
    pub expires: Option<UnixTime>,
}

/// A call and where it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sent {
    /// What was called.
    pub call: Call,
    /// The queue it was routed to.
    pub queue: Option<Arc<str>>,
    /// The exchange it was published to.
    pub exchange: Option<Arc<str>>,
    /// The routing key it was published with.
    pub routing_key: Option<Arc<str>>,
}

/// How a task ended well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Success {
    /// Python's repr of the result.
    pub result: Option<Box<str>>,
    /// Seconds that it ran.
    pub runtime: Option<f64>,
}

/// An exception: the end of an attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trouble {
    /// Python's repr of the exception.
    pub exception: Option<Box<str>>,
    /// The traceback.
    pub traceback: Option<Box<str>>,
}

/// How a task was revoked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revocation {
    /// It was running and was killed.
    pub terminated: bool,
    /// With which signal.
    pub signal: Option<Box<str>>,
    /// It was too late to run it.
    pub expired: bool,
}

/// An event of the application's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Custom {
    /// What follows `task-` in its type.
    pub name: Box<str>,
    /// The fields that it adds.
    pub fields: Map<String, Value>,
}

impl Mark {
    /// The order of a timeline: by time, then by logical clock, then by what must come first, then by sender. Two
    /// marks that compare as equal are the same event, delivered twice.
    #[must_use]
    pub fn order(&self, other: &Mark) -> Ordering {
        self.at
            .cmp(&other.at)
            .then(self.clock.cmp(&other.clock))
            .then(self.what.kind().cmp(&other.what.kind()))
            .then_with(|| self.origin.cmp(&other.origin))
            .then_with(|| self.what.name().cmp(other.what.name()))
    }

    /// What it costs to keep this mark, in bytes; an estimate that counts every text.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Mark>() + self.what.weight()
    }
}

impl Kind {
    /// What follows `task-` in the event's type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sent => "sent",
            Kind::Received => "received",
            Kind::Started => "started",
            Kind::Custom => "custom",
            Kind::Retried => "retried",
            Kind::Rejected => "rejected",
            Kind::Revoked => "revoked",
            Kind::Failed => "failed",
            Kind::Succeeded => "succeeded",
        }
    }
}

impl What {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            What::Sent(_) => Kind::Sent,
            What::Received(_) => Kind::Received,
            What::Started => Kind::Started,
            What::Succeeded(_) => Kind::Succeeded,
            What::Failed(_) => Kind::Failed,
            What::Retried(_) => Kind::Retried,
            What::Revoked(_) => Kind::Revoked,
            What::Rejected { .. } => Kind::Rejected,
            What::Custom(_) => Kind::Custom,
        }
    }

    /// What follows `task-` in the event's type.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            What::Custom(custom) => &custom.name,
            known => known.kind().name(),
        }
    }

    /// The state that this event alone would put a task into. An event that Celery doesn't know is a state of its own,
    /// in capitals.
    #[must_use]
    pub fn state(&self) -> TaskState {
        match self {
            What::Sent(_) => TaskState::Pending,
            What::Received(_) => TaskState::Received,
            What::Started => TaskState::Started,
            What::Succeeded(_) => TaskState::Success,
            What::Failed(_) => TaskState::Failure,
            What::Retried(_) => TaskState::Retry,
            What::Revoked(_) => TaskState::Revoked,
            What::Rejected { .. } => TaskState::Rejected,
            What::Custom(custom) => TaskState::from(custom.name.to_uppercase().as_str()),
        }
    }

    /// The call, where the event tells it.
    #[must_use]
    pub fn call(&self) -> Option<&Call> {
        match self {
            What::Sent(sent) => Some(&sent.call),
            What::Received(call) => Some(call),
            _ => None,
        }
    }

    fn weight(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let call = |call: &Call| size_of::<Call>() + text(&call.args) + text(&call.kwargs);
        match self {
            What::Sent(sent) => size_of::<Sent>() + call(&sent.call),
            What::Received(received) => call(received),
            What::Succeeded(success) => size_of::<Success>() + text(&success.result),
            What::Failed(trouble) | What::Retried(trouble) => {
                size_of::<Trouble>() + text(&trouble.exception) + text(&trouble.traceback)
            }
            What::Revoked(_) => size_of::<Revocation>(),
            What::Custom(custom) => size_of::<Custom>() + custom.name.len() + map_weight(&custom.fields),
            What::Started | What::Rejected { .. } => 0,
        }
    }
}

fn map_weight(map: &Map<String, Value>) -> usize {
    map.iter().map(|(key, value)| key.len() + size_of::<Value>() + value_weight(value)).sum()
}

fn value_weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + value_weight(item)).sum(),
        Value::Object(map) => map_weight(map),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
