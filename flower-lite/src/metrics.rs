//! The numbers that Prometheus reads, under Flower's names where Flower has them.
//!
//! Written out by hand from the state: there is nothing to count here that the state doesn't know, and a process-wide
//! recorder would collide with that of a program that mounts this one.

use std::fmt::Write;

use crate::live::Link;
use crate::state::ClusterState;
use crate::state::time::UnixTime;

/// All numbers, in the text format of Prometheus.
#[must_use]
pub fn render(state: &ClusterState, link: Link, streams: usize, now: UnixTime) -> String {
    let mut page = Page::default();
    let totals = state.totals();

    page.about("flower_worker_online", "gauge", "Worker online status");
    for worker in state.workers() {
        page.sample("flower_worker_online", &[("worker", worker.name())], u8::from(worker.is_online()));
    }
    page.about(
        "flower_worker_number_of_currently_executing_tasks",
        "gauge",
        "Number of tasks currently executing at a worker",
    );
    for worker in state.workers() {
        let active = if worker.is_online() { worker.facts().active.unwrap_or(0) } else { 0 };
        page.sample(
            "flower_worker_number_of_currently_executing_tasks",
            &[("worker", worker.name())],
            active,
        );
    }
    page.about("flower_events_total", "counter", "Number of events");
    for (key, count) in state.event_counts().iter() {
        let kind = format!("task-{}", key.kind.name());
        let labels = [("worker", &*key.worker), ("type", &*kind), ("task", &*key.task)];
        page.sample("flower_events_total", &labels, count);
    }

    page.about("flower_tasks", "gauge", "Tasks that are remembered, by state");
    for (task_state, count) in state.tasks().count_by_state() {
        page.sample("flower_tasks", &[("state", task_state.as_str())], count);
    }
    for (name, kind, help, value) in [
        (
            "flower_broker_connected",
            "gauge",
            "Whether events can come in",
            f64::from(u8::from(link == Link::Connected)),
        ),
        ("flower_events_received_total", "counter", "Events that came in", number(totals.received)),
        ("flower_events_dropped_total", "counter", "Events that said nothing usable", number(totals.dropped)),
        (
            "flower_events_undecodable_total",
            "counter",
            "Messages that are no events",
            number(totals.undecodable),
        ),
        ("flower_events_duplicate_total", "counter", "Events that came in again", number(totals.duplicates)),
        (
            "flower_tasks_evicted_total",
            "counter",
            "Tasks forgotten for want of room",
            number(state.tasks().evicted()),
        ),
        (
            "flower_tasks_bytes",
            "gauge",
            "Estimated memory of remembered tasks",
            number(state.tasks().weight() as u64),
        ),
        ("flower_streams_open", "gauge", "Live streams that are open", number(streams as u64)),
        ("flower_uptime_seconds", "gauge", "Seconds since the start", now.since(state.started_at())),
    ] {
        page.about(name, kind, help);
        page.sample(name, &[], value);
    }
    if let Some(lag) = totals.lag {
        page.about("flower_event_lag_seconds", "gauge", "Seconds that the newest event was on its way");
        page.sample("flower_event_lag_seconds", &[], lag);
    }
    page.text
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floats")]
fn number(count: u64) -> f64 {
    count as f64
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn about(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
