//! What happened in each of the last 300 seconds: the numbers behind the charts of the overview.
//!
//! Seconds are those of *receipt*: a worker whose clock is off must not write into the past of everybody's chart.

use super::time::UnixTime;

/// How many seconds are kept.
pub const SECONDS: usize = 300;

/// Whole seconds that a rate is averaged over.
const RATE_WINDOW: i64 = 10;

/// What is counted per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A worker took a task.
    Received,
    /// A task succeeded.
    Succeeded,
    /// A task failed.
    Failed,
    /// A task will be tried again.
    Retried,
}

/// The counts of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Seconds since the epoch.
    pub second: i64,
    /// Tasks taken by workers.
    pub received: u64,
    /// Tasks that succeeded.
    pub succeeded: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Tasks that will be tried again.
    pub retried: u64,
}

/// A ring of the last [`SECONDS`] seconds.
#[derive(Debug)]
pub struct Series {
    points: Box<[Point]>,
    /// The newest second that was written or asked for.
    newest: i64,
}

impl Series {
    /// An empty series that begins now.
    #[must_use]
    pub fn new(now: UnixTime) -> Series {
        Series { points: vec![Point::default(); SECONDS].into(), newest: now.whole_second() }
    }

    /// Counts one `tally` in the second of `received`. A time older than the ring is ignored.
    pub fn count(&mut self, tally: Tally, received: UnixTime) {
        let second = received.whole_second();
        self.newest = self.newest.max(second);
        if self.newest - second >= length() {
            return;
        }
        let slot = slot(second);
        let point = &mut self.points[slot];
        if point.second != second {
            *point = Point { second, ..Point::default() };
        }
        match tally {
            Tally::Received => point.received += 1,
            Tally::Succeeded => point.succeeded += 1,
            Tally::Failed => point.failed += 1,
            Tally::Retried => point.retried += 1,
        }
    }

    /// The points from `first` (or as far back as the ring reaches) to the second of `now`, without gaps, oldest
    /// first.
    pub fn since(&self, first: i64, now: UnixTime) -> impl Iterator<Item = Point> + '_ {
        let last = now.whole_second();
        (first.max(last - length() + 1)..=last).map(|second| self.at(second))
    }

    /// Tasks that ended per second, and tasks that failed per second, over the last ten whole seconds.
    #[must_use]
    pub fn rates(&self, now: UnixTime) -> Rates {
        let this = now.whole_second();
        let (mut ended, mut failed) = (0, 0);
        for second in this - RATE_WINDOW..this {
            let point = self.at(second);
            ended += point.succeeded + point.failed;
            failed += point.failed;
        }
        Rates { ended: per_second(ended), failed: per_second(failed) }
    }

    fn at(&self, second: i64) -> Point {
        let point = self.points[slot(second)];
        if point.second == second { point } else { Point { second, ..Point::default() } }
    }
}

/// Means over the last seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Tasks that succeeded or failed, per second.
    pub ended: f64,
    /// Tasks that failed, per second.
    pub failed: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of ten seconds are far below 2^53")]
fn per_second(count: u64) -> f64 {
    count as f64 / RATE_WINDOW as f64
}

fn length() -> i64 {
    i64::try_from(SECONDS).unwrap_or(i64::MAX)
}

fn slot(second: i64) -> usize {
    usize::try_from(second.rem_euclid(length())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> UnixTime {
        UnixTime::EPOCH.plus(second as f64)
    }

    #[test]
    fn a_second_that_comes_round_again_starts_from_nothing() {
        let mut series = Series::new(at(1_000));
        series.count(Tally::Received, at(1_000));
        series.count(Tally::Received, at(1_000));
        series.count(Tally::Failed, at(1_300));
        let points: Vec<Point> = series.since(0, at(1_300)).collect();
        assert_eq!(points.len(), SECONDS);
        assert_eq!(points[0].second, 1_001);
        assert_eq!(points[SECONDS - 1], Point { second: 1_300, failed: 1, ..Point::default() });
        assert_eq!(points.iter().map(|p| p.received).sum::<u64>(), 0);
    }

    #[test]
    fn what_is_older_than_the_ring_is_ignored() {
        let mut series = Series::new(at(2_000));
        series.count(Tally::Received, at(1_000));
        assert_eq!(series.since(0, at(2_000)).map(|p| p.received).sum::<u64>(), 0);
        series.count(Tally::Received, at(1_990));
        assert_eq!(series.since(1_990, at(2_000)).map(|p| p.received).collect::<Vec<_>>()[0], 1);
    }

    #[test]
    fn rates_leave_the_second_that_still_runs_out() {
        let mut series = Series::new(at(100));
        for _ in 0..20 {
            series.count(Tally::Succeeded, at(105));
        }
        series.count(Tally::Failed, at(108));
        series.count(Tally::Failed, at(110));
        let rates = series.rates(at(110));
        assert_eq!(rates, Rates { ended: 2.1, failed: 0.1 });
        assert_eq!(series.rates(at(200)), Rates { ended: 0.0, failed: 0.0 });
    }
}
