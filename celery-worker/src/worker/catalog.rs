//! The tasks a worker serves, each with the rules that its options and the worker's settings give together.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use celery_protocol::options::{Execution, MaxRetries, RateLimit, TaskOptions};
use celery_protocol::{Headers, TaskName, TimeLimits};

use crate::task::{ErasedTask, ErrbackStyle, Tasks};

/// All tasks by name.
#[derive(Debug)]
pub(crate) struct Catalog {
    entries: HashMap<TaskName, Arc<Entry>>,
    new_style: HashSet<TaskName>,
    /// Kept for the built-in tasks, which look others up in it.
    _tasks: Tasks,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) task: Arc<ErasedTask>,
    /// Its options with the worker's settings behind them.
    pub(crate) options: Execution,
    accepted: AtomicU64,
    /// What remote control may change.
    limits: RwLock<Limits>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    time: TimeLimits,
    rate: Option<RateLimit>,
}

/// How one call is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Ack when the task has ended instead of when it starts.
    pub(crate) acks_late: bool,
    /// Ack a late-ack task that failed; else it is rejected, which a dead-letter exchange can catch.
    pub(crate) acks_on_failure: bool,
    /// Ack a late-ack task that hit its hard limit; else it is given back.
    pub(crate) acks_on_timeout: bool,
    /// Deliver a late-ack task again that took its child process with it.
    pub(crate) reject_on_worker_lost: bool,
    /// Store no result.
    pub(crate) ignore_result: bool,
    /// Store failures even so.
    pub(crate) store_errors: bool,
    /// Store STARTED.
    pub(crate) track_started: bool,
    /// Send events about it, when the worker sends any.
    pub(crate) send_events: bool,
}

impl Rules {
    /// The task's options, and what the message says about its result.
    pub(crate) fn new(options: &Execution, headers: &Headers) -> Rules {
        Rules {
            acks_late: options.acks_late,
            acks_on_failure: options.acks_on_failure,
            acks_on_timeout: options.acks_on_timeout,
            reject_on_worker_lost: options.reject_on_worker_lost,
            ignore_result: headers.ignore_result.unwrap_or(options.ignore_result),
            store_errors: options.store_errors_even_if_ignored,
            track_started: options.track_started,
            send_events: options.send_events,
        }
    }
}

impl Catalog {
    pub(crate) fn new(tasks: &Tasks, defaults: &TaskOptions) -> Catalog {
        let entries =
            tasks.iter().map(|task| (task.name.clone(), Arc::new(Entry::new(task.clone(), defaults))));
        let new_style =
            tasks.iter().filter(|task| task.errback == ErrbackStyle::New).map(|task| task.name.clone());
        let (entries, new_style) = (entries.collect(), new_style.collect());
        Catalog { entries, new_style, _tasks: tasks.clone() }
    }

    /// The tasks that are errbacks of the new style.
    pub(crate) fn new_style(&self) -> &HashSet<TaskName> {
        &self.new_style
    }

    pub(crate) fn get(&self, name: &TaskName) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// All tasks, sorted by name.
    pub(crate) fn sorted(&self) -> Vec<&Arc<Entry>> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_unstable_by(|a, b| a.task.name.cmp(&b.task.name));
        entries
    }
}

impl Entry {
    fn new(task: Arc<ErasedTask>, defaults: &TaskOptions) -> Entry {
        let options = task.options.resolve(defaults);
        let time = TimeLimits { hard: options.time_limit, soft: options.soft_time_limit };
        let limits = RwLock::new(Limits { time, rate: options.rate_limit });
        Entry { task, options, accepted: AtomicU64::new(0), limits }
    }

    /// The time limits for one call: the message's own come first.
    pub(crate) fn time_limits(&self, headers: &Headers) -> TimeLimits {
        let (own, task) = (headers.time_limits, self.limits().time);
        TimeLimits { hard: own.hard.or(task.hard), soft: own.soft.or(task.soft) }
    }

    pub(crate) fn set_time_limits(&self, time: TimeLimits) {
        self.limits.write().unwrap_or_else(PoisonError::into_inner).time = time;
    }

    pub(crate) fn rate_limit(&self) -> Option<RateLimit> {
        self.limits().rate
    }

    pub(crate) fn set_rate_limit(&self, rate: Option<RateLimit>) {
        self.limits.write().unwrap_or_else(PoisonError::into_inner).rate = rate;
    }

    /// Counts a call that starts.
    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls have started.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// An attribute of the task as `inspect registered` shows it; `None` if it is unknown or not set.
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        let limits = self.limits();
        // A float, as Python prints it.
        let seconds = |limit: Option<Duration>| limit.map(|limit| format!("{:?}", limit.as_secs_f64()));
        let flag = |flag: bool| Some(if flag { "True" } else { "False" }.to_owned());
        match name {
            "name" => Some(self.task.name.as_str().to_owned()),
            "rate_limit" => limits.rate.map(|rate| rate.to_string()),
            "time_limit" => seconds(limits.time.hard),
            "soft_time_limit" => seconds(limits.time.soft),
            "max_retries" => match self.options.max_retries {
                MaxRetries::Times(times) => Some(times.to_string()),
                MaxRetries::Unlimited => None,
            },
            "default_retry_delay" => match self.options.default_retry_delay {
                whole if whole.subsec_nanos() == 0 => Some(whole.as_secs().to_string()),
                other => seconds(Some(other)),
            },
            "serializer" => Some("json".to_owned()),
            "send_events" => flag(self.options.send_events),
            "store_errors_even_if_ignored" => flag(self.options.store_errors_even_if_ignored),
            "acks_on_failure_or_timeout" => {
                flag(self.options.acks_on_failure && self.options.acks_on_timeout)
            }
            "acks_late" => flag(self.options.acks_late),
            "ignore_result" => flag(self.options.ignore_result),
            "track_started" => flag(self.options.track_started),
            "queue" => self.task.options.queue.map(str::to_owned),
            "priority" => self.task.options.priority.map(|priority| priority.to_string()),
            _ => None,
        }
    }

    fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }
}
