//! Answers about many tasks.

use std::collections::BTreeMap;

use celery_protocol::TaskId;
use serde::Serialize;
use utoipa::ToSchema;

use super::task::Task;
use crate::problem::ProblemBody;
use crate::sets::WaitFor;

/// Tasks to look up.
#[derive(Debug, ToSchema)]
#[schema(as = LookupRequest, example = json!({"ids": ["order-42", "order-43"], "wait": 5, "wait_for": "any"}))]
pub struct LookupRequest {
    /// The tasks.
    #[schema(min_items = 1, max_items = 1000)]
    pub ids: Vec<String>,
    /// What to show besides: `args`, `traceback`, `children`.
    pub include: Option<Vec<String>>,
    /// Hold the answer up to this many seconds.
    #[schema(minimum = 0)]
    pub wait: Option<f64>,
    /// Whether all are waited for, or any. Default: `all`.
    pub wait_for: Option<WaitFor>,
    /// Take unknown ids for pending tasks of other programs.
    pub assume_pending: Option<bool>,
}

/// Tasks that were looked up.
#[derive(Debug, Serialize, ToSchema)]
pub struct LookupAnswer {
    /// In the order of the ids.
    pub items: Vec<LookupItem>,
    /// How many have ended.
    pub ready: usize,
    /// How many have not.
    pub pending: usize,
    /// How many are unknown or forgotten.
    pub unknown: usize,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LookupItem {
    /// It is known.
    #[schema(title = "task")]
    Task(Box<Task>),
    /// It is not.
    #[schema(title = "unknown")]
    Unknown(UnknownItem),
}

/// An id that no task is known by.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownItem {
    /// The id.
    #[schema(value_type = String)]
    pub id: TaskId,
    /// Why there is no task.
    pub problem: ProblemBody,
}

/// A page of tasks, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskPage {
    /// The tasks.
    pub items: Vec<Task>,
    /// For `?cursor=`: what comes next; `null` at the end. A page may be short, or empty, and not the last one: only so
    /// many tasks are looked at for one page.
    pub next_cursor: Option<String>,
}

/// A group, or a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetAnswer {
    /// Its id.
    pub id: String,
    /// When it was submitted (RFC 3339), if it was submitted here.
    #[schema(format = DateTime)]
    pub submitted_at: Option<String>,
    /// Its tasks, those of a batch that failed included.
    pub total: usize,
    /// Those that a queue has, or may have.
    pub accepted: usize,
    /// Those that could not be submitted.
    pub refused: usize,
    /// Those that have ended well.
    pub succeeded: usize,
    /// Those that have failed or were revoked.
    pub failed: usize,
    /// Whether all have ended.
    pub ready: bool,
    /// Whether all have ended well.
    pub successful: bool,
    /// How many are in which state.
    #[schema(example = json!({"SUCCESS": 3, "PENDING": 1}))]
    pub states: BTreeMap<String, usize>,
    /// The group that a batch is, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// The task that gets the results, if it is the header of a chord.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_id: Option<String>,
    /// The tasks in order; at most the first 1000.
    pub tasks: Vec<SetTask>,
    /// Addresses that belong to it.
    pub links: SetLinks,
}

/// A task of a group or batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetTask {
    /// Its id.
    #[schema(value_type = String)]
    pub id: TaskId,
    /// Its state.
    #[schema(example = "SUCCESS")]
    pub state: String,
}

/// Addresses that belong to a group or batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetLinks {
    /// Its state.
    #[serde(rename = "self")]
    pub this: String,
    /// The results of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// Its stream.
    pub events: String,
}
