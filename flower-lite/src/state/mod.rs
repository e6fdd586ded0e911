//! The state of a cluster as its events show it. Pure: no clock, no network; events and times come in as arguments.
//!
//! [`ClusterState::apply`] takes one event in and says what changed. Each change has a number, the *version*; tasks and
//! workers remember the version of their last change, so that "what changed since 17?" can be answered for anyone at any
//! time (see [`crate::live`]). Nothing here is serialisable: what clients see is made in [`crate::view`].
//!
//! Read in this order: [`mark`] (one event of a task), [`task`] (a timeline and what follows from it), [`tasks`] (all of
//! them, indexed and bounded), [`worker`], [`workers`], [`observe`] (from a stranger's event to a mark), [`query`].

pub mod counts;
pub mod key;
pub mod mark;
pub mod memory;
pub mod names;
pub mod observe;
pub mod order;
mod packed;
pub mod query;
pub mod rollup;
pub mod series;
pub mod task;
pub mod tasks;
pub mod text;
pub mod time;
pub mod timings;
pub mod worker;
pub mod workers;

use std::collections::HashSet;
use std::sync::Arc;

use celery_protocol::event::Event;

use counts::{EventCounts, Failure, FailureCounts, QueuesOfTasks};
use key::TaskKey;

use mark::{Kind, Mark};
use names::Names;
use observe::{News, Refusal, Seen};
use rollup::{Happened, Rollup};
use series::{Series, Tally};
use task::{Taken, Task};
use tasks::{Room, Tasks};
use time::UnixTime;
use timings::Timings;
use worker::Worker;
use workers::Workers;

/// The worker under whose name the events of all clients are counted.
pub const CLIENT: &str = "client";

/// Which part of the room for tasks those may take that make room and are not saved yet.
const UNSAVED_PART: usize = 4;

/// How much a monitor remembers, and how much of each text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tasks. Default: 100,000.
    pub max_tasks: usize,
    /// Bytes for tasks, estimated. Default: 256 MiB.
    pub max_bytes: usize,
    /// Workers. Default: 5,000.
    pub max_workers: usize,
    /// Bytes of an argument list, a result or an exception. Default: 4 KiB.
    pub max_text: usize,
    /// Bytes of a traceback. Default: 16 KiB.
    pub max_traceback: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_tasks: 100_000,
            max_bytes: 256 << 20,
            max_workers: 5_000,
            max_text: 4 << 10,
            max_traceback: 16 << 10,
        }
    }
}

/// Everything a monitor knows.
#[derive(Debug)]
pub struct ClusterState {
    limits: Limits,
    version: u64,
    oldest_version: u64,
    started_at: UnixTime,
    names: Names,
    tasks: Tasks,
    workers: Workers,
    series: Series,
    counts: EventCounts,
    failures: FailureCounts,
    queues: QueuesOfTasks,
    timings: Timings,
    rollup: Rollup,
    totals: Totals,
    /// Tasks whose end came without their start.
    startless: HashSet<TaskKey>,
    unsaved: memory::Unsaved,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Events that came in.
    pub received: u64,
    /// Events that say nothing that can be used, and were dropped.
    pub dropped: u64,
    /// Messages that are no events.
    pub undecodable: u64,
    /// Events that came in again.
    pub duplicates: u64,
    /// Tasks whose end was learnt from the result backend.
    pub completed: u64,
    /// Tasks forgotten whose end came without their start: an event of theirs was lost on the way.
    pub missed: u64,
    /// How often the connection to the broker was lost.
    pub disconnections: u64,
    /// Seconds without a connection to the broker, in which events passed unseen.
    pub disconnected: f64,
    /// Seconds in which this process did not run, or was too slow to take events in.
    pub stalled: f64,
    /// Seconds that the newest event was on its way, as far as clocks can tell.
    pub lag: Option<f64>,
}

/// What an event did.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It can't be used.
    Refused(Refusal),
    /// It is known already.
    Known,
    /// It is news of a task; others may have had to make room.
    Task {
        /// Which.
        id: TaskKey,
        /// The version in which it changed.
        version: u64,
        /// The tasks that were forgotten.
        evicted: Vec<TaskKey>,
    },
    /// It is news of a worker.
    Worker {
        /// Which.
        name: Arc<str>,
        /// The version in which it changed.
        version: u64,
    },
}

