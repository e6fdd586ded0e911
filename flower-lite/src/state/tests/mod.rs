//! Tests of the state: tables of stories, workers, hostile input, bounds, lists, and properties of whole streams.

mod bounds;
mod hostile;
mod lists;
mod properties;
mod stories;
mod workers;

use celery_protocol::event::{Event, decode};
use serde_json::{Value, json};

use super::time::UnixTime;
use super::{ClusterState, Limits};

/// When the tests take place.
const NOW: f64 = 1_800_000_000.0;

/// A moment, in seconds after [`NOW`].
fn at(seconds: f64) -> UnixTime {
    UnixTime::EPOCH.plus(NOW + seconds)
}

fn state() -> ClusterState {
    ClusterState::new(Limits::default(), at(0.0))
}

/// An event as it comes off the wire.
fn event(kind: &str, host: &str, seconds: f64, more: Value) -> Event {
    let mut event = json!({
        "type": kind, "hostname": host, "timestamp": NOW + seconds, "clock": 1, "utcoffset": 0, "pid": 7,
    });
    if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
        event.extend(more);
    }
    let mut events = decode(event.to_string().as_bytes()).expect("a body");
    events.remove(0).expect("an event")
}

/// An event of a task, `received` and the like.
fn task(kind: &str, id: &str, host: &str, seconds: f64, more: Value) -> Event {
    let mut fields = json!({ "uuid": id });
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    event(&format!("task-{kind}"), host, seconds, fields)
}

/// What a client sees of a task, without what depends on arrival.
fn seen(state: &ClusterState, id: &str) -> Value {
    let task = state.tasks().get(id).expect("the task is known");
    let mut detail = serde_json::to_value(crate::view::TaskDetail::of(state, task, None)).expect("JSON");
    detail["version"].take();
    detail
}
