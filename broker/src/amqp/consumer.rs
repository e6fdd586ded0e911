//! Consuming from queues, for ever.
//!
//! Two halves. [`Consumer`] is in the caller's hands and reads the delivery streams directly, so a delivery makes no extra
//! hop. The supervisor ([`keeper`](super::keeper)) runs in the background: it opens the channel, declares, sets the
//! prefetch, subscribes, writes acks, and restores all of it when the connection or channel is lost, a queue is deleted
//! or the broker forgets us.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use celery_protocol::QueueName;
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};

use super::connection::Link;
use super::delivery::{Channel, Delivery, Token};
use super::keeper::{Command, Keeper, Signal};
use super::ledger::Answer;
use super::table;
use super::topology::QueueSpec;
use crate::error::{BrokerError, BrokerErrorKind};
use crate::tasks::Tasks;

/// What to consume.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// The queues, declared if they do not exist.
    pub queues: Vec<QueueSpec>,
    /// Unsettled messages that the broker may have out at this consumer, per queue; 0 is refused.
    pub prefetch: u16,
    /// Prefix of the consumer tags in RabbitMQ's lists. Default: `celeriac`.
    pub consumer_tag: String,
    /// Messages count as settled when sent. Default: no.
    pub no_ack: bool,
}

impl ConsumeOptions {
    /// Consumes from these queues with a prefetch of 64 each.
    pub fn new(queues: Vec<QueueSpec>) -> Self {
        Self { queues, prefetch: 64, consumer_tag: "celeriac".into(), no_ack: false }
    }

    /// With another prefetch.
    #[must_use]
    pub fn prefetch(mut self, prefetch: u16) -> Self {
        self.prefetch = prefetch;
        self
    }
}

/// What a [`Consumer`] yields.
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "almost every event is a delivery")]
pub enum ConsumerEvent {
    /// A message.
    Delivery(Delivery),
    /// All queues are being consumed on a new channel.
    Connected {
        /// Counts channels, from 1.
        epoch: u64,
    },
    /// The channel is gone; unsettled messages of this epoch will be delivered again.
    Lost {
        /// Which channel.
        epoch: u64,
        /// Why.
        reason: String,
    },
    /// The broker ended the consumer of this queue, usually because the queue was deleted; it is being restored.
    Cancelled {
        /// Which queue.
        queue: QueueName,
    },
    /// Consuming cannot go on without a change of configuration; nothing follows.
    Fatal(BrokerError),
}

/// A supervised subscription to some queues.
#[derive(Debug)]
pub struct Consumer {
    signals: mpsc::UnboundedReceiver<Signal>,
    commands: mpsc::UnboundedSender<Command>,
    feeds: Vec<Feed>,
    /// Where the next round over the feeds begins, so that no queue starves.
    turn: usize,
    /// Lifecycle events that wait for room in the caller's buffer.
    pending: VecDeque<ConsumerEvent>,
    ended: bool,
}

/// One delivery stream: a queue's consumer on a channel.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) queue: QueueName,
    pub(super) tag: String,
    pub(super) channel: Arc<Channel>,
    pub(super) stream: lapin::Consumer,
    /// Being replaced or cancelled by us: its end is expected.
    pub(super) retiring: bool,
    /// Its stream has ended.
    pub(super) over: bool,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("epoch", &self.epoch)
            .field("live", &self.is_live())
            .finish_non_exhaustive()
    }
}

/// How long an order to the supervisor may take; it includes an answer of the broker.
const ORDER_DEADLINE: Duration = Duration::from_secs(15);

impl Consumer {
    /// Starts consuming on `link`; returns at once, [`ConsumerEvent::Connected`] follows.
    pub(crate) fn start(link: Link, options: ConsumeOptions, tasks: &Tasks) -> Result<Self, BrokerError> {
        if options.prefetch == 0 {
            return Err(BrokerError::config(
                "a prefetch of 0 is unlimited, which is refused; use 1 to 65535",
            ));
        }
        let (signal_sender, signals) = mpsc::unbounded_channel();
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let keeper = Keeper::new(link, options, signal_sender, command_receiver);
        tasks.spawn("consumer", |stop| keeper.run(stop));
        Ok(Self { signals, commands, feeds: Vec::new(), turn: 0, pending: VecDeque::new(), ended: false })
    }

    /// Appends up to `limit` events to `buffer`: waits for the first, takes what is there. 0 means that nothing follows.
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv_many(&mut self, buffer: &mut Vec<ConsumerEvent>, limit: usize) -> usize {
        poll_fn(|cx| self.poll_recv_many(cx, buffer, limit.max(1))).await
    }

