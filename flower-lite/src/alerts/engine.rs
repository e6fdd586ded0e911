//! Rules, and the states of what they watch: pending while something is wrong, firing once it has been for as long as the
//! rule says, resolved when it is right again. Pure: readings and the time come in, notices go out.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::state::time::UnixTime;

/// For how many seconds something must be right again before it counts as resolved: what flutters is told once.
pub const CALM: f64 = 30.0;
/// Things that are watched at a time.
const MAX_INSTANCES: usize = 1_000;
/// Those that are resolved and still shown.
const MAX_RESOLVED: usize = 100;

/// What a rule watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The part of a task's runs that fail.
    FailureRate,
    /// A queue with messages that nobody reads.
    NoWorker,
    /// How long the oldest message of a queue has waited.
    BacklogAge,
    /// How long a chord is overdue.
    StuckChord,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::FailureRate => "failure_rate",
            Kind::NoWorker => "no_worker",
            Kind::BacklogAge => "backlog_age",
            Kind::StuckChord => "stuck_chord",
        }
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What it watches.
    pub kind: Kind,
    /// Above this something is wrong.
    pub threshold: f64,
    /// For so many seconds it must be.
    pub hold: f64,
}

/// What is seen of one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Which rule it is for.
    pub kind: Kind,
    /// A queue, a task, a chord.
    pub target: String,
    /// How much.
    pub value: f64,
    /// In words.
    pub summary: String,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is wrong, but not for long.
    Pending,
    /// It is wrong.
    Firing,
}

#[derive(Clone, Debug)]
struct Instance {
    stage: Stage,
    since: UnixTime,
    fired_at: UnixTime,
    /// Since when it is right again.
    calm: Option<UnixTime>,
    value: f64,
    summary: String,
}

/// Something that has begun or ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// `firing` or `resolved`.
    pub status: &'static str,
    /// The rule.
    pub rule: Kind,
    /// What it is about.
    pub target: String,
    /// How much it is, or last was.
    pub value: f64,
    /// Above what it is wrong.
    pub threshold: f64,
    /// In words.
    pub summary: String,
    /// Since when it is wrong.
    pub since: f64,
    /// When it was told.
    pub at: f64,
}

/// Something that was wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resolved {
    rule: &'static str,
    target: String,
    fired_at: f64,
    resolved_at: f64,
    summary: String,
}

/// All rules, and what is wrong.
#[derive(Debug, Default)]
pub struct Engine {
    rules: Vec<Rule>,
    instances: BTreeMap<(Kind, String), Instance>,
    resolved: VecDeque<Resolved>,
}

/// A rule as it is shown.
#[derive(Debug, Serialize)]
pub struct Shown {
    name: &'static str,
    kind: Kind,
    threshold: f64,
    #[serde(rename = "for")]
    hold: f64,
    state: &'static str,
    instances: Vec<ShownInstance>,
}

#[derive(Debug, Serialize)]
struct ShownInstance {
    target: String,
    state: Stage,
    since: f64,
    value: f64,
    summary: String,
}

impl Engine {
    /// With these rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Engine {
        Engine { rules, ..Engine::default() }
    }

    /// Takes in what is seen now. What is not seen is right.
    pub fn step(&mut self, readings: &[Reading], now: UnixTime) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut wrong: BTreeMap<(Kind, String), &Reading> = BTreeMap::new();
        for reading in readings {
            let rule = self.rules.iter().find(|rule| rule.kind == reading.kind);
            if rule.is_some_and(|rule| reading.value > rule.threshold) {
                wrong.insert((reading.kind, reading.target.clone()), reading);
            }
        }
        for (key, reading) in &wrong {
            let Some(rule) = self.rules.iter().find(|rule| rule.kind == key.0) else { continue };
            if self.instances.len() >= MAX_INSTANCES && !self.instances.contains_key(key) {
                continue;
            }
            let instance = self.instances.entry(key.clone()).or_insert_with(|| Instance {
                stage: Stage::Pending,
                since: now,
                fired_at: now,
                calm: None,
                value: reading.value,
                summary: String::new(),
            });
            instance.calm = None;
            instance.value = reading.value;
            instance.summary.clone_from(&reading.summary);
            if instance.stage == Stage::Pending && now.since(instance.since) >= rule.hold {
                instance.stage = Stage::Firing;
                instance.fired_at = now;
                notices.push(notice("firing", key, instance, rule, now));
            }
        }
        let rules = &self.rules;
        let resolved = &mut self.resolved;
        self.instances.retain(|key, instance| {
            if wrong.contains_key(key) {
                return true;
            }
            let calm = *instance.calm.get_or_insert(now);
            // What never fired is forgotten at once: it has to be wrong without a break.
            if instance.stage == Stage::Pending {
                return false;
            }
            if now.since(calm) < CALM {
                return true;
            }
            if let Some(rule) = rules.iter().find(|rule| rule.kind == key.0) {
                notices.push(notice("resolved", key, instance, rule, now));
            }
            resolved.push_front(Resolved {
                rule: key.0.as_str(),
                target: key.1.clone(),
                fired_at: instance.fired_at.seconds(),
                resolved_at: now.seconds(),
                summary: instance.summary.clone(),
            });
            false
        });
        self.resolved.truncate(MAX_RESOLVED);
        notices
    }

    /// The rules with what they watch.
    #[must_use]
    pub fn rules(&self) -> Vec<Shown> {
        let shown = |rule: &Rule| {
            let own = self.instances.iter().filter(|((kind, _), _)| *kind == rule.kind);
            let instances: Vec<ShownInstance> = own
                .map(|((_, target), instance)| ShownInstance {
                    target: target.clone(),
                    state: instance.stage,
                    since: instance.since.seconds(),
                    value: instance.value,
                    summary: instance.summary.clone(),
                })
                .collect();
            let firing = instances.iter().any(|instance| instance.state == Stage::Firing);
            let state = if firing {
                "firing"
            } else if instances.is_empty() {
                "inactive"
            } else {
                "pending"
            };
            let Rule { kind, threshold, hold } = *rule;
            Shown { name: kind.as_str(), kind, threshold, hold, state, instances }
        };
        self.rules.iter().map(shown).collect()
    }

    /// What was wrong, newest first.
    #[must_use]
    pub fn resolved(&self) -> Vec<Resolved> {
        self.resolved.iter().cloned().collect()
    }

    /// For each rule, how many things fire.
    #[must_use]
    pub fn firing(&self) -> Vec<(Kind, usize)> {
        let count = |kind: Kind| {
            self.instances.iter().filter(|((own, _), one)| *own == kind && one.stage == Stage::Firing).count()
        };
        self.rules.iter().map(|rule| (rule.kind, count(rule.kind))).collect()
    }
}

