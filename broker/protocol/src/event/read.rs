//! JSON to events, leniently.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{
    Event, EventBody, TaskEvent, TaskEventKind, TaskFields, WorkerEvent, WorkerEventKind, WorkerStatus,
};
use crate::pyjson;

/// Node names, types and task names longer than this are cut.
const MAX_NAME: usize = 255;
/// Representations, tracebacks and other texts longer than this are cut, in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// Unknown fields kept per event.
const MAX_EXTRA: usize = 64;
/// Events in one message.
const MAX_BATCH: usize = 10_000;

/// Why something on the event exchange is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event: {0}")]
pub struct EventError(String);

/// Reads the body of an event message: one object or an array of objects.
///
/// Each object stands for itself: what is no event is an error in its place and costs the others nothing.
///
/// # Errors
/// The body is not JSON, or neither an object nor an array, or holds more than 10,000 events.
pub fn decode(body: &[u8]) -> Result<Vec<Result<Event, EventError>>, EventError> {
    let text = std::str::from_utf8(body).map_err(|_| EventError("not UTF-8".into()))?;
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => Ok(vec![one(text)]),
        Some(b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_str(text).map_err(|error| EventError(error.to_string()))?;
            if items.len() > MAX_BATCH {
                return Err(EventError(format!("{} events in one message", items.len())));
            }
            Ok(items.into_iter().map(|item| one(item.get())).collect())
        }
        _ => Err(EventError("neither an object nor an array".into())),
    }
}

fn one(text: &str) -> Result<Event, EventError> {
    let flat: Flat = serde_json::from_str(text).map_err(|error| EventError(error.to_string()))?;
    flat.into_event().map_err(|problem| EventError(problem.to_owned()))
}

/// All fields of all types, as they come.
#[derive(Default)]
struct Flat {
    kind: Option<String>,
    hostname: Option<String>,
    utcoffset: Option<f64>,
    pid: Option<i64>,
    clock: Option<u64>,
    timestamp: Option<f64>,
    uuid: Option<String>,
    task: TaskFields,
    worker: WorkerStatus,
    extra: Map<String, Value>,
}

impl Flat {
    fn into_event(self) -> Result<Event, &'static str> {
        let kind = self.kind.filter(|kind| !kind.is_empty()).ok_or("type is missing")?;
        let body = if let Some(suffix) = kind.strip_prefix("task-") {
            let uuid = self.uuid.filter(|uuid| !uuid.is_empty()).ok_or("uuid is missing")?;
            if uuid.len() > MAX_NAME {
                return Err("uuid is too long");
            }
            let fields = TaskFields { extra: self.extra, ..self.task };
            TaskEvent { kind: TaskEventKind::from_suffix(suffix), uuid, fields }.into()
        } else if kind.starts_with("worker-") {
            let status = WorkerStatus { extra: self.extra, ..self.worker };
            WorkerEvent { kind: WorkerEventKind::from_type(&kind), status }.into()
        } else {
            let mut fields = self.extra;
            if let Some(uuid) = self.uuid {
                fields.insert("uuid".into(), uuid.into());
            }
            EventBody::Other { kind, fields }
        };
        Ok(Event {
            hostname: self.hostname.unwrap_or_default(),
            utcoffset: self.utcoffset.filter(|hours| hours.abs() <= 26.0).unwrap_or(0.0),
            pid: self.pid,
            clock: self.clock.unwrap_or(0),
            timestamp: self.timestamp.filter(|time| *time >= 0.0).unwrap_or(f64::NAN),
            body,
        })
    }
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FlatVisitor)
    }
}

struct FlatVisitor;

impl<'de> Visitor<'de> for FlatVisitor {
    type Value = Flat;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Flat, A::Error> {
        let mut flat = Flat::default();
        while let Some(Name(name)) = map.next_key()? {
            let raw: &RawValue = map.next_value()?;
            let raw = raw.get();
            match name.as_ref() {
                "type" => flat.kind = text(raw, MAX_NAME),
                "hostname" => flat.hostname = text(raw, MAX_NAME),
                "utcoffset" => flat.utcoffset = number(raw),
                "pid" => flat.pid = raw.parse().ok(),
                "clock" => flat.clock = raw.parse().ok(),
                "timestamp" => flat.timestamp = number(raw),
                "uuid" => flat.uuid = text(raw, MAX_TEXT),
                "name" => flat.task.name = text(raw, MAX_NAME),
                "args" => flat.task.args = text(raw, MAX_TEXT),
                "kwargs" => flat.task.kwargs = text(raw, MAX_TEXT),
                "root_id" => flat.task.root_id = text(raw, MAX_NAME),
                "parent_id" => flat.task.parent_id = text(raw, MAX_NAME),
                "retries" => flat.task.retries = raw.parse().ok(),
                "eta" => flat.task.eta = text(raw, MAX_NAME),
                "expires" => flat.task.expires = text(raw, MAX_NAME),
                "queue" => flat.task.queue = text(raw, MAX_NAME),
                "exchange" => flat.task.exchange = text(raw, MAX_NAME),
                "routing_key" => flat.task.routing_key = text(raw, MAX_NAME),
                "result" => flat.task.result = text(raw, MAX_TEXT),
                "runtime" => flat.task.runtime = number(raw),
                "exception" => flat.task.exception = text(raw, MAX_TEXT),
                "traceback" => flat.task.traceback = text(raw, MAX_TEXT),
                "terminated" => flat.task.terminated = raw.parse().ok(),
                "signum" => flat.task.signum = value(raw).filter(|value| !value.is_null()),
                "expired" => flat.task.expired = raw.parse().ok(),
                "requeue" => flat.task.requeue = raw.parse().ok(),
                "freq" => flat.worker.freq = number(raw),
                "active" => flat.worker.active = raw.parse().ok(),
                "processed" => flat.worker.processed = raw.parse().ok(),
                "loadavg" => flat.worker.loadavg = serde_json::from_str(raw).ok(),
                "sw_ident" => flat.worker.sw_ident = text(raw, MAX_NAME),
                "sw_ver" => flat.worker.sw_ver = text(raw, MAX_NAME),
                "sw_sys" => flat.worker.sw_sys = text(raw, MAX_NAME),
                _ if flat.extra.len() < MAX_EXTRA && name.len() <= MAX_NAME && raw.len() <= MAX_TEXT => {
                    if let Some(value) = value(raw) {
                        flat.extra.insert(name.into_owned(), value);
                    }
                }
                _ => {}
            }
        }
        Ok(flat)
    }
}

/// A key, copied only when it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// A string, or the JSON text of anything else but null; cut at `limit` bytes.
fn text(raw: &str, limit: usize) -> Option<String> {
    if raw == "null" {
        return None;
    }
    let mut text = match raw.as_bytes().first() {
        Some(b'"') => pyjson::from_str::<String>(raw).or_else(|_| serde_json::from_str(raw)).ok()?,
        _ => raw.to_owned(),
    };
    if text.len() > limit {
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    Some(text)
}

/// A finite number.
fn number(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|number: &f64| number.is_finite())
}

fn value(raw: &str) -> Option<Value> {
    serde_json::from_str(raw).ok()
}
