//! The body of a submission, as read: types are right, values have not been judged yet (`plan.rs` does that).

use celery_protocol::{GroupId, RawArgs, RawKwargs, Signature, TaskId, WireTime};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::form::{Form, tidy};
use crate::problem::Problem;

/// A task to submit. Only `task` is required; every member means what Celery's `apply_async` option of that name means.
#[derive(Debug, Clone, Default, ToSchema)]
#[schema(example = json!({"task": "demo.add", "args": [2, 3]}))]
pub struct SubmitTask {
    /// The task's registered name.
    #[schema(min_length = 1, max_length = 255, example = "demo.add")]
    pub task: String,
    /// Positional arguments. Numbers reach the worker digit for digit.
    #[schema(value_type = Option<Vec<Value>>)]
    pub args: RawArgs,
    /// Keyword arguments.
    #[schema(value_type = Option<Object>)]
    pub kwargs: RawKwargs,
    /// An id of the client's choice, `[A-Za-z0-9._~:@+-]{1,200}`; default: a UUID. Sending the same body with the same
    /// id again publishes nothing new.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._~:@+-]{1,200}$", example = "order-42")]
    pub task_id: Option<TaskId>,
    /// The queue. Default: what the server's routes say for the task's name.
    #[schema(max_length = 255, example = "celery")]
    pub queue: Option<String>,
    /// An exchange to publish to, instead of a queue.
    #[schema(max_length = 255)]
    pub exchange: Option<String>,
    /// The routing key for `exchange`.
    #[schema(max_length = 255)]
    pub routing_key: Option<String>,
    /// Run no earlier than this many seconds from now. Excludes `eta`.
    #[schema(minimum = 0, example = 10)]
    pub countdown: Option<f64>,
    /// Run no earlier than this (RFC 3339 with offset). Excludes `countdown`.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub eta: Option<Moment>,
    /// Do not run after this many seconds from now, or after this moment (RFC 3339 with offset).
    pub expires: Option<Expires>,
    /// Priority from 0 to 9, with `?raw_priority=true` to 255; needs a queue with `x-max-priority`.
    #[schema(minimum = 0, maximum = 255)]
    pub priority: Option<u8>,
    /// How many retries count as used already.
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295u64)]
    pub retries: Option<u32>,
    /// Hard time limit in seconds.
    pub time_limit: Option<f64>,
    /// Soft time limit in seconds.
    pub soft_time_limit: Option<f64>,
    /// Do not keep the result. Default: the worker decides.
    pub ignore_result: Option<bool>,
    /// A name to show instead of the task's.
    #[schema(max_length = 255)]
    pub shadow: Option<String>,
    /// How the body is written: `json`, `msgpack` or `yaml`; the workers must accept it.
    #[schema(example = "json")]
    pub serializer: Option<String>,
    /// How the body is compressed: absent or `zlib` (Celery's `gzip` is the same thing).
    #[schema(example = "zlib")]
    pub compression: Option<String>,
    /// Tasks to run with the result when this one succeeds (Celery signatures).
    #[schema(value_type = Option<Vec<Object>>)]
    pub link: Vec<Signature>,
    /// Tasks to run when this one fails.
    #[schema(value_type = Option<Vec<Object>>)]
    pub link_error: Vec<Signature>,
    /// The remaining steps of a chain, as they are in a message: the next step is the last element.
    #[schema(value_type = Option<Vec<Object>>)]
    pub chain: Vec<Signature>,
    /// The body of a chord that this task is a header member of; its size must be known to the result backend already.
    #[schema(value_type = Option<Object>)]
    pub chord: Option<Signature>,
    /// Headers of the caller's own, at the top level of the message's header table.
    #[schema(value_type = Option<Object>)]
    pub headers: Map<String, Value>,
    /// Stamps.
    #[schema(value_type = Option<Object>)]
    pub stamps: Map<String, Value>,
    /// The first task of the workflow. Default: the task itself.
    #[schema(value_type = Option<String>)]
    pub root_id: Option<TaskId>,
    /// The task that causes this one.
    #[schema(value_type = Option<String>)]
    pub parent_id: Option<TaskId>,
    /// The group this is a member of.
    #[schema(value_type = Option<String>)]
    pub group_id: Option<GroupId>,
    /// The position in the group.
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295u64)]
    pub group_index: Option<u32>,
    /// A queue for Celery's RPC result backend.
    #[schema(max_length = 255)]
    pub reply_to: Option<String>,
    /// Whether the message survives a restart of the broker. Default: `persistent`.
    pub delivery_mode: Option<DeliveryMode>,
    /// Who sends it. Default: this server.
    #[schema(max_length = 255)]
    pub origin: Option<String>,
    /// How it is published.
    pub publish: Option<PublishOptions>,
    /// Publish only if no task of the same key is pending or running.
    pub dedupe: Option<Dedupe>,
    /// Publish only if at most this many messages wait in the queue; else the answer is 503 `queue-limit`.
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295u64)]
    pub queue_limit: Option<u32>,
    /// Keep the arguments with the record of the submission, for `GET …?include=args`.
    pub store_args: Option<bool>,
    /// Notes of the caller's own, given back by `GET`; they are not sent to the worker.
    #[schema(value_type = Option<Object>)]
    pub meta: Map<String, Value>,
    /// A digest of the members that say what to run.
    #[schema(ignore)]
    pub fingerprint: String,
}

