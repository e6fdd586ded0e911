//! The background half of a [`Consumer`](super::Consumer): gets it a channel, keeps it, gets it the next one.
//!
//! On each connection: declare, channel, prefetch, subscribe. Then it writes acks, obeys orders, and watches for the five
//! ways in which consuming ends without anybody saying so: the connection is lost, the channel dies (for instance after
//! RabbitMQ's `consumer_timeout`), the broker cancels a subscription because its queue was deleted, a subscription is
//! gone at the broker though we think we have it, a queue is missing.

use std::sync::Arc;
use std::time::Duration;

use celery_protocol::QueueName;
use futures_util::FutureExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, Failure, dice};
use super::connection::{Link, Session, State, within};
use super::consumer::{ConsumeOptions, Feed};
use super::delivery::{Channel, Urgency};
use super::ledger::{Answer, Frame};
use super::table::short;
use super::topology::{self, QueueSpec};
use crate::error::{BrokerError, BrokerErrorKind};

/// How long answers wait for company while other deliveries are being worked on.
const LINGER: Duration = Duration::from_millis(1);
/// How often the subscriptions are compared with what the broker has.
const WATCHDOG: Duration = Duration::from_secs(15);
/// How often the channel's state is looked at, for the case that nobody reads the deliveries.
const STATUS_CHECK: Duration = Duration::from_secs(1);
/// For subscribing and the like.
const RPC_DEADLINE: Duration = Duration::from_secs(10);
/// A channel that lives shorter counts as a failure.
const SHORT_LIFE: Duration = Duration::from_secs(2);

/// From the keeper to the consumer.
#[derive(Debug)]
pub(super) enum Signal {
    Feed(Feed),
    /// The end of this feed is wanted.
    Retire {
        tag: String,
    },
    Connected {
        epoch: u64,
    },
    Lost {
        epoch: u64,
        reason: String,
    },
    Cancelled {
        queue: QueueName,
    },
    Fatal(BrokerError),
}

type Reply = oneshot::Sender<Result<(), BrokerError>>;

/// From the consumer to the keeper.
#[derive(Debug)]
pub(super) enum Command {
    SetPrefetch { prefetch: u16, reply: Reply },
    AddQueue { queue: QueueSpec, reply: Reply },
    CancelQueue { queue: QueueName, reply: Reply },
    Stop { reply: Reply },
    Flush { reply: Reply },
    Close { reply: Reply },
    FeedEnded { tag: String, reason: Option<String> },
}

pub(super) struct Keeper {
    link: Link,
    pub(super) options: ConsumeOptions,
    signals: mpsc::UnboundedSender<Signal>,
    commands: mpsc::UnboundedReceiver<Command>,
    epoch: u64,
    /// Subscriptions made so far; makes consumer tags unique.
    subscribed: u64,
    /// No subscriptions any more, only settling.
    stopped: bool,
    frames: Vec<Frame>,
}

/// A channel with its subscriptions.
pub(super) struct Attached {
    pub(super) session: Session,
    pub(super) amqp: lapin::Channel,
    pub(super) channel: Arc<Channel>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) broken: Vec<Broken>,
    pub(super) since: Instant,
}

pub(super) struct Subscription {
    pub(super) queue: QueueName,
    pub(super) tag: String,
}

/// A queue whose subscription has ended and is to be restored.
pub(super) struct Broken {
    pub(super) queue: QueueName,
    pub(super) backoff: Backoff,
    pub(super) at: Instant,
}

/// Why a channel is not kept any longer.
pub(super) enum End {
    Lost(String),
    /// The consumer or the whole handle is being closed.
    Closed,
}

