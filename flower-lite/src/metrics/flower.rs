//! Flower's six metrics, with its names, labels and buckets. Where Flower's drift from the truth (a dead worker that stays
//! online, prefetched tasks counted up and down past lost events) these follow the state.

use std::collections::BTreeMap;

use celery_protocol::TaskState;

use super::page::Page;
use crate::state::ClusterState;
use crate::state::order::Order;
use crate::state::timings::{Key, Timing};

pub(super) fn render(page: &mut Page, state: &ClusterState) {
    page.about("flower_events_total", "counter", "Number of events");
    for (key, count) in state.event_counts().iter() {
        let kind = format!("task-{}", key.kind.name());
        let labels = [("worker", &*key.worker), ("type", &*kind), ("task", &*key.task)];
        page.sample("flower_events_total", &labels, count);
    }

    let timings = state.timings().all();
    page.about("flower_task_runtime_seconds", "histogram", "Task runtime");
    for ((worker, task), timing) in timings.iter().filter(|(_, timing)| timing.count > 0) {
        let labels = [("worker", &**worker), ("task", &**task)];
        let sums = (timing.sum, timing.count);
        page.histogram("flower_task_runtime_seconds", &labels, timing.cumulative(), sums);
    }
    page.about(
        "flower_task_prefetch_time_seconds",
        "gauge",
        "The time the task spent waiting at the celery worker to be executed.",
    );
    for ((worker, task), timing) in &timings {
        if let Some(seconds) = timing.prefetch {
            let labels = [("worker", &**worker), ("task", &**task)];
            page.sample("flower_task_prefetch_time_seconds", &labels, seconds);
        }
    }
    page.about(
        "flower_worker_prefetched_tasks",
        "gauge",
        "Number of tasks of given type prefetched at a worker",
    );
    for ((worker, task), count) in prefetched(state, &timings) {
        page.sample("flower_worker_prefetched_tasks", &[("worker", worker), ("task", task)], count);
    }

    page.about("flower_worker_online", "gauge", "Worker online status");
    for worker in state.workers() {
        page.sample("flower_worker_online", &[("worker", worker.name())], u8::from(worker.is_online()));
    }
    let executing = "flower_worker_number_of_currently_executing_tasks";
    page.about(executing, "gauge", "Number of tasks currently executing at a worker");
    for worker in state.workers() {
        let active = if worker.is_online() { worker.facts().active.unwrap_or(0) } else { 0 };
        page.sample(executing, &[("worker", worker.name())], active);
    }
}

/// Tasks that wait at a worker; not those that are to wait, nor those of a worker that is gone. What was prefetched once is
/// listed with 0, so that its line doesn't end.
fn prefetched<'a>(
    state: &'a ClusterState,
    timings: &[(&'a Key, &Timing)],
) -> BTreeMap<(&'a str, &'a str), u64> {
    let mut counts: BTreeMap<(&str, &str), u64> = timings
        .iter()
        .filter(|(_, timing)| timing.prefetch.is_some())
        .map(|((worker, task), _)| ((&**worker, &**task), 0))
        .collect();
    let received = state.tasks().in_state(&TaskState::Received).into_iter().flat_map(Order::iter);
    for task in received.filter_map(|place| state.tasks().at(place)) {
        let waits = task.waits();
        let worker = task.worker().filter(|name| state.worker(name).is_some_and(|worker| worker.is_online()));
        if let (Some(worker), false) = (worker, waits) {
            let name = task.name().map_or("", |name| &**name);
            *counts.entry((&**worker, name)).or_default() += 1;
        }
    }
    counts
}
