//! Submitting tasks one by one.

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
use crate::dto::submit::SubmitTask;
use crate::dto::task::{Handle, Task, Warning};
use crate::extract::{Admission, JsonText, PathId, Prefer};
use crate::idempotency::{self, Settled};
use crate::prefer::Preferences;
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;
use crate::submission::Record;
use crate::submit::{Done, Identity};
use crate::submitter::Submitter;
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
        ("Idempotency-Key" = Option<String>, Header, pattern = r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\-.-:<-\[\]-~]{1,255})$"#, description = "A string in double quotes. The same request with the same key has one effect and one answer, for a day.", example = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\""),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, passed on in the message's headers."),
    ),
    request_body = SubmitTask,
    responses(
        (status = 202, description = "Confirmed and queued.", body = Handle,
            headers(("Location" = String, description = "The task's state."), ("Retry-After" = u64, description = "When to ask for it first."))),
        (status = 200, description = "With a wait: the task has ended. With a known id or dedupe key: the task as it is. With `dry_run`: the message.", body = SubmitAnswer),
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
    let task = SubmitTask::parse(body.as_str()).map_err(not_published)?;
    let call = Call::new(api, &query, prefer, &request);
    call.run_once(&request, body.as_str(), admission, task).await
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
    if task.task_id.as_ref().is_some_and(|given| *given != id.0) {
        let problem = Problem::field(Kind::InvalidOption, "/task_id", "differs from the id in the path");
        return Err(not_published(problem));
    }
    let only_new = request.headers().get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == b"*");
    if only_new && !query.dry_run.unwrap_or(false) && results::known(&api, &id.0).await? {
        let problem = Problem::new(Kind::PreconditionFailed, "a task with this id is known");
        return Err(not_published(problem).task(&id.0));
    }
    task.task_id = Some(id.0);
    Call::new(api, &query, prefer, &request).run(admission, task, &idempotency::Ids::RANDOM).await
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
pub struct Call {
    submitter: Submitter,
    dry_run: bool,
    wait: Option<Duration>,
    preferences: Preferences,
}

impl Call {
    /// The submission of a request.
    pub fn new(api: web::Data<Api>, query: &SubmitQuery, prefer: Prefer, request: &HttpRequest) -> Self {
        Call {
            dry_run: query.dry_run.unwrap_or(false),
            wait: results::wait_of(query.wait, prefer.0, api.limits.wait),
            preferences: prefer.0,
            submitter: Submitter::new(api, request).raw_priority(query.raw_priority),
        }
    }

    /// Submits under the request's idempotency key, if it has one.
    async fn run_once(
        self,
        request: &HttpRequest,
        text: &str,
        admission: Admission,
        task: SubmitTask,
    ) -> Result<HttpResponse, Problem> {
        if self.dry_run {
            idempotency::key(request)?;
            return self.run(admission, task, &idempotency::Ids::RANDOM).await;
        }
        let api = self.submitter.api().clone();
        let run = move |ids| async move { Ok((self.run(admission, task, &ids).await?, Settled::Done)) };
        idempotency::once(api, request, text, run).await
    }

    async fn run(
        &self,
        admission: Admission,
        task: SubmitTask,
        ids: &idempotency::Ids,
    ) -> Result<HttpResponse, Problem> {
        match self.place(admission, task, ids).await? {
            Placed::DryRun(shown) => Ok(HttpResponse::Ok().json(shown)),
            Placed::Queued(done) if done.deduplicated => self.deduplicated(&done).await,
            Placed::Queued(done) => self.accepted(done).await,
        }
    }

    /// Publishes, or shows what would be published.
    async fn place(
        &self,
        admission: Admission,
        mut task: SubmitTask,
        ids: &idempotency::Ids,
    ) -> Result<Placed, Problem> {
        let (id, identity) = match task.task_id.take() {
            Some(chosen) => (chosen, Identity::Chosen),
            None => (ids.id(0), ids.identity()),
        };
        let plan = self.submitter.plan(task, &id)?;
        if self.dry_run {
            return Ok(Placed::DryRun(DryRun::of(&plan)));
        }
        let done = self.submitter.publish(id, identity, plan).await?;
        // The broker has it: others may publish while this request waits.
        drop(admission);
        Ok(Placed::Queued(Box::new(done)))
    }

