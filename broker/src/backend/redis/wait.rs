//! Watching results: one connection subscribes for all watchers of this process.
//!
//! Subscribe first, read afterwards: what is stored in between shows in one of the two. Announcements can be lost (Redis
//! drops them when a reader is slow, a failover forgets them), so all watched keys are read again after each reconnect and
//! every 15 seconds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celery_protocol::{ResultMeta, TaskId};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fault;
use super::store::Store;
use crate::amqp::backoff::{Backoff, Failure, dice};
use crate::backend::mailbox::Mailbox;
use crate::error::{BackendError, BackendErrorKind};
use crate::tasks::Tasks;

/// Watchers in this process; more are refused.
const MAX_WATCHERS: usize = 50_000;
/// For subscribing.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(5);
/// How often everything that is watched is read again.
const READ_AGAIN: Duration = Duration::from_secs(15);
/// Keys in one SUBSCRIBE or MGET.
const BATCH: usize = 512;

/// Hands out watches.
pub(super) struct Watcher {
    orders: mpsc::UnboundedSender<Order>,
    watchers: Arc<AtomicUsize>,
    store: Store,
}

/// Is told when the subscription stands.
type Told = oneshot::Sender<Result<(), BackendError>>;

#[derive(Debug)]
enum Order {
    Watch {
        key: String,
        mailbox: Mailbox,
        subscribed: Told,
    },
    /// A watcher of this key has gone.
    Left {
        key: String,
    },
}

/// Who watches which key, and what the server has been told.
#[derive(Debug, Default)]
struct Watched {
    keys: HashMap<String, Vec<Mailbox>>,
    subscribed: HashSet<String>,
    /// Watched now, and not subscribed when that was noted.
    fresh: Vec<String>,
    /// Subscribed, and not watched when that was noted.
    stale: Vec<String>,
}

impl Watcher {
    pub(super) fn new(store: Store, tasks: &Tasks) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let hub =
            Hub { store: store.clone(), orders: receiver, watched: Watched::default(), early: Vec::new() };
        tasks.spawn("result watcher", |stop| hub.run(stop));
        Self { orders, watchers: Arc::new(AtomicUsize::new(0)), store }
    }

    pub(super) async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, ResultMeta>, BackendError> {
        let closed = || BackendError::new(BackendErrorKind::Connect, "closed");
        if self.watchers.fetch_add(1, Ordering::AcqRel) >= MAX_WATCHERS {
            self.watchers.fetch_sub(1, Ordering::AcqRel);
            let context = format!("{MAX_WATCHERS} results are being watched");
            return Err(BackendError::new(BackendErrorKind::Unsupported, context));
        }
        let key = self.store.prefix.task_meta(id);
        let left = Order::Left { key: key.clone() };
        let (count, orders) = (Arc::clone(&self.watchers), self.orders.clone());
        let (mailbox, watch) = Mailbox::new(move || {
            count.fetch_sub(1, Ordering::AcqRel);
            let _ = orders.send(left);
        });
        let (subscribed, answer) = oneshot::channel();
        let order = Order::Watch { key: key.clone(), mailbox: mailbox.clone(), subscribed };
        self.orders.send(order).map_err(|_| closed())?;
        match timeout(SUBSCRIBE_DEADLINE, answer).await {
            Ok(answer) => answer.map_err(|_| closed())??,
            Err(_) => return Err(BackendError::new(BackendErrorKind::Timeout, "subscribing to a result")),
        }
        if let Some(value) = self.store.read(&key).await? {
            mailbox.put(super::store::decode(&key, &value)?, &value);
        }
        Ok(Box::pin(watch))
    }
}

struct Hub {
    store: Store,
    orders: mpsc::UnboundedReceiver<Order>,
    watched: Watched,
    /// Who ordered while there was no connection.
    early: Vec<Told>,
}

