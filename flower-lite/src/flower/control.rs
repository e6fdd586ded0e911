//! Controlling workers and tasks as Flower's API does. Each action is logged, with who was asked and what came of it.

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data, Path};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use celery_broker::Celery;
use celery_broker::control::Destination;
use celery_protocol::control::{Command, NewQueue};
use serde_json::{Value, json};

use super::answer::Refused;
use super::lists::JSON;
use super::parameters::Parameters;
use crate::access::{self, Action, Visitor};
use crate::actions;
use crate::audit::Outcome;
use crate::monitor::Monitor;

/// How long a worker may take to answer; Celery's.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a request tried to do; left with it, so that it can be written down once it is answered.
#[derive(Clone, Copy)]
struct Attempt {
    action: Action,
    denied: bool,
}

/// Writes down in the audit log what was done through Flower's API.
///
/// # Errors
/// Those of the inner service.
pub(crate) async fn audited<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let response = next.call(request).await?;
    let request = response.request();
    let attempt = request.extensions().get::<Attempt>().copied();
    let (Some(Attempt { action, denied }), Some(monitor)) = (attempt, request.app_data::<Data<Monitor>>())
    else {
        return Ok(response);
    };
    let visitor = Visitor::of(request, monitor.control());
    let target =
        request.match_info().get("name").or_else(|| request.match_info().get("id")).unwrap_or_default();
    let outcome = match (denied, response.status().is_success()) {
        (true, _) => Outcome::Denied,
        (false, true) => Outcome::Ok,
        (false, false) => Outcome::Failed,
    };
    let params = json!({ "query": request.query_string() });
    let detail = format!("{} by Flower's API", response.status().as_u16());
    actions::note(
        monitor,
        &visitor,
        request,
        action.name(),
        target.to_owned(),
        params,
        outcome,
        Some(detail),
    )
    .await;
    Ok(response)
}

/// The client to control with, if this request may.
pub(super) fn permitted<'a>(
    monitor: &'a Monitor,
    request: &HttpRequest,
    action: Action,
) -> Result<&'a Celery, Refused> {
    let permitted = access::permit(monitor.control(), request, action);
    request.extensions_mut().insert(Attempt { action, denied: permitted.is_err() });
    permitted.map_err(|told| Refused::forbidden(told.0))?;
    monitor.celery().ok_or_else(|| Refused::unavailable(&"this monitor has no broker"))
}

pub(super) fn message(text: impl Into<String>) -> HttpResponse {
    HttpResponse::Ok().content_type(JSON).json(json!({ "message": text.into() }))
}

fn require_worker(monitor: &Monitor, worker: &str) -> Result<(), Refused> {
    let known = monitor.answers().knows(worker) || monitor.state().worker(worker).is_some();
    if known { Ok(()) } else { Err(Refused::unknown("worker", worker)) }
}

pub(super) fn require_task(monitor: &Monitor, task: &str) -> Result<(), Refused> {
    let known = monitor.answers().registers(task) || monitor.state().tasks().named(task).is_some();
    if known { Ok(()) } else { Err(Refused::unknown("task", task)) }
}

/// What a worker said to a command: `Ok` with its words if it did it.
async fn ask(celery: &Celery, worker: &str, command: &Command) -> Result<Result<String, String>, Refused> {
    tracing::info!(worker, ?command, "control");
    let to = Destination::Nodes(vec![worker.to_owned()]);
    let replies = celery.control().call(command, to, PATIENCE).await?;
    let reply = replies.into_iter().find(|reply| reply.node == worker).map(|reply| reply.value);
    let outcome = match &reply {
        None => Err("Unknown reason".to_owned()),
        Some(value) => match (value.get("ok"), value.get("error")) {
            (Some(ok), _) => Ok(words(ok)),
            (None, Some(error)) => Err(words(error)),
            (None, None) => Err("Unknown reason".to_owned()),
        },
    };
    if let Err(reason) = &outcome {
        tracing::warn!(worker, ?command, reason, "a worker did not do as it was told");
    }
    Ok(outcome)
}

/// The same as an answer: the worker's words, or 403 with what failed and why.
async fn asked(
    celery: &Celery,
    worker: &str,
    command: &Command,
    failed: impl FnOnce(String) -> String,
) -> Result<HttpResponse, Refused> {
    ask(celery, worker, command).await?.map(message).map_err(|reason| Refused::forbidden(failed(reason)))
}

fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `POST /api/worker/shutdown/{name}`.
pub(super) async fn shutdown(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::WorkerShutdown)?;
    require_worker(&monitor, &worker)?;
    tracing::info!(worker = &**worker, "shutdown");
    celery.control().cast(&Command::Shutdown, Destination::Nodes(vec![worker.to_string()])).await?;
    Ok(message("Shutting down!"))
}

/// `POST /api/worker/pool/restart/{name}`.
pub(super) async fn restart(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::PoolRestart)?;
    require_worker(&monitor, &worker)?;
    match ask(celery, &worker, &Command::PoolRestart).await? {
        Ok(_) => Ok(message(format!("Restarting '{worker}' worker's pool"))),
        Err(reason) => Err(Refused::forbidden(format!("Failed to restart the '{worker}' pool: {reason}"))),
    }
}

/// `POST /api/worker/pool/grow/{name}?n=`.
pub(super) async fn grow(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    resize(&monitor, &worker, &request, &body, ("Growing", "grow", Action::PoolGrow), |n| Command::PoolGrow {
        n,
    })
    .await
}

