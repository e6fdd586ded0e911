//! Sending tasks and reading results as Flower's API does.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use celery_broker::{AsyncResult, BrokerErrorKind, Celery, GetError};
use celery_protocol::pyjson::null;
use celery_protocol::{ResultMeta, Signature, TaskId, TaskName, TaskState, WireTime};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::answer::Refused;
use super::control::{message, permitted, require_task};
use super::lists::JSON;
use super::parameters::Parameters;
use crate::access::Action;
use crate::monitor::Monitor;
use crate::redact::Redactor;

/// The longest that a request waits for a result. Flower waits for ever, on one of five threads.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is told of a task that was sent, or of a result.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(rename = "task-id")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    /// `null` is shown where a failed task has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

impl Told {
    fn new(id: &TaskId) -> Told {
        Told { id: id.to_string(), result: None, traceback: None, state: None }
    }

    fn with_state(mut self, state: &TaskState) -> Told {
        self.state = Some(state.as_str().to_owned());
        self
    }

    fn with_result(mut self, meta: &ResultMeta, redactor: &Redactor) -> Told {
        // A failure is stored as a description of the exception; Flower shows Python's repr of it.
        let exception = meta.exception().filter(|_| meta.status.is_exception());
        self.result = Some(match exception {
            Some(exception) => to_raw_value(&exception.repr()).unwrap_or_else(|_| null()),
            None => {
                let cleaned = redactor.text(meta.result.get()).map(RawValue::from_string);
                cleaned.and_then(Result::ok).unwrap_or_else(|| meta.result.clone())
            }
        });
        if meta.status == TaskState::Failure {
            self.traceback = Some(meta.traceback.clone());
        }
        self
    }

    fn answer(&self) -> HttpResponse {
        HttpResponse::Ok().content_type(JSON).json(self)
    }
}

/// A body: arguments, and options of `apply_async`.
#[derive(Debug)]
struct Call {
    signature: Signature,
    timeout: Option<Duration>,
}

impl Call {
    /// Reads a body, whatever it says its content type is: `curl -d` says that it is a form.
    fn read(task: &str, body: &[u8]) -> Result<Call, Refused> {
        let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let value: &RawValue =
            serde_json::from_slice(text).map_err(|error| Refused::bad(error.to_string()))?;
        let mut options: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(value.get()).map_err(|_| Refused::bad("invalid options"))?;
        // Many clients nest them, and Flower then ignores them without a word.
        if let Some(nested) = options.remove("options") {
            let nested: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(nested.get()).map_err(|_| Refused::bad("invalid options"))?;
            options.extend(nested);
        }
        let args = options.remove("args");
        if args.as_ref().is_some_and(|args| !args.get().starts_with('[')) {
            return Err(Refused::bad("args must be an array"));
        }
        let kwargs = options.remove("kwargs");
        if kwargs.as_ref().is_some_and(|kwargs| !kwargs.get().starts_with('{')) {
            return Err(Refused::bad("kwargs must be an object"));
        }
        let timeout = options.remove("timeout").filter(|value| value.get() != "null");
        let timeout = timeout.map(|value| number(&value).ok_or_else(|| Refused::bad("Invalid timeout")));
        let timeout = timeout.transpose()?.map(|seconds| {
            Duration::try_from_secs_f64(seconds.max(0.0)).map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT))
        });
        normalise(&mut options)?;
        let task =
            TaskName::parse(task).map_err(|error| Refused::bad(format!("Invalid task name: {error}")))?;
        let mut signature = Signature::new(task);
        let parts = to_raw_value(&Parts { task: signature.task.as_str(), args, kwargs, options })
            .map_err(|error| Refused::bad(format!("Invalid option: {error}")))?;
        signature = Signature::from_json(parts.get())
            .map_err(|error| Refused::bad(format!("Invalid option: {error}")))?;
        Ok(Call { signature, timeout })
    }
}

#[derive(Serialize)]
struct Parts<'a> {
    task: &'a str,
    args: Option<Box<RawValue>>,
    kwargs: Option<Box<RawValue>>,
    options: BTreeMap<String, Box<RawValue>>,
}

