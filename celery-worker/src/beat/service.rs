//! The loop of beat: sends what is due, remembers it, sleeps.
//!
//! A tick is remembered once the broker has confirmed it. While the broker is away a tick is tried again, and then sent
//! once, however many were missed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use celery_broker::{BrokerError, Celery};
use celery_protocol::canvas::{Call, Canvas};
use celery_protocol::{Signature, SignatureError, TaskId};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::store::Store;

/// The header by which Celery marks what beat has sent.
const BEAT_HEADER: &str = "celery_beat_task";
/// The pause before a tick that could not be sent is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a tick was not sent.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error("{0}")]
    Signature(#[from] SignatureError),
    #[error("{0}")]
    Broker(#[from] BrokerError),
}

/// Sends what is due until `stop`.
pub async fn run(celery: Celery, mut plan: Plan, store: Store, stop: CancellationToken) {
    save(&store, &plan);
    loop {
        let mut pause = None;
        let due: Vec<_> = plan
            .due(SystemTime::now())
            .into_iter()
            .map(|entry| (entry.name.clone(), entry.signature.clone()))
            .collect();
        for (name, signature) in due {
            match send(&celery, &signature).await {
                Ok(id) => {
                    let id = id.as_ref().map_or("nothing", TaskId::as_str);
                    tracing::info!("Scheduler: Sending due task {name} ({}) as {id}", signature.task);
                }
                Err(TickError::Broker(error)) if error.is_transient() => {
                    tracing::error!(%error, "Scheduler: {name} could not be sent; it is tried again");
                    pause = Some(RETRY);
                    continue;
                }
                // Trying again would not help: the entry waits for its next tick.
                Err(error) => tracing::error!(%error, "Scheduler: {name} cannot be sent"),
            }
            plan.ran(&name, SystemTime::now());
            save(&store, &plan);
        }
        let pause = pause.unwrap_or_else(|| plan.sleep(SystemTime::now()));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    save(&store, &plan);
}

async fn send(celery: &Celery, signature: &Signature) -> Result<Option<TaskId>, TickError> {
    let mut signature = signature.clone();
    let mut headers: Map<String, Value> = signature.options.read("headers")?.unwrap_or_default();
    headers.insert(BEAT_HEADER.to_owned(), Value::Bool(true));
    signature.options.set("headers", &headers);
    let plan = celery.plan(Canvas::Task(signature), Call::default())?;
    celery.run(&plan).await?;
    Ok(plan.result.map(|result| result.id))
}

fn save(store: &Store, plan: &Plan) {
    let last: BTreeMap<_, _> = plan.last_runs();
    if let Err(error) = store.save(&last) {
        tracing::error!(%error, path = %store.path().display(), "the schedule's state could not be saved");
    }
}
