//! What all services of one worker share, and what a lane does with a job.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use celery_broker::Celery;
use celery_broker::control::Revocation;
use celery_broker::event::Emitter;
use celery_protocol::event::{EventBody, TaskEvent};
use celery_protocol::{Nodename, TaskId, TaskName, TaskState, pyjson};
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::catalog::{Catalog, Rules};
use super::settings::Settings;
use crate::config::is_pool_child;
use crate::consumer::Order;
use crate::consumer::admit::{self, Verdict};
use crate::consumer::cluster_limit::ClusterLimit;
use crate::consumer::revoked::Revoked;
use crate::context::{Context, ContextEnv};
use crate::pool::autoscale::Autoscale;
use crate::pool::process::Processes;
use crate::pool::{Job, Pool, Work, crashes};
use crate::stats::Stats;
use crate::task::Tasks;
use crate::trace::settle::{self, Ended, Settlement, Wants};
use crate::trace::settler::Ground;
use crate::trace::settling::Settling;
use crate::trace::{Finished, Ticket, events, execute, log, result_meta};

/// How long STARTED may take to be stored; the task runs in any case.
const STARTED_DEADLINE: Duration = Duration::from_secs(2);

/// The shared state of a worker.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) celery: Celery,
    pub(crate) settings: Settings,
    pub(crate) nodename: Nodename,
    pub(crate) catalog: Catalog,
    pub(crate) pool: Pool,
    /// The jobs that have ended and are not settled.
    pub(crate) settling: Settling,
    pub(crate) autoscale: Autoscale,
    /// The child processes that run the tasks, if any do.
    pub(crate) processes: Option<Processes>,
    pub(crate) stats: Stats,
    pub(crate) emitter: Emitter,
    /// Blocking tasks that were given up and still hold a thread.
    pub(crate) abandoned: Arc<AtomicU64>,
    /// To the other services.
    pub(crate) lines: Lines,
    /// This worker, and none that had its name before.
    pub(crate) instance: String,
    /// The connection is back: what was revoked meanwhile is to be looked up.
    pub(crate) resync: Notify,
    revoked: Mutex<Revoked<TaskId>>,
    /// The revoked set has changed since it was last saved.
    changed: AtomicBool,
    pub(crate) cluster_limits: HashMap<TaskName, ClusterLimit>,
    task_events: AtomicBool,
    ready: AtomicBool,
}

/// How the services of one worker reach each other.
#[derive(Debug)]
pub(crate) struct Lines {
    /// To the intake.
    pub(crate) orders: mpsc::Sender<Order>,
    /// To the supervisor: lanes to add.
    pub(crate) grow: mpsc::Sender<usize>,
    /// Ends the worker in the warm way.
    pub(crate) shutdown: CancellationToken,
}

impl Engine {
    pub(crate) fn new(
        celery: Celery,
        tasks: &Tasks,
        settings: Settings,
        nodename: Nodename,
        lines: Lines,
    ) -> Engine {
        Engine {
            catalog: Catalog::new(tasks, &settings.tasks),
            pool: Pool::new(settings.threads()),
            settling: Settling::default(),
            autoscale: Autoscale::new(settings.autoscale),
            processes: (settings.prefork && !is_pool_child()).then(Processes::default),
            stats: Stats::new(),
            emitter: celery.event_emitter(nodename.as_str()),
            abandoned: Arc::default(),
            resync: Notify::new(),
            instance: Uuid::new_v4().simple().to_string(),
            revoked: Mutex::new(Revoked::new(settings.revoke_expires)),
            changed: AtomicBool::new(false),
            cluster_limits: settings.parsed_cluster_limits(),
            task_events: AtomicBool::new(settings.task_events),
            ready: AtomicBool::new(false),
            celery,
            settings,
            nodename,
            lines,
        }
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> SystemTime {
        self.celery.clock().now()
    }

    /// The queues are being consumed; says so once.
    pub(crate) fn consuming(&self) {
        if !self.ready.swap(true, Ordering::SeqCst) {
            tracing::info!("{} ready.", self.nodename);
        }
    }

    /// Whether the queues are, or were, being consumed: what is sent to them has somewhere to go.
    pub(crate) fn has_consumed(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Another node knows these to be revoked.
    pub(crate) fn take_over_revoked(&self, ids: &[String]) {
        let now = self.now();
        let mut revoked = self.revoked();
        for id in ids.iter().filter_map(|id| TaskId::parse(id.as_str()).ok()) {
            if !revoked.has(&id) {
                revoked.add(id, now);
            }
        }
    }

    /// Takes over revocations from elsewhere; how many were new.
    pub(crate) fn learn(&self, revocations: Vec<Revocation>, now: SystemTime) -> usize {
        let mut revoked = self.revoked();
        let mut count = 0;
        for one in revocations {
            count += usize::from(match one {
                Revocation::Task(id) if revoked.has(&id) => false,
                Revocation::Task(id) => {
                    revoked.add(id, now);
                    true
                }
                Revocation::Stamp(name, value) => {
                    let known = revoked.has_stamp([(name.as_str(), &value)]);
                    !known && revoked.add_stamp(&name, [value])
                }
            });
        }
        drop(revoked);
        if count > 0 {
            self.changed();
        }
        count
    }

    /// The revoked set has changed.
    pub(crate) fn changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether it has changed since this was last asked.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Decides about a call with what is revoked now.
    pub(crate) fn admit(&self, job: &Job, now: SystemTime) -> Verdict {
        admit::admit(job.request.headers(), &self.revoked(), now)
    }

    pub(crate) fn revoked(&self) -> MutexGuard<'_, Revoked<TaskId>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be told about a task now.
    pub(crate) fn wants(&self, rules: Rules) -> Wants {
        let events = rules.send_events && self.task_events.load(Ordering::Relaxed);
        Wants { extended: self.settings.result_extended, events }
    }

    /// What settlements are carried out on.
    pub(crate) fn ground(&self) -> Ground<'_> {
        Ground {
            celery: &self.celery,
            emitter: Some(&self.emitter),
            patience: self.settings.store_patience,
            eta_horizon: self.settings.eta_horizon,
            new_style: self.catalog.new_style(),
        }
    }

    /// Whether task events are sent.
    pub(crate) fn wants_events(&self) -> bool {
        self.task_events.load(Ordering::Relaxed)
    }

    /// Turns task events on or off; what they were before.
    pub(crate) fn switch_events(&self, on: bool) -> bool {
        self.task_events.swap(on, Ordering::Relaxed)
    }

    /// Sends a task event, if they are on.
    pub(crate) fn emit(&self, rules: Rules, event: impl FnOnce() -> TaskEvent) {
        if self.wants(rules).events {
            self.emitter.emit(EventBody::Task(Box::new(event())));
        }
    }

    /// Asks the intake something; `None` when it has ended or does not answer.
    pub(crate) async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.lines.orders.send(order(reply)).await.ok()?;
        tokio::time::timeout(Duration::from_secs(10), answer).await.ok()?.ok()
    }

