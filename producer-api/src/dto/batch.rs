//! Many submissions in one request, and their answers.

use celery_protocol::GroupId;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::form::{Form, members};
use super::submit::SubmitTask;
use super::task::Handle;
use crate::problem::{Kind, Problem, ProblemBody};

/// Tasks in one JSON batch.
pub const MAX_ITEMS: usize = 1000;

/// Tasks to submit together.
#[derive(Debug, ToSchema)]
#[schema(as = SubmitBatch, example = json!({"defaults": {"queue": "celery"}, "tasks": [{"task": "demo.add", "args": [2, 3], "ref": "row-1"}, {"task": "demo.mul", "args": [6, 7]}]}))]
pub struct SubmitBatch {
    /// Members for all tasks that do not have them.
    #[schema(value_type = Option<Object>)]
    pub defaults: Option<()>,
    /// Publish nothing unless all tasks are valid and all queues exist.
    pub atomic: Option<bool>,
    /// Make the tasks one group.
    pub group: Option<bool>,
    /// The tasks, each as in `POST /v1/tasks`, and with a `ref` of the caller's own that comes back with its answer.
    #[schema(value_type = Vec<BatchTask>, min_items = 1, max_items = 1000)]
    pub tasks: Vec<()>,
}

/// A task of a batch.
#[derive(Debug, ToSchema)]
#[schema(as = BatchTask, example = json!({"task": "demo.add", "args": [2, 3], "ref": "row-1"}))]
pub struct BatchTask {
    /// The task, as in `POST /v1/tasks`.
    #[serde(flatten)]
    pub task: SubmitTask,
    /// The caller's own name for it, which comes back with its answer.
    #[schema(max_length = 255)]
    pub r#ref: Option<String>,
}

/// A batch as read: what is wrong with single items is kept with them.
#[derive(Debug)]
pub struct Batch {
    /// All or nothing.
    pub atomic: bool,
    /// One group.
    pub group: bool,
    /// The items in order.
    pub items: Vec<Item>,
}

/// One item as read.
#[derive(Debug)]
pub struct Item {
    /// The caller's own name for it.
    pub reference: Option<String>,
    /// The task, or why it is none.
    pub task: Result<SubmitTask, Problem>,
}

impl Batch {
    /// Reads a body.
    ///
    /// # Errors
    /// `invalid-option` or `unknown-field`, about the batch and not about an item.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut form = Form::split(text)?;
        let atomic = form.optional("atomic").unwrap_or(false);
        let group = form.optional("group").unwrap_or(false);
        let defaults: Option<&RawValue> = form.optional("defaults");
        if defaults.is_some_and(|raw| !raw.get().starts_with('{')) {
            form.refuse("defaults", "must be an object");
        }
        let tasks: Vec<&RawValue> = form.required("tasks").unwrap_or_default();
        if tasks.is_empty() {
            form.refuse("tasks", "is empty");
        }
        if tasks.len() > MAX_ITEMS {
            let detail = format!(
                "has {} items, and {MAX_ITEMS} may be sent at once; stream more as NDJSON",
                tasks.len()
            );
            form.refuse("tasks", detail);
        }
        form.finish()?;
        let defaults = defaults.map(|raw| members(raw.get())).unwrap_or_default();
        let read =
            |(index, raw): (usize, &&RawValue)| Item::read(raw.get(), &format!("/tasks/{index}"), &defaults);
        Ok(Batch { atomic, group, items: tasks.iter().enumerate().map(read).collect() })
    }
}

impl Item {
    /// Reads an item that stands at `place` of the body.
    pub fn read(text: &str, place: &str, defaults: &[(String, &RawValue)]) -> Self {
        let mut form = match Form::split_at(text, place) {
            Ok(form) => form,
            Err(problem) => return Item { reference: None, task: Err(problem) },
        };
        let reference: Option<String> = form.optional("ref");
        if reference.as_ref().is_some_and(|reference| reference.len() > 255) {
            form.refuse("ref", "is longer than 255 bytes");
        }
        // Defaults come from the same text or live as long.
        for (name, raw) in defaults {
            if name == "ref" || name == "task_id" {
                form.refuse(name, "cannot be a default");
            }
            form.fill(&[(name.clone(), *raw)]);
        }
        Item { reference, task: SubmitTask::read(form) }
    }
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// The batch.
    #[schema(example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b")]
    pub batch_id: String,
    /// The group, with `group: true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub group_id: Option<GroupId>,
    /// Items that a queue has, earlier ones included.
    pub accepted: usize,
    /// Those among them that a queue had before.
    pub deduplicated: usize,
    /// Items that failed.
    pub failed: usize,
    /// One for each task, in their order.
    pub items: Vec<ItemAnswer>,
    /// Remarks about the batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<super::task::Warning>,
    /// Addresses that belong to it.
    pub links: BatchLinks,
}

/// What became of one item.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemAnswer {
    /// The position in the batch.
    pub index: usize,
    /// The caller's own name for it.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The HTTP status that it would have been answered with alone.
    #[schema(example = 202)]
    pub status: u16,
    /// The task's id, with `Prefer: return=minimal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Box<Handle>>,
    /// Why it failed; `outcome` says whether it may be queued all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Box<ProblemBody>>,
}

/// Addresses that belong to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchLinks {
    /// Its state.
    #[serde(rename = "self")]
    pub this: String,
    /// Its stream.
    pub events: String,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl BatchLinks {
    /// The links of a batch.
    pub fn of(id: &str, group: Option<&GroupId>) -> Self {
        BatchLinks {
            this: format!("/v1/batches/{id}"),
            events: format!("/v1/batches/{id}/events"),
            group: group.map(|group| format!("/v1/groups/{group}")),
        }
    }
}

/// The last line of a streamed batch's answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Summary {
    /// The batch.
    pub batch_id: String,
    /// Lines that held a task.
    pub total: usize,
    /// Items that a queue has, earlier ones included.
    pub accepted: usize,
    /// Those among them that a queue had before.
    pub deduplicated: usize,
    /// Items that failed.
    pub failed: usize,
    /// Whether the whole body was read.
    pub complete: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The problem of the items of an atomic batch that are not to blame.
pub fn aborted() -> Problem {
    Problem::new(Kind::BatchAborted, "another item of this atomic batch is not valid")
}