impl ClusterState {
    /// Knows nothing yet.
    ///
    /// Versions begin at the time of the start in microseconds. So a client that kept a version of an earlier process
    /// asks for something older than anything here, and is told to start over.
    #[must_use]
    pub fn new(limits: Limits, now: UnixTime) -> ClusterState {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
        let version = (now.seconds() * 1e6) as u64;
        ClusterState {
            limits,
            version,
            oldest_version: version,
            started_at: now,
            names: Names::default(),
            tasks: Tasks::default(),
            workers: Workers::new(limits.max_workers),
            series: Series::new(now),
            counts: EventCounts::default(),
            failures: FailureCounts::default(),
            queues: QueuesOfTasks::default(),
            timings: Timings::default(),
            rollup: Rollup::default(),
            startless: HashSet::new(),
            unsaved: memory::Unsaved::default(),
            totals: Totals::default(),
        }
    }

    /// Takes in one event that was received at `received`.
    pub fn apply(&mut self, event: &Event, received: UnixTime) -> Change {
        self.totals.received += 1;
        match observe::observe(event, &mut self.names, &self.limits, received) {
            Ok(Seen::Task { id, mark }) => self.record(id, &mark, received),
            Ok(Seen::Worker { name, sent, news }) => self.hear(&name, sent, &news, received),
            Err(refusal) => {
                self.totals.dropped += 1;
                Change::Refused(refusal)
            }
        }
    }

    /// Notes `count` messages that could not be read as events.
    pub fn note_undecodable(&mut self, count: u64) {
        self.totals.undecodable += count;
        self.version += 1;
    }

    /// Notes `count` events that were lost before they came here.
    pub fn note_dropped(&mut self, count: u64) {
        self.totals.dropped += count;
        self.version += 1;
    }

    /// Notes that events could not come in for so many seconds.
    pub fn note_disconnected(&mut self, seconds: f64) {
        self.totals.disconnections += 1;
        self.totals.disconnected += seconds;
        self.version += 1;
    }

    /// Notes that nothing was taken in for so many seconds.
    pub fn note_stalled(&mut self, seconds: f64) {
        self.totals.stalled += seconds;
        self.version += 1;
    }

    /// Judges which workers still live. To be called about as often as anyone wants to know.
    pub fn tick(&mut self, now: UnixTime) {
        let next = self.version + 1;
        for worker in self.workers.iter_mut() {
            if worker.judge(now) {
                worker.touch(next);
                self.version = next;
                let orphaned = !worker.is_online();
                for id in worker.running() {
                    self.tasks.orphan(id.as_str(), orphaned, next);
                }
            }
        }
    }

    /// Forgets workers that were silent since before `limit`. Gives how many.
    pub fn forget_silent_since(&mut self, limit: UnixTime) -> usize {
        let forgotten = self.workers.forget_silent_since(limit);
        if forgotten > 0 {
            let workers = &self.workers;
            let keep = |name: &str| workers.get(name).is_some() || name == CLIENT || name == counts::OTHER;
            self.counts.retain(keep);
            self.timings.retain(keep);
            self.failures.retain(keep);
            self.version += 1;
            self.oldest_version = self.version;
        }
        forgotten
    }

    fn record(&mut self, id: TaskKey, mark: &Mark, received: UnixTime) -> Change {
        let version = self.version + 1;
        let kind = mark.what.kind();
        let origin = mark.origin.clone();
        let sent = (mark.at, mark.clock);

        let recorded = self.tasks.record(id.as_str(), mark, version);
        let new = recorded.taken == Taken::New;
        if new {
            self.version = version;
            self.count(&id, kind, &origin);
            if let Some(tally) = tally(kind) {
                self.series.count(tally, received);
            }
        } else {
            self.totals.duplicates += 1;
        }
        if kind != Kind::Sent {
            self.version = version;
            let worker = self.workers.heard(&origin, received);
            self.totals.lag = Some(worker.lives(sent, received).max(0.0));
            if new {
                worker.count(kind);
            }
            let turned = worker.judge(received);
            worker.touch(version);
            if turned {
                self.settle_orphans(&origin, version);
            }
        }
        if !new {
            return Change::Known;
        }
        self.time(&id, kind, &origin, received);
        self.move_running(&id, recorded.ran_on, version);
        let evicted = self.make_room();
        Change::Task { id, version, evicted }
    }

