//! The arguments that a task was called with, whole: from the result backend, which has them with `result_extended`, or
//! from what its events tell, if that is plain and not cut.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use celery_protocol::TaskId;
use serde_json::json;

use super::literal;
use crate::access::Role;
use crate::error::Problem;
use crate::monitor::Monitor;
use crate::routes::history;

/// How long the backend may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// How a task was called.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Called {
    pub(crate) name: Option<String>,
    /// JSON.
    pub(crate) args: Option<String>,
    /// JSON.
    pub(crate) kwargs: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) root: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) source: Option<&'static str>,
    /// Why the arguments are not known.
    pub(crate) problem: Option<String>,
}

/// How the task was called, as far as it can be known; `None` if nothing is known of it.
pub(crate) async fn of(monitor: &Monitor, id: &str) -> Result<Option<Called>, Problem> {
    let mut told = monitor.state().tasks().get(id).map(from_events);
    if told.is_none() {
        told = history::task(monitor, id).await?.as_ref().map(from_events);
    }
    let stored = from_backend(monitor, id).await;
    let mut called = match (told, stored) {
        (None, None) => return Ok(None),
        (Some(told), None) => told,
        (None, Some(stored)) => stored,
        (Some(told), Some(stored)) => Called {
            name: stored.name.or(told.name),
            queue: told.queue.or(stored.queue),
            root: told.root,
            parent: told.parent,
            ..stored
        },
    };
    if called.args.is_none() || called.kwargs.is_none() {
        called.source = None;
        called.problem.get_or_insert_with(|| "no event told them".to_owned());
    }
    Ok(Some(called))
}

fn from_events(task: &crate::state::task::Task) -> Called {
    let call = task.call();
    let mut problem = None;
    let mut whole = |text: Option<&str>| {
        let read = text.map(literal::to_json)?;
        read.map_err(|error| problem = Some(error.to_string())).ok()
    };
    let args = whole(call.and_then(|call| call.args));
    let kwargs = whole(call.and_then(|call| call.kwargs));
    Called {
        name: task.name().map(|name| name.to_string()),
        args,
        kwargs,
        queue: task.queue().map(|queue| queue.to_string()),
        root: call.and_then(|call| call.root).map(str::to_owned),
        parent: task.parent().map(str::to_owned),
        source: Some("event"),
        problem,
    }
}

async fn from_backend(monitor: &Monitor, id: &str) -> Option<Called> {
    let id = TaskId::parse(id).ok()?;
    let asked = tokio::time::timeout(DEADLINE, monitor.celery()?.backend().get(&id)).await.ok()?;
    let extended = asked.ok().flatten()?.extended?;
    let (args, kwargs) = (extended.args?, extended.kwargs?);
    Some(Called {
        name: extended.name,
        args: Some(args.to_raw().get().to_owned()),
        kwargs: Some(kwargs.to_raw().get().to_owned()),
        queue: extended.queue,
        source: Some("result_backend"),
        ..Called::default()
    })
}

/// `GET /api/v2/arguments/{id}`: to be edited before the task is run again.
pub async fn show(
    monitor: Data<Monitor>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    super::seen_by(&monitor, &request, Role::Operator, "looking at whole arguments")?;
    let called =
        of(&monitor, &id).await?.ok_or_else(|| Problem::not_found(format!("no task {id} is known")))?;
    let cleaned = |text: Option<String>| text.map(|text| monitor.redactor().text(&text).unwrap_or(text));
    Ok(HttpResponse::Ok().json(json!({
        "id": &**id,
        "name": called.name,
        "args": cleaned(called.args),
        "kwargs": cleaned(called.kwargs),
        "source": called.source,
        "problem": called.problem,
    })))
}
