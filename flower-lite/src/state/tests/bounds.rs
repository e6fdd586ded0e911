//! What is remembered, and that no more is.

use serde_json::json;

use super::{at, task};
use crate::state::{Change, ClusterState, Limits};

#[test]
fn the_task_that_was_changed_longest_ago_makes_room() {
    let mut state = ClusterState::new(Limits { max_tasks: 3, ..Limits::default() }, at(0.0));
    for (id, second) in [("t1", 1.0), ("t2", 2.0), ("t3", 3.0)] {
        state.apply(&task("started", id, "a", second, json!({})), at(second));
    }
    state.apply(&task("succeeded", "t1", "a", 4.0, json!({})), at(4.0));
    let change = state.apply(&task("received", "t4", "a", 5.0, json!({})), at(5.0));
    assert!(
        matches!(change, Change::Task { evicted, .. } if evicted.len() == 1 && evicted[0].as_str() == "t2")
    );
    assert_eq!((state.tasks().len(), state.tasks().evicted()), (3, 1));
    let running: Vec<&str> =
        state.worker("a").into_iter().flat_map(|worker| worker.running()).map(|id| id.as_str()).collect();
    assert_eq!(running, ["t3"], "a forgotten task is not shown as running");
    assert_eq!(state.tasks().count_by_state().map(|(_, count)| count).sum::<usize>(), 3);
}

#[test]
fn memory_is_bounded_in_bytes_too() {
    let max_bytes = 256 << 10;
    let mut state = ClusterState::new(Limits { max_bytes, ..Limits::default() }, at(0.0));
    for index in 0..2_000 {
        let result = json!({ "result": "x".repeat(2_000) });
        state.apply(
            &task("succeeded", &format!("t{index}"), "a", f64::from(index), result),
            at(f64::from(index)),
        );
    }
    assert!(state.tasks().weight() <= max_bytes, "{}", state.tasks().weight());
    assert_eq!(state.tasks().len() as u64 + state.tasks().evicted(), 2_000);
    assert!(state.tasks().len() > 50, "but it is used: {}", state.tasks().len());
}

#[test]
fn a_flood_of_ids_leaves_memory_flat() {
    let mut state = ClusterState::new(Limits { max_tasks: 1_000, ..Limits::default() }, at(0.0));
    let mut weights = Vec::new();
    for index in 0..60_000_u32 {
        let now = f64::from(index) * 0.001;
        let call =
            json!({ "name": format!("flood.{index}"), "parent_id": format!("p{index}"), "args": "(1,)" });
        state.apply(&task("received", &format!("t{index}"), "a", now, call), at(now));
        if index % 20_000 == 19_999 {
            weights.push(state.tasks().weight());
        }
    }
    assert_eq!((state.tasks().len(), state.tasks().evicted()), (1_000, 59_000));
    assert_eq!(state.tasks().count_by_name().count(), 1_000, "indexes forget with the tasks");
    assert!(weights[2] < weights[0] + weights[0] / 10, "{weights:?}");
    assert!(state.tasks().changed_since(0).count() == 1_000);
}

#[test]
fn what_waits_for_a_slow_disk_is_bounded_in_bytes_and_counted() {
    let limits = Limits { max_tasks: 1, max_bytes: 400 << 10, ..Limits::default() };
    let mut state = ClusterState::new(limits, at(0.0));
    state.begin_saving();
    let fail = |state: &mut ClusterState, index: u32| {
        let trouble = json!({ "exception": "E()", "traceback": "x".repeat(10_000) });
        let now = f64::from(index);
        state.apply(&task("failed", &format!("t{index}"), "a", now, trouble), at(now));
    };
    (0..1_000).for_each(|index| fail(&mut state, index));
    let waiting = state.unsaved_evicted();
    assert!((5..=10).contains(&waiting), "a quarter of the bytes: {waiting}");
    assert_eq!(state.take_skipped() + waiting as u64, 999);
    let mut shown = Vec::new();
    assert!(state.save(usize::MAX, |task| shown.push(task.id().to_string()), |_| {}));
    assert_eq!((shown.len(), shown.last().map(String::as_str)), (waiting + 1, Some("t999")));
    (1_000..1_003).for_each(|index| fail(&mut state, index));
    assert_eq!((state.unsaved_evicted(), state.take_skipped()), (2, 0), "there is room again");
}

#[test]
fn what_is_saved_in_small_turns_is_saved_once_and_whole() {
    let mut state = super::state();
    state.begin_saving();
    for index in 0..10 {
        let id = format!("t{index}");
        state.apply(&task("started", &id, "a", 1.0, json!({})), at(1.0));
    }
    state.tick(at(100.0)); // All are orphaned in one version.
    state.apply(&task("started", "t10", "a", 101.0, json!({})), at(101.0));
    let mut turns = Vec::new();
    loop {
        let mut shown = Vec::new();
        let all = state.save(1, |task| shown.push(task.id().to_string()), |_| {});
        turns.push(shown);
        if all {
            break;
        }
        assert!(!state.is_saved());
    }
    assert!(state.is_saved());
    let shown: Vec<String> = turns.concat();
    let distinct: std::collections::BTreeSet<&String> = shown.iter().collect();
    assert_eq!((shown.len(), distinct.len()), (11, 11), "{turns:?}");
    assert!(turns.len() > 1, "{turns:?}");
}

#[test]
fn every_change_has_its_number() {
    let mut state = super::state();
    let begin = state.version();
    state.apply(&task("received", "t1", "a", 1.0, json!({})), at(1.0));
    let middle = state.version();
    state.apply(&task("received", "t2", "a", 2.0, json!({})), at(2.0));
    state.apply(&task("started", "t1", "a", 3.0, json!({})), at(3.0));
    let ids =
        |since: u64| -> Vec<&str> { state.tasks().changed_since(since).map(|task| task.id()).collect() };
    assert_eq!(ids(begin), ["t1", "t2"], "newest change first, each task once");
    assert_eq!(ids(middle), ["t1", "t2"]);
    assert_eq!(ids(state.version() - 1), ["t1"]);
    assert!(ids(state.version()).is_empty());
}

#[test]
fn a_duplicate_counts_nowhere_but_as_a_duplicate() {
    let mut state = super::state();
    let event = task("succeeded", "t1", "a", 1.0, json!({ "result": "1" }));
    assert!(matches!(state.apply(&event, at(1.0)), Change::Task { .. }));
    assert_eq!(state.apply(&event, at(1.1)), Change::Known);
    assert_eq!((state.totals().received, state.totals().duplicates), (2, 1));
    let series: u64 = state.series().since(0, at(2.0)).map(|point| point.succeeded).sum();
    assert_eq!(series, 1);
    assert_eq!(state.event_counts().iter().map(|(_, count)| count).sum::<u64>(), 1);
}
