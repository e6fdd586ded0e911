//! The numbers that Flower doesn't have: what was lost, how far behind it is, how long queues will take.

use super::Surroundings;
use super::page::Page;
use crate::live::Link;
use crate::state::ClusterState;

pub(super) fn render(page: &mut Page, state: &ClusterState, around: &Surroundings) {
    let totals = state.totals();
    page.about("flower_tasks", "gauge", "Tasks that are remembered, by state");
    for (task_state, count) in state.tasks().count_by_state() {
        page.sample("flower_tasks", &[("state", task_state.as_str())], count);
    }
    let connected = u8::from(around.link == Link::Connected);
    for (name, kind, help, value) in [
        (
            "flower_tasks_orphaned",
            "gauge",
            "Tasks whose worker fell silent while it ran them",
            state.tasks().orphaned() as u64,
        ),
        ("flower_broker_connected", "gauge", "Whether events can come in", u64::from(connected)),
        (
            "flower_broker_disconnections_total",
            "counter",
            "How often the broker was lost",
            totals.disconnections,
        ),
        ("flower_events_received_total", "counter", "Events that came in", totals.received),
        (
            "flower_events_lost_total",
            "counter",
            "Events that must have been lost on the way, at the least: tasks ended whose start was never told",
            state.missed(),
        ),
        (
            "flower_tasks_completed_by_backend_total",
            "counter",
            "Tasks whose end no event told, but the result backend",
            totals.completed,
        ),
        ("flower_events_dropped_total", "counter", "Events that said nothing usable", totals.dropped),
        ("flower_events_undecodable_total", "counter", "Messages that are no events", totals.undecodable),
        ("flower_events_duplicate_total", "counter", "Events that came in again", totals.duplicates),
        (
            "flower_tasks_evicted_total",
            "counter",
            "Tasks forgotten for want of room",
            state.tasks().evicted(),
        ),
        (
            "flower_tasks_bytes",
            "gauge",
            "Estimated memory of remembered tasks",
            state.tasks().weight() as u64,
        ),
        ("flower_streams_open", "gauge", "Live streams that are open", around.streams as u64),
    ] {
        page.single(name, kind, help, value);
    }
    page.single(
        "flower_broker_disconnected_seconds_total",
        "counter",
        "Seconds without the broker, in which events passed unseen",
        totals.disconnected,
    );
    page.single(
        "flower_stalled_seconds_total",
        "counter",
        "Seconds in which this process took nothing in",
        totals.stalled,
    );
    page.single(
        "flower_uptime_seconds",
        "gauge",
        "Seconds since the start",
        around.now.since(state.started_at()),
    );
    if let Some(lag) = totals.lag {
        page.single("flower_event_lag_seconds", "gauge", "Seconds that the newest event was on its way", lag);
    }
    history(page, around);
    queues(page, around);
}

fn history(page: &mut Page, around: &Surroundings) {
    let Some(numbers) = around.history else { return };
    page.single("flower_history_tasks", "gauge", "Tasks in the history on disk", numbers.tasks);
    page.single("flower_history_bytes", "gauge", "Size of the history on disk", numbers.bytes);
    page.single(
        "flower_history_failures_total",
        "counter",
        "Batches that could not be written to the history",
        numbers.failures,
    );
    page.single(
        "flower_history_skipped_total",
        "counter",
        "Changes of tasks that the history could not take in time",
        numbers.skipped,
    );
}

fn queues(page: &mut Page, around: &Surroundings) {
    page.about("flower_queue_length", "gauge", "Messages that wait in a queue");
    for (name, queue) in &around.queues {
        if let Some(ready) = queue.ready {
            page.sample("flower_queue_length", &[("queue", name)], ready);
        }
    }
    page.about("flower_queue_consumers", "gauge", "Consumers of a queue, as the broker counts them");
    for (name, queue) in &around.queues {
        if let Some(consumers) = queue.consumers {
            page.sample("flower_queue_consumers", &[("queue", name)], consumers);
        }
    }
    page.about("flower_queue_rate", "gauge", "Tasks per second that the workers of a queue end");
    for (name, queue) in &around.queues {
        page.sample("flower_queue_rate", &[("queue", name)], queue.rate);
    }
    page.about(
        "flower_queue_time_to_drain_seconds",
        "gauge",
        "Seconds until a queue is empty if nothing more comes; +Inf if nobody works it off",
    );
    for (name, queue) in &around.queues {
        if let Some(seconds) = queue.time_to_drain() {
            page.sample("flower_queue_time_to_drain_seconds", &[("queue", name)], seconds);
        }
    }
    page.about(
        "flower_queue_oldest_seconds",
        "gauge",
        "Age of the oldest task that no worker has received; needs task_send_sent_event",
    );
    for (name, queue) in &around.queues {
        if let Some(seconds) = queue.oldest {
            page.sample("flower_queue_oldest_seconds", &[("queue", name)], seconds);
        }
    }
    page.about("flower_alerts_firing", "gauge", "Things that are wrong for long enough, by rule");
    for (rule, count) in &around.firing {
        page.sample("flower_alerts_firing", &[("rule", rule)], count);
    }
    page.about("flower_worker_concurrency", "gauge", "Processes or slots of a worker");
    for (worker, slots) in &around.concurrency {
        page.sample("flower_worker_concurrency", &[("worker", worker)], slots);
    }
}
