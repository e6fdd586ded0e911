//! Workflows: the body of `POST /v1/canvas` as the document shows it, and its answer.

use celery_protocol::ResultTuple;
use serde::Serialize;
use utoipa::ToSchema;

use super::dry_run::DryRun;
use super::submit::PublishOptions;
use super::task::Warning;

/// A workflow to run.
///
/// A node is a signature (`{"task", "args", "kwargs", "options", "immutable"}`, as Celery writes it, its own chains,
/// groups and chords included), or an object with one of `chain`, `group`, `chord`, `map`, `starmap`, `chunks`, and
/// `options`.
#[derive(Debug, ToSchema)]
#[schema(as = SubmitCanvas, example = json!({"canvas": {"chord": {"header": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}], "body": {"task": "demo.total"}}}}))]
pub struct SubmitCanvas {
    /// The root node.
    #[schema(value_type = CanvasNode)]
    pub canvas: (),
    /// Options for all calls that do not have them: where to, priority, expiry, limits, serializer, compression, headers.
    #[schema(value_type = Option<Object>)]
    pub defaults: Option<()>,
    /// Tasks to run with the result when the workflow succeeds (Celery signatures).
    #[schema(value_type = Option<Vec<Object>>)]
    pub link: Option<()>,
    /// Tasks to run when a call of it fails.
    #[schema(value_type = Option<Vec<Object>>)]
    pub link_error: Option<()>,
    /// Stamps for all calls.
    #[schema(value_type = Option<Object>)]
    pub stamps: Option<()>,
    /// Notes of the caller's own, given back with each task.
    #[schema(value_type = Option<Object>)]
    pub meta: Option<()>,
    /// How each message is published.
    pub publish: Option<PublishOptions>,
}

/// A node of a workflow: exactly one of `task`, `chain`, `group`, `chord`, `map`, `starmap`, `chunks`.
#[derive(Debug, ToSchema)]
#[schema(no_recursion)]
pub struct CanvasNode {
    /// A call: the task's name.
    #[schema(example = "demo.add")]
    pub task: Option<String>,
    /// Its positional arguments.
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub args: Option<()>,
    /// Its keyword arguments.
    #[schema(value_type = Option<Object>)]
    pub kwargs: Option<()>,
    /// How to call it, as in `apply_async`.
    #[schema(value_type = Option<Object>)]
    pub options: Option<()>,
    /// Takes no arguments from the call before.
    pub immutable: Option<bool>,
    /// Of Celery's own dictionaries: `chain`, `group` or `chord`.
    pub subtask_type: Option<String>,
    /// Of Celery's own dictionaries.
    #[schema(value_type = Option<u64>)]
    pub chord_size: Option<u32>,
    /// One after the other.
    #[schema(value_type = Option<Vec<Object>>)]
    pub chain: Option<()>,
    /// All at once.
    #[schema(value_type = Option<Vec<Object>>)]
    pub group: Option<()>,
    /// All of `header` at once, then `body` with their results.
    #[schema(value_type = Option<Object>)]
    pub chord: Option<()>,
    /// `task` with each of `it` as its only argument, in one message.
    #[schema(value_type = Option<Object>)]
    pub map: Option<()>,
    /// `task` with each of `it` as its arguments, in one message.
    #[schema(value_type = Option<Object>)]
    pub starmap: Option<()>,
    /// As `starmap`, `n` of `it` in each message.
    #[schema(value_type = Option<Object>)]
    pub chunks: Option<()>,
}

/// A workflow that was started.
#[derive(Debug, Serialize, ToSchema)]
pub struct CanvasAnswer {
    /// The task or group whose result is that of the workflow.
    #[schema(example = "6f9c2b1e-4a5d-4b8e-9f3a-1c2d3e4f5a6b")]
    pub id: String,
    /// Its ids.
    pub tree: TreeNode,
    /// How many messages were published; the workers publish the rest.
    #[schema(example = 2)]
    pub published: usize,
    /// Remarks.
    pub warnings: Vec<Warning>,
    /// Addresses that belong to it.
    pub links: CanvasLinks,
}

/// A task or group of a workflow, and what comes before it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(no_recursion)]
pub struct TreeNode {
    /// `task` or `group`.
    #[schema(example = "task")]
    pub r#type: &'static str,
    /// Its id.
    pub id: String,
    /// The members of a group, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub members: Vec<TreeNode>,
    /// What runs before: the step of a chain, or the header of a chord.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub parent: Option<Box<TreeNode>>,
}

impl TreeNode {
    /// Shows a result.
    pub fn of(tuple: &ResultTuple) -> Self {
        TreeNode {
            r#type: if tuple.members.is_some() { "group" } else { "task" },
            id: tuple.id.to_string(),
            members: tuple.members.iter().flatten().map(TreeNode::of).collect(),
            parent: tuple.parent.as_deref().map(|parent| Box::new(TreeNode::of(parent))),
        }
    }
}

/// Addresses that belong to a workflow.
#[derive(Debug, Serialize, ToSchema)]
pub struct CanvasLinks {
    /// Its state: that of its last task, or of its group.
    #[serde(rename = "self")]
    pub this: String,
    /// Its result, or results.
    pub result: String,
    /// Its stream.
    pub events: String,
}

impl CanvasLinks {
    /// The links of a result.
    pub fn of(tuple: &ResultTuple) -> Self {
        let (this, result) = match tuple.members {
            Some(_) => (format!("/v1/groups/{}", tuple.id), "results"),
            None => (format!("/v1/tasks/{}", tuple.id), "result"),
        };
        CanvasLinks { result: format!("{this}/{result}"), events: format!("{this}/events"), this }
    }
}

/// The messages that would start a workflow.
#[derive(Debug, Serialize, ToSchema)]
pub struct CanvasDryRun {
    /// Always true: what is not valid is answered with 422.
    pub valid: bool,
    /// Its ids; they are others the next time.
    pub tree: TreeNode,
    /// The messages, in order.
    pub messages: Vec<DryRun>,
}
