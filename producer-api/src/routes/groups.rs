//! Reading, waiting for and forgetting groups and batches.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use celery_protocol::TaskId;
use celery_protocol::result::ResultMeta;
use serde::Deserialize;
use utoipa::IntoParams;

use super::openapi::ReadProblems;
use super::results::{self, Wait};
use crate::dto::list::{SetAnswer, SetLinks, SetTask};
use crate::extract::Prefer;
use crate::problem::{Kind, Problem};
use crate::registry::{self, Head, PIECE, Set};
use crate::sets::{self, WaitFor};
use crate::state::Api;
use crate::view;

/// How to read a group or batch.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SetQuery {
    /// Hold the answer up to this many seconds until all tasks have ended, as `Prefer: wait`.
    #[param(value_type = Option<f64>, minimum = 0, example = 2)]
    wait: Option<Wait>,
}

/// A group: the tasks of a workflow's group, of a chord's header, or of a batch with `group: true`; also one that another
/// program has saved.
#[utoipa::path(
    get,
    path = "/v1/groups/{id}",
    tag = "groups",
    operation_id = "read_group",
    params(
        ("id" = String, Path, description = "The group's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"),
        SetQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds until all tasks have ended."),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before: the answer is 304 if nothing has changed."),
    ),
    responses(
        (status = 200, description = "The group, whatever its state.", body = SetAnswer, headers(("ETag" = String, description = "Changes with the states."))),
        (status = 304, description = "Nothing has changed."),
        ReadProblems,
    )
)]
pub async fn read(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<SetQuery>,
    prefer: Prefer,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    show(&api, Set::Group, &id, query.wait, prefer, &request).await
}

/// A batch: the tasks of one request.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}",
    tag = "groups",
    operation_id = "read_batch",
    params(
        ("id" = String, Path, description = "The batch's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"),
        SetQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds until all tasks have ended."),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before: the answer is 304 if nothing has changed."),
    ),
    responses(
        (status = 200, description = "The batch, whatever its state.", body = SetAnswer, headers(("ETag" = String, description = "Changes with the states."))),
        (status = 304, description = "Nothing has changed."),
        ReadProblems,
    )
)]
pub async fn read_batch(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<SetQuery>,
    prefer: Prefer,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    show(&api, Set::Batch, &id, query.wait, prefer, &request).await
}

async fn show(
    api: &Api,
    set: Set,
    id: &str,
    wait: Option<Wait>,
    prefer: Prefer,
    request: &HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (head, ids) = registry::read(api, set, id).await?;
    let limit = results::wait_of(wait, prefer.0, api.limits.wait);
    let metas = sets::wait(api, &ids, limit, WaitFor::All).await?;
    let answer = answer(set, id, &head, &ids, &metas);
    let body = serde_json::to_vec(&answer).map_err(|err| Problem::new(Kind::Internal, err.to_string()))?;
    let state = if answer.ready { "ready" } else { "pending" };
    Ok(results::conditional(request, state, answer.ready, body, |response| {
        results::preference_applied(response, prefer.0.wait, false, api.limits.wait);
        response.content_type("application/json");
    }))
}

/// What is shown of a group or batch.
pub fn answer(set: Set, id: &str, head: &Head, ids: &[TaskId], metas: &[Option<ResultMeta>]) -> SetAnswer {
    let ended = metas.iter().filter(|meta| sets::ended(meta.as_ref())).count();
    let succeeded = metas.iter().filter(|meta| sets::succeeded(meta.as_ref())).count();
    let ready = ended == ids.len() && head.complete;
    let this = match set {
        Set::Group => format!("/v1/groups/{id}"),
        Set::Batch => format!("/v1/batches/{id}"),
    };
    SetAnswer {
        id: id.to_owned(),
        submitted_at: Some(head.submitted_at.clone()).filter(|at| !at.is_empty()),
        total: head.total,
        accepted: head.accepted,
        refused: head.failed,
        succeeded,
        failed: ended - succeeded,
        ready,
        successful: ready && succeeded == head.total,
        states: sets::count(metas).into_iter().collect(),
        group_id: head.group_id.as_ref().filter(|_| set == Set::Batch).map(ToString::to_string),
        body_id: head.body_id.as_ref().map(ToString::to_string),
        tasks: ids
            .iter()
            .zip(metas)
            .take(PIECE)
            .map(|(id, meta)| {
                let state = meta.as_ref().map_or("PENDING", |meta| meta.status.as_str());
                SetTask { id: id.clone(), state: state.to_owned() }
            })
            .collect(),
        links: SetLinks {
            results: (set == Set::Group).then(|| format!("{this}/results")),
            events: format!("{this}/events"),
            this,
        },
    }
}

