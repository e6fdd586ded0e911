//! Alerts: what goes wrong without anybody looking. Rules are in the [`engine`]; what they are about is read here from the
//! state every ten seconds; a [`webhook`] is told.

pub mod engine;
pub mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use celery_broker::Celery;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::engine::{Engine, Kind, Reading, Rule};
use self::webhook::{Numbers, Webhook};
use crate::clock;
use crate::monitor::{Monitor, Shared};
use crate::outbound::Client;
use crate::queues::Queue;
use crate::state::ClusterState;
use crate::state::mark::Kind as Event;
use crate::state::order::Order;
use crate::state::rollup::By;
use crate::state::time::UnixTime;

/// How often rules are judged.
const EACH: Duration = Duration::from_secs(10);
/// The seconds that a failure rate is taken over.
const RATE_WINDOW: i64 = 300;
/// Of so few runs the part that fails says nothing.
const FEW: u64 = 10;
/// Chords that are looked at.
const MAX_CHORDS: usize = 200;
/// How long the store of chords may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// The task by which Celery waits for chords where the backend does not count.
const UNLOCK: &str = "celery.chord_unlock";

/// What is watched, and who is told.
#[derive(Clone, Debug, Default)]
pub struct AlertOptions {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Where notices go.
    pub webhook: Option<Arc<Webhook>>,
}

/// What is wrong, and what was.
#[derive(Debug, Default)]
pub struct Alerts {
    engine: Mutex<Engine>,
    webhook: Option<Arc<Webhook>>,
}

impl Alerts {
    /// With these rules.
    #[must_use]
    pub fn new(options: &AlertOptions) -> Alerts {
        let engine = Mutex::new(Engine::new(options.rules.clone()));
        Alerts { engine, webhook: options.webhook.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For each rule, how many things fire.
    #[must_use]
    pub fn firing(&self) -> Vec<(Kind, usize)> {
        self.lock().firing()
    }

    fn step(&self, readings: &[Reading], now: UnixTime) {
        for notice in self.lock().step(readings, now) {
            let (status, rule) = (notice.status, notice.rule.as_str());
            tracing::warn!(status, rule, target = notice.target, summary = notice.summary, "alert");
            if let Some(webhook) = &self.webhook {
                webhook.push(notice);
            }
        }
    }
}

/// `GET /api/v2/alerts`.
pub async fn list(monitor: Data<Monitor>) -> HttpResponse {
    let alerts = monitor.alerts();
    let webhook = alerts.webhook.as_ref().map_or_else(Numbers::default, |webhook| webhook.numbers());
    let engine = alerts.lock();
    HttpResponse::Ok().json(json!({
        "rules": engine.rules(),
        "resolved": engine.resolved(),
        "webhook": webhook,
    }))
}

/// Judges until `stop`.
pub(crate) async fn keep_judging(shared: Arc<Shared>, celery: Celery, stop: CancellationToken) {
    let mut turn = tokio::time::interval(EACH);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => {}
        }
        let now = clock::now();
        let paused: BTreeSet<String> = shared.pauses.all().into_keys().collect();
        let late = late_chords(&celery).await;
        let readings = {
            let state = shared.state();
            readings(&state, &shared.queues.all(), &paused, &late, now)
        };
        shared.alerts.step(&readings, now);
    }
}

/// Tells the webhook until `stop`.
pub(crate) async fn keep_telling(webhook: Arc<Webhook>, stop: CancellationToken) {
    match Client::new() {
        Ok(client) => webhook.run(&client, &stop).await,
        Err(error) => tracing::error!(error, "alerts can't be delivered: TLS can't be used"),
    }
}

