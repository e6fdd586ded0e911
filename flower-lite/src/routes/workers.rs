//! `GET /api/v2/workers`, one of them, what it answers when it is asked, and the queues.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::parameters::{flag, pairs, unknown};
use crate::error::Problem;
use crate::monitor::Monitor;
use crate::state::query::{self, Filter};
use crate::view::{WorkerDetail, WorkerPage};

/// How many tasks are listed with a worker.
const TASKS_SHOWN: usize = 50;

/// Every worker.
pub async fn list(monitor: Data<Monitor>) -> HttpResponse {
    let view = WorkerPage::of(&monitor.state());
    HttpResponse::Ok().json(view)
}

/// One worker and its newest tasks.
pub async fn one(monitor: Data<Monitor>, name: Path<String>) -> Result<HttpResponse, Problem> {
    let state = monitor.state();
    let worker = state.worker(&name).ok_or_else(|| never_heard_of(&name))?;
    let filter = Filter { worker: Some(name.as_str().into()), ..Filter::default() };
    let page = query::page(state.tasks(), &filter, query::Sort::NEWEST, None, TASKS_SHOWN);
    Ok(HttpResponse::Ok().json(WorkerDetail::of(&state, worker, &page.tasks)))
}

/// What a worker answered when it was asked; with `?refresh=1` it is asked now, also for its single tasks.
pub async fn answers(
    monitor: Data<Monitor>,
    name: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut refresh = false;
    for (parameter, value) in pairs(&request)? {
        match &*parameter {
            "refresh" => refresh = flag(&parameter, &value)?,
            _ => return Err(unknown(&parameter)),
        }
    }
    if monitor.state().worker(&name).is_none() {
        return Err(never_heard_of(&name));
    }
    if let Some(celery) = monitor.celery().filter(|_| refresh) {
        // What could not be asked is shown as it was: its time tells how old it is.
        if let Err(error) = monitor.answers().refresh(celery, Some(&name)).await {
            tracing::warn!(%error, worker = &**name, "a worker could not be asked");
        }
    }
    let mut answers = monitor.answers().of(&name).unwrap_or_default();
    let answered_at = answers.remove("timestamp");
    let shown =
        json!({ "name": &**name, "source": "inspect", "answered_at": answered_at, "answers": answers });
    Ok(HttpResponse::Ok().json(shown))
}

/// The queues that workers read, as last looked at.
pub async fn queues(monitor: Data<Monitor>) -> HttpResponse {
    let mut pauses = monitor.pauses().all();
    let mut all = monitor.queues().all();
    for queue in pauses.keys() {
        all.entry(queue.clone()).or_default();
    }
    let items: Vec<Value> = all
        .into_iter()
        .map(|(name, queue)| {
            let paused = pauses.remove(&name);
            json!({
                "name": name,
                "ready": queue.ready,
                "consumers": queue.consumers,
                "workers": queue.workers,
                "processes": queue.processes,
                "rate": queue.rate,
                // JSON has no infinity: `null` with messages waiting means that nobody works them off.
                "time_to_drain": queue.time_to_drain().filter(|seconds| seconds.is_finite()),
                "oldest": queue.oldest,
                "paused": paused,
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "items": items }))
}

fn never_heard_of(name: &str) -> Problem {
    Problem::not_found(format!("no worker {name} has been heard of"))
}
