//! A recording of real Python workers, replayed; what comes out is what Celery's own State made of it.

use std::path::PathBuf;

use celery_protocol::event::decode;
use celery_testkit::{Python, Rabbit, Redis};
use flower_lite::state::time::UnixTime;
use flower_lite::state::{ClusterState, Limits};
use flower_lite::view;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/replay")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("the recording is there")
}

/// Each message of the recording: its body, and when it was received.
fn recording() -> Vec<(String, UnixTime)> {
    let lines = read("events.jsonl");
    lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let received = line["received"].as_f64().and_then(UnixTime::new).expect("a time");
            (line["body"].to_string(), received)
        })
        .collect()
}

fn replay<'a>(messages: impl Iterator<Item = &'a (String, UnixTime)>, start: UnixTime) -> ClusterState {
    let mut state = ClusterState::new(Limits::default(), start);
    for (body, received) in messages {
        for event in decode(body.as_bytes()).expect("a body") {
            state.apply(&event.expect("an event"), *received);
        }
    }
    state
}

/// Compares all that both know; where they differ on purpose, it is said why.
fn compare(state: &ClusterState, expected: &Value) {
    let tasks = expected["tasks"].as_object().expect("tasks");
    assert_eq!(state.tasks().len(), tasks.len());
    for (id, expected) in tasks {
        let task = state.tasks().get(id).expect("the task is known");
        let seen = serde_json::to_value(view::TaskDetail::of(state, task, None)).expect("JSON");
        for (field, value) in expected.as_object().expect("fields") {
            let mut value = value.clone();
            match field.as_str() {
                // Celery goes on showing the last exception of a task that succeeded in the end.
                "exception" | "traceback" if expected["state"] == "SUCCESS" => value = Value::Null,
                // A retry says that the task called itself. That is no news about who called it.
                "parent_id" if value == json!(id) => value = Value::Null,
                "children" => {
                    value = value
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter(|kid| **kid != json!(id))
                        .cloned()
                        .collect();
                }
                // Celery knows no runtime of a failure.
                "runtime" if expected["state"] != "SUCCESS" => continue,
                _ => {}
            }
            let mut found = seen[field].clone();
            if let Value::Array(children) = &mut found {
                children.sort_by_key(Value::to_string);
            }
            assert_eq!(found, value, "{field} of {} {id}", expected["name"]);
        }
    }
    let workers = expected["workers"].as_object().expect("workers");
    assert_eq!(state.workers().len(), workers.len());
    for (name, expected) in workers {
        let worker =
            serde_json::to_value(view::Worker::of(state.worker(name).expect("it is known"))).expect("JSON");
        for (field, value) in expected.as_object().expect("fields") {
            assert_eq!(&worker[field], value, "{field} of {name}");
        }
    }
}

#[test]
fn a_recording_of_python_workers_gives_what_celery_makes_of_it() {
    let expected: Value = serde_json::from_str(&read("expected.json")).expect("JSON");
    let recording = recording();
    let state = replay(recording.iter(), recording[0].1);
    assert_eq!(json!(state.totals().received), expected["event_count"]);
    assert_eq!((state.totals().dropped, state.totals().duplicates), (0, 0));
    compare(&state, &expected);
    let beta = state.worker("beta@record").expect("it was there");
    assert!(!beta.is_online(), "it said goodbye");
    assert!(
        state.worker("alpha@record").is_some_and(|alpha| alpha.is_online() && alpha.running().is_empty())
    );
}

#[test]
fn the_same_recording_backwards_gives_the_same() {
    let expected: Value = serde_json::from_str(&read("expected.json")).expect("JSON");
    let recording = recording();
    let start = recording[0].1;
    let state = replay(recording.iter().rev().chain(recording.iter().step_by(3)), start);
    assert!(state.totals().duplicates > 0);
    compare(&state, &expected);
}

/// Makes the recording anew: `cargo test -p flower-lite --test api -- --ignored record`.
#[tokio::test]
#[ignore = "writes tests/replay"]
async fn record() {
    let broker = Rabbit::shared().await.vhost("record").await;
    let backend = Redis::shared().await.database();
    let folder = folder().to_string_lossy().into_owned();
    let script = format!("{folder}/record.py");
    let output = Python::new(&broker, &backend).try_run(&[&script, &folder]).await;
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
}
