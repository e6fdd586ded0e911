//! The web application of the 2016 walkthrough, with its addresses, its parameters and its answers: `GET /` queues
//! `random.randrange(start, stop, step)`, `GET /results` lists what is queued, `GET /results/{id}` gives the result.
//!
//! A GET that has an effect is what the article has, so it is allowed here and nowhere else.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use celery_protocol::TaskId;
use celery_protocol::result::TaskState;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::openapi::{ReadProblems, SubmitProblems};
use super::results;
use crate::dto::submit::SubmitTask;
use crate::extract::{Admission, FormText, PathId};
use crate::problem::{Kind, Problem, ProblemBody};
use crate::state::Api;
use crate::submission::{Record, Stage};
use crate::submit::Identity;
use crate::submitter::Submitter;
use crate::view;

/// The task that every request queues.
const TASK: &str = "demo.randrange";
/// How many ids `/results` lists.
const MAX_LISTED: usize = 1000;

/// The arguments of Python's `random.randrange`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Range {
    /// The smallest number; 0 if absent.
    #[param(value_type = Option<i64>, example = 41)]
    start: Option<String>,
    /// The end, which is not included. Without it the answer is 400.
    #[param(value_type = Option<i64>, example = 45)]
    stop: Option<String>,
    /// The step; 1 if absent.
    #[param(value_type = Option<i64>, example = 1)]
    step: Option<String>,
}

/// Queues `random.randrange(start, stop, step)`.
#[utoipa::path(
    get,
    path = "/",
    tag = "walkthrough",
    operation_id = "walkthrough_start",
    params(Range),
    responses(
        (status = 200, description = "Queued.", body = serde_json::Value, example = json!({"job_id": "cc31bdcd-ad31-41ce-b516-2b90cd92f2a1"})),
        SubmitProblems,
        (status = 400, description = "`stop` is missing, or a number is none; or a parameter cannot be read.",
            content((String = "text/html", example = "Stop value not specified!"), (ProblemBody = "application/problem+json"))),
    )
)]
pub async fn start(
    admission: Admission,
    api: web::Data<Api>,
    range: web::Query<Range>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    queue(admission, api, &range, &request).await
}

/// The same for those who would not have a GET with an effect; the parameters may be in the body as a form.
#[utoipa::path(
    post,
    path = "/",
    tag = "walkthrough",
    operation_id = "walkthrough_start_by_post",
    params(Range),
    responses(
        (status = 200, description = "Queued.", body = serde_json::Value, example = json!({"job_id": "cc31bdcd-ad31-41ce-b516-2b90cd92f2a1"})),
        SubmitProblems,
        (status = 400, description = "`stop` is missing, or a number is none; or a parameter cannot be read.",
            content((String = "text/html", example = "Stop value not specified!"), (ProblemBody = "application/problem+json"))),
    )
)]
pub async fn start_by_post(
    admission: Admission,
    api: web::Data<Api>,
    range: web::Query<Range>,
    form: FormText,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let form = web::Query::<Range>::from_query(&form.0)
        .map_err(|err| Problem::new(Kind::InvalidParameter, err.to_string()))?
        .into_inner();
    let range = range.into_inner();
    let both = Range {
        start: form.start.or(range.start),
        stop: form.stop.or(range.stop),
        step: form.step.or(range.step),
    };
    queue(admission, api, &both, &request).await
}

async fn queue(
    _admission: Admission,
    api: web::Data<Api>,
    range: &Range,
    request: &HttpRequest,
) -> Result<HttpResponse, Problem> {
    let Some(stop) = &range.stop else {
        return Ok(html(StatusCode::BAD_REQUEST, "Stop value not specified!"));
    };
    let numbers = [range.start.as_deref().unwrap_or("0"), stop, range.step.as_deref().unwrap_or("1")];
    let mut args = [0; 3];
    for (arg, text) in args.iter_mut().zip(numbers) {
        // Python's int() takes surrounding space and a sign too.
        match text.trim().parse::<i64>() {
            Ok(number) => *arg = number,
            Err(_) => return Ok(html(StatusCode::BAD_REQUEST, "start, stop and step must be integers!")),
        }
    }
    let body = json!({ "task": TASK, "args": args }).to_string();
    let id: TaskId = uuid::Uuid::new_v4().into();
    let submitter = Submitter::new(api, request);
    let plan = submitter.plan(SubmitTask::parse(&body)?, &id)?;
    submitter.publish(id.clone(), Identity::Fresh, plan).await?;
    Ok(json_like_flask(&json!({ "job_id": id })))
}

