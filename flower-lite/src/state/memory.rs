//! What of the state has not been saved yet, and putting back what was saved.

use std::sync::Arc;

use super::ClusterState;
use super::key::TaskKey;
use super::mark::{Mark, What};
use super::task::{Taken, Task};
use super::time::UnixTime;
use super::worker::{Facts, Worker};

/// What somebody who saves the state has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    /// The version up to which everything was saved; `None` while nobody saves.
    saved: Option<u64>,
    /// Tasks that had to make room before they were saved.
    evicted: Vec<Task>,
}

impl Unsaved {
    /// Keeps a task that makes room, if it has changed since it was saved.
    pub(super) fn evicts(&mut self, task: Task) {
        if self.saved.is_some_and(|saved| task.version() > saved) {
            self.evicted.push(task);
        }
    }
}

/// A worker as it was saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedWorker {
    /// Its name.
    pub name: String,
    /// When it was first heard of.
    pub first_seen: f64,
    /// When it was last heard of.
    pub last_heartbeat: f64,
    /// What it told about itself.
    pub facts: Facts,
}

impl SavedWorker {
    /// A worker to be saved.
    #[must_use]
    pub fn of(worker: &Worker) -> SavedWorker {
        SavedWorker {
            name: worker.name().to_string(),
            first_seen: worker.first_seen().seconds(),
            last_heartbeat: worker.last_heartbeat().seconds(),
            facts: worker.facts().clone(),
        }
    }
}

impl ClusterState {
    /// From now on, what changes is to be saved.
    pub fn begin_saving(&mut self) {
        self.unsaved.saved = Some(self.version);
    }

    /// Shows every task and worker that has changed since this was last called.
    pub fn save(&mut self, mut task: impl FnMut(&Task), mut worker: impl FnMut(&Worker)) {
        let Some(saved) = self.unsaved.saved.replace(self.version) else {
            self.unsaved.saved = None;
            return;
        };
        self.unsaved.evicted.drain(..).for_each(|evicted| task(&evicted));
        self.tasks.changed_since(saved).for_each(task);
        self.workers.iter().filter(|known| known.version() > saved).for_each(&mut worker);
    }

    /// Drops tasks that were forgotten and wait to be saved, so that no more than `room` of them wait. Gives how many.
    pub fn drop_unsaved(&mut self, room: usize) -> u64 {
        let beyond = self.unsaved.evicted.len().saturating_sub(room);
        self.unsaved.evicted.drain(..beyond);
        beyond as u64
    }

    /// How many tasks wait to be saved though they were forgotten.
    #[must_use]
    pub fn unsaved_evicted(&self) -> usize {
        self.unsaved.evicted.len()
    }

    /// Puts back a task that was saved by an earlier process. It counts as no event.
    pub fn restore_task(&mut self, id: &TaskKey, marks: Vec<Mark>, forgotten: u32) {
        self.version += 1;
        let version = self.version;
        for mark in marks {
            self.tasks.record(id, mark, version);
        }
        self.tasks.forgot(id.as_str(), forgotten);
        self.move_running(id, None, version);
        self.make_room();
        self.note_saved();
    }

    /// Puts back a worker that was saved by an earlier process. Whether it still lives is judged by when it was heard of.
    pub fn restore_worker(&mut self, saved: &SavedWorker, now: UnixTime) {
        self.version += 1;
        let time = |seconds: f64| UnixTime::new(seconds).unwrap_or(UnixTime::EPOCH);
        let name = self.names.share(&saved.name);
        let worker = self.workers.heard(&name, time(saved.first_seen));
        worker.restore(time(saved.last_heartbeat), &saved.facts);
        worker.judge(now);
        worker.touch(self.version);
        self.note_saved();
    }

    /// Notes how a task ended that the result backend knows of. What an event tells counts more, now or later. Gives whether
    /// it was news.
    pub fn complete(&mut self, id: &str, at: Option<UnixTime>, what: What, now: UnixTime) -> bool {
        let Some(task) = self.tasks.get(id) else { return false };
        let origin = task.worker().cloned().unwrap_or_else(|| self.names.share(""));
        let (key, clock) = (task.id().clone(), task.clock());
        let mark = Mark { at: at.unwrap_or(now), clock, origin, what, stored: true };
        let version = self.version + 1;
        let recorded = self.tasks.record(&key, mark, version);
        if recorded.taken == Taken::Known {
            return false;
        }
        self.version = version;
        self.totals.completed += 1;
        self.move_running(&key, recorded.ran_on, version);
        self.make_room();
        true
    }

    fn note_saved(&mut self) {
        if self.unsaved.saved.is_some() {
            self.unsaved.saved = Some(self.version);
        }
    }

    /// The one copy of a name.
    pub fn share_name(&mut self, name: &str) -> Arc<str> {
        self.names.share(name)
    }
}