    async fn accepted(&self, done: Box<Done>) -> Result<HttpResponse, Problem> {
        let Done { id, record, mut warnings, .. } = *done;
        if let Some(limit) = self.wait.filter(|_| record.ignore_result != Some(true)) {
            match wait::until_ready(self.submitter.api(), &id, limit).await {
                Ok(Some(meta)) if meta.status.is_ready() => {
                    let mut task = view::task(&id, Some(&record), Some(&meta), Include::default());
                    task.handle.warnings = warnings;
                    return Ok(self.answer(StatusCode::OK, &id).json(task));
                }
                Ok(_) => {}
                // The task is queued all the same: a wait that cannot be had is a remark, not a failure.
                Err(problem) => {
                    warnings.push(Warning { code: problem.kind().slug(), detail: problem.to_string() });
                }
            }
        }
        let mut response = self.answer(StatusCode::ACCEPTED, &id);
        response.insert_header((header::RETRY_AFTER, retry_after(&record)));
        if self.preferences.minimal && warnings.is_empty() {
            return Ok(response.json(serde_json::json!({ "id": id })));
        }
        Ok(response.json(view::warned(view::handle(&id, Some(&record), "PENDING"), warnings)))
    }

    async fn deduplicated(&self, done: &Done) -> Result<HttpResponse, Problem> {
        let api = self.submitter.api();
        let read = match self.wait {
            Some(limit) => wait::until_ready(api, &done.id, limit).await,
            None => results::state(api, &done.id).await,
        };
        // It is queued, whether its state can be told or not.
        let meta = read.map_err(|problem| problem.outcome(Outcome::Published).task(&done.id))?;
        let mut task = view::task(&done.id, Some(&done.record), meta.as_ref(), Include::default());
        task.handle.deduplicated = true;
        Ok(self.answer(StatusCode::OK, &done.id).json(task))
    }

    fn answer(&self, status: StatusCode, id: &TaskId) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(status);
        response
            .insert_header((header::LOCATION, format!("/v1/tasks/{id}")))
            .insert_header((header::CACHE_CONTROL, "no-store"));
        let Preferences { wait, minimal } = self.preferences;
        results::preference_applied(&mut response, wait, minimal, self.submitter.api().limits.wait);
        response
    }
}

/// What became of a submission.
enum Placed {
    /// Shown, not published.
    DryRun(DryRun),
    /// A queue has it.
    Queued(Box<Done>),
}

/// How to call a task.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CallQuery {
    /// The queue.
    #[param(max_length = 255, example = "celery")]
    queue: Option<String>,
    /// Run no earlier than this many seconds from now.
    #[param(minimum = 0)]
    countdown: Option<f64>,
    /// Do not run after this many seconds from now.
    #[param(exclusive_minimum = 0, maximum = 4_294_967)]
    expires: Option<f64>,
    /// Priority.
    #[param(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// An id of the client's choice.
    #[param(pattern = "^[A-Za-z0-9._~:@+-]{1,200}$")]
    task_id: Option<String>,
    /// Publish nothing; answer with the exact message that would be published.
    dry_run: Option<bool>,
    /// Hold the answer up to this many seconds for the result. Default: 10.
    #[param(value_type = Option<f64>, minimum = 0, example = 10)]
    wait: Option<results::Wait>,
}

/// The result of a call.
#[derive(Serialize, utoipa::ToSchema)]
pub struct CallResult {
    /// The task.
    #[schema(example = "6f9c2b1e-4a5d-4b8e-9f3a-1c2d3e4f5a6b")]
    id: String,
    /// Always `SUCCESS`: a failure is answered with 424.
    #[schema(example = "SUCCESS")]
    state: String,
    /// Exactly as the worker stored it.
    #[schema(value_type = serde_json::Value)]
    result: Box<serde_json::value::RawValue>,
}

/// What a 200 to a call holds.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum CallAnswer {
    /// The result.
    #[schema(title = "result")]
    Result(CallResult),
    /// The message that would be published.
    #[schema(title = "dry run")]
    DryRun(DryRun),
}

