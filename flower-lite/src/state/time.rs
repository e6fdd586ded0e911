//! Points in time as events carry them: seconds since the Unix epoch, made safe to order.
//!
//! Events are written by other programs and may say anything. [`UnixTime`] is finite by construction, so it has a
//! total order and may be a key of an index.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far ahead of its receipt an event may be dated before its date is disbelieved. Clocks that are off by an hour
/// are shown as drift; a date in the year 9999 would only pin its task to the top of every list.
const BELIEVABLE_LEAD: f64 = 86_400.0;

/// Seconds since the Unix epoch; never NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnixTime(f64);

impl UnixTime {
    /// The epoch itself.
    pub const EPOCH: UnixTime = UnixTime(0.0);

    /// `seconds` as a time; `None` when it is not a finite number.
    #[must_use]
    pub fn new(seconds: f64) -> Option<UnixTime> {
        // `+ 0.0` turns -0.0 into 0.0: both must be the same key.
        seconds.is_finite().then_some(UnixTime(seconds + 0.0))
    }

    /// The time that an event claims, or that of its receipt when the claim can't be true: not a number, before the
    /// epoch, or more than a day ahead.
    #[must_use]
    pub fn claimed(seconds: f64, received: UnixTime) -> UnixTime {
        match UnixTime::new(seconds) {
            Some(time) if time.0 > 0.0 && time.0 <= received.0 + BELIEVABLE_LEAD => time,
            _ => received,
        }
    }

    /// Seconds since the epoch.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0
    }

    /// The whole second that this time lies in.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float cast saturates, which is what a clamp would do"
    )]
    pub fn whole_second(self) -> i64 {
        self.0.floor() as i64
    }

    /// Seconds from `earlier` to `self`; negative when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: UnixTime) -> f64 {
        self.0 - earlier.0
    }

    /// `self` moved by `seconds`; unchanged when the sum is not finite.
    #[must_use]
    pub fn plus(self, seconds: f64) -> UnixTime {
        UnixTime::new(self.0 + seconds).unwrap_or(self)
    }
}

impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> UnixTime {
        UnixTime(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64())
    }
}

impl Eq for UnixTime {}

impl PartialOrd for UnixTime {
    fn partial_cmp(&self, other: &UnixTime) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnixTime {
    fn cmp(&self, other: &UnixTime) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_claim_becomes_the_time_of_receipt() {
        let received = UnixTime(1_000_000.0);
        for (claim, expected) in [
            (999_999.5, 999_999.5),
            (1_003_600.0, 1_003_600.0), // an hour of skew is believed: it is shown as drift
            (1_090_000.0, 1_000_000.0),
            (253_402_300_799.0, 1_000_000.0),
            (0.0, 1_000_000.0),
            (-5.0, 1_000_000.0),
            (f64::NAN, 1_000_000.0),
            (f64::INFINITY, 1_000_000.0),
            (f64::NEG_INFINITY, 1_000_000.0),
        ] {
            assert_eq!(UnixTime::claimed(claim, received).seconds(), expected, "claim {claim}");
        }
    }

    #[test]
    fn negative_zero_is_zero() {
        assert_eq!(UnixTime::new(-0.0), UnixTime::new(0.0));
        assert_eq!(UnixTime::new(-0.0).map(|t| t.cmp(&UnixTime::EPOCH)), Some(Ordering::Equal));
    }
}