/// A moment, from RFC 3339 with an offset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment(pub WireTime);

/// When a task is no longer to be run.
#[derive(Debug, Clone, Copy, PartialEq, ToSchema)]
#[schema(as = Expires)]
pub enum Expires {
    /// Seconds from now.
    #[schema(title = "seconds")]
    In(f64),
    /// A moment.
    #[schema(title = "moment", value_type = String, format = DateTime)]
    At(Moment),
}

/// Whether the broker writes the message to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// Yes, before it confirms.
    #[default]
    Persistent,
    /// No: a restart of the broker loses it.
    Transient,
}

/// How a task is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, ToSchema)]
pub struct PublishOptions {
    /// Seconds to wait for the broker's confirm.
    #[schema(example = 5.0)]
    pub timeout: Option<f64>,
    /// Wait for the broker's confirm. This server always does: only `true` is accepted.
    pub confirm: Option<bool>,
    /// Have unroutable messages returned. This server always does: only `true` is accepted.
    pub mandatory: Option<bool>,
}

/// Makes a task unique while it is pending or running.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct Dedupe {
    /// What must be unique.
    #[schema(min_length = 1, max_length = 255, example = "invoice-42")]
    pub key: String,
    /// Seconds after which the key is free again, whatever became of the task. Default: a day.
    #[schema(minimum = 1, example = 3600)]
    pub ttl: Option<f64>,
    /// What to do when there is such a task. Default: `return_existing`.
    pub on_conflict: Option<OnConflict>,
}

/// What to do when a task with the same dedupe key is pending or running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// Answer with that task.
    #[default]
    ReturnExisting,
    /// Answer with 409.
    Reject,
    /// Revoke that task and publish this one.
    Replace,
}

