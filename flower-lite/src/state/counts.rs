//! How many events of each type each worker sent about each kind of task: Flower's `flower_events_total`.
//!
//! The names come from strangers, so the number of series is bounded; what is beyond is counted together.

use std::collections::HashMap;
use std::sync::Arc;

use super::mark::Kind;

/// How many series there may be.
const MAX_SERIES: usize = 10_000;
/// What names are counted under that came too late to have a series of their own.
pub const OTHER: &str = "__other__";

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The sender; all clients are one, since each has a name of its own.
    pub worker: Arc<str>,
    /// The kind of the event; the application's own kinds are one.
    pub kind: Kind,
    /// The name of the task; empty while it isn't known.
    pub task: Arc<str>,
}

/// The counts.
#[derive(Debug, Default)]
pub struct EventCounts {
    counts: HashMap<Key, u64>,
}

impl EventCounts {
    /// Counts one event.
    pub fn count(&mut self, key: Key) {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < MAX_SERIES {
            self.counts.insert(key, 1);
        } else {
            let other = Key { worker: OTHER.into(), kind: Kind::Custom, task: OTHER.into() };
            *self.counts.entry(other).or_default() += 1;
        }
    }

    /// Forgets the workers that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.counts.retain(|key, _| keep(&key.worker));
    }

    /// The counts, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, u64)> {
        let mut counts: Vec<(&Key, u64)> = self.counts.iter().map(|(key, count)| (key, *count)).collect();
        counts.sort();
        counts.into_iter()
    }
}

/// What failures are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Failure {
    /// The worker.
    pub worker: Arc<str>,
    /// The name of the task; empty while it isn't known.
    pub task: Arc<str>,
    /// The class of the exception.
    pub exception: Box<str>,
}

/// How many tasks failed with which exception.
#[derive(Debug, Default)]
pub struct FailureCounts {
    counts: HashMap<Failure, u64>,
}

impl FailureCounts {
    /// Counts one failure, as long as there is room; `exception` is Python's repr of it.
    pub fn count(&mut self, worker: &Arc<str>, task: &Arc<str>, exception: &str) {
        let class = exception.split(['(', ':', '<']).next().unwrap_or_default();
        let class = super::text::bounded(class.trim(), 100);
        let key = Failure { worker: worker.clone(), task: task.clone(), exception: class };
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < MAX_SERIES {
            self.counts.insert(key, 1);
        }
    }

    /// Forgets the workers that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.counts.retain(|key, _| keep(&key.worker));
    }

    /// The counts, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Failure, u64)> {
        self.counts.iter().map(|(key, count)| (key, *count))
    }
}

/// The queue that tasks of a name were last sent to, as far as clients told.
#[derive(Debug, Default)]
pub struct QueuesOfTasks {
    queues: HashMap<Arc<str>, Arc<str>>,
}

impl QueuesOfTasks {
    /// Notes where a task was sent.
    pub fn note(&mut self, task: &Arc<str>, queue: &Arc<str>) {
        match self.queues.get_mut(task) {
            Some(known) => {
                if known != queue {
                    *known = queue.clone();
                }
            }
            None => {
                if self.queues.len() < MAX_SERIES {
                    self.queues.insert(task.clone(), queue.clone());
                }
            }
        }
    }

    /// Where tasks of this name go; Celery's default queue if nobody told.
    #[must_use]
    pub fn of(&self, task: &str) -> &str {
        self.queues.get(task).map_or("celery", |queue| queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_class() {
        let mut counts = FailureCounts::default();
        for exception in ["ValueError('a')", "ValueError('b')", "KeyError('c')", ""] {
            counts.count(&"w@1".into(), &"t".into(), exception);
        }
        let mut found: Vec<(&str, u64)> =
            counts.iter().map(|(key, count)| (&*key.exception, count)).collect();
        found.sort_unstable();
        assert_eq!(found, [("", 1), ("KeyError", 1), ("ValueError", 2)]);
    }

    #[test]
    fn a_flood_of_names_is_counted_together() {
        let mut counts = EventCounts::default();
        for index in 0..MAX_SERIES + 500 {
            let key = Key { worker: format!("w{index}").into(), kind: Kind::Started, task: "t".into() };
            counts.count(key.clone());
            counts.count(key);
        }
        assert_eq!(counts.iter().count(), MAX_SERIES + 1);
        let other = counts.iter().find(|(key, _)| &*key.worker == OTHER);
        assert_eq!(other.map(|(_, count)| count), Some(1_000));
    }
}
