//! The background tasks of one [`Celery`](crate::Celery) handle: the only place of this crate that spawns.
//!
//! Supervisors live on the runtime that built the handle, so that a handle can be used from threads with runtimes of
//! their own (actix workers). Each task has a name, its panic is caught and logged, and `stop` waits for all of them:
//! first for those that use connections, then for those that keep them.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::BrokerError;

/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Spawns named tasks and waits for them at the end.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    runtime: Handle,
    users: Group,
    connections: Group,
}

#[derive(Debug, Clone, Default)]
struct Group {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Tasks on the runtime of the caller.
    pub(crate) fn on_current_runtime() -> Result<Self, BrokerError> {
        let runtime = Handle::try_current()
            .map_err(|err| BrokerError::config("must be called inside a tokio runtime").caused_by(err))?;
        Ok(Self { runtime, users: Group::default(), connections: Group::default() })
    }

    /// Runs a future in the background until it ends; it is expected to watch the token it is given.
    pub(crate) fn spawn<F>(&self, name: &'static str, future: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.users.spawn(name, future, &self.runtime);
    }

    /// As [`spawn`](Self::spawn), for a task that keeps a connection: it is stopped after those that use one.
    pub(crate) fn spawn_connection<F>(&self, name: &'static str, future: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.connections.spawn(name, future, &self.runtime);
    }

    /// Runs `future` on the runtime of the handle and waits for it; `None`: it panicked or was stopped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.connections.tracker.spawn_on(future, &self.runtime).await.ok()
    }

    /// Tells all tasks to stop and waits for them, at most for `deadline` and the goodbyes of the connections.
    pub(crate) async fn stop(&self, deadline: Duration) {
        self.users.stop(deadline).await;
        self.connections.stop(GOODBYE).await;
    }
}

impl Group {
    fn spawn<F>(&self, name: &'static str, future: impl FnOnce(CancellationToken) -> F, runtime: &Handle)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = future(self.stop.clone());
        let guarded = async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                metrics::counter!("celery_broker_task_panics_total", "task" => name).increment(1);
                tracing::error!(task = name, "a background task panicked; this is a bug");
            }
        };
        self.tracker.spawn_on(guarded, runtime);
    }

    async fn stop(&self, deadline: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "background tasks did not stop in time");
        }
    }
}