impl SubmitTask {
    /// Reads a body.
    ///
    /// # Errors
    /// `invalid-option` or `unknown-field`, with every mistake in it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        SubmitTask::read(Form::split(text)?)
    }

    /// Reads the members of a form.
    ///
    /// # Errors
    /// `invalid-option` or `unknown-field`, with every mistake in it.
    pub fn read(mut form: Form<'_>) -> Result<Self, Problem> {
        let body = SubmitTask {
            fingerprint: fingerprint(form.rest()),
            task: form.required("task").unwrap_or_default(),
            args: form.optional("args").unwrap_or_default(),
            kwargs: form.optional("kwargs").unwrap_or_default(),
            task_id: form.task_id()?,
            queue: form.optional("queue"),
            exchange: form.optional("exchange"),
            routing_key: form.optional("routing_key"),
            countdown: form.optional("countdown"),
            eta: form.optional("eta"),
            expires: form.optional("expires"),
            priority: form.optional("priority"),
            retries: form.optional("retries"),
            time_limit: form.optional("time_limit"),
            soft_time_limit: form.optional("soft_time_limit"),
            ignore_result: form.optional("ignore_result"),
            shadow: form.optional("shadow"),
            serializer: form.optional("serializer"),
            compression: form.optional("compression"),
            link: form.list("link"),
            link_error: form.list("link_error"),
            chain: form.list("chain"),
            chord: form.optional("chord"),
            headers: form.optional("headers").map(|Exact(map)| map).unwrap_or_default(),
            stamps: form.optional("stamps").map(|Exact(map)| map).unwrap_or_default(),
            root_id: form.optional("root_id"),
            parent_id: form.optional("parent_id"),
            group_id: form.optional("group_id"),
            group_index: form.optional("group_index"),
            reply_to: form.optional("reply_to"),
            delivery_mode: form.optional("delivery_mode"),
            origin: form.optional("origin"),
            publish: form.nested("publish", |inner| PublishOptions {
                timeout: inner.optional("timeout"),
                confirm: inner.optional("confirm"),
                mandatory: inner.optional("mandatory"),
            }),
            dedupe: form.nested("dedupe", |inner| Dedupe {
                key: inner.required("key").unwrap_or_default(),
                ttl: inner.optional("ttl"),
                on_conflict: inner.optional("on_conflict"),
            }),
            queue_limit: form.optional("queue_limit"),
            store_args: form.optional("store_args"),
            meta: form.optional("meta").map(|Exact(map)| map).unwrap_or_default(),
        };
        form.finish()?;
        Ok(body)
    }
}

/// Members that say how to submit, not what.
const MANNERS: [&str; 4] = ["task_id", "publish", "dedupe", "queue_limit"];

/// A digest of what the members of a body ask for, without its id and without how it is to be published: two bodies with
/// the same one are the same submission.
pub fn fingerprint(members: &[(String, &RawValue)]) -> String {
    let mut members: Vec<_> = members
        .iter()
        .filter(|(name, raw)| !MANNERS.contains(&name.as_str()) && raw.get() != "null")
        .collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut digest = Sha256::new();
    for (name, raw) in members {
        for part in [name.as_str(), raw.get()] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
    }
    hex(&digest.finalize())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        moment(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Expires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => Ok(Expires::In(number.as_f64().unwrap_or(f64::INFINITY))),
            Value::String(text) => moment(&text).map(Expires::At).map_err(D::Error::custom),
            _ => Err(D::Error::custom("must be a number of seconds, or a moment as a string")),
        }
    }
}

/// An object whose integers all fit 64 bits with a sign: as AMQP's tables hold them, and as they survive here.
struct Exact(Map<String, Value>);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if let Some(number) = integers(raw.get()).find(|number| number.parse::<i64>().is_err()) {
            let shown: String = number.chars().take(40).collect();
            return Err(D::Error::custom(format!("the integer {shown} does not fit 64 bits with a sign")));
        }
        serde_json::from_str(raw.get()).map(Exact).map_err(|err| D::Error::custom(tidy(&err)))
    }
}

/// The integers in a JSON text.
fn integers(text: &str) -> impl Iterator<Item = &str> {
    let mut in_string = false;
    let mut escaped = false;
    text.split(move |c: char| {
        let inside = in_string;
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        inside || !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')
    })
    .filter(|token| token.bytes().any(|byte| byte.is_ascii_digit()) && !token.contains(['.', 'e', 'E']))
}

/// RFC 3339, which is narrower than what Celery reads: above all, the offset is required.
fn moment(text: &str) -> Result<Moment, String> {
    let shape = || format!("must be a moment like 2030-01-02T03:04:05Z, with an offset (got {text:?})");
    let (date_time, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(rest) => (rest, "Z"),
        None => text.len().checked_sub(6).and_then(|at| text.split_at_checked(at)).ok_or_else(shape)?,
    };
    let (seconds, fraction) = date_time.split_once('.').unwrap_or((date_time, "0"));
    let fits = matches(seconds, "0000-00-00T00:00:00")
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && (offset == "Z" || matches(offset, "+00:00") || matches(offset, "-00:00"));
    if !fits {
        return Err(shape());
    }
    // Celery keeps microseconds.
    let fraction = &fraction[..fraction.len().min(6)];
    WireTime::parse(&format!("{seconds}.{fraction}{offset}")).map(Moment).map_err(|_| shape())
}

