//! How many messages to take ahead of the tasks that run.
//!
//! Long tasks want few, so that another worker can have what waits here; short ones want hundreds, so that acks and
//! results travel in batches. The adaptive default measures and switches between two levels, far apart and with
//! a gap between the thresholds, because a change means consuming anew. Pure.

use std::time::Duration;

/// The prefetch while tasks are short.
const BATCH: u16 = 1_000;
/// As Celery's default `worker_prefetch_multiplier`.
const MULTIPLIER: u16 = 4;
/// Tasks shorter than this, on average, are short.
const SHORT: Duration = Duration::from_millis(2);
/// Tasks longer than this are long.
const LONG: Duration = Duration::from_millis(20);
/// An average over fewer tasks than this says nothing.
const SAMPLE: u64 = 64;

/// The prefetch of one worker, from its setting and what it sees.
#[derive(Debug)]
pub(crate) struct Prefetch {
    /// `None` is adaptive.
    multiplier: Option<u16>,
    concurrency: usize,
    /// Messages added for those that only wait for their time.
    held: u16,
    /// `held` is at most this.
    held_limit: u16,
    short: bool,
    finished: u64,
    busy: Duration,
}

impl Prefetch {
    /// For `concurrency` slots and the value of `worker_prefetch_multiplier`: a number means exactly that many
    /// messages per slot, 0 as many as the protocol has, `None` adapts.
    pub(crate) fn new(multiplier: Option<u16>, concurrency: usize, held_limit: usize) -> Prefetch {
        let held_limit = u16::try_from(held_limit).unwrap_or(u16::MAX);
        Prefetch {
            multiplier,
            concurrency,
            held: 0,
            held_limit,
            short: false,
            finished: 0,
            busy: Duration::ZERO,
        }
    }

    /// What to ask the broker for now.
    pub(crate) fn target(&self) -> u16 {
        self.for_work().saturating_add(self.held)
    }

    fn for_work(&self) -> u16 {
        let slots = u16::try_from(self.concurrency).unwrap_or(u16::MAX).max(1);
        match self.multiplier {
            Some(0) => u16::MAX,
            Some(multiplier) => slots.saturating_mul(multiplier),
            None if self.short => slots.saturating_mul(MULTIPLIER).max(BATCH),
            None => slots.saturating_mul(MULTIPLIER),
        }
    }

    /// The pool grew or shrank.
    pub(crate) fn set_concurrency(&mut self, concurrency: usize) {
        self.concurrency = concurrency;
    }

    /// `count` messages are held until they are due. They must not keep others from being delivered, so the prefetch
    /// follows their number, in steps, and up to a limit: beyond it far-away tasks do get in the way, but the worker's
    /// memory stays bounded. True when [`Prefetch::target`] changed.
    pub(crate) fn set_held(&mut self, count: usize) -> bool {
        let step = usize::from(self.for_work()).clamp(16, 1_000);
        let up = u16::try_from(count.div_ceil(step) * step).unwrap_or(u16::MAX).min(self.held_limit);
        // Down only when two steps are free, so that one message that comes and goes changes nothing.
        let keep = usize::from(self.held).saturating_sub(2 * step) < count;
        let before = self.target();
        if up > self.held || !keep {
            self.held = up;
        }
        self.target() != before
    }

    /// `finished` more tasks have ended that took `busy` altogether. True when [`Prefetch::target`] changed.
    pub(crate) fn observe(&mut self, finished: u64, busy: Duration) -> bool {
        self.finished += finished;
        self.busy += busy;
        if self.multiplier.is_some() || self.finished < SAMPLE && self.busy < LONG * 64 {
            return false;
        }
        let average = self.busy.div_f64((self.finished as f64).max(1.0));
        (self.finished, self.busy) = (0, Duration::ZERO);
        let before = self.target();
        if average < SHORT {
            self.short = true;
        } else if average > LONG {
            self.short = false;
        }
        self.target() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_given_multiplier_is_obeyed() {
        let target = |multiplier, concurrency| Prefetch::new(Some(multiplier), concurrency, 0).target();
        assert_eq!(
            [target(1, 2), target(4, 3), target(0, 3), target(100, 1_000_000)],
            [2, 12, u16::MAX, u16::MAX]
        );
        assert!(!Prefetch::new(Some(1), 2, 0).observe(10_000, ms(1)));
    }

    #[test]
    fn short_tasks_raise_it_and_long_ones_lower_it() {
        let mut prefetch = Prefetch::new(None, 2, 100);
        assert_eq!(prefetch.target(), 8);
        assert!(!prefetch.observe(10, ms(1)), "too few to tell");
        assert!(prefetch.observe(100, ms(10)));
        assert_eq!(prefetch.target(), 1_000);
        assert!(!prefetch.observe(100, ms(10 * 100)), "between the thresholds nothing changes");
        assert!(prefetch.observe(2, Duration::from_secs(10)), "two long tasks are enough");
        assert_eq!(prefetch.target(), 8);
    }

    #[test]
    fn many_slots_keep_their_four_messages_each() {
        let mut prefetch = Prefetch::new(None, 2_000, 0);
        assert_eq!(prefetch.target(), 8_000);
        assert!(!prefetch.observe(100, ms(1)), "enough already");
        prefetch.set_concurrency(10);
        assert_eq!(prefetch.target(), 1_000);
    }

    #[test]
    fn messages_that_wait_do_not_take_the_place_of_work() {
        let mut prefetch = Prefetch::new(Some(4), 2, 100);
        assert!(prefetch.set_held(1));
        assert_eq!(prefetch.target(), 8 + 16);
        assert!(!prefetch.set_held(16));
        assert!(prefetch.set_held(17));
        assert!(prefetch.set_held(5_000));
        assert_eq!(prefetch.target(), 8 + 100, "bounded");
        assert!(!prefetch.set_held(90), "one step down is not worth a change");
        assert!(prefetch.set_held(0));
        assert_eq!(prefetch.target(), 8);
    }
}
