//! Publishing: mandatory, persistent, confirmed, and many at a time over one channel.
//!
//! [`Publisher::publish`] may be called from anywhere, concurrently. The messages go to a *lane*: a background task with a
//! channel in confirm mode, which keeps a bounded number in flight and answers each caller exactly
//! ([`returns`](super::returns)). There are two lanes, because a publish to an exchange that does not exist closes the
//! channel and makes everything in flight on it uncertain: exchanges that callers name have their own, and are looked up
//! first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use celery_protocol::{Properties, RawMessage};
use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::connection::Link;
use super::lane::Lane;
use super::table;
use super::topology::{self, ExchangeSpec};
use crate::error::{BrokerError, BrokerErrorKind};
use crate::offline::Outbox;
use crate::tasks::Tasks;

/// Callers that may wait for room in a lane; more wait at its door, each under its own deadline.
const QUEUED: usize = 1024;
/// How long an exchange that exists, or does not, is taken to stay so.
const EXCHANGE_KNOWN: Duration = Duration::from_secs(60);
const EXCHANGE_MISSING: Duration = Duration::from_secs(5);
/// How many exchange names are remembered.
const EXCHANGES_KNOWN: usize = 1024;

/// Where a message goes: by default the default exchange, with the queue's name as the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Empty for the default exchange.
    pub exchange: String,
    /// The queue's name on the default exchange.
    pub routing_key: String,
}

impl Route {
    /// Directly to a queue.
    pub fn queue(name: impl Into<String>) -> Self {
        Self { exchange: String::new(), routing_key: name.into() }
    }
}

/// How to publish one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOptions {
    /// After this, the answer is [`Timeout`](BrokerErrorKind::Timeout). Default: 5 s.
    pub deadline: Duration,
    /// The message must reach a queue, else [`Unroutable`](BrokerErrorKind::Unroutable). Default: yes.
    pub mandatory: bool,
    /// What to do when there is no connection, or the broker has blocked publishing. Default: wait for it.
    pub unavailable: WhenUnavailable,
    /// Only over this connection, as [`Celery::pinned`](crate::Celery::pinned) counts them: a message that would go over a
    /// later one is not sent. Default: over any.
    pub over: Option<u64>,
}

/// What to do when nothing can be published right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnavailable {
    /// Wait until the deadline.
    Wait,
    /// Answer at once.
    Fail,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            mandatory: true,
            unavailable: WhenUnavailable::Wait,
            over: None,
        }
    }
}

/// Publishes messages; clones share the channels.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    /// Set on a client without servers: messages end here.
    outbox: Option<Outbox>,
    link: Link,
    /// Default exchange only: cannot fail on the exchange.
    safe: mpsc::Sender<Job>,
    /// Exchanges that callers name.
    named: mpsc::Sender<Job>,
    exchanges: Mutex<Exchanges>,
    max_body: usize,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// Which exchanges exist, as far as one connection knows.
#[derive(Debug, Default)]
struct Exchanges {
    /// A restart of the broker removes transient exchanges, so that each connection looks for itself.
    generation: u64,
    seen: HashMap<String, (bool, Instant)>,
}

/// A message on its way to a lane.
pub(super) struct Job {
    /// Finds the return of this message.
    pub(super) id: String,
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    /// The only connection that it may go over.
    pub(super) over: Option<u64>,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) stage: Arc<Stage>,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// What a lane answers.
pub(super) type Answer = Result<(), BrokerError>;

/// Settles the race between a caller that gives up and a lane that begins to send.
#[derive(Debug, Default)]
pub(super) struct Stage(AtomicU8);

impl Stage {
    const QUEUED: u8 = 0;
    const SENT: u8 = 1;
    const ABANDONED: u8 = 2;

