//! Looking up many tasks by their ids.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use celery_protocol::TaskId;

use super::openapi::ReadProblems;
use super::results::{self, Found};
use crate::dto::form::Form;
use crate::dto::list::{LookupAnswer, LookupItem, LookupRequest, UnknownItem};
use crate::extract::JsonText;
use crate::problem::{Kind, Problem};
use crate::sets::{self, WaitFor};
use crate::state::Api;
use crate::view::{self, Include};

/// Tasks in one look-up.
const MAX_IDS: usize = 1000;

/// Looks up many tasks at once, and waits for all or any of them if asked to.
#[utoipa::path(
    post,
    path = "/v1/tasks/lookup",
    tag = "tasks",
    operation_id = "lookup_tasks",
    request_body = LookupRequest,
    responses(
        (status = 200, description = "The tasks; an unknown id is an item with a problem.", body = LookupAnswer),
        (status = 413, description = "The body is too large.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `application/json`.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The request is not valid.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn lookup(api: web::Data<Api>, body: JsonText) -> Result<HttpResponse, Problem> {
    let mut form = Form::split(body.as_str())?;
    let ids: Vec<TaskId> = form.list("ids");
    let include: Vec<String> = form.optional("include").unwrap_or_default();
    let wait: Option<f64> = form.optional("wait");
    let wait_for: WaitFor = form.optional("wait_for").unwrap_or_default();
    let assume_pending: bool = form.optional("assume_pending").unwrap_or(false);
    let wait = match wait.map(Duration::try_from_secs_f64) {
        None => None,
        Some(Ok(wait)) => Some(wait.min(api.limits.wait)).filter(|wait| !wait.is_zero()),
        Some(Err(_)) => {
            form.refuse("wait", "must be a number of seconds, not negative");
            None
        }
    };
    form.finish()?;
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Problem::field(Kind::InvalidOption, "/ids", format!("must be 1 to {MAX_IDS} ids")));
    }
    let include = Include::parse(&include.join(","))
        .map_err(|_| Problem::field(Kind::InvalidOption, "/include", "may have args, traceback, children"))?;

    let metas = sets::wait(&api, &ids, wait, wait_for).await?;
    let records = results::records(&api, &ids).await?;
    let mut answer = LookupAnswer { items: Vec::with_capacity(ids.len()), ready: 0, pending: 0, unknown: 0 };
    for ((id, meta), record) in ids.into_iter().zip(metas).zip(records) {
        answer.items.push(match results::known_as(&id, record, meta, assume_pending) {
            Ok(Found { record, meta }) => {
                let task = view::task(&id, record.as_ref(), meta.as_ref(), include);
                if task.ready {
                    answer.ready += 1;
                } else {
                    answer.pending += 1;
                }
                LookupItem::Task(Box::new(task))
            }
            Err(problem) => {
                answer.unknown += 1;
                LookupItem::Unknown(UnknownItem { id, problem: problem.body() })
            }
        });
    }
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(answer))
}
