//! The settings of the worker programs by Celery's names: the table that reads, checks and documents them.
//!
//! Environment and files are read by the programs; this module only knows what may stand there.

use celery_broker::ExchangeSpec;
use celery_broker::config::{Kind, Layered, Setting};
use celery_protocol::TaskOptions;
use celery_protocol::content::Accept;

use crate::worker::{NewQueues, Settings};

/// The variable by which a child process of a worker knows its parent.
pub(crate) const CHILD_MARKER: &str = "CELERIAC_POOL_CHILD_OF";

/// Whether this process is a child of a worker whose tasks run in child processes. Such a program does all that it does
/// before its worker runs, so it asks this before it writes a pid file or prints a banner.
#[expect(clippy::disallowed_methods, reason = "this is config.rs")]
pub fn is_pool_child() -> bool {
    // What a task starts inherits the variable, but has another parent.
    let parent = std::env::var(CHILD_MARKER).ok().and_then(|pid| pid.parse().ok());
    parent == Some(std::os::unix::process::parent_id())
}

/// What `celery-worker` can be told, beside [`celery_broker::config::CLIENT_SETTINGS`].
pub const SETTINGS: &[Setting] = &[
    text(
        "worker_hostname",
        "hostname",
        "CELERY_WORKER_HOSTNAME",
        "Node name; `%h` is the host, `%n` its first part, `%d` its domain. Default: `celery@%h`.",
    ),
    list(
        "worker_queues",
        "queues",
        "CELERY_WORKER_QUEUES",
        "Queues to consume from. Default: `task_default_queue`.",
    ),
    list(
        "worker_exclude_queues",
        "exclude-queues",
        "CELERY_WORKER_EXCLUDE_QUEUES",
        "Queues not to consume from, though `worker_queues` names them.",
    ),
    Setting {
        name: "task_default_queue_type",
        flag: "",
        env: "CELERY_TASK_DEFAULT_QUEUE_TYPE",
        kind: Kind::Choice(&["classic", "quorum"]),
        default: Some("classic"),
        secret: false,
        doc: "What queues are declared as that do not exist yet; those that do are used as they are.",
    },
    Setting {
        name: "task_queue_max_priority",
        flag: "",
        env: "CELERY_TASK_QUEUE_MAX_PRIORITY",
        kind: Kind::Integer { min: 1, max: 255 },
        default: None,
        secret: false,
        doc: "Priorities of classic queues that do not exist yet; Celery's tasks use 0 to 9.",
    },
    text(
        "task_default_exchange",
        "",
        "CELERY_TASK_DEFAULT_EXCHANGE",
        "Exchange that the default queue is bound to. Default: one of its name.",
    ),
    Setting {
        name: "task_default_exchange_type",
        flag: "",
        env: "CELERY_TASK_DEFAULT_EXCHANGE_TYPE",
        kind: Kind::Choice(&["direct", "topic", "fanout"]),
        default: Some("direct"),
        secret: false,
        doc: "Type of that exchange.",
    },
    text(
        "task_default_routing_key",
        "",
        "CELERY_TASK_DEFAULT_ROUTING_KEY",
        "Key that binds the default queue. Default: its name.",
    ),
    Setting {
        name: "worker_concurrency",
        flag: "concurrency",
        env: "CELERY_WORKER_CONCURRENCY",
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: None,
        secret: false,
        doc: "Tasks that run at the same time. Default: the number of CPUs.",
    },
    text(
        "worker_autoscale",
        "autoscale",
        "CELERY_WORKER_AUTOSCALE",
        "`max,min`: as many slots as there is work, within these bounds; in place of `worker_concurrency`.",
    ),
    Setting {
        name: "worker_prefetch_multiplier",
        flag: "prefetch-multiplier",
        env: "CELERY_WORKER_PREFETCH_MULTIPLIER",
        kind: Kind::Integer { min: 0, max: 65_535 },
        default: None,
        secret: false,
        doc: "Messages taken per slot; 0 is the greatest prefetch there is. Default: adaptive, 4 per slot as Celery's and 1000 while tasks take less than 2 ms.",
    },
    Setting {
        name: "worker_pool",
        flag: "pool",
        env: "CELERY_WORKER_POOL",
        kind: Kind::Choice(&["tasks", "prefork", "threads", "solo", "eventlet", "gevent", "processes"]),
        default: Some("tasks"),
        secret: false,
        doc: "`prefork` runs tasks in child processes, which can be killed and may crash. With all others async tasks run on one runtime and blocking ones on a bounded pool of threads; `solo` means one slot.",
    },
    Setting {
        name: "worker_max_tasks_per_child",
        flag: "max-tasks-per-child",
        env: "CELERY_WORKER_MAX_TASKS_PER_CHILD",
        kind: Kind::Integer { min: 1, max: 1_000_000_000 },
        default: None,
        secret: false,
        doc: "With `prefork`: replace a child process after so many tasks.",
    },
    Setting {
        name: "worker_max_memory_per_child",
        flag: "max-memory-per-child",
        env: "CELERY_WORKER_MAX_MEMORY_PER_CHILD",
        kind: Kind::Integer { min: 1, max: 1_000_000_000_000 },
        default: None,
        secret: false,
        doc: "With `prefork`: replace a child process that holds more KiB than this after a task.",
    },
    Setting {
        name: "worker_max_crashes",
        flag: "",
        env: "CELERY_WORKER_MAX_CRASHES",
        kind: Kind::Integer { min: 0, max: 1_000 },
        default: Some("4"),
        secret: false,
        doc: "How often a redelivered late-ack task may take its process with it before it fails and its message is rejected.",
    },
    boolean(
        "task_reject_on_worker_lost",
        "",
        "CELERY_TASK_REJECT_ON_WORKER_LOST",
        "false",
        "With `prefork`: deliver a late-ack task again that took its child process with it; else it fails.",
    ),
    Setting {
        name: "accept_content",
        flag: "",
        env: "CELERY_ACCEPT_CONTENT",
        kind: Kind::List,
        default: Some("json"),
        secret: false,
        doc: "Content types of messages that are read: `json`, `msgpack`, `yaml`. `pickle` never is. A message of another type is rejected.",
    },
    boolean(
        "worker_send_task_events",
        "task-events",
        "CELERY_WORKER_SEND_TASK_EVENTS",
        "false",
        "Send task events, for monitors.",
    ),
    boolean(
        "task_acks_late",
        "task-acks-late",
        "CELERY_TASK_ACKS_LATE",
        "true",
        "Ack a message when its task has ended and its result is stored; else when it starts. Celery's default is false.",
    ),
    boolean(
        "task_acks_on_failure",
        "",
        "CELERY_TASK_ACKS_ON_FAILURE",
        "true",
        "Ack a late-ack task that failed; else its message is rejected, and a dead-letter exchange can keep it.",
    ),
    boolean(
        "task_acks_on_timeout",
        "",
        "CELERY_TASK_ACKS_ON_TIMEOUT",
        "true",
        "Ack a late-ack task that ran into its hard time limit; else its message is delivered again.",
    ),
    boolean(
        "task_ignore_result",
        "",
        "CELERY_TASK_IGNORE_RESULT",
        "false",
        "Store no results, unless a task or a call says otherwise.",
    ),
    boolean(
        "task_store_errors_even_if_ignored",
        "",
        "CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED",
        "false",
        "Store failures of tasks whose results are ignored.",
    ),
    boolean(
        "task_track_started",
        "",
        "CELERY_TASK_TRACK_STARTED",
        "false",
        "Store STARTED when a task starts.",
    ),
    boolean(
        "result_extended",
        "",
        "CELERY_RESULT_EXTENDED",
        "false",
        "Store name, arguments, worker, retries and queue with each result.",
    ),
    duration(
        "task_time_limit",
        "time-limit",
        "CELERY_TASK_TIME_LIMIT",
        None,
        "Hard time limit of tasks that have none of their own.",
    ),
    duration(
        "task_soft_time_limit",
        "soft-time-limit",
        "CELERY_TASK_SOFT_TIME_LIMIT",
        None,
        "Soft time limit of tasks that have none of their own.",
    ),
    boolean(
        "worker_deduplicate_successful_tasks",
        "",
        "CELERY_WORKER_DEDUPLICATE_SUCCESSFUL_TASKS",
        "true",
        "Ack and skip a redelivered message whose result is SUCCESS. Celery's default is false.",
    ),
    boolean(
        "worker_enable_remote_control",
        "",
        "CELERY_WORKER_ENABLE_REMOTE_CONTROL",
        "true",
        "Answer `celery inspect` and `celery control`.",
    ),
    duration(
        "worker_heartbeat_interval",
        "heartbeat-interval",
        "CELERY_WORKER_HEARTBEAT_INTERVAL",
        Some("2s"),
        "Time between heartbeat events; 0 sends none.",
    ),
    duration(
        "worker_eta_horizon",
        "",
        "CELERY_WORKER_ETA_HORIZON",
        Some("60s"),
        "A task due later than this goes back to the broker's delayed delivery.",
    ),
    Setting {
        name: "worker_eta_task_limit",
        flag: "",
        env: "CELERY_WORKER_ETA_TASK_LIMIT",
        kind: Kind::Integer { min: 0, max: 65_535 },
        default: Some("10000"),
        secret: false,
        doc: "Tasks held in the worker until they are due.",
    },
    duration(
        "result_backend_patience",
        "",
        "CELERY_RESULT_BACKEND_PATIENCE",
        Some("60s"),
        "How long a result is offered to a store that does not take it, before its message is given back.",
    ),
    duration(
        "worker_shutdown_grace",
        "shutdown-grace",
        "CELERY_WORKER_SHUTDOWN_GRACE",
        None,
        "How long a warm shutdown waits for running tasks. Default: as long as they take.",
    ),
    duration(
        "worker_revoke_expires",
        "",
        "CELERY_WORKER_REVOKE_EXPIRES",
        Some("3h"),
        "How long a revoked task stays revoked, here and in the result store.",
    ),
    text(
        "worker_state_db",
        "statedb",
        "CELERY_WORKER_STATE_DB",
        "File that keeps what is revoked over a restart; the result store does so for all workers. `%n`, `%h` are expanded.",
    ),
    list(
        "worker_cluster_rate_limits",
        "",
        "CELERY_WORKER_CLUSTER_RATE_LIMITS",
        "Rate limits over all workers of one result store: `task=10/m`, `task=10/m*5` with a burst, `task[argument]=10/m` for each value of a keyword argument, `task[0]=10/m` of a positional one.",
    ),
    duration(
        "worker_soft_shutdown_timeout",
        "",
        "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT",
        Some("0s"),
        "How long running tasks may take to finish when SIGQUIT asks for the cold shutdown.",
    ),
    boolean(
        "worker_enable_soft_shutdown_on_idle",
        "",
        "CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        "false",
        "Wait `worker_soft_shutdown_timeout` even when nothing runs.",
    ),
    boolean(
        "worker_cancel_long_running_tasks_on_connection_loss",
        "",
        "CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        "false",
        "End running late-ack tasks when the connection is lost; else they go on and take their redelivered messages over.",
    ),
    Setting {
        name: "remap_sigterm",
        flag: "",
        env: "REMAP_SIGTERM",
        kind: Kind::Choice(&["SIGTERM", "SIGQUIT"]),
        default: Some("SIGTERM"),
        secret: false,
        doc: "`SIGQUIT`: SIGTERM asks for the cold shutdown.",
    },
    Setting {
        name: "worker_loglevel",
        flag: "loglevel",
        env: "CELERY_WORKER_LOGLEVEL",
        kind: Kind::Text,
        default: Some("WARNING"),
        secret: false,
        doc: "DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case; `RUST_LOG` goes further.",
    },
    Setting {
        name: "worker_log_format",
        flag: "log-format",
        env: "CELERY_WORKER_LOG_FORMAT",
        kind: Kind::Choice(&["text", "json"]),
        default: Some("text"),
        secret: false,
        doc: "Lines as Celery writes them, or one JSON object per line.",
    },
    text(
        "worker_logfile",
        "logfile",
        "CELERY_WORKER_LOGFILE",
        "Log to this file instead of standard error; `%n`, `%h`, `%I` are expanded.",
    ),
    text(
        "worker_pidfile",
        "pidfile",
        "CELERY_WORKER_PIDFILE",
        "Write the process id to this file; a live process named there stops the start.",
    ),
    text(
        "worker_health_file",
        "health-file",
        "CELERY_WORKER_HEALTH_FILE",
        "Keep a file up to date from which `celery-worker --healthcheck live` or `ready` answers probes.",
    ),
];

