//! Putting a worker together: tasks, queues and settings, checked before anything runs.

use std::time::Duration;

use celery_broker::{Celery, QueueSpec};
use celery_protocol::{IdError, Nodename, QueueName, TaskOptions};

use super::Worker;
use super::settings::Settings;
use crate::consumer::cluster_limit::ClusterLimit;
use crate::context::Context;
use crate::nodename;
use crate::task::{RawCall, Registry, RegistryError, Task, TaskResult};

/// Builds a [`Worker`]; from [`Worker::builder`].
#[must_use = "a builder does nothing until it is built"]
pub struct WorkerBuilder<S> {
    celery: Celery,
    registry: Registry<S>,
    settings: Settings,
    queues: Vec<QueueSpec>,
}

/// Why a worker could not be built.
#[derive(Debug)]
pub struct BuildError {
    kind: BuildErrorKind,
    context: String,
}

/// What is wrong with a worker's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// Two tasks have one name, a name cannot be sent, or a soft limit is not below the hard one.
    Task(RegistryError),
    /// Not the name of a queue.
    Queue,
    /// Not a node name, `name@host`.
    Nodename,
    /// No slot.
    Concurrency,
    /// Not a rate limit over all workers.
    Limit,
}

impl<S: Send + Sync + 'static> WorkerBuilder<S> {
    pub(super) fn new(celery: Celery, state: S) -> WorkerBuilder<S> {
        WorkerBuilder {
            celery,
            registry: Registry::new(state),
            settings: Settings::default(),
            queues: Vec::new(),
        }
    }

    /// Serves a task.
    pub fn task<T: Task<S>>(mut self) -> Self {
        self.registry.task::<T>();
        self
    }

    /// Serves a task whose name is only known at run time, or whose arguments have no fixed form.
    pub fn raw_task<F, Fut, R>(mut self, name: impl Into<String>, options: TaskOptions, run: F) -> Self
    where
        F: Fn(Context, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = TaskResult<R>> + Send + 'static,
        R: serde::Serialize + Send + 'static,
    {
        self.registry.raw_task(name, options, run);
        self
    }

    /// Consumes from these queues; they are declared as Celery declares them if they do not exist. Default: the
    /// default queue of the [`Celery`] handle.
    pub fn queues<Q: Into<String>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.settings.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// Consumes from a queue that is declared in a way of its own, beside those of [`queues`](Self::queues).
    pub fn queue(mut self, queue: QueueSpec) -> Self {
        self.queues.push(queue);
        self
    }

    /// How many tasks run at the same time. Default: the number of CPUs.
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.settings.concurrency = slots;
        self
    }

    /// Messages taken per slot. Default: adaptive, see [`Settings::prefetch_multiplier`].
    pub fn prefetch_multiplier(mut self, messages: u16) -> Self {
        self.settings.prefetch_multiplier = Some(messages);
        self
    }

    /// Node name, with Celery's expansions (`w1@%h`). Default: `celery@<hostname>`.
    pub fn nodename(mut self, name: impl Into<String>) -> Self {
        self.settings.nodename = Some(name.into());
        self
    }

    /// Sends task events. Default: no.
    pub fn task_events(mut self) -> Self {
        self.settings.task_events = true;
        self
    }

    /// Limits how often a task starts, over all workers of one result store: see [`Settings::cluster_limits`].
    pub fn cluster_limit(mut self, limit: impl Into<String>) -> Self {
        self.settings.cluster_limits.push(limit.into());
        self
    }

    /// How long a warm shutdown waits for running tasks. Default: as long as they take.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.settings.shutdown_grace = Some(grace);
        self
    }

    /// Changes any setting: `.configure(|settings| settings.result_extended = true)`.
    pub fn configure(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The worker.
    ///
    /// # Errors
    /// Whatever of its parts cannot work: names of tasks, queues and the node, time limits, no slots.
    pub fn build(self) -> Result<Worker, BuildError> {
        let WorkerBuilder { celery, registry, settings, mut queues } = self;
        let tasks = registry.build().map_err(BuildError::from)?;
        if settings.concurrency == 0 {
            let context = "concurrency is 0; a worker needs at least one slot".to_owned();
            return Err(BuildError { kind: BuildErrorKind::Concurrency, context });
        }
        for limit in &settings.cluster_limits {
            ClusterLimit::parse(limit)
                .map_err(|context| BuildError { kind: BuildErrorKind::Limit, context })?;
        }
        for name in &settings.queues {
            let name =
                QueueName::parse(name).map_err(|err| BuildError::name(BuildErrorKind::Queue, name, &err))?;
            queues.push(match name == *celery.default_queue() {
                true => settings.new_queues.default_queue(name),
                false => settings.new_queues.named(name),
            });
        }
        if queues.is_empty() {
            queues.push(settings.new_queues.default_queue(celery.default_queue().clone()));
        }
        let name = nodename::nodename(settings.nodename.as_deref(), &nodename::hostname());
        let name =
            Nodename::parse(&name).map_err(|err| BuildError::name(BuildErrorKind::Nodename, &name, &err))?;
        Ok(Worker::assemble(celery, tasks, settings, queues, name))
    }
}

impl BuildError {
    fn name(kind: BuildErrorKind, text: &str, err: &IdError) -> BuildError {
        BuildError { kind, context: format!("{text:?}: {err}") }
    }

    /// What is wrong.
    pub fn kind(&self) -> &BuildErrorKind {
        &self.kind
    }
}

impl From<RegistryError> for BuildError {
    fn from(err: RegistryError) -> BuildError {
        BuildError { context: err.to_string(), kind: BuildErrorKind::Task(err) }
    }
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for BuildError {}