/// Whether `text` has digits where `pattern` has zeros, and else the same characters.
fn matches(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, expected)| match expected {
            b'0' => byte.is_ascii_digit(),
            b'T' => byte.eq_ignore_ascii_case(&b'T'),
            _ => byte == expected,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_needs_its_offset() {
        for (good, read) in [
            ("2030-01-02T03:04:05Z", "2030-01-02T03:04:05+00:00"),
            ("2030-01-02T03:04:05.25+05:30", "2030-01-02T03:04:05.250000+05:30"),
            ("2030-01-02t03:04:05.123456789z", "2030-01-02T03:04:05.123456+00:00"),
        ] {
            assert_eq!(moment(good).expect(good).0.isoformat(), read);
        }
        for bad in [
            "",
            "Z",
            "2030-01-02",
            "2030-01-02T03:04:05",
            "2030-01-02 03:04:05Z",
            "2030-13-02T03:04:05Z",
            "2030-01-02T03:04Z",
            "20300102T030405Z",
            "2030-01-02T03:04:05.Z",
            "ééé",
            "1e9",
        ] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_types_are_named_one_by_one() {
        let text = r#"{"task":"t","args":{},"kwargs":[],"countdown":"5","priority":-1,"publish":{"timeout":"x"},"expires":true}"#;
        let body = SubmitTask::parse(text).expect_err("wrong").body();
        let pointers: Vec<&str> = body.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/args", "/kwargs", "/countdown", "/expires", "/priority", "/publish/timeout"]);
    }

    #[test]
    fn a_header_that_would_lose_digits_is_refused() {
        let text = r#"{"task":"t","headers":{"a":9223372036854775807,"b":1.5,"c":"99999999999999999999\"7","d":[1e3]}}"#;
        let body = SubmitTask::parse(text).expect("valid");
        assert_eq!(body.headers["a"], i64::MAX);
        let text = r#"{"task":"t","headers":{"a":[9223372036854775808]}}"#;
        let problem = SubmitTask::parse(text).expect_err("too large").body();
        assert_eq!(problem.errors[0].pointer, "/headers");
        assert!(problem.errors[0].detail.contains("9223372036854775808"), "{:?}", problem.errors);
    }

    #[test]
    fn a_fingerprint_is_of_the_task_and_not_of_its_writing() {
        let fingerprint = |text: &str| fingerprint(&super::super::form::members(text));
        let one = fingerprint(r#"{"task":"t","args":[1, 2],"task_id":"a"}"#);
        assert_eq!(
            one,
            fingerprint(r#" {"args": [1, 2], "queue": null, "publish":{"timeout":1}, "task":"t"}"#)
        );
        assert_ne!(one, fingerprint(r#"{"task":"t","args":[1,3]}"#));
        assert_ne!(one, fingerprint(r#"{"task":"t","args":[1, 2],"countdown":1}"#));
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn arguments_keep_their_digits() {
        let body = SubmitTask::parse(
            r#"{"task":"t","args":[123456789012345678901234567890,1.50,1e400],"kwargs":{"z":0.10,"a":1}}"#,
        )
        .expect("valid");
        let args: Vec<&str> = body.args.as_slice().iter().map(|raw| raw.get()).collect();
        assert_eq!(args, ["123456789012345678901234567890", "1.50", "1e400"]);
        let kwargs: Vec<(&str, &str)> =
            body.kwargs.as_slice().iter().map(|(key, raw)| (key.as_str(), raw.get())).collect();
        assert_eq!(kwargs, [("z", "0.10"), ("a", "1")]);
    }
}
