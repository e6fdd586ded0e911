//! Tasks: run them again, send new ones, revoke and abort them.

use std::time::Duration;

use celery_broker::control::Destination;
use celery_protocol::control::Command;
use celery_protocol::pyjson::null;
use celery_protocol::{ResultMeta, Signature, TaskId, TaskState};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::arguments::{self, Called};
use super::{Doing, Done, backend, broker};
use crate::error::Problem;
use crate::redact::REDACTED;

/// The header that says which task this one repeats.
pub(crate) const RETRY_OF: &str = "celeriac_retry_of";
/// Signals that may be sent to a task's process.
const SIGNALS: [&str; 7] = ["SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"];
/// The longest that a task may be put off.
const LONGEST: f64 = 366.0 * 86_400.0;

type Outcome = Result<(String, Vec<Done>), Problem>;

/// A task that is to be run again.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) id: String,
    args: Option<Box<RawValue>>,
    kwargs: Option<Box<RawValue>>,
    queue: Option<String>,
    countdown: Option<f64>,
}

impl Retry {
    pub(super) fn of(id: &str) -> Retry {
        Retry { id: id.to_owned(), ..Retry::default() }
    }
}

pub(super) async fn retry(doing: &Doing<'_>, asked: Retry) -> Outcome {
    let id = asked.id.clone();
    let new = again(doing, asked).await?;
    let done = Done { task_id: Some(new.clone()), ..Done::ok(id) };
    Ok((format!("Sent again as {new}"), vec![done]))
}

/// Sends a task again under a new id, which it gives.
pub(super) async fn again(doing: &Doing<'_>, asked: Retry) -> Result<String, Problem> {
    let Retry { id, args, kwargs, queue, countdown } = asked;
    let called = arguments::of(doing.monitor, &id).await?;
    let called = called.ok_or_else(|| Problem::not_found(format!("no task {id} is known")))?;
    let Called { name, queue: before, root, parent, problem, .. } = called;
    let name = name.ok_or_else(|| Problem::bad_parameter("id", "the name of the task was never told"))?;
    let whole = |field: &str, given: Option<Box<RawValue>>, known: Option<String>| {
        let given = given.map(|given| given.get().to_owned());
        given.or(known).ok_or_else(|| {
            let why = problem.as_deref().unwrap_or("no event told them");
            Problem::bad_parameter(
                field,
                format!("{why}: give them, or set result_extended so that the backend keeps them"),
            )
        })
    };
    let args = whole("args", args, called.args)?;
    let kwargs = whole("kwargs", kwargs, called.kwargs)?;
    let mut options = json!({ "headers": { RETRY_OF: id } });
    for (name, value) in [("root_id", root), ("parent_id", parent), ("queue", queue.or(before))] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            options[name] = value.into();
        }
    }
    send_call(doing, &name, &args, &kwargs, options, countdown).await
}

/// A task that is to be sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Send {
    name: String,
    args: Option<Box<RawValue>>,
    kwargs: Option<Box<RawValue>>,
    queue: Option<String>,
    countdown: Option<f64>,
}

pub(super) async fn send(doing: &Doing<'_>, asked: Send) -> Outcome {
    let Send { name, args, kwargs, queue, countdown } = asked;
    let args = args.as_deref().map_or("[]", RawValue::get);
    let kwargs = kwargs.as_deref().map_or("{}", RawValue::get);
    let mut options = json!({});
    if let Some(queue) = queue.filter(|queue| !queue.is_empty()) {
        options["queue"] = queue.into();
    }
    let new = send_call(doing, &name, args, kwargs, options, countdown).await?;
    let message = format!("Sent as {new}");
    Ok((message, vec![Done { task_id: Some(new), ..Done::ok(name) }]))
}

async fn send_call(
    doing: &Doing<'_>,
    name: &str,
    args: &str,
    kwargs: &str,
    mut options: serde_json::Value,
    countdown: Option<f64>,
) -> Result<String, Problem> {
    if !args.trim_start().starts_with('[') {
        return Err(Problem::bad_parameter("args", "must be an array"));
    }
    if !kwargs.trim_start().starts_with('{') {
        return Err(Problem::bad_parameter("kwargs", "must be an object"));
    }
    if args.contains(REDACTED) || kwargs.contains(REDACTED) {
        return Err(Problem::bad_parameter(
            "args",
            format!("{REDACTED} stands for a value that is not shown: write the value itself"),
        ));
    }
    if let Some(countdown) = countdown {
        if !(0.0..=LONGEST).contains(&countdown) {
            return Err(Problem::bad_parameter("countdown", "must be a number of seconds from 0 to a year"));
        }
        options["countdown"] = countdown.into();
    }
    // Arguments stay as they are written: numbers beyond 2^53 must survive.
    let call =
        format!("{{\"task\":{},\"args\":{args},\"kwargs\":{kwargs},\"options\":{options}}}", json!(name));
    let signature = Signature::from_json(&call).map_err(|error| Problem::bad_parameter("body", error))?;
    let result = doing.celery.send(signature).await.map_err(|error| broker(&error))?;
    Ok(result.id().to_string())
}

/// A task that is not to be run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    id: String,
    #[serde(default)]
    terminate: bool,
    signal: Option<String>,
}

pub(super) async fn revoke(doing: &Doing<'_>, asked: Revoke) -> Outcome {
    let Revoke { id, terminate, signal } = asked;
    let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
    if !SIGNALS.contains(&&*signal) {
        return Err(Problem::bad_parameter("signal", format!("must be one of {}", SIGNALS.join(", "))));
    }
    revoke_all(doing, std::slice::from_ref(&id), terminate, &signal).await?;
    let what = if terminate { "Terminated" } else { "Revoked" };
    Ok((format!("{what} {id}"), vec![Done::ok(id)]))
}

/// Revokes tasks at once: those that listen are told, and those that start later where the backend keeps it.
pub(super) async fn revoke_all(
    doing: &Doing<'_>,
    ids: &[String],
    terminate: bool,
    signal: &str,
) -> Result<(), Problem> {
    let mut parsed = Vec::new();
    for id in ids {
        parsed.push(TaskId::parse(id).map_err(|error| Problem::bad_parameter("id", error))?);
    }
    let control = doing.celery.control();
    if !terminate || signal == "SIGTERM" {
        return control.revoke(&parsed, terminate).await.map_err(|error| broker(&error));
    }
    let command = Command::Revoke { ids: ids.to_vec(), terminate, signal: Some(signal.to_owned()) };
    control.cast(&command, Destination::All).await.map_err(|error| broker(&error))
}

/// One task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    id: String,
}

pub(super) async fn abort(doing: &Doing<'_>, asked: One) -> Outcome {
    let id = TaskId::parse(&asked.id).map_err(|error| Problem::bad_parameter("id", error))?;
    if doing.celery.backend().name() == "disabled" {
        return Err(Problem::bad_parameter("id", "no result backend is configured (CELERY_RESULT_BACKEND)"));
    }
    let aborted = ResultMeta::new(id, TaskState::from("ABORTED"), null());
    let stored = tokio::time::timeout(Duration::from_secs(5), doing.celery.backend().store(&aborted)).await;
    stored
        .map_err(|_| Problem::unavailable(&"no answer within 5 seconds"))?
        .map_err(|error| backend(&error))?;
    Ok((format!("Asked {} to end", asked.id), vec![Done::ok(asked.id)]))
}