async fn late_chords(celery: &Celery) -> Vec<(String, f64)> {
    let Some(watch) = celery.backend().chord_watch() else { return Vec::new() };
    match tokio::time::timeout(DEADLINE, watch.late(MAX_CHORDS)).await {
        Ok(Ok(late)) => {
            late.into_iter().map(|(group, late)| (group.to_string(), late.as_secs_f64())).collect()
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "chords could not be looked at");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// What rules are about, as it is now: pure.
#[must_use]
pub fn readings(
    state: &ClusterState,
    queues: &BTreeMap<String, Queue>,
    paused: &BTreeSet<String>,
    late: &[(String, f64)],
    now: UnixTime,
) -> Vec<Reading> {
    let mut readings = Vec::new();
    for (name, sum) in state.rollup().summary(RATE_WINDOW, By::Name, None, now).items {
        let ended = sum.ended();
        if ended >= FEW {
            #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
            let value = sum.failed as f64 / ended as f64;
            let summary = format!("{} of {ended} runs of {name} failed in the last five minutes", sum.failed);
            readings.push(Reading { kind: Kind::FailureRate, target: name.to_string(), value, summary });
        }
    }
    for (name, queue) in queues.iter().filter(|(name, _)| !paused.contains(*name)) {
        let target = name.clone();
        if let (Some(ready), Some(0)) = (queue.ready.filter(|ready| *ready > 0), queue.consumers) {
            let summary = format!("{ready} messages wait in {name}, and nobody reads it");
            readings.push(Reading { kind: Kind::NoWorker, target: target.clone(), value: 1.0, summary });
        }
        if let Some(value) = queue.oldest {
            let summary = format!("the oldest message of {name} has waited for {value:.0} seconds");
            readings.push(Reading { kind: Kind::BacklogAge, target, value, summary });
        }
    }
    for (group, value) in late {
        let summary =
            format!("nothing has happened in the chord {group} for {value:.0} seconds longer than it may");
        readings.push(Reading { kind: Kind::StuckChord, target: group.clone(), value: *value, summary });
    }
    let unlocks = state
        .tasks()
        .named(UNLOCK)
        .into_iter()
        .flat_map(Order::iter)
        .filter_map(|place| state.tasks().at(place));
    for task in unlocks.filter(|task| !task.state().is_ready()).take(MAX_CHORDS) {
        let Some(begun) = task.when(Event::Received) else { continue };
        let (target, value) = (task.id().to_owned(), now.since(begun));
        let summary = format!("{UNLOCK} {target} has waited for its chord for {value:.0} seconds");
        readings.push(Reading { kind: Kind::StuckChord, target, value, summary });
    }
    readings
}

#[cfg(test)]
mod tests {
    use celery_protocol::event;
    use serde_json::json;

    use super::*;
    use crate::state::Limits;

    #[test]
    fn readings_follow_from_the_state() {
        let at = |seconds: f64| UnixTime::EPOCH.plus(seconds);
        let mut state = ClusterState::new(Limits::default(), at(0.0));
        let mut tell = |body: serde_json::Value, seconds: f64| {
            for event in event::decode(body.to_string().as_bytes()).expect("events") {
                state.apply(&event.expect("an event"), at(seconds));
            }
        };
        let from = |kind: &str, id: &str, seconds: f64| json!({"type": kind, "uuid": id, "hostname": "a@h", "timestamp": seconds, "clock": 1, "name": "t"});
        for n in 0..12 {
            let (id, end) = (format!("{n}"), if n < 3 { "task-failed" } else { "task-succeeded" });
            tell(json!([from("task-received", &id, 900.0), from(end, &id, 950.0)]), 950.0);
        }
        let unlock = json!([{"type": "task-received", "uuid": "u", "hostname": "a@h", "timestamp": 400.0, "clock": 1,
            "name": UNLOCK}]);
        tell(unlock, 400.0);
        let queue = |ready, consumers, oldest| Queue { ready, consumers, oldest, ..Queue::default() };
        let queues = BTreeMap::from([
            ("empty".to_owned(), queue(Some(0), Some(0), None)),
            ("lost".to_owned(), queue(Some(5), Some(0), None)),
            ("old".to_owned(), queue(Some(5), Some(2), Some(77.0))),
            ("paused".to_owned(), queue(Some(5), Some(0), Some(77.0))),
            ("unknown".to_owned(), queue(None, None, None)),
        ]);
        let paused = BTreeSet::from(["paused".to_owned()]);
        let found = readings(&state, &queues, &paused, &[("g".to_owned(), 9.0)], at(1_000.0));
        let seen: Vec<(Kind, &str, f64)> =
            found.iter().map(|reading| (reading.kind, &*reading.target, reading.value)).collect();
        assert_eq!(
            seen,
            [
                (Kind::FailureRate, "t", 0.25),
                (Kind::NoWorker, "lost", 1.0),
                (Kind::BacklogAge, "old", 77.0),
                (Kind::StuckChord, "g", 9.0),
                (Kind::StuckChord, "u", 600.0),
            ]
        );
    }
}
