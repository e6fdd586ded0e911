//! A delivered message and the token that settles it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use celery_protocol::{QueueName, RawMessage};
use tokio::sync::Notify;

use super::ledger::{Answer, Frame, Ledger, Noted};

/// A message from a queue.
#[derive(Debug)]
pub struct Delivery {
    /// The message, nothing of it validated.
    pub raw: RawMessage,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// It may have been delivered before; a hint, but `false` is certain.
    pub redelivered: bool,
    /// The queue it came from.
    pub queue: QueueName,
    /// Settles it.
    pub token: Token,
}

/// What the broker does with a rejected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// Queue it again, for any consumer.
    Yes,
    /// Dead-letter it if the queue says so, else drop it.
    No,
}

/// Settles one delivery, exactly once, on the channel it came from.
///
/// Neither method waits: the answer goes to the channel's ledger, which writes neighbouring answers as one frame, at once
/// when nothing else is going on and in batches under load. A token that is dropped leaves its message unsettled; the
/// broker delivers it again when the channel ends. A token whose channel has died does nothing: its message has been
/// queued again already, and tags of a dead channel mean other messages on the next one.
pub struct Token {
    channel: Arc<Channel>,
    tag: u64,
}

impl Token {
    pub(super) fn new(channel: Arc<Channel>, tag: u64) -> Self {
        Self { channel, tag }
    }

    /// The message has been dealt with.
    pub fn ack(self) {
        self.channel.answer(self.tag, Answer::Ack);
    }

    /// The message is refused.
    pub fn reject(self, requeue: Requeue) {
        let answer = match requeue {
            Requeue::Yes => Answer::Requeue,
            Requeue::No => Answer::Reject,
        };
        self.channel.answer(self.tag, answer);
    }

    /// Acks many at once; cheaper than one by one.
    pub fn ack_all(tokens: impl IntoIterator<Item = Token>) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(first) = tokens.next() {
            let channel = first.channel;
            let mut batch = channel.lock();
            let mut due = channel.note(&mut batch, first.tag, Answer::Ack);
            while let Some(next) = tokens.next_if(|token| Arc::ptr_eq(&token.channel, &channel)) {
                due |= channel.note(&mut batch, next.tag, Answer::Ack);
            }
            drop(batch);
            if due {
                channel.wake.notify_one();
            }
        }
    }

    /// Counts the channels of a consumer, as [`ConsumerEvent::Connected`](super::ConsumerEvent::Connected) does.
    pub fn epoch(&self) -> u64 {
        self.channel.epoch
    }

    /// Whether the channel still lives. If not, the message will be (or has been) delivered again.
    pub fn is_live(&self) -> bool {
        self.channel.is_live()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("epoch", &self.channel.epoch).field("tag", &self.tag).finish()
    }
}

/// The settling side of one AMQP channel, shared by its tokens and by the consumer's supervisor.
pub(super) struct Channel {
    pub(super) epoch: u64,
    live: AtomicBool,
    /// Nothing is settled on this channel.
    no_ack: bool,
    ledger: Mutex<Ledger>,
    /// The supervisor waits here for something to tell the broker.
    pub(super) wake: Notify,
}

impl Channel {
    pub(super) fn new(epoch: u64, no_ack: bool, threshold: usize) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            no_ack,
            live: AtomicBool::new(true),
            ledger: Mutex::new(Ledger::new(threshold)),
            wake: Notify::new(),
        })
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel delivered `tag`.
    pub(super) fn delivered(&self, tag: u64) {
        if !self.no_ack {
            self.lock().delivered(tag);
        }
    }

    /// The channel is gone. Answers that were not told are lost, their messages come again.
    pub(super) fn die(&self) {
        self.live.store(false, Ordering::Release);
        let lost = self.lock().waiting();
        if lost > 0 {
            metrics::counter!("celery_broker_acks_stale_total").increment(lost as u64);
            tracing::debug!(lost, epoch = self.epoch, "answers were lost with their channel");
        }
        // Flushes that wait must see it.
        self.wake.notify_one();
    }

    pub(super) fn answer(&self, tag: u64, answer: Answer) {
        let due = self.note(&mut self.lock(), tag, answer);
        if due {
            self.wake.notify_one();
        }
    }

    fn note(&self, ledger: &mut Ledger, tag: u64, answer: Answer) -> bool {
        if self.no_ack {
            return false;
        }
        if !self.is_live() {
            metrics::counter!("celery_broker_acks_stale_total").increment(1);
            return false;
        }
        match ledger.answer(tag, answer) {
            Noted::Due => true,
            Noted::Quiet => false,
            Noted::Refused => {
                // A token is consumed by its answer, so this cannot happen; it must not close the channel either.
                tracing::error!(tag, epoch = self.epoch, "a delivery was settled twice; this is a bug");
                false
            }
        }
    }

    /// Frames to send now, or nothing if it is better to wait for more.
    pub(super) fn take(&self, urgency: Urgency, frames: &mut Vec<Frame>) {
        let mut ledger = self.lock();
        match urgency {
            Urgency::Everything => ledger.take(true, frames),
            Urgency::IfDue if ledger.is_due() => {
                ledger.take(false, frames);
                if ledger.is_due() {
                    ledger.take(true, frames);
                }
            }
            Urgency::IfDue => {}
        }
    }
}

/// How much [`Channel::take`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// What a full batch or idleness makes due.
    IfDue,
    /// Everything that is answered.
    Everything,
}
