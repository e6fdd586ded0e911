//! From a submission to the exact message: judges values, decides, and does nothing else. Pure.
//!
//! A [`Plan`] is what `POST /v1/tasks` publishes and what `?dry_run=true` shows. The message itself is built by
//! `celery-protocol`, as for every other producer of this project.

mod judge;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use celery_broker::Route;
use celery_broker::route::Router;
use celery_protocol::message::NewCall;
use celery_protocol::options::{Effective, SendOptions};
use celery_protocol::{HeaderMap, Properties, RawMessage, TaskId, WireTime};
use serde_json::{Map, Value};

use self::judge::Judged;
use crate::config::Limits;
use crate::dto::submit::{DeliveryMode, OnConflict, SubmitTask};
use crate::policy::Policy;
use crate::problem::{Kind, Outcome, Problem};
use crate::submission::{Record, Stage};
use crate::trace_context::TraceContext;

/// What a submission is judged by.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The present.
    pub now: WireTime,
    /// This server's name in messages.
    pub origin: &'a str,
    /// Where tasks go that name no destination.
    pub router: &'a Router,
    /// Allow-lists.
    pub policy: &'a Policy,
    /// Bounds.
    pub limits: &'a Limits,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
    /// Whether priorities beyond Celery's ten are wanted.
    pub raw_priority: bool,
}

/// A submission, ready to be published.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub route: Route,
    /// What.
    pub message: RawMessage,
    /// How long the broker may take.
    pub timeout: Duration,
    /// What is kept of it.
    pub record: Record,
    /// How long that is kept.
    pub keep: Duration,
    /// Whether it is to be the only one of its kind.
    pub unique: Option<Unique>,
    /// How many messages may wait before it.
    pub queue_limit: Option<u32>,
}

/// That a task is to be the only one of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// What must be unique.
    pub key: String,
    /// For how long at most.
    pub ttl: Duration,
    /// What to do when it is not.
    pub on_conflict: OnConflict,
}

impl Plan {
    /// Judges `task` and builds its message.
    ///
    /// # Errors
    /// 403 or 422 with everything that is wrong.
    pub fn make(task: SubmitTask, id: &TaskId, context: &Context<'_>) -> Result<Self, Problem> {
        build(task, id, context).map_err(|problem| problem.outcome(Outcome::NotPublished))
    }
}

/// Ids that are addresses of their own below `/v1/tasks/`.
const TAKEN_IDS: [&str; 2] = ["batch", "lookup"];