/// Times and durations as Flower takes them, made into what Celery's signatures hold.
fn normalise(options: &mut BTreeMap<String, Box<RawValue>>) -> Result<(), Refused> {
    let invalid = || Refused::bad("Invalid option");
    if let Some(eta) = options.get_mut("eta").filter(|eta| eta.get() != "null") {
        *eta = point_in_time(eta).ok_or_else(invalid)?;
    }
    if let Some(countdown) = options.get_mut("countdown").filter(|countdown| countdown.get() != "null") {
        let seconds = number(countdown).filter(|seconds| seconds.is_finite()).ok_or_else(invalid)?;
        *countdown = to_raw_value(&seconds).map_err(|_| invalid())?;
    }
    if let Some(expires) = options.get_mut("expires").filter(|expires| expires.get() != "null") {
        *expires = match number(expires) {
            Some(seconds) if seconds.is_finite() => to_raw_value(&seconds).map_err(|_| invalid())?,
            Some(_) => return Err(invalid()),
            None => point_in_time(expires).ok_or_else(invalid)?,
        };
    }
    Ok(())
}

/// A number, or a text that is one.
fn number(value: &RawValue) -> Option<f64> {
    match serde_json::from_str(value.get()).ok()? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Flower's `2026-11-24 02:00:00.000000`; without a zone it is in UTC. ISO 8601 is understood too.
fn point_in_time(value: &RawValue) -> Option<Box<RawValue>> {
    let text: String = serde_json::from_str(value.get()).ok()?;
    let time = WireTime::parse(&text.trim().replacen(' ', "T", 1)).ok()?;
    to_raw_value(&time.to_string()).ok()
}

async fn send(celery: &Celery, call: Call) -> Result<AsyncResult<Value>, Refused> {
    celery.send(call.signature).await.map_err(|error| match error.kind() {
        BrokerErrorKind::Encode | BrokerErrorKind::MessageTooLarge | BrokerErrorKind::Unroutable => {
            Refused::bad(format!("The task can't be sent: {error}"))
        }
        _ => Refused::from(error),
    })
}

fn has_backend(celery: &Celery) -> bool {
    celery.backend().name() != "disabled"
}

/// `POST /api/task/apply/{name}`: sends a task and waits for its result.
pub(super) async fn apply(
    monitor: Data<Monitor>,
    task: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskSend)?;
    let call = Call::read(&task, &body)?;
    require_task(&monitor, &task)?;
    if !has_backend(celery) {
        return Err(Refused::no_backend());
    }
    let timeout = call.timeout.unwrap_or(LONGEST_WAIT);
    let result = send(celery, call).await?;
    let told = Told::new(result.id());
    match result.wait(timeout).await {
        Ok(meta) => Ok(told.with_result(&meta, monitor.redactor()).with_state(&meta.status).answer()),
        Err(GetError::Timeout) => Ok(told.with_state(&state_now(&result).await).answer()),
        Err(error) => {
            tracing::warn!(%error, task = %result.id(), "the result of a task that was sent could not be waited for");
            Ok(told.with_state(&TaskState::Pending).answer())
        }
    }
}

/// `POST /api/task/async-apply/{name}`: sends a task that some worker knows.
pub(super) async fn async_apply(
    monitor: Data<Monitor>,
    task: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskSend)?;
    let call = Call::read(&task, &body)?;
    require_task(&monitor, &task)?;
    sent(celery, call).await
}

/// `POST /api/task/send-task/{name}`: sends a task, whether or not anybody knows it.
pub(super) async fn send_task(
    monitor: Data<Monitor>,
    task: Path<String>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskSend)?;
    sent(celery, Call::read(&task, &body)?).await
}

async fn sent(celery: &Celery, call: Call) -> Result<HttpResponse, Refused> {
    tracing::info!(task = call.signature.task.as_str(), "send");
    let result = send(celery, call).await?;
    let told = Told::new(result.id());
    Ok(if has_backend(celery) { told.with_state(&state_now(&result).await).answer() } else { told.answer() })
}

