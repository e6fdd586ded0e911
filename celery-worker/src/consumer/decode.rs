//! From a delivery to a job, or to the reasons why it is none.
//!
//! A message that cannot be run is rejected without requeue, so that a dead-letter exchange can keep it; it is logged
//! once; whoever waits for its result finds a FAILURE, where an id can be read. It is never acked away, never stops the
//! worker, and never comes round in a circle.

use std::sync::Arc;

use celery_broker::{Delivery, Token};
use celery_protocol::{Limits, Malformed, Message};

use crate::context::{DeliveryInfo, Request};
use crate::pool::Job;
use crate::task::Failure;
use crate::trace::settle;
use crate::trace::{Finished, Ticket};
use crate::worker::engine::Engine;

/// What became of a delivery.
pub(super) enum Arrival {
    /// A call that this worker serves.
    Job(Arc<Job>),
    /// Something else, and what follows.
    Refused(Finished),
}

/// Decodes a delivery.
pub(super) fn decode(delivery: Delivery, engine: &Engine) -> Arrival {
    let Delivery { raw, exchange, routing_key, redelivered, queue, token } = delivery;
    let limits = Limits { accept: engine.settings.accept, ..Limits::DEFAULT };
    let size = raw.body.len();
    let refuse = |token, malformed: &Malformed| {
        let (id, task) =
            (malformed.task_id.as_ref().map_or("?", |id| id.as_str()), malformed.task.as_deref());
        let (reason, detail) = (malformed.reason.slug(), &malformed.detail);
        tracing::error!(id, task = ?task.unwrap_or("?"), reason, size, %queue, "Message rejected: {detail}");
        let failure =
            Failure::named("InvalidTaskError").module("celery.exceptions").arg(format!("{reason}: {detail}"));
        refused(token, settle::refused(malformed.task_id.clone(), &failure, engine.now()), reason)
    };
    let message = match Message::decode(raw, &limits) {
        Ok(message) => message,
        Err(malformed) => return refuse(token, &malformed),
    };
    let Some(entry) = engine.catalog.get(&message.headers.task) else {
        let (id, name) = (&message.headers.id, &message.headers.task);
        tracing::error!(%id, task = ?name.as_str(), reason = "unknown_task", size, %queue, "Message rejected: no such task here");
        let settlement =
            settle::refused(Some(id.clone()), &Failure::not_registered(name.as_str()), engine.now());
        return refused(token, settlement, "unknown_task");
    };
    let body = match message.body(&limits) {
        Ok(body) => body,
        Err(malformed) => return refuse(token, &malformed),
    };
    let called = engine.celery.backend().called(&message.headers.id, &message.properties);
    let priority = message.properties.priority;
    let delivery = DeliveryInfo { exchange, routing_key, priority, redelivered, queue };
    let request = Request::new(message, body, delivery, engine.nodename.clone());
    Arrival::Job(Arc::new(Job::new(Arc::new(request), entry.clone(), token, called)))
}

fn refused(token: Token, settlement: settle::Settlement, reason: &'static str) -> Arrival {
    metrics::counter!("celery_worker_messages_rejected_total", "reason" => reason).increment(1);
    Arrival::Refused(Finished { ticket: Ticket::Token(token), settlement })
}
