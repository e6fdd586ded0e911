//! What of the state has not been saved yet, and putting back what was saved.

use std::collections::VecDeque;
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
    /// Tasks that had to make room before they were saved, oldest first.
    evicted: VecDeque<Task>,
    /// What those cost, in bytes.
    weight: usize,
    /// How many of them had to make room in turn.
    skipped: u64,
}

impl Unsaved {
    /// Keeps a task that makes room, if it has changed since it was saved, and no more than `room` bytes of such tasks.
    pub(super) fn evicts(&mut self, task: Task, room: usize) {
        if self.saved.is_none_or(|saved| task.version() <= saved) {
            return;
        }
        self.weight += task.weight();
        self.evicted.push_back(task);
        while self.weight > room
            && let Some(oldest) = self.evicted.pop_front()
        {
            self.weight = self.weight.saturating_sub(oldest.weight());
            self.skipped += 1;
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

    /// Shows tasks and workers that have changed since this was last called, oldest change first, until about `room` bytes
    /// of tasks were shown; the others have their turn next time. Gives whether all had.
    pub fn save(
        &mut self,
        room: usize,
        mut task: impl FnMut(&Task),
        mut worker: impl FnMut(&Worker),
    ) -> bool {
        let Some(saved) = self.unsaved.saved else { return true };
        let mut shown = 0;
        while let Some(evicted) = self.unsaved.evicted.pop_front() {
            self.unsaved.weight = self.unsaved.weight.saturating_sub(evicted.weight());
            shown += evicted.weight();
            task(&evicted);
            if shown >= room {
                return false;
            }
        }
        let mut last = None;
        for changed in self.tasks.changes_after(saved) {
            // Changes of one version stay together: the next turn begins after it.
            if shown >= room && last != Some(changed.version()) {
                break;
            }
            shown += changed.weight();
            task(changed);
            last = Some(changed.version());
        }
        self.workers.iter().filter(|known| known.version() > saved).for_each(&mut worker);
        self.unsaved.saved = if shown < room { Some(self.version) } else { last.or(Some(saved)) };
        self.is_saved()
    }

    /// How many changes of tasks will not be saved, since this was last called: too many waited to be.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.unsaved.skipped)
    }

    /// Whether everything was shown to whoever saves.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.unsaved.saved.is_none_or(|saved| saved == self.version) && self.unsaved.evicted.is_empty()
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
            self.tasks.record(id.as_str(), &mark, version);
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
        let (key, clock) = (task.key(), task.clock());
        let mark = Mark { at: at.unwrap_or(now), clock, origin, what, stored: true };
        let version = self.version + 1;
        let recorded = self.tasks.record(id, &mark, version);
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
