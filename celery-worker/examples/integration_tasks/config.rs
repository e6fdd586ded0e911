//! The harness's environment.

use anyhow::{Context as _, Result};
use celery_broker::{CeleryBuilder, ExchangeSpec};
use celery_worker::prelude::*;

use crate::Builder;

pub(crate) struct Config {
    broker: String,
    backend: String,
    /// Where tasks leave their marks.
    pub(crate) redis: String,
    concurrency: usize,
    nodename: Option<String>,
    queues: Vec<String>,
    /// Celery's settings by Celery's names.
    settings: Map<String, Value>,
    /// Whether to serve the tasks of the smoke suite too.
    pub(crate) smoke: bool,
    mingle: bool,
    sigterm_is_cold: bool,
}

impl Config {
    pub(crate) fn from_env() -> Result<Self> {
        let backend = env("CONF_BACKEND_URL").unwrap_or_else(|| "redis://localhost/9".to_owned());
        let settings = env("CONF_SETTINGS").unwrap_or_else(|| "{}".to_owned());
        Ok(Self {
            broker: env("CONF_BROKER_URL").unwrap_or_else(|| "amqp://localhost/conf2".to_owned()),
            redis: env("CONF_REDIS_URL").unwrap_or_else(|| backend.clone()),
            backend,
            concurrency: env("CONF_CONCURRENCY")
                .as_deref()
                .unwrap_or("2")
                .parse()
                .context("CONF_CONCURRENCY")?,
            nodename: env("CONF_NODENAME"),
            queues: env("CONF_QUEUES")
                .map(|all| all.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            settings: serde_json::from_str(&settings).context("CONF_SETTINGS")?,
            smoke: env("CONF_SMOKE").as_deref() == Some("1"),
            mingle: env("CONF_MINGLE").as_deref() == Some("1"),
            sigterm_is_cold: env("REMAP_SIGTERM").as_deref() == Some("SIGQUIT"),
        })
    }

    pub(crate) fn celery(&self) -> CeleryBuilder {
        let celery = Celery::builder("integration_tasks").broker(&self.broker).backend(&self.backend);
        match self.text("task_default_queue") {
            Some(queue) => celery.default_queue(queue),
            None => celery,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// The suite's worker: Celery's defaults where ours differ, extended results, events from the start.
    pub(crate) fn apply(&self, worker: Builder) -> Builder {
        let mut worker = worker.concurrency(self.concurrency).task_events();
        if let Some(name) = &self.nodename {
            worker = worker.nodename(name);
        }
        if !self.queues.is_empty() {
            worker = worker.queues(&self.queues);
        }
        let flag = |name: &str| self.settings.get(name).and_then(Value::as_bool);
        let seconds =
            |name: &str| self.settings.get(name).and_then(Value::as_f64).map(Duration::from_secs_f64);
        worker.configure(|own| {
            own.tasks.acks_late = Some(flag("task_acks_late").unwrap_or(false));
            own.tasks.acks_on_failure = flag("task_acks_on_failure_or_timeout");
            own.tasks.track_started = flag("task_track_started");
            own.tasks.ignore_result = flag("task_ignore_result");
            own.tasks.time_limit = seconds("task_time_limit");
            own.tasks.soft_time_limit = seconds("task_soft_time_limit");
            own.deduplicate = flag("worker_deduplicate_successful_tasks").unwrap_or(false);
            own.result_extended = true;
            own.mingle = self.mingle;
            // Some of the smoke suite's tasks kill their process.
            own.prefork = self.smoke;
            own.tasks.reject_on_worker_lost = flag("task_reject_on_worker_lost");
            own.new_queues.quorum = self.text("task_default_queue_type") == Some("quorum");
            own.new_queues.default_exchange = self.text("task_default_exchange").map(|name| {
                ExchangeSpec::durable(name, self.text("task_default_exchange_type").unwrap_or("direct"))
            });
            own.new_queues.default_routing_key = self.text("task_default_routing_key").map(str::to_owned);
            own.soft_shutdown_timeout = seconds("worker_soft_shutdown_timeout").unwrap_or_default();
            own.soft_shutdown_on_idle = flag("worker_enable_soft_shutdown_on_idle").unwrap_or(false);
            own.sigterm_is_cold = self.sigterm_is_cold;
            own.cancel_on_connection_loss =
                flag("worker_cancel_long_running_tasks_on_connection_loss").unwrap_or(false);
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the program's config.rs")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