impl Hub {
    async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            // Nobody watches, so there is no need for a connection.
            while self.watched.keys.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    order = self.orders.recv() => match order {
                        Some(order) => self.watched.note(order, &mut self.early),
                        None => return,
                    },
                }
            }
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                failure = self.serve(&mut backoff) => failure,
            };
            if self.watched.keys.is_empty() {
                continue;
            }
            let delay = backoff.next(Failure::Unreachable, dice());
            if backoff.failures() <= 3 || backoff.failures().is_multiple_of(10) {
                tracing::warn!(failures = backoff.failures(), "watching results: {failure}");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(delay) => {}
            }
        }
    }

    /// One connection, until it breaks.
    async fn serve(&mut self, backoff: &mut Backoff) -> BackendError {
        let connecting = timeout(SUBSCRIBE_DEADLINE, self.store.connector.client().get_async_pubsub());
        let pubsub = match connecting.await {
            Ok(Ok(pubsub)) => pubsub,
            Ok(Err(err)) => return fault::of(err, self.store.connector.address()),
            Err(_) => {
                return BackendError::new(BackendErrorKind::Timeout, self.store.connector.address());
            }
        };
        let (mut sink, mut stream) = pubsub.split();
        self.watched.subscribed.clear();
        self.watched.fresh.clear();
        self.watched.stale.clear();
        let waiting: Vec<String> = self.watched.keys.keys().cloned().collect();
        if let Err(err) = self.subscribe(&mut sink, waiting, Vec::new()).await {
            return err;
        }
        backoff.reset();
        // Whatever was announced while there was no connection.
        if let Err(err) = self.read_again().await {
            return err;
        }
        self.follow(&mut sink, &mut stream).await
    }

    async fn follow(&mut self, sink: &mut PubSubSink, stream: &mut PubSubStream) -> BackendError {
        let mut again = interval_at(Instant::now() + READ_AGAIN, READ_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                message = stream.next() => match message {
                    Some(message) => {
                        self.watched.announce(message.get_channel_name(), message.get_payload_bytes());
                    }
                    None => return BackendError::new(BackendErrorKind::Connect, "the subscription ended"),
                },
                order = self.orders.recv() => {
                    let Some(order) = order else {
                        return BackendError::new(BackendErrorKind::Connect, "closed");
                    };
                    let mut told = Vec::new();
                    self.watched.note(order, &mut told);
                    while told.len() < BATCH {
                        let Ok(order) = self.orders.try_recv() else { break };
                        self.watched.note(order, &mut told);
                    }
                    let fresh = std::mem::take(&mut self.watched.fresh);
                    if let Err(err) = self.subscribe(sink, fresh, told).await {
                        return err;
                    }
                    if let Err(err) = self.unsubscribe(sink).await {
                        return err;
                    }
                }
                _ = again.tick() => {
                    if let Err(err) = self.read_again().await {
                        return err;
                    }
                }
            }
        }
    }

    async fn subscribe(
        &mut self,
        sink: &mut PubSubSink,
        keys: Vec<String>,
        told: Vec<Told>,
    ) -> Result<(), BackendError> {
        for batch in keys.chunks(BATCH) {
            match timeout(SUBSCRIBE_DEADLINE, sink.subscribe(batch)).await {
                Ok(Ok(())) => self.watched.subscribed.extend(batch.iter().cloned()),
                Ok(Err(err)) => return Err(fault::of(err, "subscribing to results")),
                Err(_) => return Err(BackendError::new(BackendErrorKind::Timeout, "subscribing to results")),
            }
        }
        for sender in told.into_iter().chain(self.early.drain(..)) {
            let _ = sender.send(Ok(()));
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, sink: &mut PubSubSink) -> Result<(), BackendError> {
        let mut gone = std::mem::take(&mut self.watched.stale);
        // Somebody may watch it again meanwhile.
        gone.retain(|key| !self.watched.keys.contains_key(key));
        for batch in gone.chunks(BATCH) {
            match timeout(SUBSCRIBE_DEADLINE, sink.unsubscribe(batch)).await {
                Ok(Ok(())) => {
                    for key in batch {
                        self.watched.subscribed.remove(key);
                    }
                }
                Ok(Err(err)) => return Err(fault::of(err, "unsubscribing")),
                Err(_) => return Err(BackendError::new(BackendErrorKind::Timeout, "unsubscribing")),
            }
        }
        Ok(())
    }

    async fn read_again(&mut self) -> Result<(), BackendError> {
        let keys: Vec<String> = self.watched.keys.keys().cloned().collect();
        for batch in keys.chunks(BATCH) {
            let values = self.store.read_many(batch).await?;
            for (key, value) in batch.iter().zip(values) {
                if let Some(value) = value {
                    self.watched.announce(key, &value);
                }
            }
        }
        Ok(())
    }
}

impl Watched {
    /// Notes an order; who is to be told that the subscription stands goes to `told`.
    fn note(&mut self, order: Order, told: &mut Vec<Told>) {
        match order {
            Order::Watch { key, mailbox, subscribed } => {
                if !self.subscribed.contains(&key) {
                    self.fresh.push(key.clone());
                }
                self.keys.entry(key).or_default().push(mailbox);
                told.push(subscribed);
            }
            Order::Left { key } => {
                if let Some(mailboxes) = self.keys.get_mut(&key) {
                    mailboxes.retain(|mailbox| !mailbox.is_closed());
                    if mailboxes.is_empty() {
                        self.keys.remove(&key);
                        self.stale.push(key);
                    }
                }
            }
        }
    }

    /// A state was announced or read.
    fn announce(&mut self, key: &str, value: &[u8]) {
        let Some(mailboxes) = self.keys.get_mut(key) else { return };
        match ResultMeta::decode(value) {
            Ok(meta) => mailboxes.retain(|mailbox| mailbox.put(meta.clone(), value)),
            Err(err) => tracing::warn!(key, "an announced result cannot be read: {err}"),
        }
        if mailboxes.is_empty() {
            self.keys.remove(key);
            self.stale.push(key.to_owned());
        }
    }
}
