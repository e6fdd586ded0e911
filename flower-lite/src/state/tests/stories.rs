//! Lives of single tasks.

use serde_json::{Value, json};

use super::{seen, state, task};

/// A life: what happened, by whom, at which second; then the state that it amounts to.
type Story = (&'static str, &'static [(&'static str, &'static str, f64)], &'static str);

/// Where this differs from Celery, which shows both as PROGRESS for ever.
const BETTER: &[Story] = &[
    ("terminated while in progress", &[("progress", "a", 3.0), ("revoked", "a", 4.0)], "REVOKED"),
    (
        "revoked after its worker died",
        &[("started", "a", 1.0), ("progress", "a", 3.0), ("revoked", "b", 4.0)],
        "REVOKED",
    ),
];

/// In order, these are what Celery's own `State` gives; it was asked.
const IN_ORDER: &[Story] = &[
    ("only sent", &[("sent", "client", 0.0)], "PENDING"),
    ("waiting", &[("sent", "client", 0.0), ("received", "a", 1.0)], "RECEIVED"),
    ("running", &[("received", "a", 1.0), ("started", "a", 2.0)], "STARTED"),
    ("done", &[("received", "a", 1.0), ("started", "a", 2.0), ("succeeded", "a", 3.0)], "SUCCESS"),
    ("failed", &[("received", "a", 1.0), ("started", "a", 2.0), ("failed", "a", 3.0)], "FAILURE"),
    ("to be retried", &[("received", "a", 1.0), ("started", "a", 2.0), ("retried", "a", 3.0)], "RETRY"),
    ("received again", &[("started", "a", 2.0), ("retried", "a", 3.0), ("received", "a", 4.0)], "RECEIVED"),
    ("revoked while waiting", &[("received", "a", 1.0), ("revoked", "a", 2.0)], "REVOKED"),
    ("rejected", &[("received", "a", 1.0), ("rejected", "a", 2.0)], "RECEIVED"),
    ("progress", &[("started", "a", 2.0), ("progress", "a", 3.0)], "PROGRESS"),
    ("progress, then started again", &[("progress", "a", 3.0), ("started", "a", 4.0)], "PROGRESS"),
    ("two kinds of progress", &[("zeta", "a", 3.0), ("alpha", "a", 4.0)], "ALPHA"),
    ("progress, then done", &[("progress", "a", 3.0), ("succeeded", "a", 4.0)], "SUCCESS"),
    ("redelivered while running", &[("started", "a", 2.0), ("received", "b", 9.0)], "STARTED"),
    ("failed, then done elsewhere", &[("failed", "a", 2.0), ("succeeded", "b", 3.0)], "SUCCESS"),
    ("done, then failed elsewhere", &[("succeeded", "a", 2.0), ("failed", "b", 3.0)], "SUCCESS"),
    (
        "a retry's message is sent before the retry is told",
        &[("sent", "a", 2.9), ("retried", "a", 3.0)],
        "RETRY",
    ),
];

#[test]
fn a_story_in_order_has_the_state_that_celery_gives_it() {
    for (name, story, expected) in IN_ORDER.iter().chain(BETTER) {
        let mut state = state();
        for (kind, host, second) in *story {
            state.apply(&task(kind, "id", host, *second, json!({})), super::at(*second));
        }
        assert_eq!(seen(&state, "id")["state"], *expected, "{name}");
    }
}

#[test]
fn a_story_told_backwards_is_the_same_story() {
    for (name, story, expected) in IN_ORDER.iter().chain(BETTER) {
        let mut state = state();
        for (kind, host, second) in story.iter().rev() {
            state.apply(&task(kind, "id", host, *second, json!({})), super::at(9.0));
        }
        assert_eq!(seen(&state, "id")["state"], *expected, "{name}");
    }
}

fn call(retries: u32) -> Value {
    json!({ "name": "demo.add", "args": "(1, 2)", "kwargs": "{}", "retries": retries, "root_id": "r", "parent_id": "p" })
}

#[test]
fn what_was_called_is_learnt_from_a_late_event_and_reopens_nothing() {
    let mut state = state();
    let now = super::at(5.0);
    state.apply(&task("succeeded", "id", "a", 3.0, json!({ "result": "3", "runtime": 1.0 })), now);
    let only_the_end = seen(&state, "id");
    assert_eq!((&only_the_end["name"], &only_the_end["args"]), (&Value::Null, &Value::Null));
    state.apply(&task("started", "id", "a", 2.0, json!({})), now);
    state.apply(&task("received", "id", "a", 1.0, call(0)), now);
    let whole = seen(&state, "id");
    for (field, value) in [
        ("state", json!("SUCCESS")),
        ("name", json!("demo.add")),
        ("args", json!("(1, 2)")),
        ("root_id", json!("r")),
        ("result", json!("3")),
        ("runtime", json!(1.0)),
        ("timestamp", json!(super::NOW + 3.0)),
        ("ready", json!(true)),
    ] {
        assert_eq!(whole[field], value, "{field}");
    }
    let timeline: Vec<&str> = whole["timeline"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["type"].as_str())
        .collect();
    assert_eq!(timeline, ["task-received", "task-started", "task-succeeded"]);
}

#[test]
fn a_second_attempt_that_is_quicker_than_the_report_of_the_first_one_wins() {
    // The retry is told of by worker a's main process, after worker b has got and run the message.
    let mut state = state();
    for event in [
        task("received", "id", "a", 1.0, call(0)),
        task("started", "id", "a", 1.1, json!({})),
        task("received", "id", "b", 1.2, call(1)),
        task("started", "id", "b", 1.3, json!({})),
        task("succeeded", "id", "b", 1.4, json!({ "result": "3" })),
        task("retried", "id", "a", 1.5, json!({ "exception": "OSError()" })),
    ] {
        state.apply(&event, super::at(2.0));
    }
    let task = seen(&state, "id");
    assert_eq!(
        (&task["state"], &task["worker"], &task["retries"]),
        (&json!("SUCCESS"), &json!("b"), &json!(1))
    );
    assert_eq!(task["exception"], Value::Null, "the exception of the first attempt is in the timeline only");
}

#[test]
fn attempts_are_in_order_even_where_clocks_are_not() {
    let hour = 3_600.0;
    let mut state = state();
    for event in [
        task("received", "id", "a", 1.0, call(0)),
        task("started", "id", "a", 1.1, json!({})),
        task("retried", "id", "a", 1.2, json!({ "exception": "OSError()" })),
        task("received", "id", "b", 5.0 - hour, call(1)),
        task("started", "id", "b", 5.1 - hour, json!({})),
        task("failed", "id", "b", 5.2 - hour, json!({ "exception": "KeyError()", "traceback": "tb" })),
    ] {
        state.apply(&event, super::at(6.0));
    }
    assert_eq!(seen(&state, "id")["state"], "FAILURE");
    assert_eq!(seen(&state, "id")["worker"], "b");
}

#[test]
fn a_failure_has_the_runtime_that_its_own_events_show() {
    let mut state = state();
    state.apply(&task("started", "id", "a", 1.0, json!({})), super::at(1.0));
    state.apply(
        &task("failed", "id", "a", 3.5, json!({ "exception": "E()", "traceback": "tb" })),
        super::at(3.5),
    );
    let task = seen(&state, "id");
    assert_eq!(
        (&task["runtime"], &task["exception"], &task["traceback"]),
        (&json!(2.5), &json!("E()"), &json!("tb"))
    );
}

#[test]
fn where_a_task_was_sent_and_who_its_children_are() {
    let mut state = state();
    let mut sent = call(0);
    sent["queue"] = json!("mail");
    sent["routing_key"] = json!("mail.high");
    state.apply(&task("sent", "p", "gen1@api", 0.0, sent), super::at(0.0));
    state.apply(&task("received", "kid-1", "a", 1.0, call(0)), super::at(1.0));
    state.apply(&task("received", "kid-2", "a", 2.0, call(0)), super::at(2.0));
    let task = seen(&state, "p");
    assert_eq!(
        (&task["queue"], &task["routing_key"], &task["client"]),
        (&json!("mail"), &json!("mail.high"), &json!("gen1@api"))
    );
    assert_eq!(task["worker"], Value::Null, "a client is no worker");
    assert_eq!(task["children"], json!(["kid-1", "kid-2"]));
    assert!(state.workers().iter().all(|worker| &**worker.name() != "gen1@api"));
}

#[test]
fn a_task_keeps_its_call_however_often_it_is_told_of() {
    let mut state = state();
    state.apply(&task("received", "id", "a", 0.0, call(0)), super::at(0.0));
    for second in 1..500 {
        state.apply(
            &task("progress", "id", "a", f64::from(second), json!({ "done": second })),
            super::at(1.0),
        );
    }
    let task = seen(&state, "id");
    assert_eq!(task["timeline"].as_array().map(Vec::len), Some(super::super::task::MAX_MARKS));
    assert_eq!(task["timeline_dropped"], 500 - super::super::task::MAX_MARKS);
    assert_eq!((&task["name"], &task["state"]), (&json!("demo.add"), &json!("PROGRESS")));
}
