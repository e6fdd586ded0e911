//! What can be set on a worker, with defaults. The builder fills it, everything else reads it.

use std::collections::HashMap;
use std::time::Duration;

use celery_broker::{ExchangeSpec, QueueSpec};
use celery_protocol::content::Accept;
use celery_protocol::{QueueName, TaskName, TaskOptions};

use crate::consumer::cluster_limit::ClusterLimit;
use crate::pool::autoscale::Range as AutoscaleRange;

/// The settings of one worker. Names follow Celery's where it has one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Node name, `name@host`. Default: `celery@<hostname>`.
    pub nodename: Option<String>,
    /// Queues to consume from. Default: the default queue of the [`Celery`](celery_broker::Celery) handle.
    pub queues: Vec<String>,
    /// Tasks that run at the same time (`worker_concurrency`). Default: the number of CPUs.
    pub concurrency: usize,
    /// Messages taken per slot (`worker_prefetch_multiplier`): a number means exactly `concurrency × number`, 0 the
    /// greatest prefetch there is. Default: adaptive, 4 per slot as Celery's and 1000 while tasks are so short that
    /// acks and results should travel in batches.
    pub prefetch_multiplier: Option<u16>,
    /// Content types of messages that are read (`accept_content`). Default: JSON alone.
    pub accept: Accept,
    /// What tasks do that say nothing themselves: late acks (`task_acks_late`), time limits, ignored results and so on.
    /// Default: Celery's defaults, except that acks are late.
    pub tasks: TaskOptions,
    /// Store name, arguments, worker, retries and queue with a result (`result_extended`). Default: false.
    pub result_extended: bool,
    /// Ack and skip a redelivered task whose result is already SUCCESS (`worker_deduplicate_successful_tasks`).
    /// Default: true, unlike Celery.
    pub deduplicate: bool,
    /// Send task events (`worker_send_task_events`, `-E`). Default: false.
    pub task_events: bool,
    /// How often to send a heartbeat event; `None` sends none. Default: 2 s.
    pub heartbeat: Option<Duration>,
    /// Greet the other workers at start and take over what they know to be revoked. Default: true.
    pub mingle: bool,
    /// Answer remote control (`worker_enable_remote_control`). Default: true.
    pub remote_control: bool,
    /// A task due later than this goes back to the broker's delayed delivery. Default: 60 s.
    pub eta_horizon: Duration,
    /// How many tasks are held in this process for their time. Default: 10,000.
    pub eta_limit: usize,
    /// How long a result is offered to a store that does not take it before its message is given back. Default: 60 s.
    pub store_patience: Duration,
    /// How long a warm shutdown waits for running tasks; `None` waits as long as they take, as Celery does.
    /// Default: none.
    pub shutdown_grace: Option<Duration>,
    /// Between how many slots the worker has, by the work there is (`--autoscale`). Default: none, it has
    /// [`concurrency`](Self::concurrency).
    pub autoscale: Option<AutoscaleRange>,
    /// Run tasks in child processes (`worker_pool = prefork`): they can be killed, and a task that takes its process with it
    /// does not take the worker. The program starts itself again for it, so it must reach
    /// [`Worker::run_until`](super::Worker::run_until) with the same arguments. Default: false, tasks run in this process.
    pub prefork: bool,
    /// Replace a child process after this many tasks (`worker_max_tasks_per_child`). Default: never.
    pub max_tasks_per_child: Option<u32>,
    /// Replace a child process that holds more KiB than this after a task (`worker_max_memory_per_child`).
    /// Default: never.
    pub max_memory_per_child: Option<u64>,
    /// How often a redelivered late-ack task may take its process with it before it fails and its message is rejected.
    /// Default: 4.
    pub max_crashes: u32,
    /// How long a revoked task stays revoked (`CELERY_WORKER_REVOKE_EXPIRES`). Default: 3 h.
    pub revoke_expires: Duration,
    /// A file that keeps what is revoked over a restart (`--statedb`), beside the result store, which does so for all
    /// workers. Default: none.
    pub statedb: Option<String>,
    /// Rate limits that hold over all workers of one result store: `task=10/m`, `task=10/m*5` with a burst,
    /// `task[argument]=10/m` for each value of a keyword argument, `task[0]=…` of a positional one. Default: none.
    pub cluster_limits: Vec<String>,
    /// How queues are declared that do not exist yet.
    pub new_queues: NewQueues,
    /// How long running tasks may take to finish when a cold shutdown is asked for (`worker_soft_shutdown_timeout`).
    /// Default: 0, they are cut off at once.
    pub soft_shutdown_timeout: Duration,
    /// Wait that time even when nothing runs (`worker_enable_soft_shutdown_on_idle`). Default: false.
    pub soft_shutdown_on_idle: bool,
    /// SIGTERM asks for the cold shutdown, as SIGQUIT does (`REMAP_SIGTERM=SIGQUIT`). Default: false.
    pub sigterm_is_cold: bool,
    /// End running late-ack tasks when the connection is lost: their messages are delivered again
    /// (`worker_cancel_long_running_tasks_on_connection_loss`). Default: false; a task that still runs takes its
    /// redelivered message over.
    pub cancel_on_connection_loss: bool,
    /// How long other workers of the result store believe that a task still runs here after this one was last heard of: its
    /// message, if they get it, waits so long. Tasks that take less than a third of it are not told of. Default: 30 s.
    pub running_lease: Duration,
    /// Threads that run async tasks. Default: the number of CPUs, at most the concurrency.
    pub task_threads: Option<usize>,
    /// Where the process writes its log, for `request.logfile` and `stats`. Default: none (standard error).
    pub logfile: Option<String>,
}

