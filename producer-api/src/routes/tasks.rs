//! Submitting tasks.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use celery_protocol::{TaskId, WireTime};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::openapi::SubmitProblems;
use super::results;
use crate::dto::dry_run::DryRun;
use crate::dto::submit::{self, SubmitTask};
use crate::dto::task::{Handle, Task, Warning};
use crate::extract::{Admission, JsonText, PathId, Prefer};
use crate::plan::{self, Plan};
use crate::prefer::Preferences;
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;
use crate::submission::Record;
use crate::submit::{Submitted, chosen_id, new_id};
use crate::trace_context::TraceContext;
use crate::view::{self, Include};
use crate::wait;

/// How to submit.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SubmitQuery {
    /// Publish nothing; answer with the exact message that would be published.
    dry_run: Option<bool>,
    /// Allow priorities up to 255.
    raw_priority: Option<bool>,
    /// Hold the answer up to this many seconds for the result, as `Prefer: wait`.
    #[param(value_type = Option<f64>, minimum = 0, example = 2)]
    wait: Option<results::Wait>,
}

/// Submits a task.
///
/// 202 means: the broker has confirmed the message, and at least one queue took it. If that cannot be known in time the
/// answer is 504 with `outcome: "unknown"` and the task's id; sending the same body to `PUT /v1/tasks/{id}` is safe.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    tag = "tasks",
    operation_id = "submit_task",
    params(
        SubmitQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds for the result. `return=minimal`: answer with the id alone.", example = "wait=2"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, passed on in the message's headers."),
    ),
    request_body = SubmitTask,
    responses(
        (status = 202, description = "Confirmed and queued.", body = Handle,
            headers(("Location" = String, description = "The task's state."), ("Retry-After" = u64, description = "When to ask for it first."))),
        (status = 200, description = "With a wait: the task has ended. With a known id: the task as it is. With `dry_run`: the message.", body = SubmitAnswer),
        SubmitProblems,
    )
)]
pub async fn submit(
    admission: Admission,
    api: web::Data<Api>,
    query: web::Query<SubmitQuery>,
    prefer: Prefer,
    body: JsonText,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut task = SubmitTask::parse(body.as_str()).map_err(not_published)?;
    let chosen = task.task_id.take();
    let call = Call { api: &api, query: &query, prefer, request: &request, text: body.as_str() };
    call.run(admission, task, chosen).await
}

/// Submits a task under the id in the path. Sending the same body again publishes nothing new, unless the first attempt's
/// outcome is unknown.
#[utoipa::path(
    put,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    operation_id = "submit_task_as",
    params(
        ("id" = String, Path, description = "An id of the client's choice.", pattern = "^[A-Za-z0-9._~:@+-]{1,200}$", example = "order-42"),
        SubmitQuery,
        ("Prefer" = Option<String>, Header, description = "As for `POST /v1/tasks`."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: fail with 412 if the id is known."),
        ("traceparent" = Option<String>, Header, description = "As for `POST /v1/tasks`."),
    ),
    request_body = SubmitTask,
    responses(
        (status = 202, description = "Confirmed and queued.", body = Handle,
            headers(("Location" = String, description = "The task's state."), ("Retry-After" = u64, description = "When to ask for it first."))),
        (status = 200, description = "The same was submitted before: the task as it is, with `deduplicated: true`. With a wait: the task has ended. With `dry_run`: the message.", body = SubmitAnswer),
        (status = 412, description = "The id is known.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        SubmitProblems,
    )
)]
pub async fn submit_as(
    admission: Admission,
    id: PathId,
    api: web::Data<Api>,
    query: web::Query<SubmitQuery>,
    prefer: Prefer,
    body: JsonText,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut task = SubmitTask::parse(body.as_str()).map_err(not_published)?;
    if task.task_id.take().is_some_and(|given| given != id.0) {
        let problem = Problem::field(Kind::InvalidOption, "/task_id", "differs from the id in the path");
        return Err(not_published(problem));
    }
    let call = Call { api: &api, query: &query, prefer, request: &request, text: body.as_str() };
    call.run(admission, task, Some(id.0)).await
}

/// What a 200 to a submission holds.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum SubmitAnswer {
    /// The task, ended or known before.
    #[schema(title = "task")]
    Task(Box<Task>),
    /// The message that would be published.
    #[schema(title = "dry run")]
    DryRun(DryRun),
}

/// One submission on its way through.
struct Call<'a> {
    api: &'a Api,
    query: &'a SubmitQuery,
    prefer: Prefer,
    request: &'a HttpRequest,
    text: &'a str,
}

