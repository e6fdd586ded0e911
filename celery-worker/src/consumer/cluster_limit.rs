//! Rate limits that hold over all workers of one result store, and for each value of an argument apart.
//!
//! Celery's `rate_limit` is per worker and per task. These are booked in the store, one script call per start; what has to
//! wait is held as a task with an ETA is. Without a store that answers, the limit holds in each worker by itself.

use celery_broker::control::Pace;
use celery_protocol::TaskName;
use celery_protocol::options::RateLimit;

use super::rate_limit::Limiter;
use crate::context::Request;

/// One limit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClusterLimit {
    pub(crate) task: TaskName,
    pub(crate) pace: Pace,
    rate: RateLimit,
    /// Remote control has changed it: what was booked at the old rate does not count.
    changed: bool,
    /// The argument whose values are limited apart.
    per: Option<Argument>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument {
    Position(usize),
    Name(String),
}

impl ClusterLimit {
    /// Reads `task=10/m`, `task=10/m*5` (five at once after a pause), `task[customer]=10/m` (for each value of the keyword
    /// argument), `task[0]=10/m` (of the first positional argument).
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right.
    pub(crate) fn parse(text: &str) -> Result<ClusterLimit, String> {
        let wrong = |what: &str| {
            format!("rate limit {text:?}: {what}; write task=10/m, task=10/m*5 or task[argument]=10/m*5")
        };
        let (task, limit) = text.rsplit_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let (task, per) = match task.trim().strip_suffix(']').and_then(|task| task.split_once('[')) {
            Some((task, argument)) => (task, Some(argument.trim())),
            None => (task.trim(), None),
        };
        let task = TaskName::parse(task).map_err(|err| wrong(&err.to_string()))?;
        let (rate, burst) = limit.split_once('*').unwrap_or((limit, "1"));
        let rate: RateLimit = rate.trim().parse().map_err(|_| wrong("it has no rate"))?;
        let burst = burst.trim().parse().ok().filter(|burst| *burst > 0);
        let burst = burst.ok_or_else(|| wrong("the burst is no number from 1"))?;
        let interval = Limiter::new(rate).ok_or_else(|| wrong("the rate is 0"))?.interval();
        let per = match per {
            None => None,
            Some("") => return Err(wrong("the argument has no name")),
            Some(argument) => Some(match argument.parse() {
                Ok(position) => Argument::Position(position),
                Err(_) => Argument::Name(argument.to_owned()),
            }),
        };
        Ok(ClusterLimit { task, pace: Pace { interval, burst }, rate, changed: false, per })
    }

    /// The same limit at another rate, counted anew: all workers that are told so count together. At a rate of 0 it stays
    /// as it is.
    pub(crate) fn changed_to(&self, rate: RateLimit) -> ClusterLimit {
        let Some(limiter) = Limiter::new(rate) else { return self.clone() };
        let pace = Pace { interval: limiter.interval(), ..self.pace };
        ClusterLimit { rate, pace, changed: true, ..self.clone() }
    }

    /// Under which the call is counted. A call without the argument is counted under the task alone.
    pub(crate) fn key(&self, request: &Request) -> String {
        let value = match &self.per {
            None => None,
            Some(Argument::Position(index)) => request.args().as_slice().get(*index).map(|value| value.get()),
            Some(Argument::Name(name)) => request
                .kwargs()
                .as_slice()
                .iter()
                .find(|(key, _)| key.as_str() == name.as_str())
                .map(|(_, value)| value.get()),
        };
        let limit = match self.changed {
            false => self.task.to_string(),
            true => format!("{}@{}", self.task, self.pace.interval.as_micros()),
        };
        match value {
            None => limit,
            Some(value) if value.len() <= 64 => format!("{limit}:{value}"),
            Some(value) => format!("{limit}:#{:016x}", fnv(value.as_bytes())),
        }
    }

    /// The same limit for one worker by itself.
    pub(crate) fn local(&self) -> Option<Limiter> {
        Limiter::new(self.rate)
    }
}

/// A hash that is the same in every worker (FNV-1a).
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_are_read_or_refused_with_a_remedy() {
        let plain = ClusterLimit::parse("mail.send=10/m").unwrap();
        assert_eq!(plain.pace, Pace { interval: Duration::from_secs(6), burst: 1 });
        assert_eq!(plain.per, None);
        let apart = ClusterLimit::parse("mail.send[customer] = 2/s*5").unwrap();
        assert_eq!(apart.pace, Pace { interval: Duration::from_millis(500), burst: 5 });
        assert_eq!(apart.per, Some(Argument::Name("customer".into())));
        assert_eq!(ClusterLimit::parse("t[0]=1/h").unwrap().per, Some(Argument::Position(0)));
        for bad in ["", "t", "t=", "t=x/s", "t=0/s", "t=1/y", "t=1/s*0", "t=1/s*x", "=1/s", "t[]=1/s"] {
            let problem = ClusterLimit::parse(bad).unwrap_err();
            assert!(problem.contains("write task=10/m"), "{bad}: {problem}");
        }
    }
}
