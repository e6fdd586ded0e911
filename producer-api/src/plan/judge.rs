//! Judges the values of a submission, each with a reason and its place. Pure.

use std::time::Duration;

use celery_broker::route::Target;
use celery_protocol::content::Compression;
use celery_protocol::message::Headers;
use celery_protocol::options::Serializer;
use celery_protocol::{QueueName, TaskName, TimeLimits, WireTime};
use serde_json::{Map, Value};

use super::{Context, Unique};
use crate::dto::form::escaped;
use crate::dto::submit::{Expires, SubmitTask};
use crate::policy::{self, Policy};
use crate::problem::{FieldError, Kind, Problem};

/// AMQP takes an expiration of at most this many milliseconds.
const MAX_EXPIRATION_MS: u128 = u32::MAX as u128;
/// The longest that a client may let the broker take.
const MAX_PUBLISH_TIMEOUT: f64 = 30.0;
/// Bytes of `meta`, as JSON.
const MAX_META: usize = 4096;
/// The longest that a dedupe key is held, and how long it is when the submission does not say.
const MAX_DEDUPE: Duration = Duration::from_secs(30 * 86_400);
const DEDUPE: Duration = Duration::from_secs(86_400);
/// Besides the headers of the protocol: those that have a member of the body of their own, and those that the broker,
/// Celery or this server sets.
const RESERVED: [&str; 7] =
    ["celery_beat_task", "meth", "reply_to", "correlation_id", "delivery_info", "traceparent", "tracestate"];
/// What the broker writes when it dead-letters.
const DEATHS: [&str; 3] = ["x-death", "x-first-death", "x-last-death"];
/// What the values mean, once all of them make sense.
pub(super) struct Judged {
    pub(super) name: TaskName,
    /// What the submission says about where to; the routes say the rest.
    pub(super) target: Target,
    pub(super) times: Times,
    pub(super) time_limits: TimeLimits,
    /// For the broker's confirm.
    pub(super) timeout: Duration,
    pub(super) serializer: Serializer,
    pub(super) compression: Option<Compression>,
    pub(super) unique: Option<Unique>,
}

/// Judges every member on its own and against the others.
pub(super) fn judge(task: &SubmitTask, context: &Context<'_>) -> Result<Judged, Problem> {
    let mut faults = Faults::default();
    let name = TaskName::parse(task.task.as_str());
    match &name {
        Err(_) if task.task.len() > 255 => faults.short("/task", &task.task),
        Err(err) => faults.add("/task", err.to_string()),
        Ok(_) => {}
    }
    if task.args.len().max(task.kwargs.len()) > celery_protocol::Limits::DEFAULT.arguments {
        faults.add("/args", "are more than a worker takes");
    }
    let target = target(task, &mut faults);
    let times = times(task, context, &mut faults);
    if task.priority.is_some_and(|priority| priority > 9) && !context.raw_priority {
        faults.add("/priority", "must be from 0 to 9 (with ?raw_priority=true to 255)");
    }
    let time_limits = time_limits(task, &mut faults);
    let timeout = publish_timeout(task, context.limits.publish, &mut faults);
    let serializer = serializer(task, &mut faults);
    let compression = compression(task, &mut faults);
    let unique = unique(task, &mut faults);
    check_texts(task, &mut faults);
    check_headers("headers", &task.headers, &mut faults);
    check_headers("stamps", &task.stamps, &mut faults);
    if serde_json::to_vec(&task.meta).is_ok_and(|meta| meta.len() > MAX_META) {
        faults.add("/meta", format!("is larger than {MAX_META} bytes"));
    }
    match (name, faults.finish()) {
        (Ok(name), Ok(())) => {
            Ok(Judged { name, target, times, time_limits, timeout, serializer, compression, unique })
        }
        (_, Err(problem)) => Err(problem),
        (Err(err), Ok(())) => Err(Problem::field(Kind::InvalidOption, "/task", err.to_string())),
    }
}

/// Everything wrong with the values, in the order of the body's members.
#[derive(Default)]
struct Faults {
    errors: Vec<FieldError>,
    too_long: bool,
}

impl Faults {
    fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.errors.push(FieldError::new(pointer, detail));
    }

    /// A text that becomes an AMQP short string.
    fn short(&mut self, pointer: &str, text: &str) {
        if text.len() > 255 {
            self.too_long = true;
            self.add(pointer, format!("is {} bytes long; AMQP takes 255", text.len()));
        } else if text.chars().any(char::is_control) {
            self.add(pointer, "has a control character");
        }
    }

    fn finish(self) -> Result<(), Problem> {
        match self.errors.as_slice() {
            [] => Ok(()),
            [_] if self.too_long => Err(Problem::fields(Kind::NameTooLong, self.errors)),
            _ => Err(Problem::fields(Kind::InvalidOption, self.errors)),
        }
    }
}

