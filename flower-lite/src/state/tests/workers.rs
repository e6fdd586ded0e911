//! Whether workers live, and what they say of themselves.

use serde_json::json;

use super::{at, event, seen, state, task};

#[test]
fn a_worker_lives_for_twice_its_interval() {
    let mut state = state();
    let heartbeat = event("worker-heartbeat", "a", 0.0, json!({ "freq": 2.0, "active": 1, "processed": 5 }));
    state.apply(&heartbeat, at(0.1));
    for (now, online) in [(0.1, true), (4.0, true), (4.2, false), (100.0, false)] {
        let before = state.version();
        let was = state.worker("a").map(|worker| worker.is_online());
        state.tick(at(now));
        assert_eq!(state.worker("a").map(|worker| worker.is_online()), Some(online), "at {now}");
        assert_eq!(state.version() > before, was != Some(online), "a change of mind is a change, at {now}");
    }
    state.apply(&event("worker-heartbeat", "a", 101.0, json!({ "freq": 2.0 })), at(101.0));
    assert!(state.worker("a").is_some_and(|worker| worker.is_online()), "back again");
    assert_eq!(
        state.worker("a").and_then(|worker| worker.facts().processed),
        Some(5),
        "what wasn't told stays"
    );
}

#[test]
fn goodbye_is_goodbye_and_a_late_heartbeat_does_not_undo_it() {
    let mut state = state();
    state.apply(&event("worker-online", "a", 0.0, json!({ "freq": 2.0, "clock": 1 })), at(0.0));
    state.apply(&event("worker-offline", "a", 1.5, json!({ "freq": 2.0, "clock": 3 })), at(1.5));
    assert!(state.worker("a").is_some_and(|worker| !worker.is_online()), "at once");
    state.apply(&event("worker-heartbeat", "a", 1.0, json!({ "freq": 2.0, "clock": 2 })), at(1.6));
    assert!(state.worker("a").is_some_and(|worker| !worker.is_online()), "sent before the goodbye");
    state.apply(&event("worker-online", "a", 2.0, json!({ "freq": 2.0, "clock": 0 })), at(2.0));
    assert!(state.worker("a").is_some_and(|worker| worker.is_online()), "started anew, its clock at nothing");
}

#[test]
fn a_clock_that_is_an_hour_off_is_drift_and_not_death() {
    let mut state = state();
    for (host, skew) in [("ahead", 3_600.0), ("behind", -3_600.0)] {
        for second in [0.0, 2.0, 4.0] {
            state.apply(
                &event("worker-heartbeat", host, second + skew, json!({ "freq": 2.0 })),
                at(second + 0.2),
            );
        }
        state.tick(at(5.0));
        let worker = state.worker(host).expect("it was heard of");
        assert!(worker.is_online(), "{host}");
        assert!((worker.drift() - (0.2 - skew)).abs() < 0.001, "{host}: {}", worker.drift());
        let lag = state.totals().lag.expect("something came in");
        assert!(lag < 1.0, "{host}: a wrong clock is no lag: {lag}");
    }
}

#[test]
fn events_that_wait_are_lag() {
    let mut state = state();
    state.apply(&event("worker-heartbeat", "a", 0.0, json!({ "freq": 2.0 })), at(0.1));
    state.apply(&event("worker-heartbeat", "a", 2.0, json!({ "freq": 2.0 })), at(7.0));
    assert!(state.totals().lag.is_some_and(|lag| (lag - 5.0).abs() < 0.2), "{:?}", state.totals().lag);
}

#[test]
fn an_interval_that_makes_no_sense_is_the_usual_one() {
    for (freq, taken) in [
        (json!(0), 2.0),
        (json!(-1), 2.0),
        (json!(1e308), 2.0),
        (json!(5.0), 5.0),
        (json!("often"), super::super::worker::UNKNOWN_INTERVAL),
        (json!(null), super::super::worker::UNKNOWN_INTERVAL),
    ] {
        let mut state = state();
        state.apply(&event("worker-heartbeat", "a", 0.0, json!({ "freq": freq.clone() })), at(0.0));
        assert_eq!(state.worker("a").map(|worker| worker.freq()), Some(taken), "{freq}");
    }
}

#[test]
fn what_a_worker_runs_follows_from_its_tasks() {
    let mut state = state();
    let running = |state: &super::ClusterState, host: &str| -> Vec<String> {
        state.worker(host).into_iter().flat_map(|worker| worker.running()).map(ToString::to_string).collect()
    };
    state.apply(&task("received", "t1", "a", 0.0, json!({})), at(0.0));
    assert!(running(&state, "a").is_empty(), "received is not yet running");
    state.apply(&task("started", "t1", "a", 0.1, json!({})), at(0.1));
    state.apply(&task("started", "t2", "a", 0.2, json!({})), at(0.2));
    state.apply(&task("progress", "t2", "a", 0.3, json!({})), at(0.3));
    assert_eq!(running(&state, "a"), ["t1", "t2"]);
    // t2's worker died; its message went to another one.
    state.apply(&task("received", "t2", "b", 5.0, json!({})), at(5.0));
    state.apply(&task("started", "t2", "b", 5.1, json!({})), at(5.1));
    state.apply(&task("succeeded", "t1", "a", 6.0, json!({})), at(6.0));
    assert_eq!((running(&state, "a").len(), running(&state, "b")), (0, vec!["t2".to_owned()]));
    assert_eq!(state.worker("a").map(|worker| worker.counted(super::super::mark::Kind::Started)), Some(2));
}

