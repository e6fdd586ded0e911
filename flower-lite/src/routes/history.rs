//! `GET /api/v2/history` and `/api/v2/workflows/{root}`: what lies on disk.

use std::collections::HashMap;

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::parameters::{flag, number, pairs, parse, seconds, states, unknown};
use crate::error::Problem;
use crate::history::search::{MIN_TEXT, Query};
use crate::monitor::Monitor;
use crate::state::task::Task;
use crate::view::{HistoryPage, TaskDetail, Workflow};

/// Rows of a page, when nothing is said.
const DEFAULT_LIMIT: usize = 50;
/// The most rows of a page.
const MAX_LIMIT: usize = 1_000;
/// The longest value of a parameter.
const MAX_VALUE: usize = 256;

/// A page of tasks from the history.
pub async fn list(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let query = query(&request)?;
    let history = monitor.history().cloned().ok_or_else(none_kept)?;
    let page = blocking(move || history.search(&query)).await?;
    Ok(HttpResponse::Ok().json(HistoryPage::of(&page)))
}

/// A workflow as a tree: from memory, and what memory has forgotten from the history.
pub async fn workflow(monitor: Data<Monitor>, root: Path<String>) -> Result<HttpResponse, Problem> {
    let root = root.into_inner();
    let mut members: HashMap<String, Task> = HashMap::new();
    if let Some(history) = monitor.history().cloned() {
        let of = root.clone();
        let found = blocking(move || history.workflow(&of)).await?;
        members.extend(found.into_iter().map(|task| (task.id().to_string(), task)));
    }
    let state = monitor.state();
    let known = state.tasks().workflow(&root);
    members.extend(known.map(|task| (task.id().to_string(), task.clone())));
    if members.is_empty() {
        return Err(Problem::not_found(format!("no task of a workflow {root} is known")));
    }
    Ok(HttpResponse::Ok().json(Workflow::of(state.version(), &root, members.into_values().collect())))
}

/// A task that memory has forgotten, if the history has it.
pub(super) async fn look_up(monitor: &Monitor, id: &str) -> Result<Option<TaskDetail>, Problem> {
    let task = task(monitor, id).await?;
    let state = monitor.state();
    Ok(task.map(|task| TaskDetail::of(&state, &task, None)))
}

/// A task of the history.
pub(crate) async fn task(monitor: &Monitor, id: &str) -> Result<Option<Task>, Problem> {
    let Some(history) = monitor.history().cloned() else { return Ok(None) };
    let of = id.to_owned();
    blocking(move || history.task(&of)).await
}

fn none_kept() -> Problem {
    Problem::not_found("no history is kept: set FLOWER_DB (--db) to a file")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let outcome = web::block(work).await.map_err(|error| Problem::history(&error))?;
    outcome.map_err(|error| Problem::history(&error))
}

fn query(request: &HttpRequest) -> Result<Query, Problem> {
    let mut query = Query { limit: DEFAULT_LIMIT, ..Query::default() };
    for (name, value) in pairs(request)? {
        if value.is_empty() {
            continue;
        }
        if value.len() > MAX_VALUE {
            return Err(Problem::bad_parameter(&name, format!("is longer than {MAX_VALUE} bytes")));
        }
        match &*name {
            "state" => query.states = states(&value)?.iter().map(|state| state.as_str().to_owned()).collect(),
            "name" => query.name = Some(value),
            "worker" => query.worker = Some(value),
            "queue" => query.queue = Some(value),
            "root" => query.root = Some(value),
            "since" => query.since = Some(seconds(&name, &value)?),
            "until" => query.until = Some(seconds(&name, &value)?),
            "min_runtime" => query.min_runtime = Some(seconds(&name, &value)?),
            "max_runtime" => query.max_runtime = Some(seconds(&name, &value)?),
            "q" => {
                if value.chars().count() < MIN_TEXT {
                    return Err(Problem::bad_parameter(
                        &name,
                        format!("must have {MIN_TEXT} characters at least"),
                    ));
                }
                query.text = Some(value);
            }
            "oldest_first" => query.oldest_first = flag(&name, &value)?,
            "limit" => query.limit = number(&name, &value)?.clamp(1, MAX_LIMIT),
            "cursor" => query.cursor = Some(parse(&name, &value)?),
            _ => return Err(unknown(&name)),
        }
    }
    query.states.sort();
    query.states.dedup();
    Ok(query)
}