/// How to read the results of a group.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GroupResultsQuery {
    /// Hold the answer up to this many seconds until all tasks have ended, as `Prefer: wait`.
    #[param(value_type = Option<f64>, minimum = 0, example = 2)]
    wait: Option<Wait>,
    /// Answer with what is there, and `null` for the rest.
    partial: Option<bool>,
}

/// The results of a group, in order.
#[utoipa::path(
    get,
    path = "/v1/groups/{id}/results",
    tag = "groups",
    operation_id = "read_group_results",
    params(
        ("id" = String, Path, description = "The group's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"),
        GroupResultsQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds until all tasks have ended."),
    ),
    responses(
        (status = 200, description = "The results; with `partial=true` those that are not there are `null`.", body = Vec<serde_json::Value>),
        (status = 202, description = "Not all tasks have ended.", body = SetAnswer, headers(("Retry-After" = u64, description = "When to ask again."))),
        (status = 424, description = "A task has failed or was revoked: the first in order, in `task_id` and `error`.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn read_results(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<GroupResultsQuery>,
    prefer: Prefer,
) -> Result<HttpResponse, Problem> {
    let (head, ids) = registry::read(&api, Set::Group, &id).await?;
    let limit = results::wait_of(query.wait, prefer.0, api.limits.wait);
    let metas = sets::wait(&api, &ids, limit, WaitFor::All).await?;
    let partial = query.partial.unwrap_or(false);
    if !partial {
        let failed = ids.iter().zip(&metas).find_map(|(id, meta)| {
            let meta = meta.as_ref().filter(|meta| meta.status.is_ready())?;
            (!sets::succeeded(Some(meta))).then(|| results::failure(id, meta))
        });
        if let Some(problem) = failed {
            return Err(problem);
        }
        if !metas.iter().all(|meta| sets::ended(meta.as_ref())) {
            let mut response = HttpResponse::Accepted();
            response
                .insert_header((header::RETRY_AFTER, "1"))
                .insert_header((header::CACHE_CONTROL, "no-cache"));
            results::preference_applied(&mut response, prefer.0.wait, false, api.limits.wait);
            return Ok(response.json(answer(Set::Group, &id, &head, &ids, &metas)));
        }
    }
    let values = metas.iter().map(|meta| {
        let meta = meta.as_ref().filter(|meta| sets::succeeded(Some(meta)))?;
        Some(view::showable(&meta.result))
    });
    let mut response = HttpResponse::Ok();
    results::preference_applied(&mut response, prefer.0.wait, false, api.limits.wait);
    Ok(response.json(values.collect::<Vec<_>>()))
}

/// How to forget a group or batch.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ForgetSetQuery {
    /// Even if not all tasks have ended; workers may then write results again.
    force: Option<bool>,
}

/// Forgets a group and all its tasks: deletes their results.
#[utoipa::path(
    delete,
    path = "/v1/groups/{id}",
    tag = "groups",
    operation_id = "forget_group",
    params(("id" = String, Path, description = "The group's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"), ForgetSetQuery),
    responses(
        (status = 204, description = "Forgotten."),
        (status = 409, description = "Not all tasks have ended.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn forget(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<ForgetSetQuery>,
) -> Result<HttpResponse, Problem> {
    forget_set(&api, Set::Group, &id, query.force.unwrap_or(false)).await
}

/// Forgets a batch and all its tasks: deletes their results.
#[utoipa::path(
    delete,
    path = "/v1/batches/{id}",
    tag = "groups",
    operation_id = "forget_batch",
    params(("id" = String, Path, description = "The batch's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"), ForgetSetQuery),
    responses(
        (status = 204, description = "Forgotten."),
        (status = 409, description = "Not all tasks have ended.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn forget_batch(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<ForgetSetQuery>,
) -> Result<HttpResponse, Problem> {
    forget_set(&api, Set::Batch, &id, query.force.unwrap_or(false)).await
}

async fn forget_set(api: &Api, set: Set, id: &str, force: bool) -> Result<HttpResponse, Problem> {
    let (_, ids) = registry::read(api, set, id).await?;
    let metas = sets::states(api, &ids).await?;
    let open = metas.iter().filter(|meta| !sets::ended(meta.as_ref())).count();
    if open > 0 && !force {
        let detail = format!("workers may yet write {open} results; wait, or add ?force=true");
        return Err(Problem::new(Kind::TaskNotFinished, detail));
    }
    for id in &ids {
        api.celery.backend().forget(id).await.map_err(|err| Problem::from_backend(&err))?;
        results::bury(api, id).await?;
    }
    registry::forget(api, set, id).await?;
    Ok(HttpResponse::NoContent().finish())
}
