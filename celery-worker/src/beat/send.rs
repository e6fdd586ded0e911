//! Sending one tick: the entry's call, marked as Celery marks what beat sends.

use std::time::SystemTime;

use celery_broker::{BrokerError, BrokerErrorKind, Celery, QueueSpec};
use celery_protocol::canvas::{Call, Canvas};
use celery_protocol::{QueueName, Signature, SignatureError, TaskId, WireTime};
use serde_json::{Map, Value};

use super::entry::Entry;

/// The header by which Celery marks what beat has sent.
const BEAT_HEADER: &str = "celery_beat_task";
/// When the tick was due: with the entry's name it tells ticks apart.
const DUE_HEADER: &str = "celery_beat_due";
/// On a tick that may have been sent before: the broker did not say, or the beat that sent it was lost.
const AGAIN_HEADER: &str = "celery_beat_again";

/// Whether a message with these headers may have been sent before.
pub(crate) fn is_sent_again(headers: &Map<String, Value>) -> bool {
    headers.get(AGAIN_HEADER) == Some(&Value::Bool(true))
}

/// How sending went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The broker has it.
    Confirmed,
    /// Trying again would not help: the entry waits for its next tick.
    Refused,
    /// It may be tried again, under the same id.
    Failed,
}

/// What tells one tick from another.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) id: TaskId,
    pub(super) due: SystemTime,
    /// It may have been sent before.
    pub(super) again: bool,
}

/// Why a tick was not sent.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error("{0}")]
    Signature(#[from] SignatureError),
    #[error("{0}")]
    Broker(#[from] BrokerError),
}

/// Sends an entry's call and waits for the broker's word.
pub(super) async fn send(celery: &Celery, entry: &Entry, identity: &Identity) -> Sent {
    let name = &entry.name;
    match attempt(celery, &entry.signature, identity).await {
        Ok(id) => {
            let id = id.as_ref().map_or("nothing", TaskId::as_str);
            tracing::info!("Scheduler: Sending due task {name} ({}) as {id}", entry.signature.task);
            Sent::Confirmed
        }
        Err(TickError::Broker(error)) if error.is_transient() => {
            tracing::error!(%error, "Scheduler: {name} could not be sent; it is tried again");
            Sent::Failed
        }
        Err(error) => {
            tracing::error!(%error, "Scheduler: {name} cannot be sent");
            Sent::Refused
        }
    }
}

async fn attempt(
    celery: &Celery,
    signature: &Signature,
    identity: &Identity,
) -> Result<Option<TaskId>, TickError> {
    let mut signature = signature.clone();
    let mut headers: Map<String, Value> = signature.options.read("headers")?.unwrap_or_default();
    headers.insert(BEAT_HEADER.to_owned(), Value::Bool(true));
    signature.options.set("task_id", &identity.id);
    headers.insert(DUE_HEADER.to_owned(), WireTime::from(identity.due).isoformat().into());
    if identity.again {
        headers.insert(AGAIN_HEADER.to_owned(), Value::Bool(true));
    }
    signature.options.set("headers", &headers);
    let plan = celery.plan(Canvas::Task(signature.clone()), Call::default())?;
    match celery.run(&plan).await {
        Err(error) if *error.kind() == BrokerErrorKind::Unroutable => {
            // Its workers have not been here yet: Celery's producers make queues, too.
            let Some(queue) = queue_of(celery, &signature) else { return Err(error.into()) };
            celery.declare(&QueueSpec::new(queue)).await?;
            celery.run(&plan).await?;
        }
        sent => sent?,
    }
    Ok(plan.result.map(|result| result.id))
}

/// The queue that a call goes to, if it goes directly to one.
fn queue_of(celery: &Celery, call: &Signature) -> Option<QueueName> {
    let (route, _) = celery.message(call).ok()?;
    QueueName::parse(route.routing_key).ok().filter(|_| route.exchange.is_empty())
}
