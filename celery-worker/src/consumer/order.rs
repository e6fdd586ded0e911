//! What others may ask of the intake, and how it obeys.

use std::sync::Arc;
use std::time::SystemTime;

use celery_broker::{BrokerError, QueueSpec};
use celery_protocol::options::RateLimit;
use celery_protocol::{QueueName, TaskId, TaskName};
use tokio::sync::oneshot;

use super::admit::Verdict;
use super::rate_limit::Limiter;
use super::{Held, Intake, Wait};
use crate::pool::Job;

/// A request to the intake, with the way to answer it.
#[derive(Debug)]
pub(crate) enum Order {
    /// What is held for its time.
    Scheduled(oneshot::Sender<Vec<HeldJob>>),
    /// The queues consumed from.
    Queues(oneshot::Sender<Vec<QueueSpec>>),
    /// The prefetch in effect.
    Prefetch(oneshot::Sender<u16>),
    /// Consume from one more queue.
    AddQueue(QueueSpec, oneshot::Sender<Result<(), BrokerError>>),
    /// Consume from a queue no more.
    CancelQueue(QueueName, oneshot::Sender<Result<(), BrokerError>>),
    /// Limit the starts of a task; `None` lifts the limit.
    RateLimit(TaskName, Option<RateLimit>, oneshot::Sender<()>),
    /// Something was revoked: drop what waits and must not run any more. Answers with the ids dropped.
    Sweep(oneshot::Sender<Vec<TaskId>>),
}

/// A job that waits for its time.
#[derive(Debug, Clone)]
pub(crate) struct HeldJob {
    pub(crate) due: SystemTime,
    pub(crate) job: Arc<Job>,
    /// It waits for its rate limit, not for its ETA.
    pub(crate) rate_limited: bool,
}

impl Intake {
    /// Carries out an order. Whoever asked may have gone away; that is no error.
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Scheduled(reply) => {
                let mut held: Vec<_> = self.held.iter().map(|(due, held)| HeldJob::new(due, held)).collect();
                held.sort_by_key(|held| held.due);
                let _ = reply.send(held);
            }
            Order::Queues(reply) => drop(reply.send(self.queues.clone())),
            Order::Prefetch(reply) => drop(reply.send(self.asked)),
            Order::AddQueue(spec, reply) => {
                let known = self.queues.iter().any(|queue| queue.name == spec.name);
                let result = if known { Ok(()) } else { self.consumer.add_queue(spec.clone()).await };
                if result.is_ok() && !known {
                    tracing::info!(queue = %spec.name, "consuming from one more queue");
                    self.queues.push(spec);
                }
                let _ = reply.send(result);
            }
            Order::CancelQueue(name, reply) => {
                let result = if self.queues.iter().any(|queue| queue.name == name) {
                    self.consumer.cancel_queue(&name).await
                } else {
                    Ok(())
                };
                if result.is_ok() {
                    self.queues.retain(|queue| queue.name != name);
                }
                let _ = reply.send(result);
            }
            Order::RateLimit(task, rate, reply) => {
                self.limit(&task, rate);
                let _ = reply.send(());
            }
            Order::Sweep(reply) => drop(reply.send(self.sweep().await)),
        }
    }

    /// Another limit, or none. A limit that holds over all workers goes on doing so; what waits for its turn gets a new one.
    fn limit(&mut self, task: &TaskName, rate: Option<RateLimit>) {
        match (self.engine.cluster_limits.get(task), rate) {
            (Some(limit), Some(rate)) => drop(self.paces.insert(task.clone(), limit.changed_to(rate))),
            (Some(_), None) => drop(self.paces.remove(task)),
            (None, _) => match rate.and_then(Limiter::new) {
                Some(limiter) => drop(self.limiters.insert(task.clone(), limiter)),
                None => drop(self.limiters.remove(task)),
            },
        }
        self.fallbacks.remove(task);
        let waiting = self.held.take(|held| held.wait == Wait::Turn && held.job.request.task() == task);
        let (now, mut ready) = (self.engine.now(), Vec::new());
        for held in waiting {
            self.rate_limited(held.job, now, &mut ready);
        }
        self.engine.pool.start(ready);
    }

    async fn sweep(&mut self) -> Vec<TaskId> {
        let now = self.engine.now();
        let engine = self.engine.clone();
        let verdict = |job: &Job| match engine.admit(job, now) {
            Verdict::Never(why) => Some(why),
            _ => None,
        };
        let mut jobs = engine.pool.take_back(|job| verdict(job).is_some());
        // One that runs elsewhere is revoked there.
        let idle = |held: &Held| held.wait != Wait::Elsewhere;
        jobs.extend(
            self.held
                .take(|held| idle(held) && verdict(&held.job).is_some())
                .into_iter()
                .map(|held| held.job),
        );
        let ids = jobs.iter().map(|job| job.request.id().clone()).collect();
        let over = jobs.into_iter().filter_map(|job| {
            let why = verdict(&job)?;
            Some(self.revoked(job, why, now))
        });
        let over = over.collect();
        self.hand_on(over).await;
        ids
    }
}

impl HeldJob {
    fn new(due: SystemTime, held: &Held) -> HeldJob {
        // A far-off one may only wait for its turn to be handed to the broker.
        let due = held.job.request.eta().filter(|_| held.wait == Wait::Time).unwrap_or(due);
        HeldJob { due, job: held.job.clone(), rate_limited: held.wait == Wait::Turn }
    }
}