fn notice(
    status: &'static str,
    (kind, target): &(Kind, String),
    instance: &Instance,
    rule: &Rule,
    now: UnixTime,
) -> Notice {
    Notice {
        status,
        rule: *kind,
        target: target.clone(),
        value: instance.value,
        threshold: rule.threshold,
        summary: instance.summary.clone(),
        since: instance.since.seconds(),
        at: now.seconds(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        Engine::new(vec![
            Rule { kind: Kind::BacklogAge, threshold: 300.0, hold: 60.0 },
            Rule { kind: Kind::NoWorker, threshold: 0.0, hold: 0.0 },
        ])
    }

    fn at(seconds: f64) -> UnixTime {
        UnixTime::EPOCH.plus(seconds)
    }

    fn old(value: f64) -> Reading {
        Reading { kind: Kind::BacklogAge, target: "slow".into(), value, summary: format!("{value} s") }
    }

    fn told(notices: &[Notice]) -> Vec<(&str, &str)> {
        notices.iter().map(|notice| (notice.status, &*notice.target)).collect()
    }

    #[test]
    fn what_is_wrong_for_long_fires_once_and_is_resolved_once() {
        let mut engine = engine();
        assert_eq!(engine.step(&[old(301.0)], at(0.0)), []);
        assert_eq!(engine.rules()[0].state, "pending");
        assert_eq!(engine.step(&[old(350.0)], at(59.0)), []);
        let notices = engine.step(&[old(361.0)], at(60.0));
        assert_eq!(told(&notices), [("firing", "slow")]);
        assert_eq!((notices[0].since, notices[0].value, notices[0].threshold), (0.0, 361.0, 300.0));
        assert_eq!(engine.step(&[old(400.0)], at(90.0)), [], "it is told once");
        assert_eq!(engine.firing(), [(Kind::BacklogAge, 1), (Kind::NoWorker, 0)]);
        assert_eq!(engine.step(&[old(300.0)], at(100.0)), [], "right, but for how long?");
        assert_eq!(engine.step(&[old(301.0)], at(110.0)), [], "it goes on");
        assert_eq!(engine.step(&[], at(120.0)), []);
        assert_eq!(told(&engine.step(&[], at(150.0))), [("resolved", "slow")]);
        assert_eq!((engine.rules()[0].state, engine.resolved().len()), ("inactive", 1));
        assert_eq!(engine.resolved()[0].fired_at, 60.0);
    }

    #[test]
    fn what_is_wrong_for_a_moment_is_not_told() {
        let mut engine = engine();
        engine.step(&[old(301.0)], at(0.0));
        engine.step(&[], at(10.0));
        assert_eq!(engine.step(&[old(301.0)], at(60.0)), [], "it begins anew");
        assert_eq!(told(&engine.step(&[old(301.0)], at(120.0))), [("firing", "slow")]);
    }

    #[test]
    fn things_are_told_apart_and_rules_that_are_off_say_nothing() {
        let mut engine = engine();
        let reading =
            |kind, target: &str| Reading { kind, target: target.into(), value: 1.0, summary: String::new() };
        let readings = [
            reading(Kind::NoWorker, "a"),
            reading(Kind::NoWorker, "b"),
            reading(Kind::StuckChord, "c"),
            Reading { value: 0.0, ..reading(Kind::NoWorker, "d") },
        ];
        assert_eq!(told(&engine.step(&readings, at(0.0))), [("firing", "a"), ("firing", "b")]);
        let flood: Vec<Reading> = (0..2_000).map(|n| reading(Kind::NoWorker, &format!("{n}"))).collect();
        engine.step(&flood, at(1.0));
        assert_eq!(engine.instances.len(), MAX_INSTANCES);
    }
}
