//! What every handler shares: the connection to the broker, the limits, and whether the server is stopping.
//!
//! Built once per process, not per actix worker: a connection per thread would multiply them for nothing.

use std::collections::HashSet;
use std::time::Duration;

use celery_broker::Celery;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Tokens;
use crate::config::{Config, Limits};
use crate::depth::Depths;
use crate::gate::{Gate, Pass};
use crate::hub::Hub;
use crate::policy::Policy;
use crate::problem::{Kind, Outcome, Problem};

/// For one ping of the result backend by `/readyz`.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The shared state.
#[derive(Debug)]
pub struct Api {
    /// The broker and the result backend.
    pub celery: Celery,
    /// Bounds of requests.
    pub limits: Limits,
    /// Allow-lists.
    pub policy: Policy,
    /// Accepted tokens.
    pub tokens: Tokens,
    /// Queues that are declared when a task finds them missing: the default one and those of the routes.
    pub own_queues: HashSet<String>,
    /// This server's name in messages.
    pub origin: String,
    /// Submissions in flight.
    pub publishing: Gate,
    /// Open waits.
    pub waits: Gate,
    /// Submissions that go on to their end even if their client has gone.
    pub under_way: TaskTracker,
    /// What is announced in the result backend.
    pub hub: Hub,
    /// Lengths of queues.
    pub depths: Depths,
    /// Cancelled when the server begins to stop.
    pub drain: CancellationToken,
    metrics: PrometheusHandle,
}

impl Api {
    /// The state of a server with this configuration.
    pub fn new(celery: Celery, config: &Config, origin: String, metrics: PrometheusHandle) -> Self {
        let own_queues = match config.declare_queues {
            true => {
                config.routed_queues.iter().cloned().chain([celery.default_queue().to_string()]).collect()
            }
            false => HashSet::new(),
        };
        Api {
            celery,
            own_queues,
            limits: config.limits.clone(),
            policy: config.policy.clone(),
            tokens: config.tokens.clone(),
            origin,
            publishing: Gate::new(config.limits.in_flight),
            waits: Gate::new(config.limits.waits),
            under_way: TaskTracker::new(),
            hub: Hub::default(),
            depths: Depths::default(),
            drain: CancellationToken::new(),
            metrics,
        }
    }

    /// A place among the submissions in flight.
    ///
    /// # Errors
    /// What is known to make the submission futile: `draining`, `overloaded`, `broker-unavailable`, `broker-blocked`.
    /// Nothing has been read of the body by then.
    pub fn admit(&self) -> Result<Pass, Problem> {
        let refuse = |kind, detail: &str, seconds| {
            metrics::counter!("producer_api_rejections_total", "reason" => Kind::slug(kind)).increment(1);
            Err(Problem::new(kind, detail).outcome(Outcome::NotPublished).retry_after(seconds).closing())
        };
        if self.is_draining() {
            return refuse(Kind::Draining, "this replica is stopping", 1);
        }
        let health = self.celery.health();
        if !health.connected {
            return refuse(Kind::BrokerUnavailable, "there is no connection to the broker at the moment", 2);
        }
        if health.blocked {
            return refuse(Kind::BrokerBlocked, "the broker has raised an alarm and takes no messages", 5);
        }
        match self.publishing.enter() {
            Some(pass) => Ok(pass),
            None => refuse(Kind::Overloaded, "too many submissions are waiting for the broker", 1),
        }
    }

    /// Whether submissions would be taken by the broker.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn broker_ready(&self) -> Result<(), String> {
        let health = self.celery.health();
        match (health.connected, health.blocked) {
            (false, _) => Err("not connected".to_owned()),
            (true, true) => Err("blocked by an alarm".to_owned()),
            (true, false) => Ok(()),
        }
    }

    /// Whether the result backend answers.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn backend_ready(&self) -> Result<(), String> {
        match tokio::time::timeout(PING_TIMEOUT, self.celery.backend().ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(err.to_string()),
            Err(_) => Err(format!("no answer within {} s", PING_TIMEOUT.as_secs())),
        }
    }

    /// Whether the server has begun to stop.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// All measurements, with the gauges brought up to date.
    pub fn render_metrics(&self) -> String {
        let health = self.celery.health();
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        metrics::gauge!("producer_api_broker_connected").set(flag(health.connected));
        metrics::gauge!("producer_api_broker_blocked").set(flag(health.blocked));
        metrics::gauge!("producer_api_draining").set(flag(self.is_draining()));
        #[expect(clippy::cast_precision_loss, reason = "gates hold at most a million")]
        for (name, gate) in [("publishing", &self.publishing), ("waits", &self.waits)] {
            metrics::gauge!("producer_api_in_flight", "what" => name).set(gate.inside() as f64);
        }
        self.metrics.run_upkeep();
        self.metrics.render()
    }
}