    /// The lane sends it now; `false`: the caller has gone.
    pub(super) fn send(&self) -> bool {
        self.0.compare_exchange(Self::QUEUED, Self::SENT, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller gives up; `false`: it has been sent.
    fn abandon(&self) -> bool {
        self.0.compare_exchange(Self::QUEUED, Self::ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Publisher {
    pub(crate) fn start(link: Link, max_body: usize, tasks: &Tasks) -> Self {
        let (safe, safe_jobs) = mpsc::channel(QUEUED);
        let (named, named_jobs) = mpsc::channel(QUEUED);
        let (first, second) =
            (Lane::new("default", link.clone(), safe_jobs), Lane::new("named", link.clone(), named_jobs));
        tasks.spawn("publish lane", |stop| first.run(stop));
        tasks.spawn("named-exchange lane", |stop| second.run(stop));
        let exchanges = Mutex::default();
        Self { inner: Arc::new(Inner { outbox: None, link, safe, named, exchanges, max_body }) }
    }

    /// Keeps messages instead of sending them.
    pub(crate) fn offline(outbox: Outbox, max_body: usize) -> Self {
        // Nobody receives: nothing may come this way.
        let (safe, named) = (mpsc::channel(1).0, mpsc::channel(1).0);
        let (link, exchanges) = (Link::closed(), Mutex::default());
        Self { inner: Arc::new(Inner { outbox: Some(outbox), link, safe, named, exchanges, max_body }) }
    }

    /// Publishes a message and waits until the broker has confirmed it.
    ///
    /// Messages of one caller are sent in the order of the calls as long as these are awaited one after the other. The
    /// correlation id (Celery's task id) must be unique among what is in flight; a second message with the same id waits
    /// until the first is answered.
    ///
    /// # Errors
    /// [`BrokerError::outcome`] tells a refusal from an unknown fate. A message with an unknown fate should be sent again
    /// with the same id.
    pub async fn publish(
        &self,
        route: &Route,
        message: RawMessage,
        options: PublishOptions,
    ) -> Result<(), BrokerError> {
        let result = self.deliver(route, message, options).await;
        let outcome = match &result {
            Ok(()) => "accepted",
            Err(err) => err.kind().slug(),
        };
        metrics::counter!("celery_broker_publishes_total", "outcome" => outcome).increment(1);
        result
    }

    async fn deliver(
        &self,
        route: &Route,
        mut message: RawMessage,
        options: PublishOptions,
    ) -> Result<(), BrokerError> {
        if message.body.len() > self.inner.max_body {
            let context = format!("{} bytes, the limit is {}", message.body.len(), self.inner.max_body);
            return Err(BrokerError::new(BrokerErrorKind::MessageTooLarge, context));
        }
        if let Some(outbox) = &self.inner.outbox {
            // What the broker would refuse is refused here, too.
            table::encode(message.clone())?;
            outbox.put(route.clone(), message);
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + options.deadline;
        let id = identify(&mut message.properties);
        let exchange = table::short("the name of the exchange", &route.exchange)?;
        let routing_key = table::short("the routing key", &route.routing_key)?;
        let table::Encoded { properties, body } = table::encode(message)?;
        if options.unavailable == WhenUnavailable::Fail {
            self.check_available()?;
        }
        let lane = if route.exchange.is_empty() {
            &self.inner.safe
        } else {
            timeout_at(deadline, self.check_exchange(&route.exchange, deadline))
                .await
                .unwrap_or_else(|_| Err(self.unavailable()))?;
            &self.inner.named
        };
        let stage = Arc::new(Stage::default());
        let (reply, answer) = oneshot::channel();
        let PublishOptions { mandatory, over, .. } = options;
        let stage_of_job = Arc::clone(&stage);
        let job =
            Job { id, exchange, routing_key, mandatory, over, properties, body, stage: stage_of_job, reply };
        match timeout_at(deadline, lane.send(job)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(BrokerError::new(BrokerErrorKind::Closed, "")),
            Err(_) => return Err(self.unavailable()),
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if stage.abandon() => Err(BrokerError::new(BrokerErrorKind::Closed, "")),
            Ok(Err(_)) => Err(BrokerError::new(BrokerErrorKind::Closed, "").unknown()),
            Err(_) if stage.abandon() => Err(self.unavailable()),
            Err(_) => Err(BrokerError::new(BrokerErrorKind::Timeout, "no confirmation").unknown()),
        }
    }

    /// Why a message that was never sent could not be.
    fn unavailable(&self) -> BrokerError {
        match self.check_available() {
            Ok(()) => BrokerError::new(BrokerErrorKind::Timeout, "too many messages are waiting"),
            Err(err) => err,
        }
    }

    fn check_available(&self) -> Result<(), BrokerError> {
        let session = self.inner.link.session()?;
        if session.blocked {
            return Err(BrokerError::new(BrokerErrorKind::Blocked, "memory or disk alarm"));
        }
        Ok(())
    }

    /// As [`publish`](Self::publish), declaring the exchange first if this connection has not seen it.
    pub(crate) async fn publish_declaring(
        &self,
        exchange: &ExchangeSpec,
        route: &Route,
        message: RawMessage,
        options: PublishOptions,
    ) -> Result<(), BrokerError> {
        if self.inner.outbox.is_none() {
            let deadline = tokio::time::Instant::now() + options.deadline;
            if options.unavailable == WhenUnavailable::Fail {
                self.check_available()?;
            }
            let declared = timeout_at(deadline, self.ensure_exchange(exchange, options.deadline)).await;
            declared.unwrap_or_else(|_| Err(self.unavailable()))?;
        }
        self.publish(route, message, options).await
    }

    async fn ensure_exchange(&self, exchange: &ExchangeSpec, deadline: Duration) -> Result<(), BrokerError> {
        let session = self.inner.link.connected(deadline).await?;
        if self.exchanges(session.generation).seen.get(&exchange.name).is_some_and(|(exists, _)| *exists) {
            return Ok(());
        }
        topology::ensure_exchange(&session, exchange).await?;
        self.exchanges(session.generation).note(&exchange.name, true);
        Ok(())
    }

    /// Looks whether an exchange exists before a channel is risked on it.
    async fn check_exchange(&self, name: &str, deadline: tokio::time::Instant) -> Result<(), BrokerError> {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let session = self.inner.link.connected(left).await?;
        let known = self.exchanges(session.generation).seen.get(name).copied();
        let exists = match known {
            Some((true, seen)) if seen.elapsed() < EXCHANGE_KNOWN => true,
            Some((false, seen)) if seen.elapsed() < EXCHANGE_MISSING => false,
            _ => {
                let exists = topology::exchange_exists(&session, name).await?;
                self.exchanges(session.generation).note(name, exists);
                exists
            }
        };
        if exists {
            Ok(())
        } else {
            Err(BrokerError::new(BrokerErrorKind::ExchangeNotFound, format!("'{name}'")))
        }
    }

    /// What the connection of this generation knows.
    fn exchanges(&self, generation: u64) -> MutexGuard<'_, Exchanges> {
        let mut exchanges = self.inner.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if exchanges.generation != generation {
            *exchanges = Exchanges { generation, seen: HashMap::new() };
        }
        exchanges
    }
}

impl Exchanges {
    fn note(&mut self, name: &str, exists: bool) {
        if self.seen.len() >= EXCHANGES_KNOWN {
            self.seen.clear();
        }
        self.seen.insert(name.to_owned(), (exists, Instant::now()));
    }
}

/// The id by which a return is recognised: the correlation id, else the message id, which is made up if there is none.
fn identify(properties: &mut Properties) -> String {
    if let Some(id) = &properties.correlation_id {
        return id.clone();
    }
    properties.message_id.get_or_insert_with(|| uuid::Uuid::new_v4().to_string()).clone()
}

/// The same, of a message that came back.
pub(super) fn identity(properties: &BasicProperties) -> Option<String> {
    let id = properties.correlation_id().as_ref().or(properties.message_id().as_ref());
    id.map(|id| id.as_str().to_owned())
}