/// The state of a task that was sent. It is pending for all that can be told while the backend can't be asked: whoever
/// sent it must get its id, and must not send it again.
async fn state_now(result: &AsyncResult<Value>) -> TaskState {
    result.state().await.unwrap_or_else(|error| {
        tracing::warn!(%error, task = %result.id(), "the state of a task that was sent could not be read");
        TaskState::Pending
    })
}

/// `GET /api/task/result/{id}?timeout=`.
pub(super) async fn result(
    monitor: Data<Monitor>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Refused> {
    let timeout = Parameters::of(&request)?.float("timeout")?.filter(|timeout| *timeout > 0.0);
    let celery = monitor.celery().filter(|celery| has_backend(celery)).ok_or_else(Refused::no_backend)?;
    let result: AsyncResult<Value> = celery.result(task_id(&id)?);
    let mut meta = result.meta().await?;
    if let Some(timeout) = timeout
        && !meta.as_ref().is_some_and(|meta| meta.status.is_ready())
    {
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        match result.wait(timeout).await {
            Ok(found) => meta = Some(found),
            Err(GetError::Timeout) => {}
            Err(error) => return Err(Refused::unavailable(&error)),
        }
    }
    let told = Told::new(result.id());
    Ok(match meta {
        Some(meta) if meta.status.is_ready() => {
            told.with_result(&meta, monitor.redactor()).with_state(&meta.status)
        }
        Some(meta) => told.with_state(&meta.status),
        None => told.with_state(&TaskState::Pending),
    }
    .answer())
}

/// `POST /api/task/abort/{id}`: asks a task that looks for it (Celery's `AbortableTask`) to end itself.
pub(super) async fn abort(
    monitor: Data<Monitor>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Refused> {
    let celery = permitted(&monitor, &request, Action::TaskAbort)?;
    if !has_backend(celery) {
        return Err(Refused::no_backend());
    }
    tracing::info!(task = &**id, "abort");
    let aborted = ResultMeta::new(task_id(&id)?, TaskState::from("ABORTED"), null());
    celery.backend().store(&aborted).await?;
    Ok(message(format!("Aborted '{id}'")))
}

fn task_id(id: &str) -> Result<TaskId, Refused> {
    TaskId::parse(id).map_err(|error| Refused::bad(format!("Invalid task id: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        Call::read("demo.add", body.as_bytes())
            .map_or_else(|error| error.to_string(), |call| format!("{call:?}"))
    }

    #[test]
    fn bodies_are_read_as_flower_reads_them() {
        let body = br#"{"args": [1, 100000000000000000000000], "kwargs": {"x": null}, "countdown": "3",
            "eta": "2026-11-24 02:00:00.500000", "timeout": "0.5", "options": {"queue": "slow"}}"#;
        let call = Call::read("demo.add", body).expect("sound");
        assert_eq!(call.timeout, Some(Duration::from_millis(500)));
        let json = call.signature.to_raw();
        let expected =
            ["[1, 100000000000000000000000]", "\"x\": null", "3.0", "2026-11-24T02:00:00.5", "\"slow\""];
        for part in expected {
            assert!(
                json.get().replace(",", ", ").replace(",  ", ", ").contains(part),
                "{part} in {}",
                json.get()
            );
        }
        assert!(Call::read("demo.add", b"").is_ok(), "no body is no arguments");
    }

    #[test]
    fn mistakes_are_told_in_flowers_words() {
        for (body, told) in [
            ("[]", "invalid options"),
            (r#"{"args": {"a": 1}}"#, "args must be an array"),
            (r#"{"kwargs": []}"#, "kwargs must be an object"),
            (r#"{"timeout": "soon"}"#, "Invalid timeout"),
            (r#"{"eta": "tomorrow"}"#, "Invalid option"),
            (r#"{"expires": "x"}"#, "Invalid option"),
            (r#"{"countdown": "nan"}"#, "Invalid option"),
        ] {
            assert_eq!(refused(body), told, "{body}");
        }
        assert!(refused("{").contains("EOF"), "{}", refused("{"));
    }
}
