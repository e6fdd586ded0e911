//! What can be changed through the pages: `POST /api/v2/actions/{action}`, one address with one shape of answer for all.
//!
//! Each action is checked against the table in [`role`](crate::access::role), carried out, and written to the
//! [`audit`](crate::audit) log with what came of it; what was refused is written there too.

pub mod arguments;
pub mod bulk;
pub mod dead;
pub mod literal;
pub mod queues;
pub mod schedules;
mod tasks;
mod workers;

use actix_web::web::{self, Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use celery_broker::{BackendError, BrokerError, BrokerErrorKind, Celery};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::access::{self, Action, Role, Visitor};
use crate::audit::{Entry, Outcome};
use crate::clock;
use crate::error::Problem;
use crate::monitor::Monitor;

/// The most of a target that is written down.
const TARGETS_SHOWN: usize = 20;

/// What came of an action.
#[derive(Debug, Serialize)]
pub struct Report {
    action: &'static str,
    ok: bool,
    message: String,
    results: Vec<Done>,
}

/// What came of it for one worker, queue or task.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Done {
    target: String,
    ok: bool,
    said: Option<String>,
    /// The id of a task that was sent.
    task_id: Option<String>,
    /// How many messages it was about.
    count: Option<u64>,
}

impl Done {
    fn ok(target: impl Into<String>) -> Done {
        Done { target: target.into(), ok: true, ..Done::default() }
    }

    fn failed(target: impl Into<String>, said: impl Into<String>) -> Done {
        Done { target: target.into(), said: Some(said.into()), ..Done::default() }
    }
}

/// Who does what with what.
pub(crate) struct Doing<'a> {
    pub(crate) monitor: &'a Monitor,
    pub(crate) celery: &'a Celery,
    pub(crate) visitor: &'a Visitor,
    pub(crate) action: Action,
}

/// `POST /api/v2/actions/{action}`.
pub async fn act(
    monitor: Data<Monitor>,
    name: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let action =
        Action::named(&name).ok_or_else(|| Problem::not_found(format!("there is no action {name}")))?;
    let mut params: Value = serde_json::from_slice(&body).unwrap_or_default();
    monitor.redactor().json(&mut params);
    let visitor = match access::permit(monitor.control(), &request, action) {
        Ok(visitor) => visitor,
        Err(told) => {
            let visitor = Visitor::of(&request, monitor.control());
            note(
                &monitor,
                &visitor,
                &request,
                action.name(),
                target_of(&params),
                params,
                Outcome::Denied,
                Some(told.0.clone()),
            )
            .await;
            return Err(Problem::not_permitted(&told));
        }
    };
    let celery = monitor.celery().ok_or_else(Problem::no_broker)?;
    let doing = Doing { monitor: &monitor, celery, visitor: &visitor, action };
    let done = carry_out(&doing, &body).await;
    let (outcome, detail, target) = match &done {
        Ok(report) => {
            let outcome = if report.ok { Outcome::Ok } else { Outcome::Failed };
            (outcome, Some(report.told()), report.targets())
        }
        Err(problem) => (Outcome::Failed, Some(problem.to_string()), target_of(&params)),
    };
    note(&monitor, &visitor, &request, action.name(), target, params, outcome, detail).await;
    Ok(HttpResponse::Ok().json(done?))
}

async fn carry_out(doing: &Doing<'_>, body: &[u8]) -> Result<Report, Problem> {
    let (message, results) = match doing.action {
        Action::TaskRetry => tasks::retry(doing, read(body)?).await?,
        Action::TaskSend => tasks::send(doing, read(body)?).await?,
        Action::TaskRevoke => tasks::revoke(doing, read(body)?).await?,
        Action::TaskAbort => tasks::abort(doing, read(body)?).await?,
        Action::QueuePause => queues::pause(doing, read(body)?).await?,
        Action::QueueResume => queues::resume(doing, read(body)?).await?,
        Action::QueuePurge => queues::purge(doing, read(body)?).await?,
        Action::DeadLetterRequeue => dead::requeue(doing, read(body)?).await?,
        Action::DeadLetterDrop => dead::drop_letters(doing, read(body)?).await?,
        Action::ScheduleRun
        | Action::ScheduleEnable
        | Action::ScheduleDisable
        | Action::ScheduleEdit
        | Action::ScheduleRevert => schedules::change(doing, read(body)?).await?,
        _ => workers::order(doing, body).await?,
    };
    let ok = results.iter().all(|done| done.ok);
    Ok(Report { action: doing.action.name(), ok, message, results })
}

