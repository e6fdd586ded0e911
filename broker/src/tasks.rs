//! The background tasks of one [`Celery`](crate::Celery) handle: the only place of this crate that spawns.
//!
//! Supervisors live on the runtime that built the handle, so that a handle can be used from threads with runtimes of
//! their own (actix workers). Each task has a name, its panic is caught and logged, and `stop` waits for all of them.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::BrokerError;

/// Spawns named tasks and waits for them at the end.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Tasks on the runtime of the caller.
    pub(crate) fn on_current_runtime() -> Result<Self, BrokerError> {
        let runtime = Handle::try_current()
            .map_err(|err| BrokerError::config("must be called inside a tokio runtime").caused_by(err))?;
        Ok(Self { runtime, tracker: TaskTracker::new(), stop: CancellationToken::new() })
    }

    /// Runs `future` in the background until it ends; it is expected to watch [`stopping`](Self::stopping).
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let guarded = async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                metrics::counter!("celery_broker_task_panics_total", "task" => name).increment(1);
                tracing::error!(task = name, "a background task panicked; this is a bug");
            }
        };
        self.tracker.spawn_on(guarded, &self.runtime);
    }

    /// Runs `future` on the runtime of the handle and waits for it; `None`: it panicked or was stopped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.tracker.spawn_on(future, &self.runtime).await.ok()
    }

    /// Ends when the handle is being closed.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tells all tasks to stop and waits for them, at most for `deadline`.
    pub(crate) async fn stop(&self, deadline: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "background tasks did not stop in time");
        }
    }
}