/// The ids of the tasks that are queued and have not been started, oldest first.
#[utoipa::path(
    get,
    path = "/results",
    tag = "walkthrough",
    operation_id = "walkthrough_queued",
    responses(
        (status = 200, description = "The ids.", body = serde_json::Value, example = json!({"queued_job_ids": ["cc31bdcd-ad31-41ce-b516-2b90cd92f2a1"]})),
        ReadProblems,
    )
)]
pub async fn queued(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let Some(index) = api.celery.submissions() else {
        return Ok(json_like_flask(&json!({ "queued_job_ids": [] })));
    };
    let backend_problem = |err| Problem::from_backend(&err);
    let ids = index.recent(MAX_LISTED).await.map_err(backend_problem)?;
    let metas = api.celery.backend().get_many(&ids).await.map_err(backend_problem)?;
    let records = index.get_many(&ids).await.map_err(backend_problem)?;
    let (mut queued, mut done) = (Vec::new(), Vec::new());
    for ((id, meta), record) in ids.into_iter().zip(metas).zip(records) {
        let record = record.and_then(|bytes| Record::decode(&bytes));
        let may_run = record.is_some_and(|record| {
            record.ignore_result != Some(true) && !matches!(record.stage, Stage::Forgotten)
        });
        match meta {
            None if may_run => queued.push(id),
            Some(meta) if !meta.status.is_ready() => {}
            _ => done.push(id),
        }
    }
    if !done.is_empty() {
        index.unlist(&done).await.map_err(backend_problem)?;
    }
    queued.reverse();
    Ok(json_like_flask(&json!({ "queued_job_ids": queued })))
}

/// The result of a task.
#[utoipa::path(
    get,
    path = "/results/{id}",
    tag = "walkthrough",
    operation_id = "walkthrough_result",
    params(("id" = String, Path, description = "A `job_id`.", pattern = "^[A-Za-z0-9._~:@+-]{1,200}$")),
    responses(
        (status = 200, description = "It has a result.", body = serde_json::Value, example = json!({"result": 43})),
        (status = 202, description = "It has not finished.", body = String, content_type = "text/html", example = "Job has not finished!"),
        ReadProblems,
        (status = 400, description = "It has failed; or the id cannot be one.",
            content((String = "text/html", example = "Job has failed!"), (ProblemBody = "application/problem+json"))),
    )
)]
pub async fn result(api: web::Data<Api>, id: PathId) -> Result<HttpResponse, Problem> {
    let found = results::find(&api, &id.0, false, None).await?;
    Ok(match found.meta {
        Some(meta) if meta.status == TaskState::Success => {
            let result = view::showable(&meta.result);
            let body = format!("{{\n  \"result\": {}\n}}\n", result.get());
            plain(StatusCode::OK).content_type("application/json").body(body)
        }
        Some(meta) if meta.status.is_ready() => html(StatusCode::BAD_REQUEST, "Job has failed!"),
        _ => html(StatusCode::ACCEPTED, "Job has not finished!"),
    })
}

/// As Flask's `jsonify` wrote in 2016: indented, with a newline at the end.
fn json_like_flask(value: &serde_json::Value) -> HttpResponse {
    let body = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    plain(StatusCode::OK).content_type("application/json").body(body)
}

fn html(status: StatusCode, text: &'static str) -> HttpResponse {
    plain(status).content_type("text/html; charset=utf-8").body(text)
}

fn plain(status: StatusCode) -> HttpResponseBuilder {
    const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CACHE_CONTROL, "no-store")).insert_header((ROBOTS, "noindex"));
    response
}
