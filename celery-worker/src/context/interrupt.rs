//! How a running task learns that it should stop.
//!
//! Nothing can stop Rust code from outside, short of dropping a future at an `.await`. So a task that can stop early
//! asks: [`Context::checkpoint`](super::Context::checkpoint) in a loop, or
//! [`Context::interrupted`](super::Context::interrupted) in a `select!`. Whoever asks is trusted to react, and has until
//! the hard limit; the future of a task that never asked is dropped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

/// Why a task should stop. As an error (`Err(interrupt.into())`, or `?` on a checkpoint) it ends the task in the way that
/// belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Interrupt {
    /// `soft_time_limit` has passed; the hard limit may follow. Ends as the failure `SoftTimeLimitExceeded`.
    SoftTimeLimit,
    /// The worker stops and does not wait any longer. The message goes back to the queue.
    Shutdown,
    /// Somebody revoked the task with `terminate`. Ends as REVOKED.
    Terminated,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SoftTimeLimit => "the soft time limit has passed",
            Self::Shutdown => "the worker is shutting down",
            Self::Terminated => "the task was terminated",
        })
    }
}

/// The signal for one run of a task; its clones share it.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<Signal>);

#[derive(Default)]
struct Signal {
    /// 0, or an [`Interrupt`]'s rank.
    raised: AtomicU8,
    watched: AtomicBool,
    notify: Notify,
}

impl Interrupts {
    /// A signal that nobody has raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises an interrupt. The most decisive one stays: `Terminated`, then `Shutdown`, then `SoftTimeLimit`.
    pub fn raise(&self, interrupt: Interrupt) {
        let rank = match interrupt {
            Interrupt::SoftTimeLimit => 1,
            Interrupt::Shutdown => 2,
            Interrupt::Terminated => 3,
        };
        self.0.raised.fetch_max(rank, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// What has been raised.
    #[must_use]
    pub fn current(&self) -> Option<Interrupt> {
        match self.0.raised.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Interrupt::SoftTimeLimit),
            2 => Some(Interrupt::Shutdown),
            _ => Some(Interrupt::Terminated),
        }
    }

    /// Waits until something is raised.
    pub async fn raised(&self) -> Interrupt {
        self.at_least(Interrupt::SoftTimeLimit).await
    }

    /// Waits until the task's end is wanted: as [`raised`](Self::raised), but the soft limit alone is not enough.
    pub async fn end_wanted(&self) -> Interrupt {
        self.at_least(Interrupt::Shutdown).await
    }

    async fn at_least(&self, least: Interrupt) -> Interrupt {
        loop {
            let mut notified = std::pin::pin!(self.0.notify.notified());
            // Registered before looking, so that nothing raised in between is missed.
            notified.as_mut().enable();
            if let Some(interrupt) = self.current().filter(|interrupt| *interrupt >= least) {
                return interrupt;
            }
            notified.await;
        }
    }

    /// Whether the task has ever asked, and so will stop by itself.
    #[must_use]
    pub fn watched(&self) -> bool {
        self.0.watched.load(Ordering::SeqCst)
    }

    pub(super) fn watch(&self) {
        self.0.watched.store(true, Ordering::SeqCst);
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts")
            .field("raised", &self.current())
            .field("watched", &self.watched())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_most_decisive_interrupt_stays() {
        let interrupts = Interrupts::new();
        assert_eq!(interrupts.current(), None);
        interrupts.raise(Interrupt::SoftTimeLimit);
        assert_eq!(interrupts.raised().await, Interrupt::SoftTimeLimit);
        interrupts.raise(Interrupt::Terminated);
        interrupts.raise(Interrupt::Shutdown);
        assert_eq!(interrupts.raised().await, Interrupt::Terminated);
    }

    #[tokio::test]
    async fn one_that_waits_is_woken() {
        let interrupts = Interrupts::new();
        let (raised, ()) = tokio::join!(interrupts.raised(), async { interrupts.raise(Interrupt::Shutdown) });
        assert_eq!(raised, Interrupt::Shutdown);
        assert!(!interrupts.watched());
    }
}
