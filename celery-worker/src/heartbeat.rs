//! The worker's own events: online, a heartbeat every so often, offline.
//!
//! Sent from the runtime of the IO services, on which no task runs: a task that blocks its thread for an hour does not
//! make its worker look dead.

use std::sync::Arc;
use std::time::Duration;

use celery_protocol::event::{EventBody, WorkerEvent, WorkerEventKind, WorkerStatus};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::stats;
use crate::worker::engine::Engine;

/// What this worker calls itself in events.
const SW_IDENT: &str = "celeriac";

/// Sends `worker-online` and then heartbeats until `stop`.
pub(crate) async fn run(engine: Arc<Engine>, every: Duration, stop: CancellationToken) {
    emit(&engine, WorkerEventKind::Online, every);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => emit(&engine, WorkerEventKind::Heartbeat, every),
        }
    }
}

/// Sends `worker-offline`.
pub(crate) fn offline(engine: &Engine, every: Duration) {
    emit(engine, WorkerEventKind::Offline, every);
}

/// Sends one heartbeat, as the `heartbeat` command asks for.
pub(crate) fn beat(engine: &Engine) {
    emit(engine, WorkerEventKind::Heartbeat, engine.settings.heartbeat.unwrap_or(Duration::from_secs(5)));
}

fn emit(engine: &Engine, kind: WorkerEventKind, every: Duration) {
    let (processed, _) = engine.stats.ended_so_far();
    let running = u64::try_from(engine.pool.running().len()).unwrap_or(u64::MAX);
    let mut event = WorkerEvent { kind, status: WorkerStatus::default() };
    let status = &mut event.status;
    status.freq = Some(every.as_secs_f64());
    status.active = Some(running);
    status.processed = Some(processed);
    status.loadavg = Some(stats::load_average());
    status.sw_ident = Some(SW_IDENT.to_owned());
    status.sw_ver = Some(env!("CARGO_PKG_VERSION").to_owned());
    status.sw_sys = Some("Linux".to_owned());
    engine.emitter.emit(EventBody::Worker(Box::new(event)));
}
