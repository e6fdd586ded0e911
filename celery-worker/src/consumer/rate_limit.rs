//! Rate limits per task, as Celery's: at most `r` starts a second, burst of one, per worker.
//!
//! Pure arithmetic on times that come in; what has to wait is held in the ETA heap.

use std::time::{Duration, SystemTime};

/// A rate as Celery writes it: `"10/s"`, `"100/m"`, `"5/h"`, a number (per second), `0` or null for none.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// The distance between two starts.
    interval: Duration,
    text: String,
}

/// Why a rate was refused, worded as the Python worker words it in its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRate(pub String);

impl Rate {
    /// Reads a rate; `Ok(None)` means no limit.
    ///
    /// # Errors
    /// The reply a Python worker gives for the same text.
    pub fn parse(text: &str) -> Result<Option<Rate>, InvalidRate> {
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit.trim() {
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(InvalidRate(format!("KeyError('{other}')"))),
        };
        let invalid = || {
            InvalidRate(format!(
                "Invalid rate limit string: ValueError(\"could not convert string to float: '{}'\")",
                count.trim()
            ))
        };
        let count: f64 = count.trim().parse().map_err(|_| invalid())?;
        if !count.is_finite() || count < 0.0 {
            return Err(invalid());
        }
        if count == 0.0 {
            return Ok(None);
        }
        let interval = Duration::try_from_secs_f64(seconds / count).map_err(|_| invalid())?;
        Ok(Some(Rate { interval, text: text.to_owned() }))
    }

    /// The rate as it was written, for `inspect registered`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// One task's limit and when its next start is allowed.
#[derive(Debug, Clone)]
pub struct Limiter {
    rate: Rate,
    next: SystemTime,
}

impl Limiter {
    /// A limiter that lets the first start through at once.
    pub fn new(rate: Rate) -> Limiter {
        Limiter { rate, next: SystemTime::UNIX_EPOCH }
    }

    /// Books the next start and says when it is: `now`, or later. A clock that jumped back never makes the wait
    /// longer than the queue of starts booked since.
    pub fn book(&mut self, now: SystemTime) -> SystemTime {
        let start = self.next.max(now);
        self.next = start + self.rate.interval;
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_celery_reads_them() {
        let interval = |text: &str| Rate::parse(text).map(|rate| rate.map(|rate| rate.interval.as_millis()));
        assert_eq!(interval("10/s"), Ok(Some(100)));
        assert_eq!(interval("120/m"), Ok(Some(500)));
        assert_eq!(interval("3600/h"), Ok(Some(1000)));
        assert_eq!(interval("2"), Ok(Some(500)));
        assert_eq!(interval("0.5"), Ok(Some(2000)));
        assert_eq!(interval("0"), Ok(None));
        assert_eq!(interval("1/y"), Err(InvalidRate("KeyError('y')".into())));
        for bad in ["abc", "", "-1/s", "NaN", "inf/m", "1e-300/h"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_starts_at_once_and_the_others_at_the_rate() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut limiter = Limiter::new(Rate::parse("2/s").unwrap().unwrap());
        let waits: Vec<_> = (0..3).map(|_| limiter.book(now).duration_since(now).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 500, 1000]);
        let later = now + Duration::from_secs(60);
        assert_eq!(limiter.book(later), later);
    }
}
