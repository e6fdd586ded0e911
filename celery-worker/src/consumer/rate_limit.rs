//! Rate limits per task, as Celery's: at most `r` starts a second, burst of one, per worker.
//!
//! Pure arithmetic on times that come in; what has to wait is held in the ETA heap.

use std::time::{Duration, SystemTime};

use celery_protocol::options::RateLimit;

/// The longest distance between two starts; beyond it a limit means "practically never" and arithmetic gets no further.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads what the `rate_limit` command was given; `Ok(None)` means no limit.
///
/// # Errors
/// The reply that a Python worker gives for the same text.
pub(crate) fn parse(text: &str) -> Result<Option<RateLimit>, String> {
    if let Ok(limit) = text.parse::<RateLimit>() {
        return Ok((limit.runs > 0.0).then_some(limit));
    }
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    if count.trim().parse::<f64>().is_ok_and(|count| count.is_finite() && count >= 0.0) {
        return Err(format!("KeyError({})", celery_protocol::repr::quoted(unit.trim(), 64)));
    }
    let shown = celery_protocol::repr::quoted(count.trim(), 64);
    Err(format!("Invalid rate limit string: ValueError(\"could not convert string to float: {shown}\")"))
}

/// One task's limit and when its next start is allowed.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    interval: Duration,
    next: SystemTime,
}

impl Limiter {
    /// A limiter that lets the first start through at once; none for a limit of 0, which Celery takes as no limit.
    pub(crate) fn new(limit: RateLimit) -> Option<Limiter> {
        let per_second = limit.per_second();
        if per_second <= 0.0 {
            return None;
        }
        let interval = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(LONGEST).min(LONGEST);
        Some(Limiter { interval, next: SystemTime::UNIX_EPOCH })
    }

    /// The time between two starts.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Books the next start and says when it is: `now`, or later.
    pub(crate) fn book(&mut self, now: SystemTime) -> SystemTime {
        let start = self.next.max(now);
        self.next = start + self.interval;
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_refused_in_celerys_words() {
        for text in ["10/s", "120/m", "2", "0.5"] {
            assert!(parse(text).unwrap().is_some(), "{text}");
        }
        assert_eq!(parse("0"), Ok(None));
        assert_eq!(parse("1/y"), Err("KeyError('y')".into()));
        for bad in ["abc", "", "-1/s", "NaN", "inf/m"] {
            assert!(parse(bad).unwrap_err().starts_with("Invalid rate limit string: ValueError("), "{bad}");
        }
    }

    #[test]
    fn the_first_starts_at_once_and_the_others_at_the_rate() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut limiter = Limiter::new("2/s".parse().unwrap()).unwrap();
        let waits: Vec<_> =
            (0..3).map(|_| limiter.book(now).duration_since(now).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 500, 1000]);
        let later = now + Duration::from_secs(60);
        assert_eq!(limiter.book(later), later);
    }

    #[test]
    fn a_limit_that_is_hardly_one_does_not_overflow() {
        let mut limiter = Limiter::new("1e-300/h".parse().unwrap()).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(limiter.book(now), now);
        assert!(limiter.book(now) > now);
        assert!(Limiter::new("0/s".parse().unwrap()).is_none());
    }
}
