//! Being asked.

use std::time::Duration;

use celery_protocol::control::{self, Reply, Request};
use celery_protocol::{Nodename, Properties, RawMessage};
use serde_json::{Value, json};

use crate::Celery;
use crate::amqp::{ConsumeOptions, Consumer, ConsumerEvent, PublishOptions, QueueSpec, Route};
use crate::clock::Lamport;
use crate::error::{BrokerError, BrokerErrorKind};

/// How long a reply may take to reach the broker.
const REPLY_DEADLINE: Duration = Duration::from_secs(5);
/// A queue that is not ours after this long is probably another worker's of the same name.
const DUPLICATE: Duration = Duration::from_secs(10);
/// A request that expired longer ago than this is old; within it, the clocks of two machines may just differ.
const SKEW: f64 = 60.0;

/// A worker's end of remote control.
///
/// Its queue `<node>.celery.pidbox` is exclusive: a second worker of the same name can't have it, and neither can a worker
/// that was restarted before the broker noticed the end of the first; the supervisor tries again until it gets it.
#[derive(Debug)]
pub struct Node {
    celery: Celery,
    name: Nodename,
    consumer: Result<Consumer, Option<BrokerError>>,
    clock: Lamport,
    buffer: std::collections::VecDeque<ConsumerEvent>,
    incoming: Vec<ConsumerEvent>,
    /// Until when the queue may take to be ours before that is said; `None` when it is, or was said.
    patience: Option<tokio::time::Instant>,
}

impl Node {
    pub(crate) fn start(celery: Celery, name: &Nodename) -> Self {
        let consumer = queue(name)
            .and_then(|queue| {
                let mut options = ConsumeOptions::new(vec![queue]);
                options.no_ack = true;
                options.consumer_tag = "pidbox".into();
                celery.consume_control(options)
            })
            .map_err(Some);
        Self {
            celery,
            name: name.clone(),
            consumer,
            clock: Lamport::default(),
            buffer: std::collections::VecDeque::new(),
            incoming: Vec::new(),
            patience: Some(tokio::time::Instant::now() + DUPLICATE),
        }
    }

    /// The next request that means this node. What is no request is logged and dropped. `None`: nothing follows. Nothing
    /// is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Request> {
        loop {
            while let Some(event) = self.buffer.pop_front() {
                match event {
                    ConsumerEvent::Delivery(delivery) => {
                        if let Some(request) = self.read(&delivery.raw) {
                            return Some(request);
                        }
                    }
                    ConsumerEvent::Fatal(err) => {
                        tracing::error!(%err, "remote control is off");
                        return None;
                    }
                    ConsumerEvent::Lost { reason, .. } => tracing::debug!(reason, "remote control is away"),
                    ConsumerEvent::Connected { .. } => self.patience = None,
                    ConsumerEvent::Cancelled { .. } => {}
                }
            }
            match &mut self.consumer {
                Ok(consumer) => {
                    let received = tokio::select! {
                        received = consumer.recv_many(&mut self.incoming, 64) => received,
                        () = at(self.patience) => {
                            self.patience = None;
                            if self.celery.health().connected {
                                tracing::warn!(
                                    "{} cannot be reached by remote control: another worker seems to have its name; \
                                     give each its own with -n",
                                    self.name
                                );
                            }
                            continue;
                        }
                    };
                    if received == 0 {
                        return None;
                    }
                }
                Err(err) => {
                    if let Some(err) = err.take() {
                        tracing::error!(%err, "remote control is off");
                    }
                    return None;
                }
            }
            self.buffer.extend(self.incoming.drain(..));
        }
    }

    /// Answers a request; does nothing when no answer is wanted, or when the address is none that kombu would give: a
    /// request must not make a worker publish into other exchanges.
    pub async fn reply(&self, request: &Request, value: Value) {
        let Some(to) = &request.reply_to else { return };
        let sane = to.exchange == control::REPLY_EXCHANGE
            && (1..=255).contains(&to.routing_key.len())
            && to.routing_key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
        if !sane {
            tracing::warn!(
                method = request.method,
                "control request with a strange reply address, not answered"
            );
            return;
        }
        if let Err(err) = self.send_reply(request, to, value).await {
            tracing::warn!(method = request.method, %err, "a reply could not be sent");
        }
    }

    /// Ends being asked.
    pub async fn close(self) {
        if let Ok(consumer) = self.consumer {
            consumer.close().await;
        }
    }

    async fn send_reply(
        &self,
        request: &Request,
        to: &control::ReplyTo,
        value: Value,
    ) -> Result<(), BrokerError> {
        let reply = Reply { node: self.name.to_string(), value };
        let body = reply
            .encode()
            .map_err(|err| BrokerError::new(BrokerErrorKind::Encode, "reply").caused_by(err))?;
        let headers =
            [("ticket".to_owned(), json!(request.ticket)), ("clock".to_owned(), json!(self.clock.forward()))];
        let message = super::message(headers, body, Properties::TRANSIENT);
        let route = Route { exchange: to.exchange.clone(), routing_key: to.routing_key.clone() };
        let options =
            PublishOptions { deadline: REPLY_DEADLINE, mandatory: false, ..PublishOptions::default() };
        let publisher = self.celery.publisher();
        publisher.publish_declaring(&super::reply_exchange(), &route, message, options).await
    }

    fn read(&self, raw: &RawMessage) -> Option<Request> {
        self.celery.lamport().forward();
        self.clock.adjust(raw.headers.get("clock").and_then(Value::as_u64).unwrap_or(0));
        let expires = raw.headers.get("expires").and_then(Value::as_f64).unwrap_or(0.0);
        if expires > 0.0 && self.celery.clock().unix_seconds() > expires + SKEW {
            tracing::debug!("an old control request is dropped");
            return None;
        }
        if raw.properties.content_type.as_deref().is_some_and(|content| content != "application/json") {
            tracing::warn!("a control request that is not JSON is dropped");
            return None;
        }
        let selected = Request::decode(&raw.body)
            .and_then(|request| Ok(request.selects(&self.name)?.then_some(request)));
        match selected {
            Ok(selected) => selected,
            Err(err) => {
                tracing::warn!(%err, "a control request is dropped");
                None
            }
        }
    }
}

async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn queue(name: &Nodename) -> Result<QueueSpec, BrokerError> {
    let queue = celery_protocol::QueueName::parse(control::node_queue(name))
        .map_err(|err| BrokerError::config("the node's name is too long").caused_by(err))?;
    Ok(super::private_queue(queue).bound_to(super::request_exchange(), ""))
}
