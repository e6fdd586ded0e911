//! All workers that are remembered, at most a fixed number: a name that changes with each event must not fill memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::time::UnixTime;
use super::worker::Worker;

/// The workers.
#[derive(Debug)]
pub struct Workers {
    workers: HashMap<Arc<str>, Worker>,
    room: usize,
    evicted: u64,
}

impl Workers {
    /// Room for `room` workers, at least one.
    #[must_use]
    pub fn new(room: usize) -> Workers {
        Workers { workers: HashMap::new(), room: room.max(1), evicted: 0 }
    }

    /// The worker of this name; if it is new, it may take the place of the one that was silent for longest.
    pub fn heard(&mut self, name: &Arc<str>, received: UnixTime) -> &mut Worker {
        if !self.workers.contains_key(name) && self.workers.len() >= self.room {
            let silent = self.workers.values().min_by_key(|worker| worker.last_heartbeat());
            if let Some(silent) = silent.map(|worker| worker.name().clone()) {
                self.workers.remove(&silent);
                self.evicted += 1;
            }
        }
        self.workers.entry(name.clone()).or_insert_with(|| Worker::new(name.clone(), received))
    }

    /// The worker of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Worker> {
        self.workers.get(name)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Worker> {
        self.workers.get_mut(name)
    }

    /// Every worker, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.workers.values_mut()
    }

    /// Forgets the workers that were silent since before `limit`; gives how many.
    pub fn forget_silent_since(&mut self, limit: UnixTime) -> usize {
        let before = self.workers.len();
        self.workers.retain(|_, worker| worker.is_online() || worker.last_heartbeat() >= limit);
        before - self.workers.len()
    }

    /// How many had to make room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}