/// What the submission says about where to.
fn target(task: &SubmitTask, faults: &mut Faults) -> Target {
    for (pointer, name) in
        [("/queue", &task.queue), ("/exchange", &task.exchange), ("/routing_key", &task.routing_key)]
    {
        if let Some(name) = name {
            match policy::name_fault(name) {
                Some(_) if name.len() > 255 => faults.short(pointer, name),
                Some(fault) => faults.add(pointer, fault),
                None => {}
            }
        }
    }
    if task.queue.is_some() && (task.exchange.is_some() || task.routing_key.is_some()) {
        faults.add("/queue", "excludes exchange and routing_key: name a queue, or an exchange and its key");
    }
    if task.exchange.as_deref() == Some("") && task.routing_key.is_none() {
        faults.add("/exchange", "the default exchange needs a routing_key");
    }
    if task.queue.as_deref() == Some("") {
        faults.add("/queue", "is empty");
    }
    if task.routing_key.as_deref() == Some("") && task.exchange.as_deref().unwrap_or_default().is_empty() {
        faults.add("/routing_key", "is empty");
    }
    Target {
        // What QueueName refuses has been refused above.
        queue: task.queue.as_deref().and_then(|name| QueueName::parse(name).ok()),
        exchange: task.exchange.clone(),
        routing_key: task.routing_key.clone(),
        priority: task.priority,
        ..Target::default()
    }
}

/// When the task may run.
#[derive(Default)]
pub(super) struct Times {
    pub(super) eta: Option<WireTime>,
    pub(super) expires: Option<WireTime>,
    /// From now to `expires`.
    pub(super) expires_in: Option<Duration>,
    /// From now to `eta`.
    pub(super) delay: Duration,
}

fn times(task: &SubmitTask, context: &Context<'_>, faults: &mut Faults) -> Times {
    let mut times = Times::default();
    let now = context.now;
    let farthest = context.limits.eta;
    if task.countdown.is_some() && task.eta.is_some() {
        faults.add("/eta", "excludes countdown: give one of them");
    }
    if let Some(seconds) = task.countdown {
        match duration(seconds) {
            Some(delay) if delay <= farthest => {
                times.delay = delay;
                // As in Celery a countdown of 0 is none.
                times.eta = if delay.is_zero() { None } else { now.checked_add(delay) };
            }
            _ => faults.add("/countdown", format!("must be from 0 to {} seconds", farthest.as_secs())),
        }
    }
    if let Some(eta) = task.eta {
        let delay = eta.0.duration_since(now).unwrap_or_default();
        if delay > farthest {
            faults.add("/eta", format!("is more than {} seconds ahead", farthest.as_secs()));
        }
        times.delay = delay;
        times.eta = Some(eta.0);
    }
    match task.expires {
        None => {}
        Some(Expires::In(seconds)) => match duration(seconds) {
            Some(delay) if !delay.is_zero() && delay.as_millis() <= MAX_EXPIRATION_MS => {
                times.expires = now.checked_add(delay);
            }
            _ => faults.add("/expires", "must be more than 0 and at most 4294967 seconds"),
        },
        Some(Expires::At(moment)) => times.expires = Some(moment.0),
    }
    if let Some(expires) = times.expires {
        match expires.duration_since(now) {
            None => faults.add("/expires", "is in the past"),
            Some(left) if left.is_zero() => faults.add("/expires", "is in the past"),
            Some(left) if left.as_millis() > MAX_EXPIRATION_MS => {
                faults.add("/expires", "is more than 4294967 seconds ahead, which AMQP cannot express");
            }
            Some(left) => times.expires_in = Some(left),
        }
        if times.eta.is_some_and(|eta| expires <= eta) {
            faults.add("/expires", "is not after eta, so the task could never run");
        }
    }
    times
}

/// Seconds as a duration, if they are a sensible number.
fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|d| d.as_secs() < 1 << 40)
}

fn time_limits(task: &SubmitTask, faults: &mut Faults) -> TimeLimits {
    let mut limit = |pointer: &str, seconds: Option<f64>| {
        let seconds = seconds?;
        let limit = duration(seconds).filter(|limit| !limit.is_zero());
        if limit.is_none() {
            faults.add(pointer, "must be more than 0 seconds");
        }
        limit
    };
    let hard = limit("/time_limit", task.time_limit);
    let soft = limit("/soft_time_limit", task.soft_time_limit);
    if let (Some(hard), Some(soft)) = (hard, soft)
        && soft > hard
    {
        faults.add("/soft_time_limit", "is longer than time_limit");
    }
    TimeLimits { hard, soft }
}

