//! What travels in streams, and the tickets for them.

use celery_protocol::result::{ResultMeta, TaskState};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::task::TaskError;
use crate::submission::Record;
use crate::view;

/// Longer results are not sent in streams.
const MAX_RESULT: usize = 64 * 1024;

/// One event of a stream, as tools read it; on the wire it is lines of `name: value` and an empty line.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"event": "result", "id": "3f2a9c1b-17", "data": "{\"id\":\"order-42\",\"state\":\"SUCCESS\",\"ready\":true,\"result\":5}"}))]
pub struct ServerSentEvent {
    /// What it is: `snapshot`, `state`, `progress`, `retry`, `result`, `error`, `lagged`, `ticket` or `end`.
    pub event: Option<String>,
    /// JSON text.
    pub data: Option<String>,
    /// For `Last-Event-ID`.
    pub id: Option<String>,
    /// When to come back after a break, in milliseconds.
    pub retry: Option<u64>,
}

/// A new state of a task: the data of `state`, `progress`, `retry`, `result` and `error` events.
#[derive(Debug, Serialize, ToSchema)]
pub struct StateChange {
    /// The task.
    #[schema(example = "6f9c2b1e-4a5d-4b8e-9f3a-1c2d3e4f5a6b")]
    pub id: String,
    /// Its name, if known.
    pub task: Option<String>,
    /// Its queue, if known.
    pub queue: Option<String>,
    /// Celery's state.
    #[schema(example = "SUCCESS")]
    pub state: String,
    /// Whether it has ended.
    pub ready: bool,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Box<RawValue>>,
    /// Whether the result is too long to be sent here: read it at `/v1/tasks/{id}/result`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub result_omitted: bool,
    /// How it failed, or why it is being retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What a state of the task's own carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub progress: Option<Box<RawValue>>,
    /// The worker, if the result backend says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// When it ended (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
}

impl StateChange {
    /// Shows a state.
    pub fn of(meta: &ResultMeta, record: Option<&Record>) -> Self {
        let short = meta.result.get().len() <= MAX_RESULT;
        let value = || short.then(|| view::showable(&meta.result));
        let extended = meta.extended.as_ref();
        let known = record.map(|record| record.task.clone()).filter(|task| !task.is_empty());
        let mut shown = StateChange {
            id: meta.task_id.to_string(),
            task: known.or_else(|| extended?.name.clone()),
            queue: record.and_then(|record| record.queue.clone()).or_else(|| extended?.queue.clone()),
            state: meta.status.to_string(),
            ready: meta.status.is_ready(),
            result: None,
            result_omitted: false,
            error: None,
            progress: None,
            worker: extended.and_then(|extended| extended.worker.clone()),
            finished_at: meta.date_done.map(|done| done.in_utc().isoformat()),
        };
        match &meta.status {
            TaskState::Success => {
                shown.result = value();
                shown.result_omitted = !short;
            }
            TaskState::Started | TaskState::Pending | TaskState::Received => {}
            state if state.is_exception() => shown.error = Some(view::error(meta, false)),
            _ => shown.progress = value(),
        }
        shown
    }
}

/// What to open a stream for.
#[derive(Debug, Default, ToSchema)]
#[schema(as = TicketRequest, example = json!({"task_ids": ["order-42"], "ttl": 300}))]
pub struct TicketRequest {
    /// Streams of these tasks.
    #[schema(max_items = 100)]
    pub task_ids: Option<Vec<String>>,
    /// Streams of these groups.
    #[schema(max_items = 100)]
    pub group_ids: Option<Vec<String>>,
    /// Streams of these batches.
    #[schema(max_items = 100)]
    pub batch_ids: Option<Vec<String>>,
    /// The stream of everything.
    pub everything: Option<bool>,
    /// Seconds for which it can be used. Default: 300.
    #[schema(minimum = 1, maximum = 3600, example = 300)]
    pub ttl: Option<f64>,
}

/// A ticket: opens one stream, once.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// For `?ticket=`. A stream that was opened with one begins with an event `ticket`, which holds the next one.
    #[schema(example = "0f3d…")]
    pub ticket: String,
    /// Until when it can be used (RFC 3339).
    #[schema(format = DateTime)]
    pub expires_at: String,
}
