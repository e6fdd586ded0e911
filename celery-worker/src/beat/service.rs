//! Beat alone on its schedule: sends what is due, remembers it in a file, sleeps.
//!
//! A tick is remembered once the broker has confirmed it. While the broker is away a tick is tried again, and then sent
//! once, however many were missed.

use std::time::Duration;

use celery_broker::Celery;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::send::{Sent, send};
use super::store::Store;

/// The pause before a tick that could not be sent is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Sends what is due until `stop`.
pub(super) async fn run(celery: &Celery, mut plan: Plan, store: Option<Store>, stop: &CancellationToken) {
    let clock = celery.clock().clone();
    save(store.as_ref(), &plan);
    loop {
        let mut pause = None;
        for tick in plan.due(clock.now()) {
            match send(celery, &tick.entry, None).await {
                Sent::Confirmed | Sent::Refused => {
                    plan.sent(&tick);
                    save(store.as_ref(), &plan);
                }
                Sent::Failed => pause = Some(RETRY),
            }
        }
        let pause = pause.unwrap_or_else(|| plan.sleep(clock.now()));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    save(store.as_ref(), &plan);
}

fn save(store: Option<&Store>, plan: &Plan) {
    if let Some(store) = store
        && let Err(error) = store.save(&plan.last_runs())
    {
        tracing::error!(%error, path = %store.path().display(), "the schedule's state could not be saved");
    }
}
