//! What the workers of one result store know together, beside results: what is revoked, kept over restarts and for those
//! who start later, and rate limits that hold over all of them. Celery has neither; the keys are ours.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use celery_protocol::TaskId;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::error::BackendError;

/// Revocations kept; the oldest go first. As many as Celery's workers remember.
pub const MAX_REVOCATIONS: usize = 50_000;

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Something that must not be run.
#[derive(Debug, Clone, PartialEq)]
pub enum Revocation {
    /// The task of this id.
    Task(TaskId),
    /// Whatever carries this stamp with this value.
    Stamp(String, Value),
}

/// How often something may start, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The time between two starts, in the long run.
    pub interval: Duration,
    /// How many may start at once after a pause; at least 1.
    pub burst: u32,
}

/// Shared knowledge. Each operation is atomic.
pub trait Cluster: fmt::Debug + Send + Sync + 'static {
    /// Remembers revocations for `lifetime`, and no other one for less than it was told.
    fn revoke<'a>(&'a self, revocations: &'a [Revocation], lifetime: Duration) -> Answer<'a, ()>;

    /// What was revoked since then, oldest first.
    fn revoked_since(&self, since: SystemTime) -> Answer<'_, Vec<Revocation>>;

    /// Books the next start under `key` and says how long to wait for it. Time is the store's, so the clocks of the
    /// workers do not matter.
    fn book<'a>(&'a self, key: &'a str, pace: Pace) -> Answer<'a, Duration>;

    /// Counts one more under `key`, which is forgotten after `lifetime`; the count.
    fn count<'a>(&'a self, key: &'a str, lifetime: Duration) -> Answer<'a, u64>;

    /// Forgets what was counted under `key`.
    fn forget_count<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;
}

impl Revocation {
    /// As it is kept: `i:<id>` or `s:["name", value]`.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Task(id) => format!("i:{id}"),
            Self::Stamp(name, value) => format!("s:{}", serde_json::json!([name, value])),
        }
    }

    /// What is no revocation is skipped: a later version may keep more.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        if let Some(id) = text.strip_prefix("i:") {
            return TaskId::parse(id).ok().map(Self::Task);
        }
        let (name, value) = serde_json::from_str(text.strip_prefix("s:")?).ok()?;
        Some(Self::Stamp(name, value))
    }
}

impl Pace {
    /// When the next start is allowed, and the state to keep: `tat` is the time at which everything booked so far has been
    /// worked off, in microseconds, as `now` is.
    pub(crate) fn book(self, tat: u64, now: u64) -> (Duration, u64) {
        let interval = u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let tat = tat.max(now);
        let slack = interval.saturating_mul(u64::from(self.burst.max(1) - 1));
        let start = tat.saturating_sub(slack).max(now);
        (Duration::from_micros(start - now), tat.saturating_add(interval))
    }
}

/// Knowledge of this process alone, beside the memory backend.
#[derive(Debug, Clone, Default)]
pub struct MemoryCluster(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    revoked: Vec<Kept>,
    paces: HashMap<String, u64>,
    counts: HashMap<String, u64>,
}

#[derive(Debug)]
struct Kept {
    at: SystemTime,
    until: SystemTime,
    what: Revocation,
}

impl MemoryCluster {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<T: Send + 'static>(value: T) -> Answer<'static, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Cluster for MemoryCluster {
    fn revoke<'a>(&'a self, revocations: &'a [Revocation], lifetime: Duration) -> Answer<'a, ()> {
        let now = SystemTime::now();
        let mut known = self.lock();
        known.revoked.retain(|kept| kept.until > now);
        for one in revocations {
            let same = known.revoked.iter().position(|kept| kept.what == *one);
            let before = same.map(|index| known.revoked.remove(index).until);
            let until = now.checked_add(lifetime).max(before).unwrap_or(now);
            known.revoked.push(Kept { at: now, until, what: one.clone() });
        }
        let surplus = known.revoked.len().saturating_sub(MAX_REVOCATIONS);
        known.revoked.drain(..surplus);
        ready(())
    }

    fn revoked_since(&self, since: SystemTime) -> Answer<'_, Vec<Revocation>> {
        let known = self.lock();
        ready(known.revoked.iter().filter(|kept| kept.at >= since).map(|kept| kept.what.clone()).collect())
    }

    fn book<'a>(&'a self, key: &'a str, pace: Pace) -> Answer<'a, Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 2);
        let mut known = self.lock();
        known.paces.retain(|_, tat| *tat >= now);
        let tat = known.paces.entry(key.to_owned()).or_default();
        let (wait, next) = pace.book(*tat, now);
        *tat = next;
        ready(wait)
    }

    fn count<'a>(&'a self, key: &'a str, _lifetime: Duration) -> Answer<'a, u64> {
        let mut known = self.lock();
        let count = known.counts.entry(key.to_owned()).or_default();
        *count += 1;
        ready(*count)
    }

    fn forget_count<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        self.lock().counts.remove(key);
        ready(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revocations_survive_being_kept() {
        for one in [
            Revocation::Task(TaskId::parse("a-b").unwrap()),
            Revocation::Stamp("job".into(), json!({"n": [1, "x"]})),
        ] {
            assert_eq!(Revocation::decode(&one.encode()), Some(one));
        }
        for other in ["", "x:1", "i:", "s:1", "s:[1]"] {
            assert_eq!(Revocation::decode(other), None, "{other}");
        }
    }

    #[test]
    fn a_burst_starts_at_once_and_the_rest_at_the_pace() {
        let pace = Pace { interval: Duration::from_millis(100), burst: 3 };
        let (mut tat, now) = (0, 1_000_000);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let (wait, next) = pace.book(tat, now);
            waits.push(wait.as_millis());
            tat = next;
        }
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        let later = now + 10_000_000;
        assert_eq!(pace.book(tat, later).0, Duration::ZERO, "a pause restores the burst");
    }
}