fn build(task: SubmitTask, id: &TaskId, context: &Context<'_>) -> Result<Plan, Problem> {
    if TAKEN_IDS.contains(&id.as_str()) {
        return Err(Problem::field(
            Kind::InvalidParameter,
            "/task_id",
            "is the name of an address of this API",
        ));
    }
    let Judged { name, target, times, time_limits, timeout, serializer, compression, unique } =
        judge::judge(&task, context)?;
    if !context.policy.allows_task(name.as_str()) {
        return Err(Problem::field(Kind::TaskForbidden, "/task", name.to_string()));
    }
    judge::check_embedded(&task, context.policy)?;
    let destination = context.router.route(&name, &target);
    let route = destination.route;
    allowed_destination(&route, context.policy)?;

    let root_id = task.root_id.unwrap_or_else(|| id.clone());
    let stored_args =
        task.store_args.unwrap_or(false).then(|| (task.args.to_raw(), task.kwargs.to_raw())).unzip();
    let record = Record {
        stage: Stage::Accepted,
        at: context.now.unix_seconds(),
        fingerprint: task.fingerprint,
        task: name.to_string(),
        queue: destination.queue.as_ref().map(ToString::to_string),
        exchange: route.exchange.clone(),
        routing_key: route.routing_key.clone(),
        submitted_at: context.now.isoformat(),
        eta: times.eta.map(WireTime::isoformat),
        expires_at: times.expires.map(WireTime::isoformat),
        group_id: task.group_id.as_ref().map(ToString::to_string),
        root_id: Some(root_id.to_string()),
        parent_id: task.parent_id.as_ref().map(ToString::to_string),
        ignore_result: task.ignore_result,
        stamps: task.stamps.clone(),
        meta: task.meta,
        args: stored_args.0,
        kwargs: stored_args.1,
    };
    let rest = SendOptions {
        headers: with_trace(task.headers, context.trace.as_ref()),
        shadow: task.shadow,
        reply_to: task.reply_to,
        delivery_mode: Some(match task.delivery_mode.unwrap_or_default() {
            DeliveryMode::Persistent => Properties::PERSISTENT,
            DeliveryMode::Transient => Properties::TRANSIENT,
        }),
        root_id: Some(root_id),
        parent_id: task.parent_id,
        group_id: task.group_id,
        group_index: task.group_index,
        link: task.link,
        link_error: task.link_error,
        chain: (!task.chain.is_empty()).then_some(task.chain),
        chord: task.chord.map(Box::new),
        stamped_headers: (!task.stamps.is_empty()).then(|| task.stamps.keys().cloned().collect()),
        stamps: task.stamps,
        retries: task.retries,
        ..SendOptions::default()
    };
    let call = NewCall {
        task: name,
        id: id.clone(),
        args: task.args,
        kwargs: task.kwargs,
        options: Effective {
            queue: target.queue,
            exchange: target.exchange,
            routing_key: target.routing_key,
            priority: destination.priority,
            eta: times.eta,
            expires: times.expires,
            expires_in: times.expires_in,
            time_limits,
            ignore_result: task.ignore_result,
            serializer,
            compression,
            rest,
            ..Effective::default()
        },
        origin: task.origin.unwrap_or_else(|| context.origin.to_owned()),
    };
    let message = call
        .into_message()
        .map_err(|err| Problem::field(Kind::InvalidOption, "/compression", err.to_string()))?
        .into_raw();
    let size = table_size(&message.headers);
    if size > context.limits.headers {
        let detail =
            format!("the header table would take {size} bytes; the limit is {}", context.limits.headers);
        return Err(Problem::new(Kind::HeadersTooLarge, detail));
    }
    let keep = context.limits.submission + times.delay;
    Ok(Plan { route, message, timeout, record, keep, unique, queue_limit: task.queue_limit })
}

/// Judges the members of a submission, and makes nothing of it.
///
/// # Errors
/// 403 or 422 with everything that is wrong.
pub fn check_members(task: &SubmitTask, context: &Context<'_>) -> Result<(), Problem> {
    judge::judge(task, context)?;
    judge::check_embedded(task, context.policy)
}

/// Judges where a submission would go.
///
/// # Errors
/// 403 or 422 with everything that is wrong.
pub fn check_destination(task: &SubmitTask, context: &Context<'_>) -> Result<(), Problem> {
    let Judged { name, target, .. } = judge::judge(task, context)?;
    allowed_destination(&context.router.route(&name, &target).route, context.policy)
}

/// How long the broker may take with a submission.
pub fn wait_for_broker(task: &SubmitTask, context: &Context<'_>) -> Duration {
    let seconds = task.publish.and_then(|publish| publish.timeout);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(context.limits.publish)
}

/// Holds a destination to the list of queues.
fn allowed_destination(route: &Route, policy: &Policy) -> Result<(), Problem> {
    let goes_to = if route.exchange.is_empty() { &route.routing_key } else { &route.exchange };
    match policy.allows_queue(goes_to) {
        true => Ok(()),
        false => Err(Problem::field(Kind::QueueForbidden, "/queue", goes_to.clone())),
    }
}

/// The caller's headers and its trace context, at the top level, where OpenTelemetry's instrumentation of Celery looks.
pub fn with_trace(mut headers: HeaderMap, trace: Option<&TraceContext>) -> HeaderMap {
    if let Some(trace) = trace {
        headers.insert("traceparent".to_owned(), trace.traceparent.clone().into());
        if let Some(state) = &trace.tracestate {
            headers.insert("tracestate".to_owned(), state.clone().into());
        }
    }
    headers
}

/// At most how many bytes a header table takes on the wire.
pub fn table_size(table: &Map<String, Value>) -> usize {
    4 + table.iter().map(|(key, value)| 1 + key.len() + value_size(value)).sum::<usize>()
}

fn value_size(value: &Value) -> usize {
    1 + match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 8,
        Value::String(text) => 4 + text.len(),
        Value::Array(items) => 4 + items.iter().map(value_size).sum::<usize>(),
        Value::Object(map) => table_size(map),
    }
}
