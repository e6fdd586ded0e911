//! Which messages start a workflow, and which tasks it will have. Pure but for the ids that it is given.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use celery_broker::{Celery, Route};
use celery_protocol::canvas::{self, Call, IdSource, Step};
use celery_protocol::{Canvas, GroupId, RawMessage, ResultTuple, Signature, TaskId};
use serde_json::Value;

use super::read::Workflow;
use crate::idempotency::Ids;
use crate::plan::{Context, table_size, wait_for_broker, with_trace};
use crate::problem::{Kind, Outcome, Problem};
use crate::submission::{Record, Stage};

/// A workflow, ready to be published.
#[derive(Debug)]
pub struct Planned {
    /// What to do, in this order.
    pub acts: Vec<Act>,
    /// Its ids.
    pub result: ResultTuple,
    /// What is kept of each of its tasks.
    pub records: Vec<(TaskId, Record)>,
    /// Those among them whose ids the client chose.
    pub chosen: HashSet<TaskId>,
    /// Its groups: id, members, and the task that gets their results.
    pub groups: Vec<(GroupId, Vec<TaskId>, Option<TaskId>)>,
    /// How long the broker may take with one message.
    pub timeout: Duration,
}

/// One thing to do.
#[derive(Debug)]
pub enum Act {
    /// Publish a message.
    Publish {
        /// The task.
        id: TaskId,
        /// Where to.
        route: Route,
        /// What.
        message: Box<RawMessage>,
    },
    /// Say how many results a chord waits for.
    ChordSize(GroupId, u64),
    /// Keep the ids of a chord's header.
    SaveGroup(ResultTuple),
}

/// Plans a workflow.
///
/// # Errors
/// `canvas-invalid` or `headers-too-large`: nothing is published then.
pub fn plan(
    workflow: Workflow,
    celery: &Celery,
    context: &Context<'_>,
    ids: &Ids,
) -> Result<Planned, Problem> {
    make(workflow, celery, context, ids).map_err(|problem| problem.outcome(Outcome::NotPublished))
}

fn make(workflow: Workflow, celery: &Celery, context: &Context<'_>, ids: &Ids) -> Result<Planned, Problem> {
    let Workflow { canvas, envelope } = workflow;
    let invalid = |detail: String| Problem::field(Kind::CanvasInvalid, "/canvas", detail);
    if celery.backend().name() == "disabled" && needs_backend(&canvas) {
        return Err(invalid("has a chord, which needs a result backend".to_owned()));
    }
    let mut made = HashSet::new();
    let mut next = || {
        let id = ids.id(made.len());
        made.insert(id.clone());
        id
    };
    let planned = canvas::plan(canvas, Call::default(), &mut IdSource::new(&mut next));
    let planned = planned.map_err(|err| invalid(err.to_string()))?;
    let Some(result) = planned.result else { return Err(invalid("is empty".to_owned())) };

    let mut known = Known::default();
    let mut acts = Vec::with_capacity(planned.steps.len());
    for step in planned.steps {
        acts.push(match step {
            Step::ChordSize { group, size } => Act::ChordSize(group, size as u64),
            Step::SaveGroup { result, .. } => Act::SaveGroup(result),
            Step::Publish(call) => {
                known.learn(&call);
                publish(&call, celery, context)?
            }
        });
    }
    let root_id = first(&result).to_string();
    let mut tasks = Vec::new();
    let mut groups = Vec::new();
    collect(&result, None, &mut tasks, &mut groups);
    let record = |id: &TaskId| {
        let (task, queue, group_id) = known.tasks.get(id.as_str()).cloned().unwrap_or_default();
        Record {
            stage: Stage::Accepted,
            at: context.now.unix_seconds(),
            task,
            routing_key: queue.clone().unwrap_or_default(),
            queue,
            submitted_at: context.now.isoformat(),
            group_id,
            root_id: Some(root_id.clone()),
            stamps: envelope.stamps.clone(),
            meta: envelope.meta.clone(),
            ..Record::forgotten(0.0)
        }
    };
    let records = tasks.iter().map(|id| (id.clone(), record(id))).collect();
    let chosen = tasks.into_iter().filter(|id| !made.contains(id)).collect();
    let timeout = wait_for_broker(&envelope, context);
    Ok(Planned { acts, result, records, chosen, groups, timeout })
}

fn publish(call: &Signature, celery: &Celery, context: &Context<'_>) -> Result<Act, Problem> {
    let (route, mut message) = celery
        .message(call)
        .map_err(|err| Problem::field(Kind::CanvasInvalid, "/canvas", err.to_string()))?;
    message.headers.origin = Some(context.origin.to_owned());
    let extra = std::mem::take(&mut message.headers.extra);
    message.headers.extra = with_trace(extra, context.trace.as_ref());
    let id = message.headers.id.clone();
    let message = message.into_raw();
    let size = table_size(&message.headers);
    if size > context.limits.headers {
        let detail =
            format!("a header table would take {size} bytes; the limit is {}", context.limits.headers);
        return Err(Problem::new(Kind::HeadersTooLarge, detail));
    }
    Ok(Act::Publish { id, route, message: Box::new(message) })
}

/// What the signatures of a workflow say of its tasks: name, queue, group.
#[derive(Debug, Default)]
struct Known {
    tasks: HashMap<String, (String, Option<String>, Option<String>)>,
}

impl Known {
    fn learn(&mut self, call: &Signature) {
        if let Ok(value) = serde_json::from_str::<Value>(call.to_raw().get()) {
            self.walk(&value);
        }
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(map) => {
                let option = |name: &str| Some(map.get("options")?.get(name)?.as_str()?.to_owned());
                if let (Some(Value::String(task)), Some(id)) = (map.get("task"), option("task_id")) {
                    let entry = (task.clone(), option("queue"), option("group_id"));
                    self.tasks.entry(id).or_insert(entry);
                }
                map.values().for_each(|item| self.walk(item));
            }
            _ => {}
        }
    }
}

/// The task that runs first, or the first group.
fn first(result: &ResultTuple) -> &TaskId {
    let mut node = result;
    while let Some(parent) = &node.parent {
        node = parent;
    }
    match node.members.as_ref().and_then(|members| members.first()) {
        Some(member) => first(member),
        None => &node.id,
    }
}

/// All tasks and groups of a result.
fn collect(
    node: &ResultTuple,
    after: Option<&TaskId>,
    tasks: &mut Vec<TaskId>,
    groups: &mut Vec<(GroupId, Vec<TaskId>, Option<TaskId>)>,
) {
    if let Some(parent) = &node.parent {
        collect(parent, Some(&node.id), tasks, groups);
    }
    match &node.members {
        None => tasks.push(node.id.clone()),
        Some(members) => {
            members.iter().for_each(|member| collect(member, None, tasks, groups));
            let ids = members.iter().map(|member| member.id.clone()).collect();
            groups.push((node.id.clone().into(), ids, after.cloned()));
        }
    }
}

/// Whether a workflow cannot run without stored results.
fn needs_backend(canvas: &Canvas) -> bool {
    match canvas {
        Canvas::Task(_) => false,
        Canvas::Chord(_) => true,
        Canvas::Group(group) => group.members.iter().any(needs_backend),
        Canvas::Chain(chain) => {
            let last = chain.steps.len().saturating_sub(1);
            let upgraded = |(index, step): (usize, &Canvas)| index < last && matches!(step, Canvas::Group(_));
            chain.steps.iter().enumerate().any(upgraded) || chain.steps.iter().any(needs_backend)
        }
    }
}
