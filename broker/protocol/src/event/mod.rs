//! Events on the exchange `celeryev`: what workers and producers tell monitors (celery/events, protocol of Celery 5.7).
//!
//! A body is one JSON object, or an array of objects under a routing key that ends in `.multi`. Every object carries who
//! sent it and when ([`Event`]) and the fields of its type ([`EventBody`]). Reading is lenient, since anything may be on
//! the exchange: a field of a wrong type is dropped, an unknown one kept, and what is no event at all is an error for
//! that object alone. No IO and no clock here; emitting and receiving is celery-broker's.

mod read;
mod task;
mod worker;
mod write;

pub use read::{EventError, decode};
pub use task::{TaskEvent, TaskEventKind, TaskFields};
pub use worker::{WorkerEvent, WorkerEventKind, WorkerStatus};
pub use write::{encode, encode_multi};

use serde_json::{Map, Value};

/// Celery's topic exchange for events (`event_exchange`).
pub const EXCHANGE: &str = "celeryev";

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Node name of the sender: `celery@host` for a worker, `gen<pid>@host` for a producer.
    pub hostname: String,
    /// Hours west of UTC of the sender's time zone (New York 5.0, Oslo -1.0).
    pub utcoffset: f64,
    /// Process id of the sender.
    pub pid: Option<i64>,
    /// The sender's Lamport clock.
    pub clock: u64,
    /// Unix time in seconds; NaN when the sender gave none that can be read.
    pub timestamp: f64,
    /// The type and its fields.
    pub body: EventBody,
}

/// An event's type with its fields.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// `task-…`
    Task(Box<TaskEvent>),
    /// `worker-…`
    Worker(Box<WorkerEvent>),
    /// Anything else; kept as it came.
    Other {
        /// The type as written.
        kind: String,
        /// All fields but the common ones.
        fields: Map<String, Value>,
    },
}

impl EventBody {
    /// The type on the wire: `task-succeeded`.
    pub fn type_name(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Task(event) => event.kind.type_name(),
            Self::Worker(event) => event.kind.type_name().into(),
            Self::Other { kind, .. } => kind.as_str().into(),
        }
    }

    /// The routing key of an event sent by itself: `task.succeeded`.
    pub fn routing_key(&self) -> String {
        self.type_name().replace('-', ".")
    }

    /// The group by which dispatchers filter and batch: what stands before the first `-`.
    pub fn group(&self) -> &str {
        match self {
            Self::Task(_) => "task",
            Self::Worker(_) => "worker",
            Self::Other { kind, .. } => kind.split('-').next().unwrap_or_default(),
        }
    }
}

/// The routing key of a batch of events of one group: `task.multi`.
pub fn multi_routing_key(group: &str) -> String {
    format!("{group}.multi")
}

impl From<TaskEvent> for EventBody {
    fn from(event: TaskEvent) -> Self {
        Self::Task(Box::new(event))
    }
}

impl From<WorkerEvent> for EventBody {
    fn from(event: WorkerEvent) -> Self {
        Self::Worker(Box::new(event))
    }
}

#[cfg(test)]
mod tests;
