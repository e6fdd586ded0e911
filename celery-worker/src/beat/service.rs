//! Beat alone on its schedule: sends what is due, remembers it in a file, sleeps.
//!
//! A tick is remembered once the broker has confirmed it. While the broker is away a tick is tried again, and then sent
//! once, however many were missed. A tick keeps its id over its tries, so that a worker can tell if one of them came through.

use std::collections::HashMap;
use std::time::Duration;

use celery_broker::Celery;
use celery_protocol::TaskId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::plan::{Plan, Tick};
use super::send::{Identity, Sent, send};
use super::store::Store;

/// The pause before a tick that could not be sent is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Sends what is due until `stop`.
pub(super) async fn run(celery: &Celery, mut plan: Plan, store: Option<Store>, stop: &CancellationToken) {
    let clock = celery.clock().clone();
    let mut tried: HashMap<String, Identity> = HashMap::new();
    save(store.as_ref(), &plan);
    loop {
        let mut pause = None;
        for tick in plan.due(clock.now()) {
            let identity = tried.remove(&tick.entry.name).unwrap_or_else(|| first_try(&tick));
            match send(celery, &tick.entry, &identity).await {
                Sent::Confirmed | Sent::Refused => {
                    plan.sent(&tick);
                    save(store.as_ref(), &plan);
                }
                Sent::Failed => {
                    tried.insert(tick.entry.name.clone(), Identity { again: true, ..identity });
                    pause = Some(RETRY);
                }
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

fn first_try(tick: &Tick) -> Identity {
    Identity { id: TaskId::from(Uuid::new_v4()), due: tick.due, again: false }
}

fn save(store: Option<&Store>, plan: &Plan) {
    if let Some(store) = store
        && let Err(error) = store.save(&plan.last_runs())
    {
        tracing::error!(%error, path = %store.path().display(), "the schedule's state could not be saved");
    }
}
