//! How long to wait before the next attempt: exponential with full jitter. Pure; the dice are an argument.

use std::time::Duration;

/// First bound.
const BASE: Duration = Duration::from_millis(500);
/// Bound while the broker is unreachable. Below the 15 seconds within which we promise to consume again after its
/// return, whatever the length of the outage was.
const CAP_UNREACHABLE: Duration = Duration::from_secs(10);
/// Bound while the broker answers but refuses us: nobody wants its log filled by a wrong password.
const CAP_REFUSED: Duration = Duration::from_secs(30);

/// Why the last attempt failed, as far as the delay is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing listens, or the network is down.
    Unreachable,
    /// The broker answered and refused: login, virtual host, permission.
    Refused,
}

/// Counts failures and yields delays.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure; `dice` is uniform in `0.0..1.0`.
    pub(crate) fn next(&mut self, failure: Failure, dice: f64) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let cap = match failure {
            Failure::Unreachable => CAP_UNREACHABLE,
            Failure::Refused => CAP_REFUSED,
        };
        // A little above zero so that a flapping peer is never hammered.
        bound.min(cap).mul_f64(dice.clamp(0.0, 1.0)).max(Duration::from_millis(50))
    }

    /// The attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

/// A uniform number in `0.0..1.0`. Quality does not matter here, spreading does.
pub(crate) fn dice() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    let numerator = (high >> 11) as f64;
    numerator / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_of_their_kind() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u128> = (0..8).map(|_| backoff.next(Failure::Unreachable, 1.0).as_millis()).collect();
        assert_eq!(bounds, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
        assert_eq!(backoff.next(Failure::Refused, 1.0), Duration::from_secs(30));
        backoff.reset();
        assert_eq!(backoff.next(Failure::Refused, 1.0).as_millis(), 500);
    }

    /// Defect 16 of rusty-celery: its jitter was a thousand times too small.
    #[test]
    fn defect_16_jitter_covers_the_whole_interval() {
        let mut backoff = Backoff { failures: 4 };
        assert_eq!(backoff.next(Failure::Unreachable, 0.5), Duration::from_secs(4));
        let spread: Vec<f64> = (0..200).map(|_| dice()).collect();
        assert!(spread.iter().any(|d| *d < 0.2) && spread.iter().any(|d| *d > 0.8));
        assert!(spread.iter().all(|d| (0.0..1.0).contains(d)));
    }

    #[test]
    fn a_delay_is_never_zero() {
        assert!(Backoff::default().next(Failure::Unreachable, 0.0) >= Duration::from_millis(50));
    }
}
