//! Reading what became of tasks.

use std::time::Duration;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use celery_protocol::TaskId;
use celery_protocol::result::{ResultMeta, TaskState};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::openapi::ReadProblems;
use crate::dto::submit::hex;
use crate::dto::task::{Handle, Task};
use crate::extract::{PathId, Prefer};
use crate::json;
use crate::prefer::Preferences;
use crate::problem::{Kind, Problem};
use crate::state::Api;
use crate::submission::{Record, Stage};
use crate::view::{self, Include};
use crate::wait;

/// Names the task's state in answers whose body does not.
const TASK_STATE: HeaderName = HeaderName::from_static("x-task-state");
/// How long a deleted task is remembered as deleted.
const TOMBSTONE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many descendants one DELETE forgets.
const MAX_FORGOTTEN: usize = 1000;

/// How to read a task.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadQuery {
    /// Hold the answer up to this many seconds until the task has ended, as `Prefer: wait`.
    #[param(value_type = Option<f64>, minimum = 0, example = 2)]
    wait: Option<Wait>,
    /// What to show besides: `args` (if stored), `traceback`, `children`; separated by commas.
    #[param(
        pattern = "^((args|traceback|children)(,(args|traceback|children))*)?$",
        example = "args,traceback"
    )]
    include: Option<String>,
    /// Take an unknown id for a pending task of another program, as Celery does.
    assume_pending: Option<bool>,
}

/// The state of a task, whatever it is: a failed task is a 200 here.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    operation_id = "read_task",
    params(
        ("id" = String, Path, description = "The task's id.", pattern = "^[A-Za-z0-9._~:@+-]{1,200}$", example = "order-42"),
        ReadQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds until the task has ended.", example = "wait=2"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before: the answer is 304 if nothing has changed."),
    ),
    responses(
        (status = 200, description = "The task.", body = Task,
            headers(("ETag" = String, description = "Changes with the task's state."), ("Retry-After" = u64, description = "When to ask again, if it has not ended."))),
        (status = 304, description = "Nothing has changed."),
        ReadProblems,
    )
)]
pub async fn read(
    api: web::Data<Api>,
    id: PathId,
    query: web::Query<ReadQuery>,
    prefer: Prefer,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let id = id.0;
    let include = Include::parse(query.include.as_deref().unwrap_or_default())?;
    let limit = wait_of(query.wait, prefer.0, api.limits.wait);
    let found = find(&api, &id, query.assume_pending.unwrap_or(false), limit).await?;
    let task = view::task(&id, found.record.as_ref(), found.meta.as_ref(), include);
    let body = serde_json::to_vec(&task).map_err(|err| Problem::new(Kind::Internal, err.to_string()))?;
    let Task { handle, ready, .. } = &task;
    Ok(conditional(&request, &handle.state, *ready, body, |response| {
        preference_applied(response, prefer.0.wait, false, api.limits.wait);
        response.content_type("application/json");
    }))
}

/// How to read a result.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResultQuery {
    /// Hold the answer up to this many seconds until the task has ended, as `Prefer: wait`.
    #[param(value_type = Option<f64>, minimum = 0, example = 2)]
    wait: Option<Wait>,
    /// `200`: answer with the task when it has failed, rather than with 424.
    #[param(inline)]
    on_failure: Option<OnFailure>,
    /// Take an unknown id for a pending task of another program, as Celery does.
    assume_pending: Option<bool>,
}

/// How a failed task is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub enum OnFailure {
    /// With the task.
    #[serde(rename = "200")]
    Task,
    /// With a problem.
    #[serde(rename = "424")]
    Problem,
}

/// Seconds to wait: any number that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Wait(Duration);

impl TryFrom<f64> for Wait {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        match Duration::try_from_secs_f64(seconds) {
            Ok(wait) => Ok(Wait(wait)),
            // More than a duration can hold: it is capped anyway.
            Err(_) if seconds > 0.0 => Ok(Wait(Duration::MAX)),
            Err(_) => Err("wait must be a number of seconds, not negative"),
        }
    }
}