fn publish_timeout(task: &SubmitTask, default: Duration, faults: &mut Faults) -> Duration {
    let Some(publish) = task.publish else { return default };
    for (name, value) in [("confirm", publish.confirm), ("mandatory", publish.mandatory)] {
        if value == Some(false) {
            faults.add(
                format!("/publish/{name}"),
                "cannot be turned off: a 202 means that a queue has the task",
            );
        }
    }
    match publish.timeout {
        None => default,
        Some(seconds) if (0.01..=MAX_PUBLISH_TIMEOUT).contains(&seconds) => Duration::from_secs_f64(seconds),
        Some(_) => {
            faults.add("/publish/timeout", format!("must be from 0.01 to {MAX_PUBLISH_TIMEOUT} seconds"));
            default
        }
    }
}

/// How the body is to be written.
fn serializer(task: &SubmitTask, faults: &mut Faults) -> Serializer {
    let Some(name) = task.serializer.as_deref() else { return Serializer::Json };
    match Serializer::parse(name) {
        Some(serializer) => serializer,
        None if name.contains("pickle") || name.contains("python-serialize") => {
            faults.add("/serializer", "pickle is never written here: reading it runs code");
            Serializer::Json
        }
        None => {
            faults.add("/serializer", "must be json, msgpack or yaml");
            Serializer::Json
        }
    }
}

/// How the body is to be compressed.
fn compression(task: &SubmitTask, faults: &mut Faults) -> Option<Compression> {
    let name = task.compression.as_deref()?;
    match Compression::parse(name) {
        Some(Compression::Zlib) => Some(Compression::Zlib),
        _ => {
            faults.add("/compression", format!("{name:?} is not written here; zlib is"));
            None
        }
    }
}

/// How the task is to be the only one of its kind, if at all.
fn unique(task: &SubmitTask, faults: &mut Faults) -> Option<Unique> {
    let dedupe = task.dedupe.as_ref()?;
    if dedupe.key.is_empty() {
        faults.add("/dedupe/key", "is empty");
    }
    faults.short("/dedupe/key", &dedupe.key);
    let ttl = match dedupe.ttl {
        None => DEDUPE,
        Some(seconds) => {
            match duration(seconds).filter(|ttl| (Duration::from_secs(1)..=MAX_DEDUPE).contains(ttl)) {
                Some(ttl) => ttl,
                None => {
                    faults.add("/dedupe/ttl", format!("must be from 1 to {} seconds", MAX_DEDUPE.as_secs()));
                    DEDUPE
                }
            }
        }
    };
    Some(Unique { key: dedupe.key.clone(), ttl, on_conflict: dedupe.on_conflict.unwrap_or_default() })
}

fn check_texts(task: &SubmitTask, faults: &mut Faults) {
    for (pointer, text) in
        [("/shadow", &task.shadow), ("/origin", &task.origin), ("/reply_to", &task.reply_to)]
    {
        if let Some(text) = text {
            faults.short(pointer, text);
        }
    }
    if task
        .reply_to
        .as_deref()
        .is_some_and(|name| policy::name_fault(name).is_some_and(|_| name.len() <= 255))
    {
        faults.add("/reply_to", "is a name that belongs to the broker or to Celery");
    }
    if task.group_index.is_some() && task.group_id.is_none() {
        faults.add("/group_index", "needs group_id");
    }
}

fn check_headers(member: &str, headers: &Map<String, Value>, faults: &mut Faults) {
    for (key, value) in headers {
        let pointer = format!("/{member}/{}", escaped(key));
        if key.is_empty() {
            faults.add(&*pointer, "a header needs a name");
        }
        faults.short(&pointer, key);
        if member == "headers"
            && (Headers::NAMES.contains(&key.as_str())
                || RESERVED.contains(&key.as_str())
                || DEATHS.iter().any(|death| key.starts_with(death)))
        {
            faults.add(&*pointer, "is reserved: it has a member of its own, or is set by the broker");
        }
        check_header_value(&pointer, value, faults);
    }
}

/// AMQP tables hold integers of 64 bits with a sign; a key in them is a short string.
fn check_header_value(pointer: &str, value: &Value, faults: &mut Faults) {
    match value {
        Value::Number(number) if number.is_u64() && number.as_i64().is_none() => {
            faults.add(pointer, "is an integer beyond 64 bits with a sign");
        }
        Value::Array(items) => items.iter().for_each(|item| check_header_value(pointer, item, faults)),
        Value::Object(map) => {
            for (key, item) in map {
                faults.short(pointer, key);
                check_header_value(pointer, item, faults);
            }
        }
        _ => {}
    }
}

pub(super) fn check_embedded(task: &SubmitTask, policy: &Policy) -> Result<(), Problem> {
    let mut budget = policy::MAX_SIGNATURES;
    for (member, list) in [("link", &task.link), ("link_error", &task.link_error), ("chain", &task.chain)] {
        for (index, signature) in list.iter().enumerate() {
            policy.judge(signature, &format!("/{member}/{index}"), &mut budget)?;
        }
    }
    match &task.chord {
        Some(body) => policy.judge(body, "/chord", &mut budget),
        None => Ok(()),
    }
}
