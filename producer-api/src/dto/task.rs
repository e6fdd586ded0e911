//! Answers about tasks: the handle of a submission and the state of a task.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What is known of a submission: the body of every answer that accepts one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskHandle)]
pub struct Handle {
    /// The task's id, in the message, in Redis and everywhere else.
    #[schema(example = "6f9c2b1e-4a5d-4b8e-9f3a-1c2d3e4f5a6b")]
    pub id: String,
    /// The task's name, if known.
    #[schema(example = "demo.add")]
    pub task: Option<String>,
    /// Celery's state: PENDING, STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or one of the task's own.
    #[schema(example = "PENDING")]
    pub state: String,
    /// The queue it was sent to, unless an exchange chose it.
    pub queue: Option<String>,
    /// The exchange it was published to; `""` is the default exchange.
    pub exchange: Option<String>,
    /// The routing key it was published with.
    pub routing_key: Option<String>,
    /// When it was submitted (RFC 3339).
    #[schema(format = DateTime)]
    pub submitted_at: Option<String>,
    /// Not to be run earlier than this (RFC 3339).
    #[schema(format = DateTime)]
    pub eta: Option<String>,
    /// Not to be run later than this (RFC 3339).
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// The group it is a member of.
    pub group_id: Option<String>,
    /// The first task of its workflow.
    pub root_id: Option<String>,
    /// The task that caused it.
    pub parent_id: Option<String>,
    /// Whether its result is kept; `null` leaves that to the worker.
    pub ignore_result: Option<bool>,
    /// Whether this answer is about an earlier submission with the same id and body; nothing was published then.
    pub deduplicated: bool,
    /// What is accepted but may not do what was hoped for.
    pub warnings: Vec<Warning>,
    /// Where to go from here.
    pub links: Links,
}

/// Something accepted that deserves a remark.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Warning {
    /// A stable word for programs.
    #[schema(example = "submission-not-recorded")]
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
}

/// Addresses that belong to a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Links {
    /// Its state.
    #[serde(rename = "self")]
    #[schema(example = "/v1/tasks/6f9c2b1e-4a5d-4b8e-9f3a-1c2d3e4f5a6b")]
    pub this: String,
    /// Its bare result.
    pub result: String,
    /// Its stream.
    pub events: String,
}

impl Links {
    /// The links of the task with this id, which is made of characters that need no escaping in a path.
    pub fn of(id: &str) -> Self {
        let this = format!("/v1/tasks/{id}");
        Links { result: format!("{this}/result"), events: format!("{this}/events"), this }
    }
}

/// The state of a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Task {
    /// What is known of its submission.
    #[serde(flatten)]
    pub handle: Handle,
    /// Whether it has ended, in whichever way.
    pub ready: bool,
    /// Whether it has ended well.
    pub successful: bool,
    /// Its result, when it has one, exactly as the worker stored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Box<RawValue>>,
    /// How it failed, or why it is being retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What a state of the task's own (such as PROGRESS) carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub progress: Option<Box<RawValue>>,
    /// When it ended (RFC 3339).
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
    /// The worker that has it, if the result backend says so.
    pub worker: Option<String>,
    /// How often it was retried, if the result backend says so.
    pub retries: Option<u64>,
    /// Ids of the tasks that it started.
    pub children: Vec<String>,
    /// The stamps that it was sent with.
    #[schema(value_type = Object)]
    pub stamps: serde_json::Map<String, serde_json::Value>,
    /// What the submitter noted about it.
    #[schema(value_type = Object)]
    pub meta: serde_json::Map<String, serde_json::Value>,
    /// Its positional arguments, with `?include=args`, if it was submitted with `store_args`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub args: Option<Box<RawValue>>,
    /// Its keyword arguments, as `args`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub kwargs: Option<Box<RawValue>>,
    /// Where this answer comes from.
    pub sources: Sources,
}

/// Where an answer about a task comes from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Sources {
    /// It was submitted through this API.
    pub submission: bool,
    /// The result backend has a state for it.
    pub backend: bool,
}

/// An exception, as the worker stored it. It is data: nothing is ever made from its type's name.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskError {
    /// The exception's type.
    #[schema(example = "ValueError")]
    pub r#type: Option<String>,
    /// The module of its type.
    #[schema(example = "builtins")]
    pub module: Option<String>,
    /// Its arguments.
    #[schema(value_type = Vec<serde_json::Value>)]
    pub message: Vec<Box<RawValue>>,
    /// The traceback, with `?include=traceback`.
    pub traceback: Option<String>,
}