/// The bare result of a task, exactly as the worker stored it.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result",
    tag = "tasks",
    operation_id = "read_result",
    params(
        ("id" = String, Path, description = "The task's id.", pattern = "^[A-Za-z0-9._~:@+-]{1,200}$", example = "order-42"),
        ResultQuery,
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer up to N seconds until the task has ended.", example = "wait=2"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before: the answer is 304 if nothing has changed."),
    ),
    responses(
        (status = 200, description = "The result. With `on_failure=200` also the task, if it has failed.", body = serde_json::Value,
            headers(("X-Task-State" = String, description = "The task's state."), ("ETag" = String, description = "Identifies this result."))),
        (status = 202, description = "The task has not ended.", body = Handle,
            headers(("Retry-After" = u64, description = "When to ask again."))),
        (status = 304, description = "Nothing has changed."),
        (status = 409, description = "The task's result is not kept (`result-ignored`).", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 424, description = "The task has failed or was revoked: `error` says how.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn result(
    api: web::Data<Api>,
    id: PathId,
    query: web::Query<ResultQuery>,
    prefer: Prefer,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let id = id.0;
    let limit = wait_of(query.wait, prefer.0, api.limits.wait);
    let found = find(&api, &id, query.assume_pending.unwrap_or(false), limit).await?;
    let record = found.record.as_ref();
    let Some(meta) = found.meta.as_ref().filter(|meta| meta.status.is_ready()) else {
        if record.is_some_and(|record| record.ignore_result == Some(true)) {
            let detail = "it was submitted with ignore_result";
            return Err(Problem::new(Kind::ResultIgnored, detail).task(&id));
        }
        let state = found.meta.as_ref().map_or("PENDING", |meta| meta.status.as_str());
        let mut response = HttpResponse::Accepted();
        describe(&mut response, state, false);
        preference_applied(&mut response, prefer.0.wait, false, api.limits.wait);
        return Ok(response.json(view::handle(&id, record, state)));
    };
    let state = meta.status.as_str();
    if meta.status != TaskState::Success {
        if query.on_failure == Some(OnFailure::Task) {
            let task = view::task(&id, record, Some(meta), Include::default());
            let mut response = HttpResponse::Ok();
            describe(&mut response, state, true);
            return Ok(response.json(task));
        }
        return Err(failure(&id, meta));
    }
    let text = meta.result.get();
    // What Python stores as NaN is not JSON; it is passed on as the text that it is.
    let strict = json::check(text.as_bytes(), 1024).is_ok();
    let content_type = if strict { "application/json" } else { "text/plain; charset=utf-8" };
    Ok(conditional(&request, state, true, text.to_owned().into_bytes(), |response| {
        preference_applied(response, prefer.0.wait, false, api.limits.wait);
        response.content_type(content_type);
    }))
}

/// How to forget a task.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ForgetQuery {
    /// Even if the task has not ended; a worker may then write a result again.
    force: Option<bool>,
    /// Also forget the tasks that it started, and theirs.
    recursive: Option<bool>,
}

