//! Revocations that outlive this process: kept with the results, where the other workers find them too, and in the file of
//! `--statedb`, if there is one.
//!
//! What is revoked is decided from this worker's own set, so nothing is asked per message. This service keeps the set up
//! to date: before the first message is taken, when the connection is back (a broadcast may have been missed), and every
//! few seconds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celery_broker::control::Revocation;
use tokio_util::sync::CancellationToken;

use super::statedb;
use crate::consumer::Order;
use crate::worker::engine::Engine;

/// How often the store is asked what is new.
const EVERY: Duration = Duration::from_secs(5);
/// How long the store may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// How far the clocks of two workers may differ.
const SKEW: Duration = Duration::from_secs(60);

/// Learns all that is revoked, before anything is run.
pub(crate) async fn load(engine: &Engine) {
    if let Some(path) = &engine.settings.statedb {
        match statedb::read(path) {
            Ok(Some(state)) => {
                let count = engine.learn(state.revocations(), SystemTime::now());
                engine.celery.lamport().adjust(state.clock);
                tracing::info!(path, count, "the state of an earlier run was taken over");
            }
            Ok(None) => {}
            Err(err) => tracing::error!(path, %err, "--statedb cannot be read; it is begun anew"),
        }
    }
    let oldest = SystemTime::now().checked_sub(engine.settings.revoke_expires);
    let oldest = oldest.unwrap_or(SystemTime::UNIX_EPOCH);
    let count = sync(engine, oldest).await;
    if count > 0 {
        tracing::info!(count, "tasks are revoked from before");
    }
}

/// Keeps the set up to date until `stop`, and then the file.
pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut since = SystemTime::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = engine.resync.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        let next = SystemTime::now();
        if sync(&engine, since - SKEW).await > 0 {
            engine.order(Order::Sweep).await;
        }
        since = next;
        save(&engine);
    }
    save(&engine);
}

/// Keeps what was revoked here for all others.
pub(super) async fn keep(engine: &Engine, revocations: &[Revocation]) {
    engine.changed();
    let Some(cluster) = engine.celery.cluster() else { return };
    match tokio::time::timeout(DEADLINE, cluster.revoke(revocations, engine.settings.revoke_expires)).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => tracing::warn!(%err, "a revocation is not kept for workers that start later"),
        Err(_) => tracing::warn!("a revocation could not be kept in time for workers that start later"),
    }
}

/// Learns what was revoked since then; how much of it was new.
async fn sync(engine: &Engine, since: SystemTime) -> usize {
    let Some(cluster) = engine.celery.cluster() else { return 0 };
    match tokio::time::timeout(DEADLINE, cluster.revoked_since(since)).await {
        Ok(Ok(revocations)) => engine.learn(revocations, SystemTime::now()),
        Ok(Err(err)) => {
            tracing::debug!(%err, "revocations could not be looked up");
            0
        }
        Err(_) => 0,
    }
}

fn save(engine: &Engine) {
    let Some(path) = engine.settings.statedb.as_ref().filter(|_| engine.take_changed()) else { return };
    let clock = engine.celery.lamport().value();
    let state = statedb::State::of(&engine.revoked(), clock);
    if let Err(err) = statedb::write(path, &state) {
        tracing::error!(path, %err, "--statedb cannot be written");
    }
}
