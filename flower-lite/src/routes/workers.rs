//! `GET /api/v2/workers` and `/api/v2/workers/{name}`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

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
    let worker = state
        .worker(&name)
        .ok_or_else(|| Problem::not_found(format!("no worker {name} has been heard of")))?;
    let filter = Filter { worker: Some(name.as_str().into()), ..Filter::default() };
    let page = query::page(state.tasks(), &filter, query::Sort::NEWEST, None, TASKS_SHOWN);
    Ok(HttpResponse::Ok().json(WorkerDetail::of(&state, worker, &page.tasks)))
}