/// Forgets a task: deletes its result.
#[utoipa::path(
    delete,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    operation_id = "forget_task",
    params(("id" = String, Path, description = "The task's id.", pattern = "^[A-Za-z0-9._~:@+-]{1,200}$", example = "order-42"), ForgetQuery),
    responses(
        (status = 204, description = "Forgotten."),
        (status = 409, description = "The task has not ended.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn forget(
    api: web::Data<Api>,
    id: PathId,
    query: web::Query<ForgetQuery>,
) -> Result<HttpResponse, Problem> {
    let id = id.0;
    let found = find(&api, &id, false, None).await?;
    let ready = found.meta.as_ref().is_some_and(|meta| meta.status.is_ready());
    if !ready && !query.force.unwrap_or(false) {
        let detail = "a worker may yet write its result; wait, or add ?force=true";
        return Err(Problem::new(Kind::TaskNotFinished, detail).task(&id));
    }
    let backend = api.celery.backend();
    let mut pending = vec![id.clone()];
    let mut forgotten = 0;
    while let Some(next) = pending.pop() {
        if query.recursive.unwrap_or(false) && forgotten + pending.len() < MAX_FORGOTTEN {
            let meta = state(&api, &next).await?;
            pending.extend(meta.iter().flat_map(view::children).cloned());
        }
        backend.forget(&next).await.map_err(|err| Problem::from_backend(&err))?;
        forgotten += 1;
        if forgotten >= MAX_FORGOTTEN {
            break;
        }
    }
    bury(&api, &id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Leaves a mark in place of a task's record, for a while.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn bury(api: &Api, id: &TaskId) -> Result<(), Problem> {
    let Some(index) = api.celery.submissions() else { return Ok(()) };
    let tombstone = Record::forgotten(crate::clock::now().unix_seconds());
    index.put(id, &tombstone.encode(), TOMBSTONE).await.map_err(|err| Problem::from_backend(&err))?;
    index.unlist(std::slice::from_ref(id)).await.map_err(|err| Problem::from_backend(&err))
}

/// What is known of a task.
#[derive(Debug)]
pub struct Found {
    /// Of its submission.
    pub record: Option<Record>,
    /// Of its state.
    pub meta: Option<ResultMeta>,
}

/// Looks a task up, and waits for its end if asked to.
///
/// # Errors
/// `task-unknown`, `task-forgotten`, `result-backend-unavailable`, `too-many-waits`.
pub async fn find(
    api: &Api,
    id: &TaskId,
    assume_pending: bool,
    limit: Option<Duration>,
) -> Result<Found, Problem> {
    let (record, meta) = both(api, id).await?;
    let mut found = known_as(id, record, meta, assume_pending)?;
    let ready = found.meta.as_ref().is_some_and(|meta| meta.status.is_ready());
    let futile = found.record.as_ref().is_some_and(|record| record.ignore_result == Some(true));
    if let Some(limit) = limit.filter(|_| !ready && !futile) {
        found.meta = wait::until_ready(api, id, limit).await?.or(found.meta);
    }
    Ok(found)
}

/// What is known of a task, if anything is.
///
/// # Errors
/// `task-unknown`, `task-forgotten`.
pub fn known_as(
    id: &TaskId,
    record: Option<Record>,
    meta: Option<ResultMeta>,
    assume_pending: bool,
) -> Result<Found, Problem> {
    match (&record, &meta) {
        (None, None) if !assume_pending => {
            let detail = "it was never submitted here, or its record has expired";
            Err(Problem::new(Kind::TaskUnknown, detail).task(id))
        }
        (Some(record), None) if record.stage == Stage::Forgotten => {
            Err(Problem::new(Kind::TaskForgotten, "its result was deleted").task(id))
        }
        _ => Ok(Found { record: record.filter(|record| record.stage != Stage::Forgotten), meta }),
    }
}

/// The records of tasks, in the order of `ids`.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn records(api: &Api, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Problem> {
    let Some(index) = api.celery.submissions() else { return Ok(ids.iter().map(|_| None).collect()) };
    let records = index.get_many(ids).await.map_err(|err| Problem::from_backend(&err))?;
    Ok(records.into_iter().map(|bytes| bytes.and_then(|bytes| Record::decode(&bytes))).collect())
}

/// Whether anything is known of a task.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn known(api: &Api, id: &TaskId) -> Result<bool, Problem> {
    let (record, meta) = both(api, id).await?;
    Ok(meta.is_some() || record.is_some_and(|record| record.stage != Stage::Forgotten))
}

/// The task's state in the result backend.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn state(api: &Api, id: &TaskId) -> Result<Option<ResultMeta>, Problem> {
    api.celery.backend().get(id).await.map_err(|err| Problem::from_backend(&err))
}

/// The record of a task and its state.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn both(api: &Api, id: &TaskId) -> Result<(Option<Record>, Option<ResultMeta>), Problem> {
    futures_util::future::try_join(record(api, id), state(api, id)).await
}

async fn record(api: &Api, id: &TaskId) -> Result<Option<Record>, Problem> {
    let Some(index) = api.celery.submissions() else { return Ok(None) };
    let bytes = index.get(id).await.map_err(|err| Problem::from_backend(&err))?;
    Ok(bytes.and_then(|bytes| Record::decode(&bytes)))
}

/// How long to wait, if at all: the parameter before the header, and never longer than the server allows.
pub fn wait_of(parameter: Option<Wait>, preferences: Preferences, most: Duration) -> Option<Duration> {
    let wanted = parameter.map(|Wait(wait)| wait).or(preferences.wait);
    wanted.filter(|wanted| !wanted.is_zero()).map(|wanted| wanted.min(most))
}

