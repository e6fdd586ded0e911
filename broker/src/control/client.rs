//! Asking workers.

use std::time::Duration;

use celery_protocol::control::{self, Command, Pattern, Reply, ReplyTo, Request};
use celery_protocol::{Properties, QueueName, TaskId};
use serde_json::json;

use crate::Celery;
use crate::amqp::{ConsumeOptions, ConsumerEvent, PublishOptions, Route};
use crate::clock::Lamport;
use crate::control::Revocation;
use crate::error::{BrokerError, BrokerErrorKind};

/// How long a request may take to reach the broker.
const SEND_DEADLINE: Duration = Duration::from_secs(5);
/// How long a revocation is kept, as Celery's workers do (`CELERY_WORKER_REVOKE_EXPIRES`).
const REVOKED_FOR: Duration = Duration::from_secs(10_800);
/// Replies to one request.
const MAX_REPLIES: usize = 10_000;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Destination {
    /// Every worker.
    #[default]
    All,
    /// The workers of these names.
    Nodes(Vec<String>),
    /// The workers whose names fit.
    Pattern(Pattern),
}

/// Asks workers and collects their answers.
#[derive(Debug, Clone)]
pub struct Client {
    celery: Celery,
    /// kombu's mailbox has a logical clock of its own.
    clock: Lamport,
}

impl Client {
    pub(crate) fn new(celery: Celery) -> Self {
        Self { celery, clock: Lamport::default() }
    }

    /// Tells workers something and waits for no answer. Nobody may be listening.
    ///
    /// # Errors
    /// The request did not reach the broker.
    pub async fn cast(&self, command: &Command, to: Destination) -> Result<(), BrokerError> {
        self.send(addressed(command, to), Duration::ZERO).await
    }

    /// Revokes tasks: keeps that for workers that are away or start later, where the result backend can, and tells those
    /// that listen. `terminate` also ends them where they run.
    ///
    /// # Errors
    /// The revocation was neither kept nor sent.
    pub async fn revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        if let Some(cluster) = self.celery.cluster() {
            let kept: Vec<_> = ids.iter().cloned().map(Revocation::Task).collect();
            if let Err(err) = cluster.revoke(&kept, REVOKED_FOR).await {
                tracing::warn!(%err, "the revocation is not kept for workers that start later");
            }
        }
        let ids = ids.iter().map(ToString::to_string).collect();
        self.cast(&Command::Revoke { ids, terminate, signal: None }, Destination::All).await
    }

    /// Asks workers and collects answers until `timeout` has passed or all named nodes have answered. No answer is not an
    /// error: a worker may be busy, away, or not exist.
    ///
    /// # Errors
    /// The request did not reach the broker, or replies cannot be received.
    pub async fn call(
        &self,
        command: &Command,
        to: Destination,
        timeout: Duration,
    ) -> Result<Vec<Reply>, BrokerError> {
        let wanted = match &to {
            Destination::Nodes(nodes) => nodes.len(),
            Destination::All | Destination::Pattern(_) => MAX_REPLIES,
        };
        let oid = uuid::Uuid::new_v4().to_string();
        let ticket = uuid::Uuid::new_v4().to_string();
        let name = QueueName::parse(control::reply_queue(&oid))
            .map_err(|err| BrokerError::config("reply queue").caused_by(err))?;
        let queue = super::private_queue(name).bound_to(super::reply_exchange(), oid.clone());
        let mut options = ConsumeOptions::new(vec![queue]);
        options.no_ack = true;
        options.consumer_tag = "replies".into();
        let mut consumer = self.celery.consume_control(options)?;

        let mut request = addressed(command, to);
        request.ticket = Some(ticket.clone());
        request.reply_to = Some(ReplyTo { exchange: control::REPLY_EXCHANGE.into(), routing_key: oid });
        let outcome = self.collect(&mut consumer, request, &ticket, timeout, wanted).await;
        consumer.close().await;
        outcome
    }

    async fn collect(
        &self,
        consumer: &mut crate::Consumer,
        request: Request,
        ticket: &str,
        timeout: Duration,
        wanted: usize,
    ) -> Result<Vec<Reply>, BrokerError> {
        let mut replies = Vec::new();
        let mut buffer = Vec::new();
        // The queue must exist before anyone answers; the time for that is not the workers'.
        let mut deadline = tokio::time::Instant::now() + SEND_DEADLINE;
        let mut request = Some(request);
        while replies.len() < wanted {
            let Ok(count) = tokio::time::timeout_at(deadline, consumer.recv_many(&mut buffer, 64)).await
            else {
                break;
            };
            if count == 0 {
                return Err(BrokerError::new(BrokerErrorKind::Closed, "while waiting for replies"));
            }
            for event in buffer.drain(..) {
                match event {
                    ConsumerEvent::Connected { .. } => {
                        if let Some(request) = request.take() {
                            self.send(request, timeout).await?;
                            deadline = tokio::time::Instant::now() + timeout;
                        }
                    }
                    ConsumerEvent::Delivery(delivery) => {
                        let headers = &delivery.raw.headers;
                        self.clock.adjust(headers.get("clock").and_then(|clock| clock.as_u64()).unwrap_or(0));
                        if headers.get("ticket").and_then(|ticket| ticket.as_str()) == Some(ticket) {
                            // What cannot be read is no reply.
                            replies.extend(Reply::decode(&delivery.raw.body).unwrap_or_default());
                        }
                    }
                    ConsumerEvent::Fatal(err) => return Err(err),
                    ConsumerEvent::Lost { .. } | ConsumerEvent::Cancelled { .. } => {}
                }
            }
        }
        if request.is_some() {
            return Err(BrokerError::new(BrokerErrorKind::Timeout, "a queue for the replies"));
        }
        let mut names: Vec<&str> = replies.iter().map(|reply| reply.node.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            tracing::warn!("several workers are called {name}; give each its own name with -n");
        }
        Ok(replies)
    }

    async fn send(&self, request: Request, timeout: Duration) -> Result<(), BrokerError> {
        let body = request
            .encode()
            .map_err(|err| BrokerError::new(BrokerErrorKind::Encode, "control request").caused_by(err))?;
        let expires =
            if timeout.is_zero() { 0.0 } else { self.celery.clock().unix_seconds() + timeout.as_secs_f64() };
        let headers =
            [("clock".to_owned(), json!(self.clock.forward())), ("expires".to_owned(), json!(expires))];
        let message = super::message(headers, body, Properties::PERSISTENT);
        let route = Route { exchange: control::EXCHANGE.into(), routing_key: String::new() };
        let options =
            PublishOptions { deadline: SEND_DEADLINE, mandatory: false, ..PublishOptions::default() };
        let publisher = self.celery.publisher();
        publisher.publish_declaring(&super::request_exchange(), &route, message, options).await
    }
}

fn addressed(command: &Command, to: Destination) -> Request {
    let mut request = command.to_request();
    match to {
        Destination::All => {}
        Destination::Nodes(nodes) => request.destination = Some(nodes),
        Destination::Pattern(pattern) => request.pattern = Some(pattern),
    }
    request
}
