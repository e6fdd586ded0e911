//! Time: the logical clock that Celery stamps events with, and the wall clock as a port.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::config::hours_west_of_utc;

/// Celery's Lamport clock; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Lamport(Arc<AtomicU64>);

impl Lamport {
    /// A clock that continues from a saved value.
    pub fn starting_at(value: u64) -> Self {
        Self(Arc::new(AtomicU64::new(value)))
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// One more thing happened here; yields the stamp for it.
    pub fn forward(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// Something stamped `other` arrived: this clock goes beyond it.
    pub fn adjust(&self, other: u64) -> u64 {
        // A peer that claims an absurd time must not take this clock there for ever.
        let other = other.min(u64::MAX / 2);
        let next = |now: u64| Some(now.max(other).wrapping_add(1));
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(before) | Err(before) => before.max(other).wrapping_add(1),
        }
    }
}

/// The wall clock, replaceable in tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock of one's own.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Seconds since 1970, as in events.
    pub fn unix_seconds(&self) -> f64 {
        match self.now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lamports_rules() {
        let clock = Lamport::default();
        assert_eq!((clock.forward(), clock.forward()), (1, 2));
        assert_eq!(clock.adjust(10), 11);
        assert_eq!(clock.adjust(3), 12);
        assert_eq!(clock.clone().forward(), 13);
        assert_eq!(clock.value(), 13);
        assert!(clock.adjust(u64::MAX) < u64::MAX);
    }

    #[test]
    fn a_clock_of_ones_own() {
        let clock = Clock::from_fn(|| UNIX_EPOCH + Duration::from_millis(1_500));
        assert!((clock.unix_seconds() - 1.5).abs() < f64::EPSILON);
    }
}