/// `POST /api/worker/pool/shrink/{name}?n=`.
pub(super) async fn shrink(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    resize(&monitor, &worker, &request, &body, ("Shrinking", "shrink", Action::PoolShrink), |n| {
        Command::PoolShrink { n }
    })
    .await
}

async fn resize(
    monitor: &Monitor,
    worker: &str,
    request: &HttpRequest,
    body: &[u8],
    (doing, to_do, action): (&str, &str, Action),
    command: impl Fn(u32) -> Command,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(monitor, request, action)?;
    require_worker(monitor, worker)?;
    let n = count(&Parameters::read(request, body)?, "n")?.unwrap_or(1);
    match ask(celery, worker, &command(n)).await? {
        Ok(_) => Ok(message(format!("{doing} '{worker}' worker's pool by {n}"))),
        Err(reason) => {
            Err(Refused::forbidden(format!("Failed to {to_do} '{worker}' worker's pool: {reason}")))
        }
    }
}

fn count(parameters: &Parameters, name: &str) -> Result<Option<u32>, Refused> {
    let number = parameters.integer(name)?;
    let small = |number: i64| {
        u32::try_from(number)
            .map_err(|_| Refused::bad(format!("{name} must be a number from 0 to {}", u32::MAX)))
    };
    number.map(small).transpose()
}

/// `POST /api/worker/pool/autoscale/{name}?min=&max=`.
pub(super) async fn autoscale(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::Autoscale)?;
    require_worker(&monitor, &worker)?;
    let parameters = Parameters::read(&request, &body)?;
    parameters.required("min")?;
    parameters.required("max")?;
    let (min, max) = (count(&parameters, "min")?, count(&parameters, "max")?);
    match ask(celery, &worker, &Command::Autoscale { max, min }).await? {
        Ok(_) => {
            let (min, max) = (min.unwrap_or(0), max.unwrap_or(0));
            Ok(message(format!("Autoscaling '{worker}' worker (min={min}, max={max})")))
        }
        Err(reason) => Err(Refused::forbidden(format!("Failed to autoscale '{worker}' worker: {reason}"))),
    }
}

/// `POST /api/worker/queue/add-consumer/{name}?queue=`.
pub(super) async fn add_consumer(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::AddConsumer)?;
    require_worker(&monitor, &worker)?;
    let parameters = Parameters::read(&request, &body)?;
    let queue = parameters.required("queue")?.to_owned();
    let new = NewQueue { queue, exchange: None, exchange_type: "direct".into(), routing_key: None };
    let name = new.queue.clone();
    let failed = |reason| format!("Failed to add '{name}' consumer to '{worker}' worker: {reason}");
    asked(celery, &worker, &Command::AddConsumer(new), failed).await
}

/// `POST /api/worker/queue/cancel-consumer/{name}?queue=`.
pub(super) async fn cancel_consumer(
    monitor: Data<Monitor>,
    worker: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::CancelConsumer)?;
    require_worker(&monitor, &worker)?;
    let parameters = Parameters::read(&request, &body)?;
    let queue = parameters.required("queue")?.to_owned();
    let command = Command::CancelConsumer { queue: queue.clone() };
    let failed = |reason| format!("Failed to cancel '{queue}' consumer from '{worker}' worker: {reason}");
    asked(celery, &worker, &command, failed).await
}

/// `POST /api/task/revoke/{id}?terminate=&signal=`.
pub(super) async fn revoke(
    monitor: Data<Monitor>,
    id: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskRevoke)?;
    let parameters = Parameters::read(&request, &body)?;
    let terminate = parameters.flag("terminate")?;
    let signal = parameters.text("signal").unwrap_or("SIGTERM").to_owned();
    tracing::info!(task = &**id, terminate, signal, "revoke");
    let command = Command::Revoke { ids: vec![id.to_string()], terminate, signal: Some(signal) };
    celery.control().cast(&command, Destination::All).await?;
    Ok(message(format!("Revoked '{id}'")))
}

/// `POST /api/task/timeout/{name}` with `workername`, `soft`, `hard`.
pub(super) async fn timeout(
    monitor: Data<Monitor>,
    task: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskTimeLimit)?;
    let parameters = Parameters::read(&request, &body)?;
    let worker = parameters.required("workername")?;
    let (hard, soft) = (parameters.float("hard")?, parameters.float("soft")?);
    require_task(&monitor, &task)?;
    require_worker(&monitor, worker)?;
    let command = Command::TimeLimit { task_name: task.to_string(), hard, soft };
    asked(celery, worker, &command, |reason| format!("Failed to set timeouts: '{reason}'")).await
}

/// `POST /api/task/rate-limit/{name}` with `workername`, `ratelimit`.
pub(super) async fn rate_limit(
    monitor: Data<Monitor>,
    task: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskRateLimit)?;
    let parameters = Parameters::read(&request, &body)?;
    let worker = parameters.required("workername")?;
    let limit = parameters.required("ratelimit")?.to_owned();
    require_task(&monitor, &task)?;
    require_worker(&monitor, worker)?;
    let command = Command::RateLimit { task_name: task.to_string(), rate_limit: Some(limit) };
    asked(celery, worker, &command, |reason| format!("Failed to set rate limit: '{reason}'")).await
}