    /// Takes the times of a task that has just come into a new state, and notes whether its start was missed.
    fn time(&mut self, id: &TaskKey, kind: Kind, worker: &Arc<str>, received: UnixTime) {
        if !matches!(kind, Kind::Started | Kind::Succeeded | Kind::Failed | Kind::Retried) {
            return;
        }
        let Some(task) = self.tasks.get(id.as_str()) else { return };
        let name = task.name().cloned().unwrap_or_else(|| self.names.share(""));
        let started = task.when(Kind::Started);
        let runtime = task.measured();
        if let Some(happened) = Happened::of(kind, task) {
            self.rollup.count(worker, &name, happened, received);
        }
        match kind {
            Kind::Retried => {}
            Kind::Started => {
                self.startless.remove(id);
                let received = task.when(Kind::Received).filter(|_| !task.waits());
                if let (Some(received), Some(started)) = (received, started) {
                    self.timings.waited(worker, &name, started.since(received).max(0.0));
                }
            }
            _ => {
                if started.is_some() {
                    self.timings.ended(worker, &name);
                }
                if let (Kind::Succeeded, Some(runtime)) = (kind, runtime) {
                    self.timings.ran(worker, &name, runtime.max(0.0));
                    if started.is_none() && self.should_know_start(task.timestamp(), runtime, worker) {
                        self.startless.insert(id.clone());
                    }
                }
            }
        }
    }

    /// What happened lately, by task and worker.
    #[must_use]
    pub fn rollup(&self) -> &Rollup {
        &self.rollup
    }

    /// Whether a task that ran until `end` began when events of its worker had long been coming in.
    fn should_know_start(&self, end: UnixTime, runtime: f64, worker: &str) -> bool {
        const SETTLED: f64 = 10.0;
        let Some(worker) = self.workers.get(worker) else { return false };
        let begun = end.plus(worker.drift() - runtime);
        begun.since(self.started_at) > SETTLED && begun.since(worker.first_seen()) > SETTLED
    }

    fn count(&mut self, id: &TaskKey, kind: Kind, origin: &Arc<str>) {
        let task = self.tasks.get(id.as_str());
        let name = task.and_then(Task::name).cloned().unwrap_or_else(|| self.names.share(""));
        if let (Kind::Failed, Some(task)) = (kind, task) {
            let exception = task.trouble().and_then(|trouble| trouble.exception);
            self.failures.count(origin, &name, exception.unwrap_or_default());
        }
        if let (Kind::Sent, Some(queue)) = (kind, task.and_then(Task::queue)) {
            self.queues.note(&name, queue);
        }
        let worker = if kind == Kind::Sent { self.names.share(CLIENT) } else { origin.clone() };
        self.counts.count(counts::Key { worker, kind, task: name });
    }

    fn hear(&mut self, name: &Arc<str>, sent: worker::Instant, news: &News, received: UnixTime) -> Change {
        self.version += 1;
        let worker = self.workers.heard(name, received);
        match news {
            News::Offline => worker.leaves(sent),
            News::Alive(facts) => {
                self.totals.lag = Some(worker.lives(sent, received).max(0.0));
                worker.tells(facts, sent);
            }
        }
        let turned = worker.judge(received);
        worker.touch(self.version);
        if turned {
            self.settle_orphans(name, self.version);
        }
        Change::Worker { name: name.clone(), version: self.version }
    }

