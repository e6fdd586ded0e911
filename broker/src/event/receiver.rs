//! Receiving events through a queue of one's own that vanishes with its reader.

use std::time::{Duration, SystemTime};

use celery_protocol::event::{self, Event};
use celery_protocol::{QueueName, RawMessage};

use crate::amqp::{ConsumeOptions, Consumer, ConsumerEvent, QueueSpec};
use crate::clock::{Clock, Lamport};
use crate::error::BrokerError;

/// How to listen. The defaults are Celery's: everything, messages live 5 s, the queue 60 s without a reader.
#[derive(Debug, Clone)]
pub struct EventsOptions {
    /// Binding key: `#` is everything, `worker.#` the workers' own events.
    pub routing_key: String,
    /// First part of the queue's name (`event_queue_prefix`).
    pub queue_prefix: String,
    /// How long an event waits for its reader (`event_queue_ttl`).
    pub message_ttl: Duration,
    /// How long the queue outlives its reader (`event_queue_expires`).
    pub expires: Duration,
    /// Messages that the queue holds at most; the broker drops older ones. Keeps it flat when the reader is slow.
    pub max_length: u32,
    /// The same in bytes of their bodies: a message may hold many events.
    pub max_bytes: u32,
}

impl Default for EventsOptions {
    fn default() -> Self {
        Self {
            routing_key: "#".into(),
            queue_prefix: "celeryev".into(),
            message_ttl: Duration::from_secs(5),
            expires: Duration::from_secs(60),
            max_length: 100_000,
            max_bytes: 64 << 20,
        }
    }
}

/// What a [`Receiver`] yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received {
    /// One event.
    Event {
        /// The event.
        event: Box<Event>,
        /// When it arrived here.
        at: SystemTime,
    },
    /// Something on the exchange that is no event.
    Undecodable {
        /// Why.
        reason: String,
    },
    /// Events arrive from now on.
    Connected,
    /// No events arrive; those sent meanwhile are missed.
    Lost {
        /// Why.
        reason: String,
    },
    /// Listening cannot go on without a change of configuration.
    Fatal(BrokerError),
}

/// Listens to events until it is dropped or closed; survives the loss of the broker.
#[derive(Debug)]
pub struct Receiver {
    consumer: Consumer,
    clock: Clock,
    lamport: Lamport,
    buffer: Vec<ConsumerEvent>,
}

impl Receiver {
    pub(crate) fn options(options: &EventsOptions) -> Result<ConsumeOptions, BrokerError> {
        let name = QueueName::parse(format!("{}.{}", options.queue_prefix, uuid::Uuid::new_v4()))
            .map_err(|err| BrokerError::config("event_queue_prefix").caused_by(err))?;
        let queue = QueueSpec::private(name, options.expires, options.message_ttl)
            .argument("x-max-length", options.max_length)
            .argument("x-max-length-bytes", options.max_bytes)
            .bound_to(super::exchange(), options.routing_key.clone());
        let mut consume = ConsumeOptions::new(vec![queue]).prefetch(2000);
        consume.no_ack = true;
        consume.consumer_tag = "events".into();
        Ok(consume)
    }

    pub(crate) fn new(consumer: Consumer, clock: Clock, lamport: Lamport) -> Self {
        Self { consumer, clock, lamport, buffer: Vec::new() }
    }

    /// Appends what has arrived, waiting for the first; about `limit` messages are read at most, each of which may hold
    /// several events. 0 means that nothing follows. Nothing is lost when the future is dropped.
    pub async fn recv_many(&mut self, out: &mut Vec<Received>, limit: usize) -> usize {
        let before = out.len();
        while out.len() == before {
            if self.consumer.recv_many(&mut self.buffer, limit).await == 0 {
                return 0;
            }
            for event in std::mem::take(&mut self.buffer) {
                match event {
                    ConsumerEvent::Delivery(delivery) => self.read(&delivery.raw, out),
                    ConsumerEvent::Connected { .. } => out.push(Received::Connected),
                    ConsumerEvent::Lost { reason, .. } => out.push(Received::Lost { reason }),
                    ConsumerEvent::Cancelled { queue } => {
                        out.push(Received::Lost { reason: format!("queue '{queue}' was deleted") });
                    }
                    ConsumerEvent::Fatal(err) => out.push(Received::Fatal(err)),
                }
            }
        }
        out.len() - before
    }

    /// Ends listening and deletes the queue.
    pub async fn close(self) {
        self.consumer.close().await;
    }

    fn read(&self, raw: &RawMessage, out: &mut Vec<Received>) {
        let at = self.clock.now();
        let content = raw.properties.content_type.as_deref();
        if content.is_some_and(|content| content != "application/json") {
            let reason = format!("content type {:?}; only JSON is read", content.unwrap_or_default());
            return out.push(Received::Undecodable { reason });
        }
        match event::decode(&raw.body) {
            Err(err) => out.push(Received::Undecodable { reason: err.to_string() }),
            Ok(events) => out.extend(events.into_iter().map(|event| match event {
                Ok(event) => {
                    self.lamport.adjust(event.clock);
                    Received::Event { event: Box::new(event), at }
                }
                Err(err) => Received::Undecodable { reason: err.to_string() },
            })),
        }
    }
}
