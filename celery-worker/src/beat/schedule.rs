//! When a periodic task is due: every so often, at the minutes of a crontab, or with the sun. Pure.

use std::time::{Duration, SystemTime};

use celery_protocol::zone::Zone;

use super::crontab::Crontab;
use super::solar::Solar;

const DAY: Duration = Duration::from_secs(86_400);

/// When a task is due.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Schedule {
    /// A fixed time after the last run.
    Every(Duration),
    /// As `Every`, rounded down to the whole day, hour, minute or second of the wall clock, whichever fits into the interval:
    /// `every 2h` runs at full hours (Celery's `relative=True`).
    Rounded(Duration),
    /// At the minutes that match.
    Crontab(Box<Crontab>),
    /// With the sun.
    Solar(Solar),
}

impl Schedule {
    /// The first time after `last_run` at which the task is due, by the wall clock of `zone`. A beat that was down for an hour
    /// finds one moment in the past here, not sixty: it catches up once.
    pub fn next_run(&self, last_run: SystemTime, zone: &Zone) -> Option<SystemTime> {
        match self {
            Schedule::Every(every) => last_run.checked_add(*every),
            Schedule::Rounded(every) => rounded(last_run, *every, zone),
            Schedule::Crontab(crontab) => crontab.next_after(last_run, zone),
            Schedule::Solar(solar) => solar.next_after(last_run),
        }
    }
}

/// Celery's `relative=True`: the last whole unit of the wall clock within the interval, and never the last run itself. Whole
/// days are counted on the calendar, so that a day of 23 hours is a day.
fn rounded(last_run: SystemTime, every: Duration, zone: &Zone) -> Option<SystemTime> {
    let seconds = i64::try_from(every.as_secs()).ok()?;
    if every >= DAY {
        let wall = zone.wall(last_run).checked_add(seconds)?;
        return zone.moment(wall - wall.rem_euclid(86_400), last_run);
    }
    let unit = match seconds {
        3_600.. => 3_600,
        60.. => 60,
        _ => 1,
    };
    let end = last_run.checked_add(every)?;
    if seconds < 1 {
        return Some(end);
    }
    let wall = zone.wall(end);
    let floor = wall - wall.rem_euclid(unit);
    let first = zone.moment(floor, last_run);
    // Of a time that comes twice within the interval it is the second.
    let second = first.and_then(|first| zone.moment(floor, first)).filter(|second| *second <= end);
    match second.or(first) {
        Some(moment) if moment <= end => Some(moment),
        // Rounding has eaten the interval: whatever whole unit comes next.
        late => late.into_iter().chain(zone.moment(floor + unit, last_run)).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn intervals_count_from_the_last_run_or_are_rounded() {
        let utc = Zone::utc();
        let next = |schedule: Schedule, last: SystemTime| schedule.next_run(last, &utc).unwrap();
        assert_eq!(next(Schedule::Every(Duration::from_secs(30)), at(100)), at(130));
        for (every, last, expected) in [
            (30, 100, 130),
            (60, 119, 120),
            (90, 100, 180),
            (3_600, 4_000, 7_200),
            (7_200, 4_000, 10_800),
            (86_400, 90_000, 172_800),
        ] {
            assert_eq!(
                next(Schedule::Rounded(Duration::from_secs(every)), at(last)),
                at(expected),
                "{every}"
            );
        }
        let half = at(10) + Duration::from_millis(700);
        assert_eq!(next(Schedule::Rounded(Duration::from_secs(1)), half), at(11));
        // Rounding would lead back to the last run.
        assert_eq!(next(Schedule::Rounded(Duration::from_millis(1_200)), half), at(11));
        let tenth = Duration::from_millis(100);
        assert_eq!(next(Schedule::Rounded(tenth), half), half + tenth);
    }

    #[test]
    fn a_crontab_is_due_at_its_minute() {
        let schedule = Schedule::Crontab(Box::new(Crontab::from_columns("*/5 * * * *").unwrap()));
        assert_eq!(schedule.next_run(at(299), &Zone::utc()), Some(at(300)));
        assert_eq!(schedule.next_run(at(300), &Zone::utc()), Some(at(600)));
    }

    fn seconds(value: &serde_json::Value) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(value.as_f64().unwrap())
    }

    #[test]
    fn entries_are_due_when_celerys_are() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/schedules.json")).unwrap();
        for case in golden["runs"].as_array().unwrap() {
            let zone = Zone::parse(case["zone"].as_str().unwrap()).unwrap();
            let schedule = match case["crontab"].as_str() {
                Some(columns) => Schedule::Crontab(Box::new(Crontab::from_columns(columns).unwrap())),
                None => Schedule::Rounded(Duration::from_secs(case["relative"].as_u64().unwrap())),
            };
            let mut last = seconds(&case["start"]);
            for (index, expected) in case["runs"].as_array().unwrap().iter().enumerate() {
                let next = schedule.next_run(last, &zone).unwrap();
                let expected = seconds(expected);
                assert_eq!(
                    next, expected,
                    "run {index} after {last:?} of {} {} {}",
                    case["crontab"], case["relative"], zone
                );
                last = next;
            }
        }
    }
}