    /// Keeps the workers' lists of running tasks true after a task has changed.
    fn move_running(&mut self, id: &TaskKey, before: Option<Arc<str>>, version: u64) {
        let after =
            self.tasks.get(id.as_str()).filter(|task| task.is_running()).and_then(Task::worker).cloned();
        if before == after {
            return;
        }
        let silent =
            after.as_ref().and_then(|name| self.workers.get(name)).is_some_and(|worker| !worker.is_online());
        self.tasks.orphan(id.as_str(), silent, version);
        if let Some(worker) = before.and_then(|name| self.workers.get_mut(&name)) {
            worker.runs_no_more(id);
            worker.touch(version);
        }
        if let Some(worker) = after.and_then(|name| self.workers.get_mut(&name)) {
            worker.runs(id.clone());
            worker.touch(version);
        }
    }

    /// Marks the tasks that a worker runs as orphaned if it has fallen silent, and as its own again if it is back.
    fn settle_orphans(&mut self, worker: &str, version: u64) {
        let Some(worker) = self.workers.get(worker) else { return };
        let orphaned = !worker.is_online();
        for id in worker.running() {
            self.tasks.orphan(id.as_str(), orphaned, version);
        }
    }

    fn make_room(&mut self) -> Vec<TaskKey> {
        let room = Room { tasks: self.limits.max_tasks.max(1), bytes: self.limits.max_bytes };
        let mut evicted = Vec::new();
        while let Some(task) = self.tasks.evict_beyond(room) {
            let id = task.key();
            if let Some(worker) = task.worker().and_then(|name| self.workers.get_mut(name)) {
                worker.runs_no_more(&id);
            }
            self.totals.missed += u64::from(self.startless.remove(&id));
            evicted.push(id);
            self.unsaved.evicts(task, self.limits.max_bytes / UNSAVED_PART);
        }
        evicted
    }

    /// The number of the last change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version from which a client can go on. Who is further behind must fetch anew: that version is of another
    /// process, or something that it knows has been forgotten on purpose.
    #[must_use]
    pub fn oldest_version(&self) -> u64 {
        self.oldest_version
    }

    /// When this state began to be kept.
    #[must_use]
    pub fn started_at(&self) -> UnixTime {
        self.started_at
    }

    /// The tasks.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The workers, by name.
    #[must_use]
    pub fn workers(&self) -> Vec<&Worker> {
        let mut workers: Vec<&Worker> = self.workers.iter().collect();
        workers.sort_by(|a, b| a.name().cmp(b.name()));
        workers
    }

    /// The worker of this name.
    #[must_use]
    pub fn worker(&self, name: &str) -> Option<&Worker> {
        self.workers.get(name)
    }

    /// How many workers live, and how many don't.
    #[must_use]
    pub fn count_workers(&self) -> WorkerCount {
        let total = self.workers.iter().count();
        let online = self.workers.iter().filter(|worker| worker.is_online()).count();
        WorkerCount { online, offline: total - online }
    }

    /// What happened lately, second by second.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// How many events of which type came from whom.
    #[must_use]
    pub fn event_counts(&self) -> &EventCounts {
        &self.counts
    }

    /// How many tasks failed with which exception at which worker, in no order.
    pub fn failures(&self) -> impl Iterator<Item = (&Failure, u64)> {
        self.failures.iter()
    }

    /// The queue that tasks of this name were last sent to, as far as clients told; else Celery's default one.
    #[must_use]
    pub fn queue_of(&self, task: &str) -> &str {
        self.queues.of(task)
    }

    /// How long tasks ran and waited, by worker and name.
    #[must_use]
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// How many tasks ended of which the start was never told, though it should have been: so many events were lost, at
    /// the least.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.totals.missed + self.startless.len() as u64
    }

    /// What was counted since the start.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }
}

/// How many workers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerCount {
    /// These do.
    pub online: usize,
    /// These did.
    pub offline: usize,
}

fn tally(kind: Kind) -> Option<Tally> {
    match kind {
        Kind::Received => Some(Tally::Received),
        Kind::Succeeded => Some(Tally::Succeeded),
        Kind::Failed => Some(Tally::Failed),
        Kind::Retried => Some(Tally::Retried),
        Kind::Sent | Kind::Started | Kind::Custom | Kind::Rejected | Kind::Revoked => None,
    }
}

#[cfg(test)]
mod tests;
