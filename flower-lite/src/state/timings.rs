//! How long tasks ran and how long they waited at their worker, by worker and task: what Flower's histogram and gauges
//! tell.
//!
//! The names come from strangers, so the number of series is bounded; what is beyond is counted together.

use std::collections::HashMap;
use std::sync::Arc;

use super::counts::OTHER;

/// The upper bounds of the histogram's buckets, in seconds; the last one, infinity, is not written down. Flower's.
pub const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// How many series there may be.
const MAX_SERIES: usize = 10_000;

/// What is timed together: a worker and the name of a task.
pub type Key = (Arc<str>, Arc<str>);

/// The times of one kind of task at one worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    /// How many runs were no longer than each bound; not yet summed up.
    buckets: [u64; BUCKETS.len()],
    /// Runs.
    pub count: u64,
    /// Seconds of all runs.
    pub sum: f64,
    /// How long the last task that was started had waited at the worker.
    pub prefetch: Option<f64>,
}

impl Timing {
    /// Notes one run.
    fn ran(&mut self, seconds: f64) {
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// For each bound, how many runs were no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        BUCKETS.into_iter().zip(self.buckets).map(move |(bound, count)| {
            sum += count;
            (bound, sum)
        })
    }
}

/// All timings.
#[derive(Debug, Default)]
pub struct Timings {
    series: HashMap<Key, Timing>,
}

impl Timings {
    /// Notes that a task ran for so long.
    pub fn ran(&mut self, worker: &Arc<str>, task: &Arc<str>, seconds: f64) {
        self.of(worker, task).ran(seconds);
    }

    /// Notes that a task had waited for so long when it was started.
    pub fn waited(&mut self, worker: &Arc<str>, task: &Arc<str>, seconds: f64) {
        self.of(worker, task).prefetch = Some(seconds);
    }

    /// Notes that a task has ended: nothing of it waits any more.
    pub fn ended(&mut self, worker: &Arc<str>, task: &Arc<str>) {
        let timing = self.of(worker, task);
        if timing.prefetch.is_some() {
            timing.prefetch = Some(0.0);
        }
    }

    fn of(&mut self, worker: &Arc<str>, task: &Arc<str>) -> &mut Timing {
        let key = (worker.clone(), task.clone());
        let known = self.series.contains_key(&key) || self.series.len() < MAX_SERIES;
        self.series.entry(if known { key } else { (OTHER.into(), OTHER.into()) }).or_default()
    }

    /// Forgets the workers that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.series.retain(|(worker, _), _| keep(worker));
    }

    /// Every series, in a fixed order.
    #[must_use]
    pub fn all(&self) -> Vec<(&Key, &Timing)> {
        let mut all: Vec<(&Key, &Timing)> = self.series.iter().collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_fall_into_buckets() {
        let mut timings = Timings::default();
        let (worker, task): (Arc<str>, Arc<str>) = ("a@1".into(), "demo.add".into());
        for seconds in [0.004, 0.3, 11.0] {
            timings.ran(&worker, &task, seconds);
        }
        timings.waited(&worker, &task, 2.0);
        let all = timings.all();
        let (_, timing) = all[0];
        let cumulative: Vec<u64> = timing.cumulative().map(|(_, count)| count).collect();
        assert_eq!(cumulative, [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!((timing.count, timing.sum, timing.prefetch), (3, 11.304, Some(2.0)));
    }

    #[test]
    fn a_flood_of_names_is_timed_together() {
        let mut timings = Timings::default();
        for index in 0..MAX_SERIES + 50 {
            timings.ran(&format!("w{index}").into(), &"t".into(), 1.0);
        }
        assert_eq!(timings.all().len(), MAX_SERIES + 1);
    }
}
