//! Which entry is due when. Pure: the times come in, and what has run goes out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use celery_protocol::zone::Zone;

use super::entry::Entry;
use super::store::LastRun;

/// The longest sleep between two looks at the clock (Celery's `beat_max_loop_interval` is 5 minutes; a clock that jumps
/// forward is noticed sooner here).
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// A run that is late by less than this is taken as having run when it was due, so that intervals do not drift by the time
/// that sending takes.
const PUNCTUAL: Duration = Duration::from_secs(1);

/// Entries and when each ran last.
#[derive(Debug)]
pub struct Plan {
    entries: Vec<Planned>,
    zone: Zone,
    catch_up: Duration,
}

#[derive(Debug)]
struct Planned {
    entry: Entry,
    last: LastRun,
    /// `None`: never again.
    due: Option<SystemTime>,
}

/// An entry that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// The entry.
    pub entry: Entry,
    /// Since when.
    pub due: SystemTime,
    /// What is to be remembered once it is sent.
    pub then: LastRun,
}

impl Plan {
    /// The entries with what is remembered of them. An entry that is new counts from now.
    pub fn new(
        entries: Vec<Entry>,
        remembered: &BTreeMap<String, LastRun>,
        zone: Zone,
        now: SystemTime,
    ) -> Plan {
        let mut plan = Plan { entries: Vec::new(), zone, catch_up: PUNCTUAL };
        plan.entries = entries.into_iter().map(|entry| plan.planned(entry, remembered, now)).collect();
        plan
    }

    /// Every tick that was missed is sent if it is not older than this; older ones are made up for by one.
    #[must_use]
    pub fn catching_up(mut self, missed: Duration) -> Plan {
        self.catch_up = missed.max(PUNCTUAL);
        self
    }

    fn planned(&self, entry: Entry, remembered: &BTreeMap<String, LastRun>, now: SystemTime) -> Planned {
        let last = remembered.get(&entry.name).copied().unwrap_or_else(|| LastRun::first_seen(now));
        // A last run in the future is a clock that was wrong then.
        let from = last.at().min(now);
        let due = entry.schedule.next_run(from, &self.zone);
        Planned { entry, last, due }
    }

    /// The schedule was edited: entries that stay keep what is remembered of them, new ones count from now.
    pub fn edit(&mut self, entries: Vec<Entry>, now: SystemTime) {
        let remembered = self.last_runs();
        self.entries = entries.into_iter().map(|entry| self.planned(entry, &remembered, now)).collect();
    }

    /// The entries as they are planned.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|planned| &planned.entry)
    }

    /// The entries that are due, each with its earliest tick.
    pub fn due(&self, now: SystemTime) -> Vec<Tick> {
        let tick = |planned: &Planned| {
            let due = planned.due.filter(|due| *due <= now)?;
            let then = planned.last.ran(self.counted_from(due, now));
            Some(Tick { entry: planned.entry.clone(), due, then })
        };
        self.entries.iter().filter_map(tick).collect()
    }

    /// A tick counts as run when it was due, so that the next one keeps its time; one that is too late as run now, so that a
    /// beat that was down does not make up for all that it missed.
    fn counted_from(&self, due: SystemTime, now: SystemTime) -> SystemTime {
        let late = now.duration_since(due).unwrap_or_default();
        if late < self.catch_up { due } else { now }
    }

    /// A tick was sent.
    pub fn sent(&mut self, tick: &Tick) {
        let zone = self.zone.clone();
        if let Some(planned) = self.entries.iter_mut().find(|planned| planned.entry.name == tick.entry.name) {
            planned.last = tick.then;
            planned.due = planned.entry.schedule.next_run(tick.then.at(), &zone);
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

    fn entries(table: &serde_json::Value) -> Vec<Entry> {
        entry::read(table.as_object().unwrap()).unwrap()
    }

    fn plan(remembered: &BTreeMap<String, LastRun>, now: SystemTime) -> Plan {
        let table = json!({"ten": {"task": "t", "schedule": 10}, "minute": {"task": "t", "schedule": 60}});
        Plan::new(entries(&table), remembered, Zone::utc(), now)
    }

    fn due(plan: &Plan, now: SystemTime) -> Vec<String> {
        plan.due(now).into_iter().map(|tick| tick.entry.name).collect()
    }

    /// Sends what is due; when each was due.
    fn send(plan: &mut Plan, now: SystemTime) -> Vec<SystemTime> {
        let mut sent = Vec::new();
        loop {
            let ticks = plan.due(now);
            if ticks.is_empty() {
                return sent;
            }
            for tick in ticks {
                plan.sent(&tick);
                sent.push(tick.due);
            }
        }
    }

    #[test]
    fn an_entry_runs_one_interval_after_it_was_first_seen() {
        let mut plan = plan(&BTreeMap::new(), at(0));
        assert_eq!(plan.sleep(at(0)), Duration::from_secs(10));
        assert!(due(&plan, at(9)).is_empty());
        assert_eq!(due(&plan, at(10)), ["ten"]);
        assert_eq!(send(&mut plan, at(10)), [at(10)]);
        assert!(due(&plan, at(19)).is_empty());
        assert_eq!(due(&plan, at(20)), ["ten"]);
    }

    #[test]
    fn a_beat_that_was_down_catches_up_once() {
        let remembered = BTreeMap::from([("ten".to_owned(), LastRun::first_seen(at(0)))]);
        let mut plan = plan(&remembered, at(3_600));
        assert_eq!(send(&mut plan, at(3_600)), [at(10)]);
        assert_eq!(due(&plan, at(3_610)), ["ten"]);
    }

    #[test]
    fn ticks_of_a_short_gap_are_all_made_up_for() {
        let remembered = BTreeMap::from([("ten".to_owned(), LastRun::first_seen(at(0)))]);
        let gap = Duration::from_secs(30);
        let mut short = plan(&remembered, at(35)).catching_up(gap);
        assert_eq!(send(&mut short, at(35)), [at(10), at(20), at(30)]);
        assert_eq!(due(&short, at(40)), ["ten"]);
        let mut long = plan(&remembered, at(95)).catching_up(gap);
        assert_eq!(send(&mut long, at(95)), [at(10)]);
        assert_eq!(send(&mut long, at(105)), [at(105)]);
    }

    #[test]
    fn sending_does_not_make_intervals_drift() {
        let mut plan = plan(&BTreeMap::new(), at(0));
        send(&mut plan, at(10) + Duration::from_millis(300));
        assert_eq!(due(&plan, at(20)), ["ten"]);
    }

    #[test]
    fn a_last_run_in_the_future_is_not_believed() {
        let remembered = BTreeMap::from([("ten".to_owned(), LastRun::first_seen(at(999_999)))]);
        let plan = plan(&remembered, at(0));
        assert_eq!(due(&plan, at(10)), ["ten"]);
    }

    #[test]
    fn an_edit_keeps_what_ran_and_begins_what_is_new() {
        let mut plan = plan(&BTreeMap::new(), at(0));
        send(&mut plan, at(10));
        let table = json!({"ten": {"task": "t", "schedule": 15}, "new": {"task": "t", "schedule": 2}});
        plan.edit(entries(&table), at(20));
        assert_eq!(due(&plan, at(22)), ["new"]);
        assert_eq!(due(&plan, at(25)), ["new", "ten"]);
    }
}
