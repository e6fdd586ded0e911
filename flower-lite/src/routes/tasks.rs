//! `GET /api/v2/tasks` and `/api/v2/tasks/{id}`.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use super::history;
use super::parameters::TaskListing;
use crate::error::Problem;
use crate::monitor::Monitor;
use crate::state::query;
use crate::stored;
use crate::view::{TaskDetail, TaskPage};

/// A page of tasks.
pub async fn list(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let TaskListing { filter, sort, cursor, limit, facets } = TaskListing::parse(&request)?;
    let state = monitor.state();
    let page = query::page(state.tasks(), &filter, sort, cursor.as_ref(), limit);
    let facets = facets.then(|| query::facets(state.tasks(), &filter));
    Ok(HttpResponse::Ok().json(TaskPage::of(&state, &page, facets)))
}

/// One task with its whole story.
pub async fn one(monitor: Data<Monitor>, id: Path<String>) -> Result<HttpResponse, Problem> {
    let unknown = || Problem::not_found(format!("no task {id} is known"));
    let ask = monitor.state().tasks().get(&id).map(stored::is_worth_a_look);
    let Some(ask) = ask else {
        let found = history::look_up(&monitor, &id).await?.ok_or_else(unknown)?;
        return Ok(HttpResponse::Ok().json(found));
    };
    let stored = if ask { stored::look_up(monitor.celery(), &id, monitor.redactor()).await } else { None };
    let state = monitor.state();
    let task = state.tasks().get(&id).ok_or_else(unknown)?;
    Ok(HttpResponse::Ok().json(TaskDetail::of(&state, task, stored)))
}
