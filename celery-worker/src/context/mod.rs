//! What a task's body sees of the call that it is running: [`Context`].
//!
//! A `Context` is a handle: one allocation for each run, cloned freely. It reads the [`Request`], asks for a [`Retry`],
//! publishes progress, sends more work, and says when to stop. It decides nothing; what a body returns is judged in
//! [`crate::task::outcome`].

mod canvas;
mod failed;
mod interrupt;
mod request;
mod retry;
mod state_update;

use std::fmt;
use std::sync::{Arc, OnceLock};

use celery_broker::event::Emitter;
use celery_broker::{Celery, Children};
use celery_protocol::TimeLimits;

pub use failed::FailedCall;
pub use interrupt::{Interrupt, Interrupts};
pub use request::{DeliveryInfo, Request};
pub use retry::Retry;
pub(crate) use retry::{When, Wishes};

use crate::task::TaskError;

/// The running call, for a parameter marked `#[ctx]`.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    request: Arc<Request>,
    env: ContextEnv,
    /// The handle whose sends become children. Made when first asked for: most tasks send nothing.
    own: OnceLock<(Celery, Children)>,
}

/// What a worker lends to the tasks it runs.
#[derive(Clone)]
pub struct ContextEnv {
    /// The worker's connection.
    pub celery: Celery,
    /// The signal of this run.
    pub interrupts: Interrupts,
    /// Where events go, if there is somewhere.
    pub emitter: Option<Emitter>,
    /// The time limits of this run: those of the call, or else of the task.
    pub limits: TimeLimits,
    /// Whether results are stored with name, arguments and worker (`result_extended`).
    pub extended: bool,
}

impl Context {
    /// For one run of one request.
    #[must_use]
    pub fn new(request: Arc<Request>, env: ContextEnv) -> Self {
        Self(Arc::new(Inner { request, env, own: OnceLock::new() }))
    }

    /// For a call inside this one, whose children are this one's.
    pub(crate) fn for_call(&self, request: Arc<Request>) -> Self {
        let own = OnceLock::from(self.own().clone());
        Self(Arc::new(Inner { request, env: self.0.env.clone(), own }))
    }

    /// Between two steps of a task that does not watch for interrupts: says why to stop.
    pub(crate) fn stop_if_told(&self) -> Result<(), TaskError> {
        self.0.env.interrupts.current().map_or(Ok(()), |interrupt| Err(interrupt.into()))
    }

    /// The call: ids, arguments, headers, delivery.
    #[must_use]
    pub fn request(&self) -> &Arc<Request> {
        &self.0.request
    }

    /// The time limits of this run: those of the call, or else of the task.
    #[must_use]
    pub fn time_limits(&self) -> TimeLimits {
        self.0.env.limits
    }

    /// Asks for another run: `return Err(ctx.retry().countdown(…).into())`.
    pub fn retry(&self) -> Retry {
        Retry::new()
    }

    /// For code that works through a loop: goes on, or says why to stop.
    ///
    /// # Errors
    /// The soft time limit has passed, the task was terminated, or the worker does not wait any longer. Returned from
    /// the body with `?`, it ends the task accordingly.
    pub fn checkpoint(&self) -> Result<(), TaskError> {
        let interrupts = &self.0.env.interrupts;
        interrupts.watch();
        interrupts.current().map_or(Ok(()), |interrupt| Err(interrupt.into()))
    }

    /// For async code: waits until the task should stop, for a branch of `tokio::select!`.
    ///
    /// A task that waits here (or has called [`checkpoint`](Self::checkpoint)) is expected to end by itself, and is not
    /// dropped before the hard time limit.
    pub async fn interrupted(&self) -> Interrupt {
        let interrupts = &self.0.env.interrupts;
        interrupts.watch();
        interrupts.raised().await
    }

    /// The signal behind [`checkpoint`](Self::checkpoint) and [`interrupted`](Self::interrupted).
    #[must_use]
    pub fn interrupts(&self) -> &Interrupts {
        &self.0.env.interrupts
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("task", self.0.request.task())
            .field("id", self.0.request.id())
            .finish_non_exhaustive()
    }
}