/// What beat can be told, in `celery-beat` and in `celery-worker -B`, beside the table `beat_schedule`.
pub const BEAT_SETTINGS: &[Setting] = &[
    Setting {
        name: "timezone",
        flag: "timezone",
        env: "CELERY_TIMEZONE",
        kind: Kind::Text,
        default: Some("UTC"),
        secret: false,
        doc: "Zone of the wall clock that crontabs are matched against, by its IANA name: `Europe/Berlin`.",
    },
    Setting {
        name: "beat_shared_schedule",
        flag: "shared-schedule",
        env: "CELERY_BEAT_SHARED_SCHEDULE",
        kind: Kind::Text,
        default: None,
        secret: false,
        doc: "Share the schedule under this name with other beats, through the Redis of `result_backend`: one leads, another takes over when it is lost. Default: alone, with a state file.",
    },
    Setting {
        name: "beat_lease",
        flag: "lease",
        env: "CELERY_BEAT_LEASE",
        kind: Kind::Duration,
        default: Some("20s"),
        secret: false,
        doc: "How long a leader that is lost keeps the others waiting. `broker_heartbeat` is at most a quarter of it.",
    },
    Setting {
        name: "beat_schedule_filename",
        flag: "schedule",
        env: "CELERY_BEAT_SCHEDULE_FILENAME",
        kind: Kind::Text,
        default: Some("celerybeat-schedule.json"),
        secret: false,
        doc: "File that remembers when each entry ran last.",
    },
];

