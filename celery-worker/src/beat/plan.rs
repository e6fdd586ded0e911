//! Which entry is due when. Pure: the times come in, and what has run goes out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::entry::Entry;
use super::store::LastRun;

/// The longest sleep between two looks at the clock (Celery's `beat_max_loop_interval` is 5 minutes; a clock that jumps
/// forward is noticed sooner here).
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Entries and when each ran last.
#[derive(Debug)]
pub struct Plan {
    entries: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    entry: Entry,
    last: LastRun,
    /// `None`: never again.
    due: Option<SystemTime>,
}

impl Plan {
    /// The entries with what is remembered of them. An entry that is new counts from now.
    pub fn new(entries: Vec<Entry>, remembered: &BTreeMap<String, LastRun>, now: SystemTime) -> Plan {
        let plan = |entry: Entry| {
            let last = remembered.get(&entry.name).copied().unwrap_or_else(|| LastRun::first_seen(now));
            // A last run in the future is a clock that was wrong then.
            let from = last.at().min(now);
            let due = entry.schedule.next_run(from);
            Planned { entry, last, due }
        };
        Plan { entries: entries.into_iter().map(plan).collect() }
    }

    /// The entries that are due.
    pub fn due(&self, now: SystemTime) -> Vec<&Entry> {
        let due = |planned: &&Planned| planned.due.is_some_and(|due| due <= now);
        self.entries.iter().filter(due).map(|planned| &planned.entry).collect()
    }

    /// An entry has run at `now`.
    pub fn ran(&mut self, name: &str, now: SystemTime) {
        if let Some(planned) = self.entries.iter_mut().find(|planned| planned.entry.name == name) {
            // An interval counts from when the run was due, so that it does not drift by the time that sending takes;
            // but a beat that was down catches up once, not as often as it missed.
            let due = planned.due.unwrap_or(now);
            let late = now.duration_since(due).unwrap_or_default();
            let from = if late < Duration::from_secs(1) { due } else { now };
            planned.last = planned.last.ran(from);
            planned.due = planned.entry.schedule.next_run(from);
        }
    }

    /// How long nothing is due.
    pub fn sleep(&self, now: SystemTime) -> Duration {
        let next = self.entries.iter().filter_map(|planned| planned.due).min();
        next.map_or(MAX_SLEEP, |due| due.duration_since(now).unwrap_or_default()).min(MAX_SLEEP)
    }

    /// What to remember.
    pub fn last_runs(&self) -> BTreeMap<String, LastRun> {
        self.entries.iter().map(|planned| (planned.entry.name.clone(), planned.last)).collect()
    }

    /// Each entry with the time of its next run.
    pub fn upcoming(&self) -> impl Iterator<Item = (&Entry, Option<SystemTime>)> {
        self.entries.iter().map(|planned| (&planned.entry, planned.due))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::beat::entry;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn plan(remembered: &BTreeMap<String, LastRun>, now: SystemTime) -> Plan {
        let table = json!({"ten": {"task": "t", "schedule": 10}, "minute": {"task": "t", "schedule": 60}});
        Plan::new(entry::read(table.as_object().unwrap()).unwrap(), remembered, now)
    }

    fn due(plan: &Plan, now: SystemTime) -> Vec<&str> {
        plan.due(now).into_iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn an_entry_runs_one_interval_after_it_was_first_seen() {
        let mut plan = plan(&BTreeMap::new(), at(0));
        assert_eq!(plan.sleep(at(0)), Duration::from_secs(10));
        assert!(due(&plan, at(9)).is_empty());
        assert_eq!(due(&plan, at(10)), ["ten"]);
        plan.ran("ten", at(10));
        assert!(due(&plan, at(19)).is_empty());
        assert_eq!(due(&plan, at(20)), ["ten"]);
    }

    #[test]
    fn a_beat_that_was_down_catches_up_once() {
        let remembered = BTreeMap::from([("ten".to_owned(), LastRun::first_seen(at(0)))]);
        let mut plan = plan(&remembered, at(3_600));
        assert_eq!(due(&plan, at(3_600)), ["ten"]);
        plan.ran("ten", at(3_600));
        assert!(due(&plan, at(3_600)).is_empty());
        assert_eq!(due(&plan, at(3_610)), ["ten"]);
    }

    #[test]
    fn sending_does_not_make_intervals_drift() {
        let mut plan = plan(&BTreeMap::new(), at(0));
        plan.ran("ten", at(10) + Duration::from_millis(300));
        assert_eq!(due(&plan, at(20)), ["ten"]);
    }

    #[test]
    fn a_last_run_in_the_future_is_not_believed() {
        let remembered = BTreeMap::from([("ten".to_owned(), LastRun::first_seen(at(999_999)))]);
        let plan = plan(&remembered, at(0));
        assert_eq!(due(&plan, at(10)), ["ten"]);
    }
}
