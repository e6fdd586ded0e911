//! When a periodic task is due: every so often, or at the minutes of a crontab. Pure.

use std::time::{Duration, SystemTime};

use super::crontab::Crontab;

/// When a task is due.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// A fixed time after the last run.
    Every(Duration),
    /// As `Every`, at multiples of the duration counted from 1970: `every 30 s` runs at :00 and :30 whatever the time
    /// of the start (Celery's `relative=True`).
    EveryAligned(Duration),
    /// At the minutes that match, in UTC.
    Crontab(Box<Crontab>),
}

impl Schedule {
    /// The first time after `last_run` at which the task is due. A beat that was down for an hour finds one
    /// moment in the past here, not sixty: it catches up once.
    pub fn next_run(&self, last_run: SystemTime) -> Option<SystemTime> {
        match self {
            Schedule::Every(every) => last_run.checked_add(*every),
            Schedule::EveryAligned(every) => {
                let since = last_run.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
                let every = every.as_nanos().max(1);
                let nanos = u64::try_from((since / every + 1).checked_mul(every)?).ok()?;
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
            }
            Schedule::Crontab(crontab) => crontab.next_after(last_run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn intervals_count_from_the_last_run_or_from_the_clock() {
        let half_minute = Duration::from_secs(30);
        assert_eq!(Schedule::Every(half_minute).next_run(at(100)), Some(at(130)));
        assert_eq!(Schedule::EveryAligned(half_minute).next_run(at(100)), Some(at(120)));
        assert_eq!(Schedule::EveryAligned(half_minute).next_run(at(120)), Some(at(150)));
    }

    #[test]
    fn a_crontab_is_due_at_its_minute() {
        let schedule = Schedule::Crontab(Box::new(Crontab::from_columns("*/5 * * * *").unwrap()));
        assert_eq!(schedule.next_run(at(299)), Some(at(300)));
        assert_eq!(schedule.next_run(at(300)), Some(at(600)));
    }
}