/// What `celery-beat` can be told beside that and [`celery_broker::config::CLIENT_SETTINGS`].
pub const BEAT_PROGRAM_SETTINGS: &[Setting] = &[
    Setting {
        name: "beat_loglevel",
        flag: "loglevel",
        env: "CELERY_BEAT_LOGLEVEL",
        kind: Kind::Choice(&["debug", "info", "warning", "error", "DEBUG", "INFO", "WARNING", "ERROR"]),
        default: Some("info"),
        secret: false,
        doc: "What is logged.",
    },
    text(
        "beat_health_file",
        "health-file",
        "CELERY_BEAT_HEALTH_FILE",
        "Keep a file up to date from which `celery-beat --healthcheck live` or `ready` answers probes.",
    ),
];

const fn text(name: &'static str, flag: &'static str, env: &'static str, doc: &'static str) -> Setting {
    Setting { name, flag, env, kind: Kind::Text, default: None, secret: false, doc }
}

const fn list(name: &'static str, flag: &'static str, env: &'static str, doc: &'static str) -> Setting {
    Setting { name, flag, env, kind: Kind::List, default: None, secret: false, doc }
}

const fn boolean(
    name: &'static str,
    flag: &'static str,
    env: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { name, flag, env, kind: Kind::Bool, default: Some(default), secret: false, doc }
}