impl Call<'_> {
    async fn run(
        &self,
        admission: Admission,
        task: SubmitTask,
        chosen: Option<TaskId>,
    ) -> Result<HttpResponse, Problem> {
        let api = self.api;
        let id = chosen.clone().unwrap_or_else(|| uuid::Uuid::new_v4().into());
        let headers = self.request.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let context = plan::Context {
            now: crate::clock::now(),
            origin: &api.origin,
            router: api.celery.router(),
            policy: &api.policy,
            limits: &api.limits,
            trace: TraceContext::from_headers(text("traceparent"), text("tracestate")),
            raw_priority: self.query.raw_priority.unwrap_or(false),
        };
        let plan = Plan::make(task, &id, &context)?;
        if self.query.dry_run.unwrap_or(false) {
            return Ok(HttpResponse::Ok().json(DryRun::of(&plan)));
        }
        let record = plan.record.clone();
        let submitted = match chosen {
            None => new_id(api, &id, plan, || submit::fingerprint(self.text)).await?,
            Some(_) => {
                if text("if-none-match").is_some_and(|value| value.trim() == "*")
                    && results::known(api, &id).await?
                {
                    let problem = Problem::new(Kind::PreconditionFailed, "a task with this id is known");
                    return Err(not_published(problem).task(&id));
                }
                chosen_id(api, &id, plan, submit::fingerprint(self.text)).await?
            }
        };
        // The broker has it: others may publish while this request waits.
        drop(admission);
        match submitted {
            Submitted::Accepted(warnings) => self.accepted(&id, &record, warnings).await,
            Submitted::Deduplicated(earlier) => self.deduplicated(&id, &earlier).await,
        }
    }

    async fn accepted(
        &self,
        id: &TaskId,
        record: &Record,
        mut warnings: Vec<Warning>,
    ) -> Result<HttpResponse, Problem> {
        let wait = self.wait();
        if let Some(limit) = wait.filter(|_| record.ignore_result != Some(true)) {
            match wait::until_ready(self.api, id, limit).await {
                Ok(Some(meta)) if meta.status.is_ready() => {
                    let mut task = view::task(id, Some(record), Some(&meta), Include::default());
                    task.handle.warnings = warnings;
                    return Ok(self.answer(StatusCode::OK, id).json(task));
                }
                Ok(_) => {}
                // The task is queued all the same: a wait that cannot be had is a remark, not a failure.
                Err(problem) => {
                    warnings.push(Warning { code: problem.kind().slug(), detail: problem.to_string() });
                }
            }
        }
        let mut response = self.answer(StatusCode::ACCEPTED, id);
        response.insert_header((header::RETRY_AFTER, retry_after(record)));
        if self.prefer.0.minimal && warnings.is_empty() {
            return Ok(response.json(serde_json::json!({ "id": id })));
        }
        Ok(response.json(view::warned(view::handle(id, Some(record), "PENDING"), warnings)))
    }

    async fn deduplicated(&self, id: &TaskId, earlier: &Record) -> Result<HttpResponse, Problem> {
        let meta = match self.wait() {
            Some(limit) => wait::until_ready(self.api, id, limit).await?,
            None => results::state(self.api, id).await?,
        };
        let mut task = view::task(id, Some(earlier), meta.as_ref(), Include::default());
        task.handle.deduplicated = true;
        Ok(self.answer(StatusCode::OK, id).json(task))
    }

    /// How long to wait for the result, if at all.
    fn wait(&self) -> Option<Duration> {
        results::wait_of(self.query.wait, self.prefer.0, self.api.limits.wait)
    }

    fn answer(&self, status: StatusCode, id: &TaskId) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(status);
        response
            .insert_header((header::LOCATION, format!("/v1/tasks/{id}")))
            .insert_header((header::CACHE_CONTROL, "no-store"));
        let Preferences { wait, minimal } = self.prefer.0;
        results::preference_applied(&mut response, wait, minimal, self.api.limits.wait);
        response
    }
}

/// When to ask first: at once, or when the task may have run.
fn retry_after(record: &Record) -> HeaderValue {
    let eta =
        record.eta.as_deref().and_then(|eta| WireTime::parse(eta).ok()).map_or(0.0, WireTime::unix_seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=60")]
    let seconds = (eta - record.at).ceil().clamp(1.0, 60.0) as u64;
    HeaderValue::from(seconds)
}

fn not_published(problem: Problem) -> Problem {
    problem.outcome(Outcome::NotPublished)
}