    async fn run_job(&self, job: &Arc<Job>) -> Settlement {
        if let Some(settlement) = self.begin(job).await {
            return settlement;
        }
        let lost_before = match crashes::begin(self, job).await {
            Ok(lost_before) => lost_before,
            Err(settlement) => return settlement,
        };
        match &self.processes {
            Some(processes) => processes.run(self, job, lost_before).await,
            None => {
                let settlement = self.execute_job(job).await;
                crashes::end(self, job).await;
                settlement
            }
        }
    }

    /// What comes before a job's body; what follows, if it is not to be run.
    async fn begin(&self, job: &Arc<Job>) -> Option<Settlement> {
        let now = self.now();
        if let Verdict::Never(why) = self.admit(job, now) {
            log::discarding(&job.request, why);
            return Some(settle::revoked(&job.request, job.rules, why, now, self.wants(job.rules)));
        }
        job.start(now);
        job.entry.accept();
        if !job.rules.acks_late {
            job.ack();
        }
        self.emit(job.rules, || events::started(job.request.id()));
        if job.rules.track_started && !job.rules.ignore_result {
            self.store_started(job).await;
        }
        None
    }

    /// Runs a job's body in this process; what follows.
    pub(crate) async fn execute_job(&self, job: &Arc<Job>) -> Settlement {
        let context = Context::new(job.request.clone(), self.context_env(job));
        let clock = Instant::now();
        let ending = execute(
            &job.entry.task,
            &job.request,
            context.clone(),
            &job.interrupts,
            job.limits,
            &self.abandoned,
        )
        .await;
        let runtime = clock.elapsed();
        self.stats.ended(runtime);
        log::ended(&job.request, &ending.outcome, runtime);
        settle::settle(Ended {
            request: &job.request,
            rules: job.rules,
            outcome: ending.outcome,
            timed_out: ending.timed_out,
            children: context.children(),
            runtime,
            now: self.now(),
            new_style: self.catalog.new_style(),
            wants: self.wants(job.rules),
        })
    }

    fn context_env(&self, job: &Job) -> ContextEnv {
        ContextEnv {
            celery: self.celery.clone(),
            interrupts: job.interrupts.clone(),
            emitter: Some(self.emitter.clone()),
            limits: job.limits,
            extended: self.settings.result_extended,
        }
    }

    async fn store_started(&self, job: &Job) {
        let about = json!({ "pid": std::process::id(), "hostname": self.nodename.as_str() });
        let Ok(about) = pyjson::to_raw(&about) else { return };
        let extended = self.settings.result_extended;
        let now = self.now();
        let meta = result_meta(&job.request, TaskState::Started, about, None, Vec::new(), extended, now);
        match tokio::time::timeout(STARTED_DEADLINE, self.celery.backend().store(&meta)).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => tracing::warn!(id = %job.request.id(), %err, "STARTED could not be stored"),
            Err(_) => tracing::warn!(id = %job.request.id(), "STARTED could not be stored in time"),
        }
    }
}

/// What lanes do: run a job, and pass what follows to the settler.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) finished: mpsc::Sender<Vec<Finished>>,
}

impl Work for Runner {
    type Done = Finished;

    async fn run(&self, job: Arc<Job>) -> Finished {
        let settlement = self.engine.run_job(&job).await;
        Finished { ticket: Ticket::Job(job), settlement }
    }

    async fn hand_on(&self, done: Vec<Finished>) {
        if self.finished.send(done).await.is_err() {
            tracing::error!(
                "tasks ended after their results could be stored; their messages will be delivered again"
            );
        }
    }
}
