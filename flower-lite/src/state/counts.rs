//! How many events of each type each worker sent about each kind of task: Flower's `flower_events_total`.
//!
//! The names come from strangers, so the number of series is bounded; what is beyond is counted together.

use std::collections::HashMap;
use std::sync::Arc;

use super::mark::Kind;

/// How many series there may be.
const MAX_SERIES: usize = 10_000;
/// What names are counted under that came too late to have a series of their own.
const OTHER: &str = "__other__";

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

    /// The counts, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, u64)> {
        let mut counts: Vec<(&Key, u64)> = self.counts.iter().map(|(key, count)| (key, *count)).collect();
        counts.sort();
        counts.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
