//! Throughput, failures and times over a window, by task and worker: counts and small histograms per slot of time.
//!
//! Two rings: slots of 15 seconds for an hour, slots of five minutes for a day. A histogram has sixteen buckets for each
//! doubling, so a percentile is off by two per cent at the most, and only those that are not empty are kept. Names come
//! from strangers, so each slot keeps so many pairs of worker and task apart; what is beyond is counted together.

use std::collections::HashMap;
use std::sync::Arc;

use super::counts::OTHER;
use super::mark::Kind;
use super::task::Task;
use super::time::UnixTime;

/// Pairs of worker and task in one slot.
const MAX_PAIRS: usize = 200;
/// The shortest time that is told from none, in seconds.
const SHORTEST: f64 = 1e-4;
/// Buckets for each doubling.
const FINENESS: f64 = 16.0;
/// The last bucket; about eleven days.
const LAST: u16 = 540;
/// Points of a series, at the most.
const MAX_POINTS: i64 = 120;
/// The shortest window, and the longest, in seconds.
pub const WINDOWS: std::ops::RangeInclusive<i64> = 60..=86_400;
/// The longest window that the finer ring has.
const FINE_WINDOW: i64 = 3_600;

/// What happened to a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happened {
    /// It began, after waiting so many seconds if that is known.
    Started(Option<f64>),
    /// It returned, after running for so many seconds.
    Succeeded(Option<f64>),
    /// It raised, after running for so many seconds.
    Failed(Option<f64>),
    /// It will be tried again.
    Retried,
}

impl Happened {
    /// What an event of this kind, just taken in, means for its task. How long one waited that was not to be run before
    /// some time says nothing.
    pub(super) fn of(kind: Kind, task: &Task) -> Option<Happened> {
        let started = task.when(Kind::Started);
        let since = |from: Option<UnixTime>| Some(started?.since(from?).max(0.0));
        match kind {
            Kind::Started if task.call().is_some_and(|call| call.eta.is_some()) => {
                Some(Happened::Started(None))
            }
            Kind::Started => Some(Happened::Started(
                since(task.when(Kind::Sent)).or_else(|| since(task.when(Kind::Received))),
            )),
            Kind::Succeeded => Some(Happened::Succeeded(task.measured())),
            Kind::Failed => {
                let ran = task
                    .when(Kind::Failed)
                    .zip(started)
                    .map(|(failed, started)| failed.since(started).max(0.0));
                Some(Happened::Failed(ran))
            }
            Kind::Retried => Some(Happened::Retried),
            Kind::Sent | Kind::Received | Kind::Custom | Kind::Rejected | Kind::Revoked => None,
        }
    }
}

/// Times, counted in buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Bucket and count, in order.
    buckets: Vec<(u16, u32)>,
    /// How many.
    pub count: u64,
    /// The longest.
    pub max: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        let bucket = bucket(seconds);
        self.put(bucket, 1);
        self.count += 1;
        self.max = self.max.max(seconds);
    }

    fn put(&mut self, bucket: u16, count: u32) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(place) => {
                if let Some((_, known)) = self.buckets.get_mut(place) {
                    *known = known.saturating_add(count);
                }
            }
            Err(place) => self.buckets.insert(place, (bucket, count)),
        }
    }

    fn merge(&mut self, other: &Histogram) {
        for (bucket, count) in &other.buckets {
            self.put(*bucket, *count);
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The time that `part` (0 to 1) of all were no longer than; `None` if there is none.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank"
    )]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = ((part * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += u64::from(*count);
            if seen >= rank {
                return Some(middle(*bucket).min(self.max));
            }
        }
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped, and a float cast saturates"
)]
fn bucket(seconds: f64) -> u16 {
    if seconds <= SHORTEST {
        return 0;
    }
    (((seconds / SHORTEST).log2() * FINENESS) as u16 + 1).min(LAST)
}

/// The time in the middle of a bucket.
fn middle(bucket: u16) -> f64 {
    if bucket == 0 { SHORTEST } else { SHORTEST * ((f64::from(bucket) - 0.5) / FINENESS).exp2() }
}

/// What was counted of some tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// Tasks that returned.
    pub succeeded: u64,
    /// Tasks that raised.
    pub failed: u64,
    /// Runs that will be tried again.
    pub retried: u64,
    /// How long they ran.
    pub runtime: Histogram,
    /// How long they had waited when they began.
    pub wait: Histogram,
}