    fn poll_recv_many(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<ConsumerEvent>,
        limit: usize,
    ) -> Poll<usize> {
        let before = buffer.len();
        // Signals first: a lost channel must be known before anything of the next one.
        while !self.ended {
            match self.signals.poll_recv(cx) {
                Poll::Ready(Some(signal)) => self.apply(signal),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        while buffer.len() - before < limit {
            let Some(event) = self.pending.pop_front() else { break };
            buffer.push(event);
        }
        for step in 0..self.feeds.len() {
            let at = (self.turn + step) % self.feeds.len();
            let Some(feed) = self.feeds.get_mut(at) else { continue };
            feed.read(cx, buffer, limit - (buffer.len() - before), &self.commands);
        }
        self.turn = self.turn.wrapping_add(1);
        self.feeds.retain(|feed| !feed.over);
        let received = buffer.len() - before;
        match received {
            0 if self.ended => Poll::Ready(0),
            0 => Poll::Pending,
            _ => {
                metrics::counter!("celery_broker_consumer_events_total").increment(received as u64);
                Poll::Ready(received)
            }
        }
    }

    fn apply(&mut self, signal: Signal) {
        match signal {
            Signal::Feed(feed) => self.feeds.push(feed),
            Signal::Connected { epoch } => self.pending.push_back(ConsumerEvent::Connected { epoch }),
            Signal::Lost { epoch, reason } => {
                self.feeds.retain(|feed| feed.channel.epoch != epoch);
                self.pending.push_back(ConsumerEvent::Lost { epoch, reason });
            }
            Signal::Cancelled { queue } => self.pending.push_back(ConsumerEvent::Cancelled { queue }),
            Signal::Retire { tag } => {
                for feed in self.feeds.iter_mut().filter(|feed| feed.tag == tag) {
                    feed.retiring = true;
                }
            }
            Signal::Fatal(err) => self.pending.push_back(ConsumerEvent::Fatal(err)),
        }
    }

    /// Changes the prefetch of all queues. The broker applies it to new subscriptions only, so each queue is subscribed
    /// again and the old subscription ended; messages that are out keep their tokens.
    ///
    /// # Errors
    /// The broker did not answer, or the new value is 0.
    pub async fn set_prefetch(&self, prefetch: u16) -> Result<(), BrokerError> {
        if prefetch == 0 {
            return Err(BrokerError::config(
                "a prefetch of 0 is unlimited, which is refused; use 1 to 65535",
            ));
        }
        self.order(|reply| Command::SetPrefetch { prefetch, reply }).await
    }

    /// Consumes from one more queue.
    ///
    /// # Errors
    /// The queue could not be declared or subscribed. When there is no connection it is added for the next one.
    pub async fn add_queue(&self, queue: QueueSpec) -> Result<(), BrokerError> {
        self.order(|reply| Command::AddQueue { queue, reply }).await
    }

    /// Stops consuming from a queue; messages that are out keep their tokens.
    ///
    /// # Errors
    /// The broker did not answer.
    pub async fn cancel_queue(&self, queue: &QueueName) -> Result<(), BrokerError> {
        let queue = queue.clone();
        self.order(|reply| Command::CancelQueue { queue, reply }).await
    }

    /// Ends all subscriptions but keeps the channel, so that tokens still work. Messages that were sent but not yet
    /// received through [`recv_many`](Self::recv_many) go back to their queues.
    ///
    /// # Errors
    /// The broker did not answer; what was out then goes back when the channel closes.
    pub async fn stop(&mut self) -> Result<(), BrokerError> {
        let stopped = self.order(|reply| Command::Stop { reply }).await;
        while let Ok(signal) = self.signals.try_recv() {
            self.apply(signal);
        }
        for feed in &mut self.feeds {
            feed.give_back();
        }
        self.feeds.clear();
        stopped
    }

    /// Writes all answers given so far and waits until the broker has processed them.
    ///
    /// # Errors
    /// The broker did not answer; lost answers mean that their messages come again.
    pub async fn flush(&self) -> Result<(), BrokerError> {
        self.order(|reply| Command::Flush { reply }).await
    }

    /// Flushes and closes the channel: what is not settled goes back to its queue.
    pub async fn close(mut self) {
        let _ = self.order(|reply| Command::Close { reply }).await;
        self.feeds.clear();
    }

    async fn order(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), BrokerError>>) -> Command,
    ) -> Result<(), BrokerError> {
        let (reply, answer) = oneshot::channel();
        let gone = || BrokerError::new(BrokerErrorKind::Closed, "the consumer has ended");
        self.commands.send(command(reply)).map_err(|_| gone())?;
        match tokio::time::timeout(ORDER_DEADLINE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(BrokerError::new(BrokerErrorKind::Timeout, "the consumer's supervisor")),
        }
    }
}

impl Feed {
    /// Takes what has arrived, up to `limit`.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<ConsumerEvent>,
        limit: usize,
        commands: &mpsc::UnboundedSender<Command>,
    ) {
        for _ in 0..limit {
            if !self.channel.is_live() {
                return;
            }
            match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(delivery))) => {
                    buffer.push(ConsumerEvent::Delivery(self.accept(delivery)));
                }
                Poll::Ready(Some(Err(err))) => return self.end(Some(err.to_string()), commands),
                Poll::Ready(None) => return self.end(None, commands),
            }
        }
    }

    /// lapin's stream must not be polled after its end: it would stay pending for ever.
    fn end(&mut self, reason: Option<String>, commands: &mpsc::UnboundedSender<Command>) {
        if !self.retiring {
            let _ = commands.send(Command::FeedEnded { tag: self.tag.clone(), reason });
        }
        self.over = true;
    }

    fn accept(&self, delivery: lapin::message::Delivery) -> Delivery {
        self.channel.delivered(delivery.delivery_tag);
        let raw = table::decode(&delivery.properties, delivery.data);
        Delivery {
            raw,
            exchange: delivery.exchange.into(),
            routing_key: delivery.routing_key.into(),
            redelivered: delivery.redelivered,
            queue: self.queue.clone(),
            token: Token::new(Arc::clone(&self.channel), delivery.delivery_tag),
        }
    }

    /// Requeues what has arrived but was not read.
    fn give_back(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(delivery))) = Pin::new(&mut self.stream).poll_next(&mut cx) {
            self.channel.delivered(delivery.delivery_tag);
            self.channel.answer(delivery.delivery_tag, Answer::Requeue);
        }
    }
}
