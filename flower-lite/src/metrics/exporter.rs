//! The numbers under celery-exporter's names and labels, so that its dashboards and alerts go on working.
//!
//! There, `hostname` is what follows the `@` of a worker's name. A queue is known of a task only if its sending was told
//! (`task_send_sent_event`); otherwise celery-exporter writes `celery`, and so does this.

use std::collections::{BTreeMap, BTreeSet};

use super::Surroundings;
use super::page::Page;
use crate::state::ClusterState;
use crate::state::mark::Kind;

/// Each counter, and the event that it counts.
const COUNTERS: [(&str, Kind, &str); 8] = [
    ("celery_task_sent_total", Kind::Sent, "Tasks that clients published"),
    ("celery_task_received_total", Kind::Received, "Tasks that workers took from their queues"),
    ("celery_task_started_total", Kind::Started, "Tasks that workers began to run"),
    ("celery_task_succeeded_total", Kind::Succeeded, "Tasks that ended well"),
    ("celery_task_failed_total", Kind::Failed, "Tasks that ended with an exception"),
    ("celery_task_rejected_total", Kind::Rejected, "Tasks that workers refused"),
    ("celery_task_revoked_total", Kind::Revoked, "Tasks that were revoked"),
    ("celery_task_retried_total", Kind::Retried, "Tasks that failed and will be tried again"),
];

pub(super) fn render(page: &mut Page, state: &ClusterState, around: &Surroundings) {
    let sums = sums(state);
    for (name, kind, help) in COUNTERS {
        page.about(name, "counter", help);
        for (labels, count) in sums.get(&kind).into_iter().flatten() {
            let (hostname, task, queue, exception) =
                (&*labels.hostname, &*labels.task, &*labels.queue, &*labels.exception);
            let common = [("name", task), ("hostname", hostname), ("queue_name", queue)];
            if kind == Kind::Failed {
                page.sample(name, &[&common[..], &[("exception", exception)]].concat(), count);
            } else {
                page.sample(name, &common, count);
            }
        }
    }
    page.about("celery_task_runtime", "histogram", "How long tasks ran");
    for ((worker, task), timing) in state.timings().all() {
        if timing.count > 0 {
            let labels =
                [("name", &**task), ("hostname", host(worker)), ("queue_name", state.queue_of(task))];
            page.histogram("celery_task_runtime", &labels, timing.cumulative(), (timing.sum, timing.count));
        }
    }
    workers(page, state);
    queues(page, around);
}

/// What is counted together there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    task: String,
    hostname: String,
    queue: String,
    exception: String,
}

fn sums(state: &ClusterState) -> BTreeMap<Kind, BTreeMap<Labels, u64>> {
    let mut sums: BTreeMap<Kind, BTreeMap<Labels, u64>> = BTreeMap::new();
    let mut failed: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let labels = |task: &str, worker: &str, exception: &str| Labels {
        task: task.to_owned(),
        hostname: host(worker).to_owned(),
        queue: state.queue_of(task).to_owned(),
        exception: exception.to_owned(),
    };
    for (key, count) in state.failures() {
        *failed.entry((&key.worker, &key.task)).or_default() += count;
        let of_kind = sums.entry(Kind::Failed).or_default();
        *of_kind.entry(labels(&key.task, &key.worker, &key.exception)).or_default() += count;
    }
    for (key, count) in state.event_counts().iter() {
        // Failures are counted with their exceptions; those beyond the room for that have none.
        let named = if key.kind == Kind::Failed {
            failed.get(&(&*key.worker, &*key.task)).copied().unwrap_or(0)
        } else {
            0
        };
        let rest = count.saturating_sub(named);
        if rest > 0 || named == 0 {
            let of_kind = sums.entry(key.kind).or_default();
            *of_kind.entry(labels(&key.task, &key.worker, "")).or_default() += rest;
        }
    }
    sums
}

/// Several workers of one host are one here.
fn workers(page: &mut Page, state: &ClusterState) {
    let mut hosts: BTreeMap<&str, (bool, u64)> = BTreeMap::new();
    for worker in state.workers() {
        let (up, active) = hosts.entry(host(worker.name())).or_default();
        *up |= worker.is_online();
        *active += if worker.is_online() { worker.facts().active.unwrap_or(0) } else { 0 };
    }
    page.about("celery_worker_up", "gauge", "Whether a worker has lately sent a heartbeat");
    for (host, (up, _)) in &hosts {
        page.sample("celery_worker_up", &[("hostname", host)], u8::from(*up));
    }
    page.about("celery_worker_tasks_active", "gauge", "Tasks that a worker is running");
    for (host, (_, active)) in &hosts {
        page.sample("celery_worker_tasks_active", &[("hostname", host)], active);
    }
}

fn queues(page: &mut Page, around: &Surroundings) {
    let names: BTreeSet<&String> = around.queues.keys().collect();
    for (name, help) in [
        ("celery_queue_length", "Messages in a queue"),
        ("celery_active_consumer_count", "Consumers of a queue"),
        ("celery_active_worker_count", "Workers that read a queue"),
        ("celery_active_process_count", "Processes of the workers that read a queue"),
    ] {
        page.about(name, "gauge", help);
        for queue in &names {
            let Some(known) = around.queues.get(*queue) else { continue };
            let value = match name {
                "celery_queue_length" => known.ready.map(u64::from),
                "celery_active_consumer_count" => known.consumers.map(u64::from),
                "celery_active_worker_count" => Some(known.workers as u64),
                _ => Some(known.processes as u64),
            };
            if let Some(value) = value {
                page.sample(name, &[("queue_name", queue)], value);
            }
        }
    }
}

fn host(worker: &str) -> &str {
    worker.split_once('@').map_or(worker, |(_, host)| host)
}
