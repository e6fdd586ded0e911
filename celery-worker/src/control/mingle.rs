//! Mingle: at the start, greet the other workers and take over what they know to be revoked (celery/worker/consumer/mingle.py).
//!
//! It runs beside consuming, so a worker does not start later for it. Nobody answering is the normal case of a first worker.

use std::sync::Arc;
use std::time::Duration;

use celery_broker::control::Destination;
use celery_protocol::control::{Command, Reply};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::worker::engine::Engine;

/// How long the others have to answer, as in Celery.
const PATIENCE: Duration = Duration::from_secs(1);

/// Greets once, then waits for `stop`.
pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    tokio::select! {
        () = greet(&engine) => {}
        () = stop.cancelled() => return,
    }
    stop.cancelled().await;
}

async fn greet(engine: &Engine) {
    let known = engine.revoked().ids().map(ToString::to_string).collect();
    let hello = Command::Hello { from_node: engine.nodename.to_string(), revoked: known };
    match engine.celery.control().call(&hello, Destination::All, PATIENCE).await {
        Ok(replies) => {
            let others = replies.iter().filter(|reply| take_over(engine, reply)).count();
            tracing::info!(others, "mingle: sync complete");
        }
        Err(err) => tracing::warn!(%err, "mingle: the other workers could not be asked"),
    }
}

/// Learns from one answer; false when there is none in it (our own is null).
fn take_over(engine: &Engine, reply: &Reply) -> bool {
    let Some(answer) = reply.value.as_object() else { return false };
    // Celery 5.6 sends an object with the ids as keys.
    let revoked: Vec<String> = match answer.get("revoked") {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Object(ids)) => ids.keys().cloned().collect(),
        _ => Vec::new(),
    };
    engine.take_over_revoked(&revoked);
    engine.celery.lamport().adjust(answer.get("clock").and_then(Value::as_u64).unwrap_or(0));
    true
}
