//! A task as it lies on disk: its marks as JSON, and beside them what it is looked for by.
//!
//! Everything that is shown is derived from the marks, here as in memory; so what is read back is exactly what was known.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::state::key::TaskKey;
use crate::state::mark::{Call, Custom, Mark, Revocation, Sent, Success, Trouble, What};
use crate::state::task::Task;
use crate::state::time::UnixTime;

/// One mark. Fields that say nothing are left out; names are short, since there are millions of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored<'a> {
    /// The kind; of an application's own event, its name with a `+` in front.
    #[serde(rename = "k", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "t")]
    at: f64,
    #[serde(rename = "c")]
    clock: u64,
    #[serde(rename = "o", borrow)]
    origin: Cow<'a, str>,
    #[serde(rename = "n", borrow, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(rename = "a", borrow, skip_serializing_if = "Option::is_none")]
    args: Option<Cow<'a, str>>,
    #[serde(rename = "w", borrow, skip_serializing_if = "Option::is_none")]
    kwargs: Option<Cow<'a, str>>,
    #[serde(rename = "r", borrow, skip_serializing_if = "Option::is_none")]
    root: Option<Cow<'a, str>>,
    #[serde(rename = "p", borrow, skip_serializing_if = "Option::is_none")]
    parent: Option<Cow<'a, str>>,
    #[serde(rename = "i", skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(rename = "e", skip_serializing_if = "Option::is_none")]
    eta: Option<f64>,
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    expires: Option<f64>,
    #[serde(rename = "q", borrow, skip_serializing_if = "Option::is_none")]
    queue: Option<Cow<'a, str>>,
    #[serde(rename = "h", borrow, skip_serializing_if = "Option::is_none")]
    exchange: Option<Cow<'a, str>>,
    #[serde(rename = "y", borrow, skip_serializing_if = "Option::is_none")]
    routing_key: Option<Cow<'a, str>>,
    #[serde(rename = "v", borrow, skip_serializing_if = "Option::is_none")]
    result: Option<Cow<'a, str>>,
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    runtime: Option<f64>,
    #[serde(rename = "m", borrow, skip_serializing_if = "Option::is_none")]
    exception: Option<Cow<'a, str>>,
    #[serde(rename = "b", borrow, skip_serializing_if = "Option::is_none")]
    traceback: Option<Cow<'a, str>>,
    #[serde(rename = "d", skip_serializing_if = "is_false")]
    terminated: bool,
    #[serde(rename = "g", borrow, skip_serializing_if = "Option::is_none")]
    signal: Option<Cow<'a, str>>,
    #[serde(rename = "z", skip_serializing_if = "is_false")]
    expired: bool,
    #[serde(rename = "u", skip_serializing_if = "is_false")]
    requeue: bool,
    #[serde(rename = "l", skip_serializing_if = "is_false")]
    from_backend: bool,
    #[serde(rename = "f", skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The marks of a task as JSON.
pub(super) fn write(task: &Task) -> String {
    let marks = task.marks();
    let marks: Vec<Stored<'_>> = marks.iter().map(stored).collect();
    serde_json::to_string(&marks).unwrap_or_else(|error| {
        tracing::error!(%error, task = task.id(), "a task could not be written as JSON");
        String::from("[]")
    })
}

fn stored(mark: &Mark) -> Stored<'_> {
    let common = Stored {
        kind: Cow::Borrowed(mark.what.kind().name()),
        at: mark.at.seconds(),
        clock: mark.clock,
        origin: Cow::Borrowed(&mark.origin),
        from_backend: mark.stored,
        ..Stored::default()
    };
    match &mark.what {
        What::Sent(sent) => Stored {
            queue: name(sent.queue.as_ref()),
            exchange: name(sent.exchange.as_ref()),
            routing_key: name(sent.routing_key.as_ref()),
            ..with_call(common, &sent.call)
        },
        What::Received(call) => with_call(common, call),
        What::Started => common,
        What::Succeeded(success) => Stored {
            result: success.result.as_deref().map(Cow::Borrowed),
            runtime: success.runtime,
            ..common
        },
        What::Failed(trouble) | What::Retried(trouble) => Stored {
            exception: trouble.exception.as_deref().map(Cow::Borrowed),
            traceback: trouble.traceback.as_deref().map(Cow::Borrowed),
            ..common
        },
        What::Revoked(revocation) => Stored {
            terminated: revocation.terminated,
            signal: revocation.signal.as_deref().map(Cow::Borrowed),
            expired: revocation.expired,
            ..common
        },
        What::Rejected { requeue } => Stored { requeue: *requeue, ..common },
        What::Custom(custom) => {
            Stored { kind: Cow::Owned(format!("+{}", custom.name)), fields: custom.fields.clone(), ..common }
        }
    }
}

fn name(name: Option<&Arc<str>>) -> Option<Cow<'_, str>> {
    name.map(|name| Cow::Borrowed(&**name))
}

fn with_call<'a>(common: Stored<'a>, call: &'a Call) -> Stored<'a> {
    Stored {
        name: name(call.name.as_ref()),
        args: call.args.as_deref().map(Cow::Borrowed),
        kwargs: call.kwargs.as_deref().map(Cow::Borrowed),
        root: call.root.as_ref().map(|root| Cow::Borrowed(root.as_str())),
        parent: call.parent.as_ref().map(|parent| Cow::Borrowed(parent.as_str())),
        retries: call.retries,
        eta: call.eta.map(UnixTime::seconds),
        expires: call.expires.map(UnixTime::seconds),
        ..common
    }
}

