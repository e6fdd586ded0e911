//! Sending events, in batches, without ever making the sender wait.
//!
//! [`Emitter::emit`] stamps an event and queues it; a background task sends what has gathered: neighbouring task events
//! as one `task.multi` message, others singly, as Celery's dispatcher does. While one message is on its way the next
//! batch gathers, so batches grow with the load and a lone event leaves at once. The queue is bounded: while the broker
//! is away the oldest events are dropped and counted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use celery_protocol::event::{self, Event, EventBody};
use celery_protocol::{HeaderMap, Properties, RawMessage};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::amqp::{PublishOptions, Publisher, Route};
use crate::clock::{Clock, Lamport};
use crate::error::BrokerErrorKind;
use crate::offline::Outbox;

/// Events that wait for the broker; older ones are dropped.
const CAPACITY: usize = 20_000;
/// Events in one message.
const BATCH: usize = 200;
/// How long one message may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pause after a message that could not be sent.
const PAUSE: Duration = Duration::from_millis(500);

/// Sends events in the name of one node; clones share the queue.
#[derive(Clone)]
pub struct Emitter {
    inner: Arc<Inner>,
}

struct Inner {
    hostname: String,
    pid: i64,
    utcoffset: f64,
    clock: Clock,
    lamport: Lamport,
    queue: Mutex<VecDeque<Event>>,
    /// Events in the queue and in the message under way.
    unsent: AtomicUsize,
    filled: Notify,
    emptied: Notify,
    outbox: Option<Outbox>,
}

impl Emitter {
    /// An emitter whose background half is [`run`](Self::run).
    pub(crate) fn new(hostname: &str, clock: Clock, lamport: Lamport, outbox: Option<Outbox>) -> Self {
        Self {
            inner: Arc::new(Inner {
                hostname: hostname.to_owned(),
                pid: i64::from(std::process::id()),
                utcoffset: crate::clock::hours_west_of_utc(),
                clock,
                lamport,
                queue: Mutex::default(),
                unsent: AtomicUsize::new(0),
                filled: Notify::new(),
                emptied: Notify::new(),
                outbox,
            }),
        }
    }

    /// Stamps an event with node, clock and time, and queues it. Never waits; when the queue is full the oldest event is
    /// dropped and counted (`celery_broker_events_dropped_total`).
    pub fn emit(&self, body: impl Into<EventBody>) {
        let inner = &self.inner;
        let mut queue = inner.lock();
        // Stamped under the lock, so that clocks rise along the queue.
        let event = Event {
            hostname: inner.hostname.clone(),
            utcoffset: inner.utcoffset,
            pid: Some(inner.pid),
            clock: inner.lamport.forward(),
            timestamp: inner.clock.unix_seconds(),
            body: body.into(),
        };
        if let Some(outbox) = &inner.outbox {
            drop(queue);
            return outbox.put_event(event);
        }
        if queue.len() >= CAPACITY {
            queue.pop_front();
            metrics::counter!("celery_broker_events_dropped_total").increment(1);
        } else {
            inner.unsent.fetch_add(1, Ordering::AcqRel);
        }
        queue.push_back(event);
        drop(queue);
        inner.filled.notify_one();
    }

    /// Waits until everything emitted so far has been sent or dropped. Bound it with a deadline of your own: while the
    /// broker is away it does not end.
    pub async fn flush(&self) {
        loop {
            let emptied = self.inner.emptied.notified();
            if self.inner.unsent.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Sends until `stop`.
    pub(crate) async fn run(self, publisher: Publisher, stop: CancellationToken) {
        let mut batch: Vec<Event> = Vec::new();
        loop {
            self.inner.take(&mut batch);
            if batch.is_empty() {
                tokio::select! {
                    () = self.inner.filled.notified() => continue,
                    () = stop.cancelled() => return,
                }
            }
            let sent = tokio::select! {
                sent = send(&publisher, &self.inner.hostname, &batch) => sent,
                () = stop.cancelled() => return,
            };
            if sent {
                self.inner.sent(batch.len());
                batch.clear();
            } else {
                self.inner.put_back(&mut batch);
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("hostname", &self.inner.hostname).finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes into the next message: task events up to the batch's size, or one other event.
    fn take(&self, batch: &mut Vec<Event>) {
        let mut queue = self.lock();
        let is_task = |event: &Event| matches!(event.body, EventBody::Task(_));
        let tasks = queue.iter().take(BATCH).take_while(|event| is_task(event)).count();
        let count = tasks.max(1).min(queue.len());
        batch.extend(queue.drain(..count));
    }

    fn put_back(&self, batch: &mut Vec<Event>) {
        let mut queue = self.lock();
        for event in batch.drain(..).rev() {
            queue.push_front(event);
        }
        let mut dropped = 0_usize;
        while queue.len() > CAPACITY {
            queue.pop_front();
            dropped += 1;
        }
        drop(queue);
        metrics::counter!("celery_broker_events_dropped_total").increment(dropped as u64);
        self.sent(dropped);
    }

    fn sent(&self, count: usize) {
        if self.unsent.fetch_sub(count, Ordering::AcqRel) == count {
            self.emptied.notify_waiters();
        }
    }
}

/// Sends one message; false when it should be tried again.
async fn send(publisher: &Publisher, hostname: &str, batch: &[Event]) -> bool {
    let Some(first) = batch.first() else { return true };
    let multi = matches!(first.body, EventBody::Task(_));
    let encoded = if multi { event::encode_multi(batch) } else { event::encode(first) };
    let body = match encoded {
        Ok(body) => body,
        Err(err) => {
            tracing::error!(%err, "an event could not be written and is dropped");
            return true;
        }
    };
    let routing_key =
        if multi { event::multi_routing_key(first.body.group()) } else { first.body.routing_key() };
    let message = RawMessage {
        properties: Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            delivery_mode: Some(Properties::TRANSIENT),
            priority: Some(0),
            ..Properties::default()
        },
        headers: HeaderMap::from_iter([("hostname".to_owned(), hostname.into())]),
        body: Bytes::from(body),
    };
    let route = Route { exchange: event::EXCHANGE.into(), routing_key };
    let options = PublishOptions { deadline: DEADLINE, mandatory: false, ..PublishOptions::default() };
    let outcome = publisher.publish_declaring(&super::exchange(), &route, message, options).await;
    match outcome {
        Ok(()) => true,
        // It may have arrived: a second time would be counted twice by monitors.
        Err(err) if err.outcome() == crate::Outcome::Unknown => true,
        Err(err) if *err.kind() == BrokerErrorKind::MessageTooLarge && batch.len() == 1 => true,
        Err(err) => {
            tracing::debug!(%err, events = batch.len(), "events wait for the broker");
            !err.is_transient() && *err.kind() != BrokerErrorKind::ExchangeNotFound
        }
    }
}