/// How queues are declared that do not exist yet; those that do are adopted as they are.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct NewQueues {
    /// As quorum queues (`task_default_queue_type`, `task_create_missing_queue_type`). Default: classic ones.
    pub quorum: bool,
    /// With priorities from 0 to this (`task_queue_max_priority`); quorum queues have priorities of their own.
    /// Default: none.
    pub max_priority: Option<u8>,
    /// The exchange of the default queue: name and type (`task_default_exchange`, `task_default_exchange_type`).
    /// Default: a direct one of the queue's name.
    pub default_exchange: Option<ExchangeSpec>,
    /// The key that binds the default queue (`task_default_routing_key`). Default: the queue's name.
    pub default_routing_key: Option<String>,
}

impl NewQueues {
    /// What is declared for a queue that only its name is known of.
    pub(crate) fn named(&self, name: QueueName) -> QueueSpec {
        let mut spec = QueueSpec::new(name);
        if self.quorum {
            spec = spec.argument("x-queue-type", "quorum");
        } else if let Some(max) = self.max_priority {
            spec = spec.argument("x-max-priority", max);
        }
        spec
    }

    /// What is declared for the default queue.
    pub(crate) fn default_queue(&self, name: QueueName) -> QueueSpec {
        let spec = self.named(name);
        let key = self.default_routing_key.clone().unwrap_or_else(|| spec.routing_key.clone());
        match (&self.default_exchange, &spec.exchange) {
            (Some(exchange), _) | (None, Some(exchange)) => {
                let exchange = exchange.clone();
                spec.bound_to(exchange, key)
            }
            (None, None) => spec,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            nodename: None,
            queues: Vec::new(),
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch_multiplier: None,
            accept: Accept::JSON,
            tasks: TaskOptions::DEFAULT,
            result_extended: false,
            deduplicate: true,
            task_events: false,
            heartbeat: Some(Duration::from_secs(2)),
            mingle: true,
            remote_control: true,
            eta_horizon: Duration::from_secs(60),
            eta_limit: 10_000,
            store_patience: Duration::from_secs(60),
            shutdown_grace: None,
            autoscale: None,
            prefork: false,
            max_tasks_per_child: None,
            max_memory_per_child: None,
            max_crashes: 4,
            revoke_expires: Duration::from_secs(10_800),
            statedb: None,
            cluster_limits: Vec::new(),
            new_queues: NewQueues::default(),
            soft_shutdown_timeout: Duration::ZERO,
            soft_shutdown_on_idle: false,
            sigterm_is_cold: false,
            cancel_on_connection_loss: false,
            running_lease: Duration::from_secs(30),
            task_threads: None,
            logfile: None,
        }
    }
}

impl Settings {
    /// The limits over all workers by task; [`build`](super::WorkerBuilder::build) has refused what cannot be read.
    pub(crate) fn parsed_cluster_limits(&self) -> HashMap<TaskName, ClusterLimit> {
        let limits = self.cluster_limits.iter().filter_map(|text| ClusterLimit::parse(text).ok());
        limits.map(|limit| (limit.task.clone(), limit)).collect()
    }

    /// The slots at the start.
    pub(crate) fn first_slots(&self) -> usize {
        self.autoscale.map_or(self.concurrency, |range| range.min)
    }

    /// The most slots that there are to be.
    pub(crate) fn most_slots(&self) -> usize {
        self.autoscale.map_or(self.concurrency, |range| range.max)
    }

    /// Threads that run async tasks.
    pub(crate) fn threads(&self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.task_threads.unwrap_or_else(|| self.most_slots().min(cpus)).max(1)
    }
}