impl Report {
    fn targets(&self) -> String {
        let names: Vec<&str> = self.results.iter().take(TARGETS_SHOWN).map(|done| &*done.target).collect();
        let more = self.results.len().saturating_sub(TARGETS_SHOWN);
        if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
    }

    /// What is written down of it.
    fn told(&self) -> String {
        let new = self.results.iter().filter_map(|done| done.task_id.as_deref());
        let said = self.results.iter().filter(|done| !done.ok).filter_map(|done| done.said.as_deref());
        let all: Vec<&str> =
            std::iter::once(&*self.message).chain(new).chain(said).take(TARGETS_SHOWN).collect();
        all.join("; ")
    }
}

/// A body as it has to be.
pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Problem::bad_parameter("body", error))
}

/// What a request is about, as far as its body tells.
fn target_of(params: &Value) -> String {
    let text = |name: &str| params.get(name).and_then(Value::as_str).map(str::to_owned);
    let workers = params
        .get("workers")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).take(TARGETS_SHOWN).collect::<Vec<_>>().join(", "));
    text("id").or_else(|| text("queue")).or(workers).or_else(|| text("name")).unwrap_or_default()
}

/// Writes down what was done, or not.
#[expect(clippy::too_many_arguments, reason = "they are the columns of the log")]
pub(crate) async fn note(
    monitor: &Monitor,
    visitor: &Visitor,
    request: &HttpRequest,
    action: &str,
    target: String,
    params: Value,
    outcome: Outcome,
    detail: Option<String>,
) {
    let user = visitor.called().to_owned();
    tracing::info!(user, action, target, outcome = outcome.as_str(), detail, "audit");
    let Some(audit) = monitor.audit().cloned() else { return };
    let entry = Entry {
        at: clock::now(),
        user,
        role: visitor.role.as_str(),
        via: visitor.via.as_str(),
        address: request.peer_addr().map(|address| address.ip()),
        action: action.to_owned(),
        target,
        params,
        outcome,
        detail,
    };
    let written = web::block(move || audit.write(&entry)).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::error!(?written, "the audit log could not be written");
    }
}

/// Whoever wants to see this needs a role.
pub(crate) fn seen_by(
    monitor: &Monitor,
    request: &HttpRequest,
    role: Role,
    what: &str,
) -> Result<Visitor, Problem> {
    let visitor = Visitor::of(request, monitor.control());
    access::require(&visitor, role, what).map_err(|told| Problem::not_permitted(&told))?;
    Ok(visitor)
}

/// `GET /api/v2/audit`.
pub async fn audit(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    use crate::routes::parameters::{number, pairs, seconds, unknown};
    seen_by(&monitor, &request, Role::Operator, "the audit log")?;
    let mut query = crate::audit::Query { limit: 50, ..crate::audit::Query::default() };
    for (name, value) in pairs(&request)? {
        if value.is_empty() {
            continue;
        }
        match &*name {
            "user" => query.user = Some(value),
            "action" => query.action = Some(value),
            "target" => query.target = Some(value),
            "outcome" if matches!(&*value, "ok" | "failed" | "denied") => query.outcome = Some(value),
            "outcome" => return Err(Problem::bad_parameter(&name, "must be ok, failed or denied")),
            "since" => query.since = Some(seconds(&name, &value)?),
            "until" => query.until = Some(seconds(&name, &value)?),
            "limit" => query.limit = number(&name, &value)?.clamp(1, 1_000),
            "cursor" => {
                query.before =
                    Some(value.parse().map_err(|_| Problem::bad_parameter(&name, "is no cursor"))?);
            }
            _ => return Err(unknown(&name)),
        }
    }
    let audit = monitor.audit().cloned().ok_or_else(|| Problem::not_found("no audit log is kept here"))?;
    let read = web::block(move || audit.read(&query)).await.map_err(|error| Problem::history(&error))?;
    let (items, next) = read.map_err(|error| Problem::history(&error))?;
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next_cursor": next.map(|next| next.to_string()) })))
}

/// Why the broker did not take something.
pub(crate) fn broker(error: &BrokerError) -> Problem {
    match error.kind() {
        BrokerErrorKind::Encode | BrokerErrorKind::MessageTooLarge | BrokerErrorKind::Unroutable => {
            Problem::bad_parameter("body", error)
        }
        _ => Problem::unavailable(error),
    }
}

pub(crate) fn backend(error: &BackendError) -> Problem {
    Problem::unavailable(error)
}
