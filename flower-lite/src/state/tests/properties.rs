//! Streams as the network may bring them: shuffled, doubled, thinned.

use std::collections::BTreeSet;

use celery_protocol::event::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{at, event, seen, state, task};
use crate::state::ClusterState;
use crate::state::mark::Kind;
use crate::view;

const HOSTS: [&str; 3] = ["a@1", "b@2", "c@3"];

/// How a task's life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Succeeded,
    Failed,
    Revoked,
}

/// One life: when it begins, and for each attempt who made it and how many progress events there were.
#[derive(Clone, Debug)]
struct Life {
    sent: bool,
    attempts: Vec<(usize, usize)>,
    steps: Vec<f64>,
    end: End,
}

fn life() -> impl Strategy<Value = Life> {
    (
        any::<bool>(),
        prop::collection::vec((0..HOSTS.len(), 0..3_usize), 1..4),
        prop::collection::vec(0.001..2.0_f64, 24),
        prop::sample::select(vec![End::Succeeded, End::Failed, End::Revoked]),
    )
        .prop_map(|(sent, attempts, steps, end)| Life { sent, attempts, steps, end })
}

/// The events of a life, in order; `skew` is how far each host's clock is off.
fn events(index: usize, life: &Life, skew: &[f64; 3]) -> Vec<Event> {
    let id = format!("task-{index}");
    let mut now = 0.0;
    let mut clock = 0;
    let mut steps = life.steps.iter().cycle();
    let mut events = Vec::new();
    let mut tell = |kind: &str, host: usize, mut more: Value| {
        now += steps.next().copied().unwrap_or(1.0);
        clock += 1;
        more["clock"] = json!(clock);
        events.push(task(kind, &id, HOSTS[host], now + skew[host], more));
    };
    let call =
        |retries: usize| json!({ "name": "demo.add", "args": "(1, 2)", "kwargs": "{}", "retries": retries });
    if life.sent {
        tell("sent", 0, call(0));
    }
    for (retries, &(host, progress)) in life.attempts.iter().enumerate() {
        tell("received", host, call(retries));
        tell("started", host, json!({}));
        (0..progress).for_each(|done| tell("progress", host, json!({ "done": done })));
        if retries + 1 < life.attempts.len() {
            tell("retried", host, json!({ "exception": "OSError()", "traceback": "tb" }));
            continue;
        }
        match life.end {
            End::Succeeded => tell("succeeded", host, json!({ "result": "3", "runtime": 0.5 })),
            End::Failed => tell("failed", host, json!({ "exception": "KeyError()", "traceback": "tb" })),
            End::Revoked => {
                tell("revoked", host, json!({ "terminated": true, "signum": 15, "expired": false }));
            }
        }
    }
    events
}

fn heartbeats() -> Vec<Event> {
    let mut events = Vec::new();
    for host in HOSTS {
        events.push(event("worker-online", host, 0.0, json!({ "freq": 2.0, "active": 0, "clock": 1 })));
        for beat in 1..5_u32 {
            let facts = json!({ "freq": 2.0, "active": beat, "processed": beat, "clock": 1 + beat });
            events.push(event("worker-heartbeat", host, f64::from(beat) * 2.0, facts));
        }
    }
    events.push(event("worker-offline", HOSTS[2], 9.0, json!({ "clock": 9 })));
    events
}

fn apply<'a>(events: impl IntoIterator<Item = &'a Event>) -> ClusterState {
    let mut state = state();
    for event in events {
        state.apply(event, at(10.0));
    }
    state
}

/// All that a state knows, but for when it came to know it.
fn knows(state: &ClusterState) -> Value {
    let ids: BTreeSet<&str> = state
        .tasks()
        .all()
        .iter()
        .filter_map(|place| state.tasks().at(place))
        .map(|task| task.id())
        .collect();
    let workers: Vec<Value> = state
        .workers()
        .into_iter()
        .map(|worker| serde_json::to_value(view::Worker::of(worker)).expect("JSON"))
        .collect();
    let states: BTreeSet<(String, usize)> =
        state.tasks().count_by_state().map(|(state, count)| (state.as_str().to_owned(), count)).collect();
    let counts: Vec<(String, Kind, u64)> =
        state.event_counts().iter().map(|(key, count)| (key.worker.to_string(), key.kind, count)).collect();
    // Under which name an event is counted depends on whether the name was known by then: so names are left out.
    let mut counted: std::collections::BTreeMap<(String, Kind), u64> = Default::default();
    for (worker, kind, count) in counts {
        *counted.entry((worker, kind)).or_default() += count;
    }
    let counted: Vec<(String, &str, u64)> =
        counted.into_iter().map(|((worker, kind), count)| (worker, kind.name(), count)).collect();
    let series: Vec<u64> = state
        .series()
        .since(i64::MIN, at(10.0))
        .flat_map(|point| [point.received, point.succeeded, point.failed, point.retried])
        .collect();
    json!({
        "tasks": ids.into_iter().map(|id| seen(state, id)).collect::<Vec<_>>(),
        "workers": workers,
        "states": states,
        "counted": counted,
        "series": series,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// In whatever order and however often the events of some lives come in, what is known in the end is the same.
    #[test]
    fn shuffled_and_doubled_streams_converge(
        lives in prop::collection::vec(life(), 1..4),
        skew in prop::array::uniform3(-3_600.0..3_600.0_f64),
        order in any::<prop::sample::Index>().prop_flat_map(|_| prop::collection::vec(any::<u32>(), 160)),
        doubled in prop::collection::vec(0..4_u8, 160),
    ) {
        let mut stream: Vec<Event> =
            lives.iter().enumerate().flat_map(|(index, life)| events(index, life, &skew)).collect();
        stream.extend(heartbeats());
        let expected = knows(&apply(&stream));

        let mut shuffled: Vec<(u32, &Event)> = Vec::new();
        for (index, event) in stream.iter().enumerate() {
            let copies = if doubled[index % doubled.len()] == 0 { 2 } else { 1 };
            for copy in 0..copies {
                shuffled.push((order[(index + copy * 71) % order.len()], event));
            }
        }
        shuffled.sort_by_key(|(key, _)| *key);
        let found = knows(&apply(shuffled.into_iter().map(|(_, event)| event)));
        prop_assert_eq!(found, expected);
    }

    /// However many events are lost, as long as its end came through, a task is shown as ended.
    #[test]
    fn thinned_streams_end_the_same(life in life(), kept in prop::collection::vec(any::<bool>(), 32)) {
        let stream = events(0, &life, &[0.0; 3]);
        let last = stream.len() - 1;
        let thinned: Vec<&Event> =
            stream.iter().enumerate().filter(|(index, _)| *index == last || kept[index % kept.len()]).map(|(_, event)| event).collect();
        let (whole, thin) = (seen(&apply(&stream), "task-0"), seen(&apply(thinned.iter().copied()), "task-0"));
        for field in ["state", "worker", "result", "ready", "succeeded", "failed", "revoked", "timestamp"] {
            prop_assert_eq!(&thin[field], &whole[field], "{}", field);
        }
    }

    /// Wherever clocks stand, a life that was told whole ends as it ended.
    #[test]
    fn wrong_clocks_do_not_change_the_end(life in life(), skew in prop::array::uniform3(-3_600.0..3_600.0_f64)) {
        let stream = events(0, &life, &skew);
        let expected = match life.end {
            End::Succeeded => "SUCCESS",
            End::Failed => "FAILURE",
            End::Revoked => "REVOKED",
        };
        prop_assert_eq!(&seen(&apply(&stream), "task-0")["state"], expected);
    }
}
