//! Events about one task.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// An event about one task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEvent {
    /// What happened.
    pub kind: TaskEventKind,
    /// The task's id. A plain text, since ids of other producers need not be valid here.
    pub uuid: String,
    /// What the event tells of the task; which fields are set depends on the kind.
    pub fields: TaskFields,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskEventKind {
    /// Published by a producer (`task_send_sent_event`).
    Sent,
    /// A worker has the message.
    Received,
    /// A worker has begun to run it.
    Started,
    /// It returned.
    Succeeded,
    /// It raised.
    Failed,
    /// It will be run again.
    Retried,
    /// It was revoked or has expired.
    Revoked,
    /// Its message was rejected.
    Rejected,
    /// A running task was cancelled by a shutdown or a lost connection.
    Cancelled,
    /// A type that a task sent itself, `task-<name>`; holds the name.
    Custom(String),
}

/// The fields of task events; `None` is absent or null.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskFields {
    /// Name of the task (sent, received).
    pub name: Option<String>,
    /// `repr` of the positional arguments (sent, received).
    pub args: Option<String>,
    /// `repr` of the keyword arguments (sent, received).
    pub kwargs: Option<String>,
    /// First task of the workflow (sent, received).
    pub root_id: Option<String>,
    /// Task that published this one (sent, received).
    pub parent_id: Option<String>,
    /// Retries so far (sent, received).
    pub retries: Option<u64>,
    /// When it is due, ISO 8601 (sent, received).
    pub eta: Option<String>,
    /// When it expires, ISO 8601 (sent, received).
    pub expires: Option<String>,
    /// Queue it was sent to (sent).
    pub queue: Option<String>,
    /// Exchange it was sent to (sent).
    pub exchange: Option<String>,
    /// Routing key it was sent with (sent).
    pub routing_key: Option<String>,
    /// `repr` of what it returned (succeeded).
    pub result: Option<String>,
    /// Seconds it ran (succeeded).
    pub runtime: Option<f64>,
    /// `repr` of what it raised (failed, retried).
    pub exception: Option<String>,
    /// Traceback text (failed, retried).
    pub traceback: Option<String>,
    /// Whether it was stopped while running (revoked).
    pub terminated: Option<bool>,
    /// The signal that stopped it, a number or a name (revoked).
    pub signum: Option<Value>,
    /// Whether it had expired (revoked).
    pub expired: Option<bool>,
    /// Whether its message went back to the queue (rejected).
    pub requeue: Option<bool>,
    /// Fields that Celery does not define.
    pub extra: Map<String, Value>,
}

impl TaskEvent {
    /// An event without fields; set those of its kind afterwards.
    pub fn new(kind: TaskEventKind, uuid: impl Into<String>) -> Self {
        Self { kind, uuid: uuid.into(), fields: TaskFields::default() }
    }
}

impl TaskEventKind {
    /// The type on the wire: `task-succeeded`.
    pub fn type_name(&self) -> Cow<'_, str> {
        let name = match self {
            Self::Sent => "task-sent",
            Self::Received => "task-received",
            Self::Started => "task-started",
            Self::Succeeded => "task-succeeded",
            Self::Failed => "task-failed",
            Self::Retried => "task-retried",
            Self::Revoked => "task-revoked",
            Self::Rejected => "task-rejected",
            Self::Cancelled => "task-cancelled",
            Self::Custom(name) => return format!("task-{name}").into(),
        };
        name.into()
    }

    /// From the part after `task-`.
    pub(super) fn from_suffix(suffix: &str) -> Self {
        match suffix {
            "sent" => Self::Sent,
            "received" => Self::Received,
            "started" => Self::Started,
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "retried" => Self::Retried,
            "revoked" => Self::Revoked,
            "rejected" => Self::Rejected,
            "cancelled" => Self::Cancelled,
            other => Self::Custom(other.to_owned()),
        }
    }
}