impl Sum {
    /// Tasks that returned or raised.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed
    }

    fn count(&mut self, happened: Happened) {
        let (times, seconds) = match happened {
            Happened::Started(wait) => (&mut self.wait, wait),
            Happened::Succeeded(runtime) => {
                self.succeeded += 1;
                (&mut self.runtime, runtime)
            }
            Happened::Failed(runtime) => {
                self.failed += 1;
                (&mut self.runtime, runtime)
            }
            Happened::Retried => {
                self.retried += 1;
                return;
            }
        };
        if let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) {
            times.add(seconds.max(0.0));
        }
    }

    fn merge(&mut self, other: &Sum) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.retried += other.retried;
        self.runtime.merge(&other.runtime);
        self.wait.merge(&other.wait);
    }
}

/// What sums are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The name of the task.
    Name,
    /// The worker.
    Worker,
}

type Pair = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Slot {
    /// Which stretch of time it is, counted from the epoch.
    number: i64,
    pairs: HashMap<Pair, Sum>,
}

/// Slots of one length.
#[derive(Debug)]
struct Ring {
    seconds: i64,
    slots: Box<[Slot]>,
}

impl Ring {
    fn new(seconds: i64, count: usize) -> Ring {
        Ring { seconds, slots: (0..count).map(|_| Slot::default()).collect() }
    }

    fn place(&self, number: i64) -> usize {
        let count = i64::try_from(self.slots.len()).unwrap_or(i64::MAX);
        usize::try_from(number.rem_euclid(count)).unwrap_or(0)
    }

    fn count(&mut self, worker: &Arc<str>, name: &Arc<str>, happened: Happened, second: i64) {
        let number = second.div_euclid(self.seconds);
        let place = self.place(number);
        let Some(slot) = self.slots.get_mut(place) else { return };
        if slot.number > number {
            // Older than the ring.
            return;
        }
        if slot.number < number {
            slot.number = number;
            slot.pairs = HashMap::new();
        }
        let pair = (worker.clone(), name.clone());
        let known = slot.pairs.len() < MAX_PAIRS || slot.pairs.contains_key(&pair);
        let pair = if known { pair } else { (OTHER.into(), OTHER.into()) };
        slot.pairs.entry(pair).or_default().count(happened);
    }

    fn slot(&self, number: i64) -> Option<&Slot> {
        self.slots.get(self.place(number)).filter(|slot| slot.number == number)
    }
}

/// Both rings.
#[derive(Debug)]
pub struct Rollup {
    fine: Ring,
    coarse: Ring,
}

impl Default for Rollup {
    fn default() -> Rollup {
        Rollup { fine: Ring::new(15, 241), coarse: Ring::new(300, 289) }
    }
}

/// What a window amounts to.
#[derive(Debug, PartialEq)]
pub struct Summary {
    /// Where it begins, in seconds since the epoch.
    pub from: i64,
    /// Seconds of a point.
    pub step: i64,
    /// All of it.
    pub total: Sum,
    /// By name or worker, those that ended most first.
    pub items: Vec<(Arc<str>, Sum)>,
    /// Point by point, oldest first: when it begins, and what it amounts to.
    pub series: Vec<(i64, Sum)>,
}

impl Rollup {
    /// Counts what happened to a task of this name at this worker.
    pub fn count(&mut self, worker: &Arc<str>, name: &Arc<str>, happened: Happened, received: UnixTime) {
        let second = received.whole_second();
        self.fine.count(worker, name, happened, second);
        self.coarse.count(worker, name, happened, second);
    }

