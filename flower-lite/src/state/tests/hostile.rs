//! Events of strangers: E1 to E8 of the bad-input table. None may panic, none may cost memory, all are counted.

use celery_protocol::event::decode;
use serde_json::json;

use super::{NOW, at, seen, state, task};
use crate::state::ClusterState;
use crate::state::observe::Refusal;
use crate::state::{Change, Limits};

/// Takes a body in as the collector does; gives how many events were refused or could not be read.
fn feed(state: &mut ClusterState, body: &str) -> u64 {
    let before = (state.totals().dropped, state.totals().undecodable);
    match decode(body.as_bytes()) {
        Ok(events) => {
            for event in events {
                match event {
                    Ok(event) => drop(state.apply(&event, at(10.0))),
                    Err(_) => state.note_undecodable(1),
                }
            }
        }
        Err(_) => state.note_undecodable(1),
    }
    state.totals().dropped - before.0 + state.totals().undecodable - before.1
}

#[test]
fn what_is_no_event_is_counted_and_dropped() {
    for (body, bad) in [
        ("17", 1),
        ("null", 1),
        ("\"text\"", 1),
        ("", 1),
        ("{", 1),
        ("[1, 2, null]", 3),
        ("[]", 0),
        (r#"{"hostname":"a","timestamp":1.0}"#, 1),
        (r#"{"type":7,"hostname":"a","timestamp":1.0}"#, 1),
        (r#"{"type":"","hostname":"a","timestamp":1.0}"#, 1),
        (r#"{"type":"brew-coffee","hostname":"a","timestamp":1.0}"#, 1),
        (r#"{"type":"task-started","hostname":"a","timestamp":1.0}"#, 1),
        (r#"{"type":"task-started","hostname":"a","timestamp":1.0,"uuid":""}"#, 1),
        (r#"{"type":"task-started","hostname":"","timestamp":1.0,"uuid":"x"}"#, 1),
        (r#"[{"type":"task-started","hostname":"a","timestamp":1800000000.0,"uuid":"x"}, 5]"#, 1),
    ] {
        let mut state = state();
        assert_eq!(feed(&mut state, body), bad, "{body}");
    }
}

#[test]
fn numbers_out_of_this_world_order_nothing_and_break_nothing() {
    let mut state = state();
    for (index, timestamp) in
        ["1e308", "-1", "0", "253402300799.0", "\"noon\"", "null", "NaN", "1800000005.0", "{}"]
            .iter()
            .enumerate()
    {
        for (clock, utcoffset) in [("-1", "\"x\""), ("9223372036854775808", "1e9"), ("\"seven\"", "null")] {
            let body = format!(
                r#"{{"type":"task-received","uuid":"t{index}","hostname":"a","timestamp":{timestamp},"clock":{clock},
                    "utcoffset":{utcoffset},"pid":"x","retries":-5,"eta":"tomorrow","expires":{{}}}}"#
            );
            feed(&mut state, &body);
        }
    }
    let newest = state.tasks().all().iter().next_back().map(|place| place.at().seconds());
    assert_eq!(newest, Some(NOW + 10.0), "a date in the year 9999 is the time of receipt");
    assert!(state.tasks().len() >= 4);
    assert_eq!(seen(&state, "t7")["eta"], json!(null));
}

#[test]
fn a_host_with_a_new_name_in_each_event_stays_within_bounds() {
    let mut state = ClusterState::new(Limits { max_workers: 100, ..Limits::default() }, at(0.0));
    for index in 0..5_000 {
        let host = format!("<script>alert({index})</script>@{}", "x".repeat(2_000));
        state.apply(
            &task("started", "t", &host, 0.001 * f64::from(index), json!({})),
            at(0.001 * f64::from(index)),
        );
    }
    assert_eq!(state.workers().len(), 100);
    assert!(state.workers().iter().all(|worker| worker.name().len() <= 255));
    assert!(state.event_counts().iter().count() <= 10_001);
}

#[test]
fn huge_texts_are_cut_on_arrival() {
    let limits = Limits::default();
    let mut state = state();
    let huge = "ä".repeat(60_000);
    state.apply(&task("succeeded", "t", "a", 1.0, json!({ "result": huge })), at(1.0));
    let fields = json!({ "exception": huge, "traceback": huge });
    state.apply(&task("failed", "u", "a", 1.0, fields), at(1.0));
    state.apply(&task("progress", "v", "a", 1.0, json!({ "log": "x".repeat(10_000) })), at(1.0));
    let length = |id: &str, field: &str| seen(&state, id)[field].as_str().map_or(0, str::len);
    assert!((1..=limits.max_text).contains(&length("t", "result")));
    assert!((1..=limits.max_text).contains(&length("u", "exception")));
    assert!((1..=limits.max_traceback).contains(&length("u", "traceback")));
    assert_eq!(
        seen(&state, "v")["timeline"][0]["detail"].as_object().map(|map| map.contains_key("truncated")),
        Some(true)
    );
    assert!(state.tasks().weight() < 64 << 10);
}

#[test]
fn a_refusal_says_why() {
    let mut state = state();
    let event = super::event("brew-coffee", "a", 0.0, json!({}));
    assert_eq!(state.apply(&event, at(0.0)), Change::Refused(Refusal::UnknownKind));
    assert_eq!(state.totals().dropped, 1);
}
