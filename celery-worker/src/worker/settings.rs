//! What can be set on a worker, with defaults. The builder fills it, everything else reads it.

use std::time::Duration;

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
    /// Ack after the task has ended and its result is stored (`task_acks_late`). Default: true, unlike Celery.
    pub acks_late: bool,
    /// Ack a late-ack task that failed (`task_acks_on_failure`). Default: true.
    pub acks_on_failure: bool,
    /// Ack a late-ack task that ran into its hard time limit (`task_acks_on_timeout`). Default: true.
    pub acks_on_timeout: bool,
    /// Store no results (`task_ignore_result`). Default: false.
    pub ignore_result: bool,
    /// Store failures even of tasks whose result is ignored (`task_store_errors_even_if_ignored`). Default: false.
    pub store_errors_even_if_ignored: bool,
    /// Store STARTED when a task starts (`task_track_started`). Default: false.
    pub track_started: bool,
    /// Store name, arguments, worker, retries and queue with a result (`result_extended`). Default: false.
    pub result_extended: bool,
    /// Time limits of tasks that have none of their own (`task_time_limit`). Default: none.
    pub time_limit: Option<Duration>,
    /// As `time_limit`, the soft one (`task_soft_time_limit`). Default: none.
    pub soft_time_limit: Option<Duration>,
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
    /// Threads that run async tasks. Default: the number of CPUs, at most the concurrency.
    pub task_threads: Option<usize>,
    /// Where the process writes its log, for `request.logfile` and `stats`. Default: none (standard error).
    pub logfile: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            nodename: None,
            queues: Vec::new(),
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch_multiplier: None,
            acks_late: true,
            acks_on_failure: true,
            acks_on_timeout: true,
            ignore_result: false,
            store_errors_even_if_ignored: false,
            track_started: false,
            result_extended: false,
            time_limit: None,
            soft_time_limit: None,
            deduplicate: true,
            task_events: false,
            heartbeat: Some(Duration::from_secs(2)),
            mingle: true,
            remote_control: true,
            eta_horizon: Duration::from_secs(60),
            eta_limit: 10_000,
            store_patience: Duration::from_secs(60),
            shutdown_grace: None,
            task_threads: None,
            logfile: None,
        }
    }
}