/// How long a call waits that does not say.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// Calls a task and waits for its result: the body is the arguments, an object by name, an array by position.
#[utoipa::path(
    post,
    path = "/v1/call/{task}",
    tag = "tasks",
    operation_id = "call_task",
    params(
        ("task" = String, Path, description = "The task's name.", example = "demo.add"),
        CallQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds for the result."),
        ("Idempotency-Key" = Option<String>, Header, pattern = r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\-.-:<-\[\]-~]{1,255})$"#, description = "As for `POST /v1/tasks`."),
        ("traceparent" = Option<String>, Header, description = "As for `POST /v1/tasks`."),
    ),
    request_body(content = serde_json::Value, description = "The arguments; may be left out.", example = json!([2, 3])),
    responses(
        (status = 200, description = "The result. With `dry_run`: the message.", body = CallAnswer),
        (status = 202, description = "Queued; there is no result yet.", body = Handle,
            headers(("Location" = String, description = "The task's state."), ("Retry-After" = u64, description = "When to ask for it first."))),
        (status = 424, description = "The task has failed or was revoked: `error` says how.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        SubmitProblems,
    )
)]
pub async fn call(
    admission: Admission,
    api: web::Data<Api>,
    name: web::Path<String>,
    query: web::Query<CallQuery>,
    prefer: Prefer,
    body: crate::extract::OptionalJson,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let text = submission_of(&name, &query, body.0.as_ref());
    let task = SubmitTask::parse(&text).map_err(not_published)?;
    let wait = results::wait_of(query.wait, prefer.0, api.limits.wait);
    let waits = query.wait.is_some() || prefer.0.wait.is_some();
    let submit = SubmitQuery { dry_run: query.dry_run, ..SubmitQuery::default() };
    let mut call = Call::new(api, &submit, prefer, &request);
    call.wait = if waits { wait } else { Some(CALL_WAIT.min(call.submitter.api().limits.wait)) };
    if call.dry_run {
        idempotency::key(&request)?;
        return call.run(admission, task, &idempotency::Ids::RANDOM).await;
    }
    let api = call.submitter.api().clone();
    let run = move |ids| async move { call.result(admission, task, &ids).await };
    idempotency::once(api, &request, &text, run).await
}

impl Call {
    /// Submits, and answers with the bare result.
    async fn result(
        &self,
        admission: Admission,
        task: SubmitTask,
        ids: &idempotency::Ids,
    ) -> Result<(HttpResponse, Settled), Problem> {
        let Placed::Queued(done) = self.place(admission, task, ids).await? else {
            return Err(Problem::new(Kind::Internal, "a dry run has no result"));
        };
        let meta = match self.wait {
            Some(limit) => wait::until_ready(self.submitter.api(), &done.id, limit).await.unwrap_or_default(),
            None => None,
        };
        let response = match meta.filter(|meta| meta.status.is_ready()) {
            None => {
                let mut response = self.answer(StatusCode::ACCEPTED, &done.id);
                response.insert_header((header::RETRY_AFTER, retry_after(&done.record)));
                let mut handle = view::handle(&done.id, Some(&done.record), "PENDING");
                handle.deduplicated = done.deduplicated;
                response.json(view::warned(handle, done.warnings))
            }
            Some(meta) if meta.status == celery_protocol::result::TaskState::Success => {
                let state = meta.status.to_string();
                let result =
                    CallResult { id: done.id.to_string(), state, result: view::showable(&meta.result) };
                self.answer(StatusCode::OK, &done.id).json(result)
            }
            Some(meta) => {
                use actix_web::ResponseError;
                results::failure(&done.id, &meta).outcome(Outcome::Published).error_response()
            }
        };
        Ok((response, Settled::Done))
    }
}

/// A call as the body of a submission.
fn submission_of(name: &str, query: &CallQuery, body: Option<&JsonText>) -> String {
    let mut members = serde_json::Map::new();
    members.insert("task".to_owned(), name.into());
    let options = [
        ("queue", query.queue.clone().map(Into::into)),
        ("countdown", query.countdown.map(Into::into)),
        ("expires", query.expires.map(Into::into)),
        ("priority", query.priority.map(Into::into)),
        ("task_id", query.task_id.clone().map(Into::into)),
    ];
    members.extend(options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let mut text = serde_json::Value::Object(members).to_string();
    if let Some(body) = body.map(|body| body.as_str().trim()) {
        let member = if body.starts_with('[') { "args" } else { "kwargs" };
        text.pop();
        text.push_str(&format!(",\"{member}\":{body}}}"));
    }
    text
}

/// When to ask first: at once, or when the task may have run.
pub fn retry_after(record: &Record) -> HeaderValue {
    let eta =
        record.eta.as_deref().and_then(|eta| WireTime::parse(eta).ok()).map_or(0.0, WireTime::unix_seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=60")]
    let seconds = (eta - record.at).ceil().clamp(1.0, 60.0) as u64;
    HeaderValue::from(seconds)
}

/// Says that a refused submission was not published.
pub fn not_published(problem: Problem) -> Problem {
    problem.outcome(Outcome::NotPublished)
}