/// Reads marks back; `share` gives the one copy of a name. What can't be read is left out.
pub(super) fn read(json: &str, mut share: impl FnMut(&str) -> Arc<str>) -> Vec<Mark> {
    let stored: Vec<Stored<'_>> = serde_json::from_str(json).unwrap_or_else(|error| {
        tracing::warn!(%error, "a task of the history could not be read");
        Vec::new()
    });
    stored.into_iter().filter_map(|stored| mark(stored, &mut share)).collect()
}

fn mark(stored: Stored<'_>, share: &mut impl FnMut(&str) -> Arc<str>) -> Option<Mark> {
    let owned = |text: Option<Cow<'_, str>>| text.map(|text| Box::from(&*text));
    let at = UnixTime::new(stored.at)?;
    let origin = share(&stored.origin);
    let call = Call {
        name: stored.name.as_deref().map(&mut *share),
        args: owned(stored.args),
        kwargs: owned(stored.kwargs),
        root: stored.root.as_deref().map(TaskKey::from),
        parent: stored.parent.as_deref().map(TaskKey::from),
        retries: stored.retries,
        eta: stored.eta.and_then(UnixTime::new),
        expires: stored.expires.and_then(UnixTime::new),
    };
    let trouble =
        |exception, traceback| Box::new(Trouble { exception: owned(exception), traceback: owned(traceback) });
    let what = match &*stored.kind {
        "sent" => What::Sent(Box::new(Sent {
            call,
            queue: stored.queue.as_deref().map(&mut *share),
            exchange: stored.exchange.as_deref().map(&mut *share),
            routing_key: stored.routing_key.as_deref().map(&mut *share),
        })),
        "received" => What::Received(Box::new(call)),
        "started" => What::Started,
        "succeeded" => {
            What::Succeeded(Box::new(Success { result: owned(stored.result), runtime: stored.runtime }))
        }
        "failed" => What::Failed(trouble(stored.exception, stored.traceback)),
        "retried" => What::Retried(trouble(stored.exception, stored.traceback)),
        "revoked" => What::Revoked(Box::new(Revocation {
            terminated: stored.terminated,
            signal: owned(stored.signal),
            expired: stored.expired,
        })),
        "rejected" => What::Rejected { requeue: stored.requeue },
        kind => {
            let name = kind.strip_prefix('+')?;
            What::Custom(Box::new(Custom { name: name.into(), fields: stored.fields }))
        }
    };
    Some(Mark { at, clock: stored.clock, origin, what, stored: stored.from_backend })
}

/// A task made of marks that were read back.
pub(super) fn task(id: &str, marks: Vec<Mark>, forgotten: u32) -> Task {
    let mut task = Task::new(id, 0);
    for mark in marks {
        task.record(&mark, 0, &mut Arc::from);
    }
    task.forgot(forgotten);
    task
}

/// All texts of a task that are searched: id, name, arguments, result, exception, and an application's own fields.
pub(super) fn text(task: &Task) -> String {
    let mut text = task.id().to_owned();
    let mut add = |part: Option<&str>| {
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            text.push('\n');
            text.push_str(part);
        }
    };
    let call = task.call();
    add(task.name().map(|name| &**name));
    add(call.and_then(|call| call.args));
    add(call.and_then(|call| call.kwargs));
    add(task.result());
    add(task.trouble().and_then(|trouble| trouble.exception));
    for mark in task.marks() {
        if let What::Custom(custom) = mark.what {
            add(Some(&Value::Object(custom.fields).to_string()));
        }
    }
    text
}

/// FNV-1a: tells whether a text has changed since it was indexed.
pub(super) fn digest(text: &str) -> i64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{ClusterState, Limits};
    use celery_protocol::event::decode;
    use serde_json::json;

    #[test]
    fn what_is_read_back_is_what_was_known() {
        let now = UnixTime::EPOCH.plus(1_800_000_000.0);
        let mut state = ClusterState::new(Limits::default(), now);
        let common = json!({ "uuid": "one", "hostname": "a@1", "timestamp": 1_800_000_000.5, "clock": 7 });
        for more in [
            json!({ "type": "task-sent", "name": "demo.add", "args": "(1,)", "queue": "q", "exchange": "", "routing_key": "q" }),
            json!({ "type": "task-received", "name": "demo.add", "kwargs": "{'x': \"\\n\"}", "retries": 2, "root_id": "r",
                    "parent_id": "p", "eta": "2027-01-01T00:00:00+00:00" }),
            json!({ "type": "task-started" }),
            json!({ "type": "task-progress", "done": [1, { "of": 2 }] }),
            json!({ "type": "task-retried", "exception": "E()", "traceback": "tb" }),
            json!({ "type": "task-rejected", "requeue": true }),
            json!({ "type": "task-revoked", "terminated": true, "signum": "9", "expired": false }),
            json!({ "type": "task-failed", "exception": "F()", "traceback": "tb2" }),
            json!({ "type": "task-succeeded", "result": "'€'", "runtime": 0.25 }),
        ] {
            let mut event = common.clone();
            event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            for event in decode(event.to_string().as_bytes()).expect("a body") {
                state.apply(&event.expect("an event"), now);
            }
        }
        let known = state.tasks().get("one").expect("known");
        assert_eq!(known.marks().len(), 9);
        let back = task("one", read(&write(known), |name| Arc::from(name)), known.forgotten());
        let seen = |task: &Task| {
            let mut seen =
                serde_json::to_value(crate::view::TaskDetail::of(&state, task, None)).expect("JSON");
            seen["version"].take();
            seen
        };
        assert_eq!(seen(&back), seen(known));
        assert_eq!(text(&back), text(known));
        assert!(text(known).contains("'€'") && text(known).contains("\"of\":2"));
        assert!(read("nonsense", |name| Arc::from(name)).is_empty());
    }
}
