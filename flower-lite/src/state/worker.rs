//! One worker: what its heartbeats say, and whether it lives.
//!
//! A worker lives while now < its last sign of life + twice its interval, by *our* clock at receipt (as Celery does it):
//! a worker whose own clock is an hour off shows drift, and is not offline for it. A worker that said goodbye is offline
//! at once. Goodbye and sign of life are compared by the *sender's* clock, so that a late heartbeat, overtaken by the
//! goodbye, does not bring a worker back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::key::TaskKey;

use super::mark::Kind;
use super::time::UnixTime;

/// Twice the interval: a worker may miss one heartbeat.
const INTERVALS: f64 = 2.0;
/// Seconds from which on Celery speaks of drift: below it, a late event is late and no sign of a wrong clock.
const DRIFT: f64 = 16.0;
/// Seconds by which a worker's clock may be re-estimated per second.
const DRIFT_CHANGE: f64 = 0.001;
/// The interval of a worker that has told none: Celery takes a minute until it knows better.
pub const UNKNOWN_INTERVAL: f64 = 60.0;

/// A worker as its events show it.
#[derive(Clone, Debug)]
pub struct Worker {
    name: Arc<str>,
    version: u64,
    first_seen: UnixTime,
    /// Our clock at the receipt of the last sign of life.
    last_heartbeat: UnixTime,
    /// The sender's time and clock of the newest sign of life, and of the newest goodbye.
    lived: Instant,
    left: Option<Instant>,
    online: bool,
    facts: Told,
    drift: f64,
    /// The least drift lately: what is due to its clock and not to the way.
    least_drift: f64,
    counts: BTreeMap<Kind, u64>,
    heartbeats: u64,
    running: BTreeSet<TaskKey>,
}

/// When, by the sender: its wall clock, then its logical clock.
pub type Instant = (UnixTime, u64);

/// What a worker tells about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Seconds between heartbeats.
    pub freq: Option<f64>,
    /// The process.
    pub pid: Option<i64>,
    /// Its software (`py-celery`).
    pub sw_ident: Option<Arc<str>>,
    /// The version of it.
    pub sw_ver: Option<Arc<str>>,
    /// The operating system.
    pub sw_sys: Option<Arc<str>>,
    /// The load of its machine over 1, 5 and 15 minutes.
    pub loadavg: Option<[f64; 3]>,
    /// Tasks it is running.
    pub active: Option<u64>,
    /// Tasks it has run.
    pub processed: Option<u64>,
}

impl Worker {
    /// A worker that was first heard of at `received`.
    #[must_use]
    pub fn new(name: Arc<str>, received: UnixTime) -> Worker {
        Worker {
            name,
            version: 0,
            first_seen: received,
            last_heartbeat: received,
            lived: (UnixTime::EPOCH, 0),
            left: None,
            online: false,
            facts: Told::default(),
            drift: 0.0,
            least_drift: f64::INFINITY,
            counts: BTreeMap::new(),
            heartbeats: 0,
            running: BTreeSet::new(),
        }
    }

    /// A sign of life: a heartbeat or any event of a task. Gives how many seconds the event was on its way.
    pub fn lives(&mut self, sent: Instant, received: UnixTime) -> f64 {
        let drift = received.since(sent.0);
        let quiet = received.since(self.last_heartbeat).max(0.0);
        self.least_drift = drift.min(self.least_drift + quiet * DRIFT_CHANGE);
        self.last_heartbeat = self.last_heartbeat.max(received);
        if sent >= self.lived {
            self.lived = sent;
            self.drift = drift;
        }
        let clock_is_off = self.least_drift < 0.0 || self.least_drift > DRIFT;
        drift - if clock_is_off { self.least_drift } else { 0.0 }
    }

    /// What it tells about itself with a heartbeat.
    pub fn tells(&mut self, facts: &Facts, sent: Instant) {
        self.heartbeats += 1;
        self.facts.offer(facts, sent);
    }

