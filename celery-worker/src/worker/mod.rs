//! The worker: assembled by [`WorkerBuilder`], run until it is told to stop.
//!
//! [`running`] knows the services and the order in which they start and stop, [`engine`] is what they share.

pub(crate) mod builder;
pub(crate) mod catalog;
pub(crate) mod engine;
pub(crate) mod running;
pub(crate) mod settings;
pub(crate) mod supervisor;

use std::fmt;
use std::future::Future;
use std::pin::pin;

use celery_broker::{BrokerError, Celery, QueueSpec};
use celery_protocol::Nodename;
use tokio_util::sync::CancellationToken;

pub use builder::{BuildError, BuildErrorKind, WorkerBuilder};
pub use settings::{NewQueues, Settings};

use crate::config::is_pool_child;
use crate::pool::process::run_child;
use crate::task::Tasks;
use running::Running;

/// Runs tasks.
#[derive(Debug)]
pub struct Worker {
    pub(crate) celery: Celery,
    pub(crate) tasks: Tasks,
    pub(crate) settings: Settings,
    queues: Vec<QueueSpec>,
    pub(crate) nodename: Nodename,
    pub(crate) handle: WorkerHandle,
}

/// Stops a running worker from elsewhere.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    pub(crate) warm: CancellationToken,
    soft: CancellationToken,
    cold: CancellationToken,
}

/// How a worker ended that was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that had started was finished and settled.
    Clean,
    /// Some tasks were cut off; their messages are delivered again.
    CutOff,
}

/// Why a worker ended that was not told to stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkerError {
    /// The broker does not let it consume.
    Broker(BrokerError),
    /// One of its services ended.
    Service(String),
    /// The operating system did not give it threads.
    Runtime(std::io::Error),
    /// The operating system does not tell it of signals.
    Signals(std::io::Error),
}

impl Worker {
    /// A worker with no tasks yet; `state` is what their `#[state]` parameters are taken from.
    pub fn builder<S: Send + Sync + 'static>(celery: Celery, state: S) -> WorkerBuilder<S> {
        WorkerBuilder::new(celery, state)
    }

    fn assemble(
        celery: Celery,
        tasks: Tasks,
        settings: Settings,
        queues: Vec<QueueSpec>,
        nodename: Nodename,
    ) -> Worker {
        let token = CancellationToken::new;
        let handle = WorkerHandle { warm: token(), soft: token(), cold: token() };
        Worker { celery, tasks, settings, queues, nodename, handle }
    }

    /// Stops this worker from elsewhere.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// The node name.
    pub fn nodename(&self) -> &Nodename {
        &self.nodename
    }

    /// The queues it will consume from.
    pub fn queues(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(|queue| queue.name.as_str())
    }

    /// The tasks it serves.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs until `shutdown` resolves or the handle says so, then stops in the warm way: no new messages within a
    /// second, those that have not started go back to the broker, running tasks finish (within
    /// [`Settings::shutdown_grace`]), results are stored, messages acked, `worker-offline` sent.
    ///
    /// # Errors
    /// When the worker cannot go on; an orchestrator should restart it.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<Stopped, WorkerError> {
        if is_pool_child() {
            return run_child(self).await;
        }
        let handle = self.handle.clone();
        let mut running = pin!(Running::start(self)?.run());
        let shutdown = pin!(shutdown);
        tokio::select! {
            ended = running.as_mut() => return ended,
            () = shutdown => handle.stop(),
        }
        running.await
    }
}

impl WorkerHandle {
    /// The warm shutdown, as [`Worker::run_until`] does it.
    pub fn stop(&self) {
        self.warm.cancel();
    }

    /// The cold shutdown of Celery: as [`stop`](Self::stop), but running tasks have only
    /// [`Settings::soft_shutdown_timeout`] to finish, and none where that is 0.
    pub fn stop_soft(&self) {
        self.warm.cancel();
        self.soft.cancel();
    }

    /// Waits for running tasks no longer: they are cut off, and their messages are delivered again.
    pub fn stop_now(&self) {
        self.warm.cancel();
        self.cold.cancel();
    }

    /// Whether it was told to stop, in whichever way.
    pub fn is_stopping(&self) -> bool {
        self.warm.is_cancelled()
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::Broker(err) => write!(f, "the worker cannot consume: {err}"),
            WorkerError::Service(text) => f.write_str(text),
            WorkerError::Runtime(err) => write!(f, "no threads for the tasks: {err}"),
            WorkerError::Signals(err) => write!(f, "cannot listen for signals: {err}"),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WorkerError::Broker(err) => Some(err),
            WorkerError::Service(_) => None,
            WorkerError::Runtime(err) | WorkerError::Signals(err) => Some(err),
        }
    }
}