/// Says which preferences were honoured.
pub fn preference_applied(
    response: &mut HttpResponseBuilder,
    wait: Option<Duration>,
    minimal: bool,
    most: Duration,
) {
    const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
    response.insert_header((header::VARY, "Prefer"));
    if let Some(wait) = wait {
        response.append_header((PREFERENCE_APPLIED, format!("wait={}", wait.min(most).as_secs())));
    }
    if minimal {
        response.append_header((PREFERENCE_APPLIED, "return=minimal"));
    }
}

/// The problem that a failed task is answered with.
pub fn failure(id: &TaskId, meta: &ResultMeta) -> Problem {
    let error = view::error(meta, false);
    let detail = match &error.r#type {
        Some(name) => format!("the task ended as {} with {name}", meta.status.as_str()),
        None => format!("the task ended as {}", meta.status.as_str()),
    };
    let kind = if meta.status == TaskState::Revoked { Kind::TaskRevoked } else { Kind::TaskFailed };
    let problem = Problem::new(kind, detail).task(id).error(serde_json::value::to_raw_value(&error).ok());
    match HeaderValue::from_str(meta.status.as_str()) {
        Ok(state) => problem.header(TASK_STATE, state),
        Err(_) => problem,
    }
}

/// An answer with an `ETag` of its state and body, or 304 if the client has it already. `describe_more` adds what both have.
pub fn conditional(
    request: &HttpRequest,
    state: &str,
    ready: bool,
    body: Vec<u8>,
    describe_more: impl FnOnce(&mut HttpResponseBuilder),
) -> HttpResponse {
    let tag = etag(state, &body);
    let matches = request.headers().get(header::IF_NONE_MATCH).is_some_and(|value| tag_in(value, &tag));
    let mut response = if matches { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    describe(&mut response, state, ready);
    response.insert_header((header::ETAG, tag));
    describe_more(&mut response);
    if matches { response.finish() } else { response.body(body) }
}

/// Caching and polling headers: an ended task does not change any more.
fn describe(response: &mut HttpResponseBuilder, state: &str, ready: bool) {
    if let Ok(state) = HeaderValue::from_str(state) {
        response.insert_header((TASK_STATE, state));
    }
    if ready {
        response.insert_header((header::CACHE_CONTROL, "private, max-age=60"));
    } else {
        response.insert_header((header::CACHE_CONTROL, "no-cache")).insert_header((header::RETRY_AFTER, "1"));
    }
}

fn etag(state: &str, body: &[u8]) -> String {
    format!("\"{}\"", mark(state, body))
}

/// A short text that is another one for another state or body.
pub fn mark(state: &str, body: &[u8]) -> String {
    let word: String = state.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{word}-{}", hex(&Sha256::digest(body)[..4]))
}

/// Whether `If-None-Match` names the tag.
fn tag_in(value: &HeaderValue, tag: &str) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',').map(str::trim).any(|given| given == "*" || given.trim_start_matches("W/") == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_capped_and_the_parameter_wins() {
        let most = Duration::from_secs(30);
        let prefer = |seconds| Preferences { wait: Some(Duration::from_secs(seconds)), minimal: false };
        let none = Preferences::default();
        assert_eq!(wait_of(None, none, most), None);
        assert_eq!(wait_of(None, prefer(100), most), Some(most));
        let wait = |seconds: f64| Some(Wait::try_from(seconds).expect("not negative"));
        assert_eq!(wait_of(wait(0.5), prefer(100), most), Some(Duration::from_millis(500)));
        assert_eq!(wait_of(wait(0.0), prefer(100), most), None);
        assert_eq!(wait_of(wait(1e308), none, most), Some(most));
        assert!(Wait::try_from(-1.0).is_err() && Wait::try_from(f64::NAN).is_err());
    }

    #[test]
    fn tags_match_in_lists_and_weakly() {
        let tag = etag("SUCCESS", b"4");
        assert!(tag.starts_with("\"SUCCESS-"));
        for (given, expected) in [
            (tag.clone(), true),
            (format!("\"a\", W/{tag}"), true),
            ("*".into(), true),
            ("\"a\"".into(), false),
        ] {
            assert_eq!(tag_in(&HeaderValue::from_str(&given).expect("header"), &tag), expected, "{given}");
        }
    }
}