    /// It was known to an earlier process.
    pub fn restore(&mut self, last_heartbeat: UnixTime, facts: &Facts) {
        self.last_heartbeat = last_heartbeat;
        self.facts.offer(facts, (UnixTime::EPOCH, 0));
    }

    /// It said goodbye.
    pub fn leaves(&mut self, sent: Instant) {
        self.left = self.left.max(Some(sent));
    }

    /// Counts an event of a task.
    pub fn count(&mut self, kind: Kind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Whether it lives at `now`; remembered until asked again. Gives whether the answer has changed.
    pub fn judge(&mut self, now: UnixTime) -> bool {
        let gone = self.left.is_some_and(|left| left >= self.lived);
        let online = !gone && now < self.expires();
        std::mem::replace(&mut self.online, online) != online
    }

    /// When it will be taken for dead.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        self.last_heartbeat.plus(self.freq() * INTERVALS)
    }

    /// Notes that it runs a task.
    pub fn runs(&mut self, id: TaskKey) {
        self.running.insert(id);
    }

    /// Notes that it doesn't run a task any more.
    pub fn runs_no_more(&mut self, id: &TaskKey) -> bool {
        self.running.remove(id)
    }

    /// Marks it as changed in this version of the cluster state.
    pub fn touch(&mut self, version: u64) {
        self.version = version;
    }

    /// Its name, `celery@host`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The version of the cluster state in which it last changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether it was alive when last judged.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// When it was first heard of.
    #[must_use]
    pub fn first_seen(&self) -> UnixTime {
        self.first_seen
    }

    /// When it was last heard of, by our clock.
    #[must_use]
    pub fn last_heartbeat(&self) -> UnixTime {
        self.last_heartbeat
    }

    /// Seconds between its heartbeats.
    #[must_use]
    pub fn freq(&self) -> f64 {
        self.facts.newest.freq.unwrap_or(UNKNOWN_INTERVAL)
    }

    /// What it told about itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts.newest
    }

    /// Its logical clock.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.lived.1
    }

    /// Seconds that its clock is behind ours, the way of the event included.
    #[must_use]
    pub fn drift(&self) -> f64 {
        self.drift
    }

    /// How many events of a kind it sent.
    #[must_use]
    pub fn counted(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// How many heartbeats it sent, those in which it came online included.
    #[must_use]
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats
    }

    /// The tasks it runs.
    #[must_use]
    pub fn running(&self) -> &BTreeSet<TaskKey> {
        &self.running
    }
}

/// For each fact the newest value that was told, and when. Some heartbeats tell only part of it.
#[derive(Clone, Debug, Default)]
struct Told {
    newest: Facts,
    at: [Option<Instant>; 8],
}

impl Told {
    fn offer(&mut self, facts: &Facts, sent: Instant) {
        let Told { newest, at: [freq, pid, ident, ver, sys, load, active, processed] } = self;
        newer(&mut newest.freq, freq, facts.freq.as_ref(), sent);
        newer(&mut newest.pid, pid, facts.pid.as_ref(), sent);
        newer(&mut newest.sw_ident, ident, facts.sw_ident.as_ref(), sent);
        newer(&mut newest.sw_ver, ver, facts.sw_ver.as_ref(), sent);
        newer(&mut newest.sw_sys, sys, facts.sw_sys.as_ref(), sent);
        newer(&mut newest.loadavg, load, facts.loadavg.as_ref(), sent);
        newer(&mut newest.active, active, facts.active.as_ref(), sent);
        newer(&mut newest.processed, processed, facts.processed.as_ref(), sent);
    }
}

/// Takes over `told` if it is something and not older than what is known.
fn newer<T: Clone>(known: &mut Option<T>, since: &mut Option<Instant>, told: Option<&T>, sent: Instant) {
    if told.is_some() && since.is_none_or(|since| sent >= since) {
        *known = told.cloned();
        *since = Some(sent);
    }
}