    /// The last `window` seconds, to whole slots.
    #[must_use]
    pub fn summary(&self, window: i64, by: By, only: Option<&str>, now: UnixTime) -> Summary {
        let window = window.clamp(*WINDOWS.start(), *WINDOWS.end());
        let ring = if window <= FINE_WINDOW { &self.fine } else { &self.coarse };
        let last = now.whole_second().div_euclid(ring.seconds);
        let slots = (window + ring.seconds - 1) / ring.seconds;
        let per_point = (slots + MAX_POINTS - 1) / MAX_POINTS;
        let first = last - slots + 1;
        let mut total = Sum::default();
        let mut items: HashMap<Arc<str>, Sum> = HashMap::new();
        let mut series = Vec::new();
        let mut begin = first;
        while begin <= last {
            let mut point = Sum::default();
            for number in begin..(begin + per_point).min(last + 1) {
                for ((worker, name), sum) in ring.slot(number).into_iter().flat_map(|slot| &slot.pairs) {
                    let key = if by == By::Name { name } else { worker };
                    if only.is_none_or(|only| &**key == only) {
                        items.entry(key.clone()).or_default().merge(sum);
                        point.merge(sum);
                    }
                }
            }
            total.merge(&point);
            series.push((begin * ring.seconds, point));
            begin += per_point;
        }
        let mut items: Vec<(Arc<str>, Sum)> = items.into_iter().collect();
        items.sort_by(|(a, x), (b, y)| y.ended().cmp(&x.ended()).then_with(|| a.cmp(b)));
        Summary { from: first * ring.seconds, step: per_point * ring.seconds, total, items, series }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> UnixTime {
        UnixTime::EPOCH.plus(seconds)
    }

    fn told(rollup: &mut Rollup, worker: &str, name: &str, happened: Happened, seconds: f64) {
        rollup.count(&worker.into(), &name.into(), happened, at(seconds));
    }

    proptest! {
        #[test]
        fn a_percentile_is_near_the_true_one(mut times in prop::collection::vec(0.0005f64..5_000.0, 1..300)) {
            let mut histogram = Histogram::default();
            times.iter().for_each(|time| histogram.add(*time));
            times.sort_by(f64::total_cmp);
            for (percent, part) in [(50, 0.5), (95, 0.95), (99, 0.99), (100, 1.0)] {
                let rank = (percent * times.len()).div_ceil(100).max(1) - 1;
                let (exact, near) = (times[rank], histogram.quantile(part).expect("there are some"));
                prop_assert!((near / exact - 1.0).abs() < 0.03, "{near} for {exact}");
            }
        }
    }

    #[test]
    fn a_window_has_what_happened_in_it() {
        let mut rollup = Rollup::default();
        told(&mut rollup, "a@1", "t.old", Happened::Succeeded(Some(1.0)), 100_000.0);
        told(&mut rollup, "a@1", "t.x", Happened::Started(Some(0.5)), 102_000.0);
        told(&mut rollup, "a@1", "t.x", Happened::Succeeded(Some(2.0)), 102_001.0);
        told(&mut rollup, "b@2", "t.x", Happened::Failed(None), 102_050.0);
        told(&mut rollup, "b@2", "t.y", Happened::Retried, 102_050.0);
        let summary = rollup.summary(120, By::Name, None, at(102_060.0));
        assert_eq!((summary.total.succeeded, summary.total.failed, summary.total.retried), (1, 1, 1));
        let names: Vec<&str> = summary.items.iter().map(|(name, _)| &**name).collect();
        assert_eq!((names, summary.step), (vec!["t.x", "t.y"], 15));
        assert_eq!((summary.total.wait.count, summary.total.runtime.max), (1, 2.0));
        let ended: u64 = summary.series.iter().map(|(_, point)| point.ended()).sum();
        assert_eq!((ended, summary.series.len()), (2, 8));
        assert_eq!(summary.from, summary.series[0].0);
        let by_worker = rollup.summary(120, By::Worker, Some("b@2"), at(102_060.0));
        assert_eq!((by_worker.items.len(), by_worker.total.ended()), (1, 1));
        let day = rollup.summary(86_400, By::Name, None, at(102_060.0));
        assert_eq!((day.total.ended(), day.step, day.series.len()), (3, 900, 96));
        assert_eq!(rollup.summary(60, By::Name, None, at(110_000.0)).total, Sum::default(), "it is long ago");
    }

    #[test]
    fn a_flood_of_names_is_counted_together() {
        let mut rollup = Rollup::default();
        for index in 0..MAX_PAIRS + 50 {
            told(&mut rollup, "a@1", &format!("t{index}"), Happened::Succeeded(None), 1_000.0);
        }
        let summary = rollup.summary(60, By::Name, None, at(1_000.0));
        assert_eq!(
            (summary.items.len(), &*summary.items[0].0, summary.items[0].1.succeeded),
            (MAX_PAIRS + 1, OTHER, 50)
        );
        assert_eq!(summary.total.succeeded, 250);
    }

    #[test]
    fn what_comes_from_before_the_ring_changes_nothing() {
        let mut rollup = Rollup::default();
        told(&mut rollup, "a@1", "t", Happened::Succeeded(None), 100_000.0);
        told(&mut rollup, "a@1", "t", Happened::Succeeded(None), 100_000.0 - 241.0 * 15.0);
        assert_eq!(rollup.summary(60, By::Name, None, at(100_000.0)).total.succeeded, 1);
    }
}