#[test]
fn silent_workers_can_be_forgotten_and_clients_are_told_to_start_over() {
    let mut state = state();
    state.apply(&event("worker-heartbeat", "a", 0.0, json!({ "freq": 2.0 })), at(0.0));
    state.apply(&event("worker-heartbeat", "b", 60.0, json!({ "freq": 2.0 })), at(60.0));
    let known = state.version();
    state.tick(at(61.0));
    assert_eq!(state.forget_silent_since(at(30.0)), 1);
    assert!(state.worker("a").is_none() && state.worker("b").is_some());
    assert!(known < state.oldest_version());
    assert_eq!(state.forget_silent_since(at(30.0)), 0);
}

#[test]
fn the_running_task_of_a_silent_worker_is_orphaned_until_it_is_back() {
    let mut state = state();
    let beat = json!({ "freq": 2.0, "active": 1 });
    state.apply(&event("worker-heartbeat", "a@1", 0.0, beat.clone()), at(0.0));
    state.apply(&task("received", "one", "a@1", 0.5, json!({ "name": "demo.add" })), at(0.5));
    state.apply(&task("started", "one", "a@1", 0.6, json!({})), at(0.6));
    state.tick(at(3.0));
    assert_eq!(seen(&state, "one")["orphaned"], false);
    let before = state.version();
    state.tick(at(12.0));
    assert_eq!((&seen(&state, "one")["orphaned"], state.tasks().orphaned()), (&json!(true), 1));
    assert_eq!(seen(&state, "one")["state"], "STARTED", "Celery knows no such state");
    let told: Vec<&str> = state.tasks().changed_since(before).map(|task| task.id()).collect();
    assert_eq!(told, ["one"], "streams tell of it, once");

    state.apply(&event("worker-heartbeat", "a@1", 13.0, beat), at(13.0));
    assert_eq!((&seen(&state, "one")["orphaned"], state.tasks().orphaned()), (&json!(false), 0));
    state.tick(at(30.0));
    state.apply(&task("succeeded", "one", "a@1", 5.0, json!({ "result": "1", "runtime": 4.4 })), at(30.5));
    assert_eq!(
        (&seen(&state, "one")["orphaned"], state.tasks().orphaned()),
        (&json!(false), 0),
        "it is known how it ended"
    );
}

#[test]
fn an_end_without_its_start_tells_of_a_loss() {
    let mut state = state();
    state.apply(&event("worker-heartbeat", "a@1", 0.0, json!({ "freq": 2.0 })), at(0.0));
    let end = |id: &str, seconds: f64| {
        task("succeeded", id, "a@1", seconds, json!({ "result": "1", "runtime": 1.0 }))
    };
    state.apply(&end("early", 5.0), at(5.0));
    assert_eq!(state.missed(), 0, "it may have begun before anybody listened");
    state.apply(&end("late", 60.0), at(60.0));
    assert_eq!(state.missed(), 1);
    state.apply(&task("started", "late", "a@1", 59.0, json!({})), at(61.0));
    assert_eq!(state.missed(), 0, "it was only late");
}

#[test]
fn what_the_backend_tells_counts_until_an_event_does() {
    use crate::state::mark::{Success, What};
    let mut state = state();
    state.apply(&task("received", "one", "a@1", 0.0, json!({ "name": "demo.add" })), at(0.0));
    state.apply(&task("started", "one", "a@1", 1.0, json!({})), at(1.0));
    let ended = |text: &str| What::Succeeded(Box::new(Success { result: Some(text.into()), runtime: None }));
    assert!(state.complete("one", Some(at(2.0)), ended("stored"), at(60.0)));
    assert!(!state.complete("none", None, ended("stored"), at(60.0)), "nobody knows it");
    let shown = seen(&state, "one");
    assert_eq!((&shown["state"], &shown["result"]), (&json!("SUCCESS"), &json!("stored")));
    assert_eq!((&shown["completed_by"], &shown["worker"]), (&json!("result_backend"), &json!("a@1")));
    assert_eq!(shown["timeline"][2]["source"], "result_backend");
    assert!(state.worker("a@1").is_some_and(|worker| worker.running().is_empty()));

    state.apply(&task("succeeded", "one", "a@1", 2.5, json!({ "result": "told", "runtime": 1.5 })), at(61.0));
    let shown = seen(&state, "one");
    assert_eq!((&shown["result"], &shown["completed_by"]), (&json!("told"), &json!(null)));
    assert_eq!(shown["timeline"].as_array().map(Vec::len), Some(3));
    assert!(!state.complete("one", Some(at(2.0)), ended("stored"), at(62.0)), "an event has told");
}