impl Keeper {
    pub(super) fn new(
        link: Link,
        options: ConsumeOptions,
        signals: mpsc::UnboundedSender<Signal>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self { link, options, signals, commands, epoch: 0, subscribed: 0, stopped: false, frames: Vec::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut state = self.link.watch();
        let mut backoff = Backoff::default();
        loop {
            let Some(session) = self.next_session(&mut state, &stop).await else { return };
            let failure = match self.attach(&session).await {
                Ok(attached) => {
                    let (epoch, since) = (attached.channel.epoch, attached.since);
                    self.tell(Signal::Connected { epoch });
                    match self.serve(attached, &mut state, &stop).await {
                        End::Closed => return,
                        End::Lost(reason) => {
                            tracing::warn!(epoch, reason, "lost the channel of a consumer");
                            self.tell(Signal::Lost { epoch, reason });
                        }
                    }
                    if since.elapsed() > SHORT_LIFE {
                        backoff.reset();
                        continue;
                    }
                    Failure::Unreachable
                }
                Err(err) if self.is_fatal(&err) => {
                    tracing::error!("cannot consume: {err}");
                    self.tell(Signal::Fatal(err));
                    return;
                }
                Err(err) => {
                    if backoff.failures() < 3 || backoff.failures().is_multiple_of(10) {
                        tracing::warn!(failures = backoff.failures() + 1, "cannot consume yet: {err}");
                    }
                    match err.kind() {
                        BrokerErrorKind::AccessRefused | BrokerErrorKind::NotFound => Failure::Refused,
                        _ => Failure::Unreachable,
                    }
                }
            };
            if self.pause(backoff.next(failure, dice()), &stop).await {
                return;
            }
        }
    }

    fn is_fatal(&self, err: &BrokerError) -> bool {
        match err.kind() {
            BrokerErrorKind::PreconditionFailed(_) | BrokerErrorKind::Config | BrokerErrorKind::Encode => {
                true
            }
            // A queue that must exist and never did is a mistake; one that went away may come back.
            BrokerErrorKind::NotFound => self.epoch == 0,
            _ => false,
        }
    }

    pub(super) fn tell(&self, signal: Signal) {
        // Nobody listens when the consumer was dropped; the commands' end will be seen next.
        let _ = self.signals.send(signal);
    }

    /// Waits for a connection, obeying orders meanwhile. `None`: it is over.
    async fn next_session(
        &mut self,
        state: &mut watch::Receiver<State>,
        stop: &CancellationToken,
    ) -> Option<Session> {
        loop {
            let up = match &*state.borrow_and_update() {
                State::Up(session) => Some(session.clone()),
                State::Down(_) => None,
                State::Closed => return None,
            };
            if let (Some(session), false) = (up, self.stopped) {
                return Some(session);
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                changed = state.changed() => changed.ok()?,
                command = self.commands.recv() => {
                    if self.obey_detached(command?) {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits before the next attempt; `true`: it is over.
    async fn pause(&mut self, delay: Duration, stop: &CancellationToken) -> bool {
        let end = Instant::now() + delay;
        loop {
            tokio::select! {
                () = stop.cancelled() => return true,
                () = sleep_until(end) => return false,
                command = self.commands.recv() => {
                    if command.is_none_or(|command| self.obey_detached(command)) {
                        return true;
                    }
                }
            }
        }
    }

    /// Orders while there is no channel; `true`: it is over.
    fn obey_detached(&mut self, command: Command) -> bool {
        let (reply, answer) = match command {
            Command::SetPrefetch { prefetch, reply } => {
                self.options.prefetch = prefetch;
                (reply, Ok(()))
            }
            Command::AddQueue { queue, reply } => {
                self.remember(queue);
                (reply, Ok(()))
            }
            Command::CancelQueue { queue, reply } => {
                self.options.queues.retain(|known| known.name != queue);
                (reply, Ok(()))
            }
            Command::Stop { reply } => {
                self.stopped = true;
                (reply, Ok(()))
            }
            Command::Flush { reply } => {
                (reply, Err(BrokerError::new(BrokerErrorKind::NotConnected, "answers are lost")))
            }
            Command::Close { reply } => {
                let _ = reply.send(Ok(()));
                return true;
            }
            Command::FeedEnded { .. } => return false,
        };
        let _ = reply.send(answer);
        false
    }

    fn remember(&mut self, queue: QueueSpec) {
        self.options.queues.retain(|known| known.name != queue.name);
        self.options.queues.push(queue);
    }

    fn threshold(&self) -> usize {
        let out = usize::from(self.options.prefetch) * self.options.queues.len().max(1);
        (out / 4).clamp(1, 64)
    }

    async fn attach(&mut self, session: &Session) -> Result<Attached, BrokerError> {
        for spec in &self.options.queues {
            topology::ensure(session, spec).await?;
        }
        let amqp = session.channel(RPC_DEADLINE).await?;
        set_prefetch(&amqp, self.options.prefetch).await?;
        self.epoch += 1;
        let channel = Channel::new(self.epoch, self.options.no_ack, self.threshold());
        let mut attached = Attached {
            session: session.clone(),
            amqp,
            channel,
            subscriptions: Vec::new(),
            broken: Vec::new(),
            since: Instant::now(),
        };
        let queues: Vec<QueueName> = self.options.queues.iter().map(|spec| spec.name.clone()).collect();
        for queue in queues {
            if let Err(err) = self.subscribe(&mut attached, &queue).await {
                attached.channel.die();
                self.tell(Signal::Lost { epoch: self.epoch, reason: err.to_string() });
                return Err(err);
            }
        }
        Ok(attached)
    }

    pub(super) async fn subscribe(
        &mut self,
        to: &mut Attached,
        queue: &QueueName,
    ) -> Result<(), BrokerError> {
        self.subscribed += 1;
        let tag = format!("{}-{}", self.options.consumer_tag, self.subscribed);
        let exclusive = self.options.queues.iter().any(|spec| spec.name == *queue && spec.exclusive);
        let options =
            BasicConsumeOptions { no_ack: self.options.no_ack, exclusive, ..BasicConsumeOptions::default() };
        let consume = to.amqp.basic_consume(
            short("the name of a queue", queue.as_str())?,
            short("the consumer tag", &tag)?,
            options,
            FieldTable::default(),
        );
        let stream = within(RPC_DEADLINE, &format!("consuming from queue '{queue}'"), consume).await?;
        to.subscriptions.push(Subscription { queue: queue.clone(), tag: tag.clone() });
        let channel = Arc::clone(&to.channel);
        self.tell(Signal::Feed(Feed {
            queue: queue.clone(),
            tag,
            channel,
            stream,
            retiring: false,
            over: false,
        }));
        Ok(())
    }

    /// Keeps one channel until it ends.
    async fn serve(
        &mut self,
        mut attached: Attached,
        state: &mut watch::Receiver<State>,
        stop: &CancellationToken,
    ) -> End {
        let channel = Arc::clone(&attached.channel);
        let end = self.watch_over(&mut attached, state, stop).await;
        if matches!(end, End::Closed) {
            let _ = self.settle(&attached).await;
            let closing = attached.amqp.close(200, "OK".into());
            let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
        }
        channel.die();
        end
    }

    async fn watch_over(
        &mut self,
        at: &mut Attached,
        state: &mut watch::Receiver<State>,
        stop: &CancellationToken,
    ) -> End {
        let channel = Arc::clone(&at.channel);
        let generation = at.session.generation;
        // Started often, and mostly overtaken by a full batch: one timer, moved.
        let mut linger = std::pin::pin!(sleep(LINGER));
        let mut lingering = false;
        let mut dead = false;
        let mut status = tokio::time::interval(STATUS_CHECK);
        let mut watchdog = tokio::time::interval_at(Instant::now() + WATCHDOG, WATCHDOG);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = channel.wake.notified() => {
                    self.write(at, Urgency::IfDue);
                    let waiting = channel.lock().waiting() > 0;
                    if waiting && !lingering {
                        linger.as_mut().reset(Instant::now() + LINGER);
                    }
                    lingering = waiting;
                }
                () = linger.as_mut(), if lingering => {
                    lingering = false;
                    self.write(at, Urgency::Everything);
                }
                () = stop.cancelled() => return End::Closed,
                changed = state.changed() => {
                    let now = state.borrow_and_update().clone();
                    match now {
                        State::Up(session) if changed.is_ok() && session.generation == generation => {}
                        State::Down(down) => return End::Lost(down.reason.clone()),
                        State::Closed => return End::Closed,
                        State::Up(_) => return End::Lost("the connection was replaced".into()),
                    }
                }
                command = self.commands.recv() => {
                    let Some(command) = command else { return End::Closed };
                    if let Some(end) = self.obey(at, command).await {
                        return end;
                    }
                }
                _ = status.tick() => {
                    // The delivery streams tell why a channel died. Only when nobody reads them it ends here.
                    if !at.amqp.status().connected() && std::mem::replace(&mut dead, true) {
                        return End::Lost("the broker closed the channel".into());
                    }
                    if dead {
                        continue;
                    }
                    if let Some(end) = self.restore(at).await {
                        return end;
                    }
                }
                _ = watchdog.tick() => {
                    if let Some(end) = self.compare(at).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Sends what the ledger has; `false`: the channel is dead. Never waits: the frames are queued at the connection and
    /// their number is bounded by the prefetch.
    fn write(&mut self, at: &Attached, urgency: Urgency) -> bool {
        at.channel.take(urgency, &mut self.frames);
        let mut alive = true;
        for Frame { answer, tag, multiple } in self.frames.drain(..) {
            let sent = match answer {
                Answer::Ack => at.amqp.basic_ack(tag, BasicAckOptions { multiple }).now_or_never(),
                Answer::Reject | Answer::Requeue => {
                    let requeue = answer == Answer::Requeue;
                    at.amqp.basic_nack(tag, BasicNackOptions { multiple, requeue }).now_or_never()
                }
            };
            alive &= !matches!(sent, Some(Err(_)));
        }
        alive
    }

    /// Writes everything and waits until the broker has processed it.
    async fn settle(&mut self, at: &Attached) -> Result<(), BrokerError> {
        if !self.write(at, Urgency::Everything) {
            return Err(BrokerError::new(BrokerErrorKind::ChannelClosed, "answers are lost"));
        }
        // The broker works through a channel in order, so the answer to any question proves that the acks are in.
        set_prefetch(&at.amqp, self.options.prefetch).await
    }

    /// Obeys one order; `Some`: the channel is not to be kept.
    async fn obey(&mut self, at: &mut Attached, command: Command) -> Option<End> {
        let (reply, answer) = match command {
            Command::SetPrefetch { prefetch, reply } => (reply, self.change_prefetch(at, prefetch).await),
            Command::AddQueue { queue, reply } => (reply, self.add_queue(at, queue).await),
            Command::CancelQueue { queue, reply } => {
                self.options.queues.retain(|known| known.name != queue);
                at.broken.retain(|broken| broken.queue != queue);
                (reply, self.unsubscribe(at, |subscription| subscription.queue == queue).await)
            }
            Command::Stop { reply } => {
                self.stopped = true;
                at.broken.clear();
                (reply, self.unsubscribe(at, |_| true).await)
            }
            Command::Flush { reply } => (reply, self.settle(at).await),
            Command::Close { reply } => {
                let _ = reply.send(self.settle(at).await);
                return Some(End::Closed);
            }
            Command::FeedEnded { tag, reason } => return self.feed_ended(at, &tag, reason),
        };
        let lost = match &answer {
            Err(err) if !at.amqp.status().connected() => Some(End::Lost(err.to_string())),
            _ => None,
        };
        let _ = reply.send(answer);
        lost
    }

    async fn change_prefetch(&mut self, at: &mut Attached, prefetch: u16) -> Result<(), BrokerError> {
        if self.options.prefetch == prefetch {
            return Ok(());
        }
        self.options.prefetch = prefetch;
        at.channel.lock().set_threshold(self.threshold());
        set_prefetch(&at.amqp, prefetch).await?;
        let old: Vec<Subscription> = std::mem::take(&mut at.subscriptions);
        for Subscription { queue, tag } in old {
            self.subscribe(at, &queue).await?;
            self.tell(Signal::Retire { tag: tag.clone() });
            cancel(&at.amqp, &tag).await?;
        }
        Ok(())
    }

    async fn add_queue(&mut self, at: &mut Attached, queue: QueueSpec) -> Result<(), BrokerError> {
        if at.subscriptions.iter().any(|subscription| subscription.queue == queue.name) {
            return Ok(());
        }
        topology::ensure(&at.session, &queue).await?;
        let name = queue.name.clone();
        self.remember(queue);
        let subscribed = self.subscribe(at, &name).await;
        if subscribed.is_err() {
            self.options.queues.retain(|known| known.name != name);
        }
        at.channel.lock().set_threshold(self.threshold());
        subscribed
    }

    async fn unsubscribe(
        &mut self,
        at: &mut Attached,
        which: impl Fn(&Subscription) -> bool,
    ) -> Result<(), BrokerError> {
        let (gone, kept) = std::mem::take(&mut at.subscriptions).into_iter().partition(which);
        at.subscriptions = kept;
        let gone: Vec<Subscription> = gone;
        for subscription in &gone {
            self.tell(Signal::Retire { tag: subscription.tag.clone() });
        }
        for subscription in &gone {
            cancel(&at.amqp, &subscription.tag).await?;
        }
        Ok(())
    }
}

/// Per consumer, never per channel: quorum queues refuse the latter.
async fn set_prefetch(amqp: &lapin::Channel, prefetch: u16) -> Result<(), BrokerError> {
    within(RPC_DEADLINE, "basic.qos", amqp.basic_qos(prefetch, BasicQosOptions { global: false })).await
}

pub(super) async fn cancel(amqp: &lapin::Channel, tag: &str) -> Result<(), BrokerError> {
    let cancelled = amqp.basic_cancel(short("the consumer tag", tag)?, BasicCancelOptions::default());
    within(RPC_DEADLINE, "basic.cancel", cancelled).await
}