const fn duration(
    name: &'static str,
    flag: &'static str,
    env: &'static str,
    default: Option<&'static str>,
    doc: &'static str,
) -> Setting {
    Setting { name, flag, env, kind: Kind::Duration, default, secret: false, doc }
}

impl Settings {
    /// The settings of a worker from the values of [`SETTINGS`].
    ///
    /// # Errors
    /// `accept_content` names what can't be read.
    pub fn from_config(config: &Layered) -> Result<Settings, String> {
        let accept = config.list("accept_content");
        let accept = Accept::parse(accept.iter().map(String::as_str))
            .map_err(|problem| format!("accept_content: {problem}; there are json, msgpack and yaml"))?;
        let defaults = Settings::default();
        let number = |name: &str| config.integer(name).and_then(|n| usize::try_from(n).ok());
        let set = |name: &str| config.duration(name).filter(|duration| !duration.is_zero());
        let excluded = config.list("worker_exclude_queues");
        let queues =
            config.list("worker_queues").into_iter().filter(|queue| !excluded.contains(queue)).collect();
        let solo = config.text("worker_pool") == Some("solo");
        let autoscale = config.text("worker_autoscale").map(str::parse).transpose()?;
        Ok(Settings {
            autoscale,
            nodename: config.text("worker_hostname").map(str::to_owned),
            queues,
            concurrency: if solo { 1 } else { number("worker_concurrency").unwrap_or(defaults.concurrency) },
            prefetch_multiplier: number("worker_prefetch_multiplier").and_then(|n| u16::try_from(n).ok()),
            accept,
            tasks: TaskOptions {
                acks_late: Some(config.boolean("task_acks_late")),
                acks_on_failure: Some(config.boolean("task_acks_on_failure")),
                acks_on_timeout: Some(config.boolean("task_acks_on_timeout")),
                reject_on_worker_lost: Some(config.boolean("task_reject_on_worker_lost")),
                ignore_result: Some(config.boolean("task_ignore_result")),
                store_errors_even_if_ignored: Some(config.boolean("task_store_errors_even_if_ignored")),
                track_started: Some(config.boolean("task_track_started")),
                time_limit: set("task_time_limit"),
                soft_time_limit: set("task_soft_time_limit"),
                ..TaskOptions::DEFAULT
            },
            result_extended: config.boolean("result_extended"),
            deduplicate: config.boolean("worker_deduplicate_successful_tasks"),
            task_events: config.boolean("worker_send_task_events"),
            heartbeat: set("worker_heartbeat_interval"),
            mingle: true,
            remote_control: config.boolean("worker_enable_remote_control"),
            eta_horizon: config.duration("worker_eta_horizon").unwrap_or(defaults.eta_horizon),
            eta_limit: number("worker_eta_task_limit").unwrap_or(defaults.eta_limit),
            store_patience: config.duration("result_backend_patience").unwrap_or(defaults.store_patience),
            shutdown_grace: config.duration("worker_shutdown_grace"),
            prefork: config.text("worker_pool") == Some("prefork"),
            max_tasks_per_child: number("worker_max_tasks_per_child").and_then(|n| u32::try_from(n).ok()),
            max_memory_per_child: number("worker_max_memory_per_child").and_then(|n| u64::try_from(n).ok()),
            max_crashes: number("worker_max_crashes")
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(defaults.max_crashes),
            revoke_expires: config.duration("worker_revoke_expires").unwrap_or(defaults.revoke_expires),
            statedb: config.text("worker_state_db").map(str::to_owned),
            cluster_limits: config.list("worker_cluster_rate_limits"),
            new_queues: NewQueues {
                quorum: config.text("task_default_queue_type") == Some("quorum"),
                max_priority: number("task_queue_max_priority").and_then(|n| u8::try_from(n).ok()),
                default_exchange: default_exchange(config),
                default_routing_key: config.text("task_default_routing_key").map(str::to_owned),
            },
            soft_shutdown_timeout: config.duration("worker_soft_shutdown_timeout").unwrap_or_default(),
            soft_shutdown_on_idle: config.boolean("worker_enable_soft_shutdown_on_idle"),
            sigterm_is_cold: config.text("remap_sigterm") == Some("SIGQUIT"),
            running_lease: defaults.running_lease,
            cancel_on_connection_loss: config.boolean("worker_cancel_long_running_tasks_on_connection_loss"),
            task_threads: None,
            logfile: config.text("worker_logfile").map(str::to_owned),
        })
    }
}

/// The exchange of the default queue, if the settings name one or its type.
fn default_exchange(config: &Layered) -> Option<ExchangeSpec> {
    let kind = config.text("task_default_exchange_type").unwrap_or("direct");
    let name = config.text("task_default_exchange");
    if name.is_none() && kind == "direct" {
        return None;
    }
    let name = name.or_else(|| config.text("task_default_queue")).unwrap_or("celery");
    Some(ExchangeSpec::durable(name, kind))
}

#[cfg(test)]
mod tests {
    use celery_broker::config::markdown;
    use celery_testkit::golden::section;

    use super::*;

    #[test]
    fn the_document_has_the_tables() {
        section("docs/configuration.md", "celery-worker", &markdown(SETTINGS));
        let beat = [BEAT_SETTINGS, BEAT_PROGRAM_SETTINGS].concat();
        section("docs/configuration.md", "celery-beat", &markdown(&beat));
    }
}
