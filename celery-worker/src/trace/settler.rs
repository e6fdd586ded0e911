//! Carries settlements out: follow-ups confirmed, results stored, events sent, and then the message settled.
//!
//! Most tasks only have a result to store. Those go together, as many as have gathered, in one round trip to the store;
//! while it is under way the next ones gather. Whoever leaves messages behind goes alone, so that a slow confirm
//! delays nobody else. If the store or the broker does not answer, a settlement is tried again for a while, and then
//! its message is given back: no message is acked whose result is not stored.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celery_broker::event::Emitter;
use celery_broker::{BackendError, Celery};
use celery_protocol::event::{EventBody, TaskEvent};
use celery_protocol::{ResultMeta, ResultTuple, TaskId, TaskName};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use super::apply::{self, Publishing};
use super::patience::{Patience, Stuck};
use super::settle::{self, Disposition, Settlement, Step};
use super::{Finished, Ticket, chord};
use crate::pool::leases;
use crate::worker::engine::Engine;

/// The most results stored in one round trip.
const BATCH: usize = 256;
/// Round trips to the store under way at the same time.
const FLIGHTS: usize = 4;
/// Settlements with messages of their own under way at the same time.
const PUBLISHING: usize = 512;
/// The first pause before another try.
const PAUSE: Duration = Duration::from_millis(50);

/// Settles what ended until all senders are gone and everything is done.
pub(crate) async fn run(engine: Arc<Engine>, mut finished: mpsc::Receiver<Vec<Finished>>) {
    let mut flights: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    let mut publishing: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    let mut open = true;
    while open || !flights.is_empty() || !publishing.is_empty() {
        tokio::select! {
            biased;
            Some(()) = flights.next() => {}
            Some(()) = publishing.next() => {}
            first = finished.recv(), if open && flights.len() < FLIGHTS && publishing.len() < PUBLISHING => {
                let Some(mut batch) = first else {
                    open = false;
                    continue;
                };
                while batch.len() < BATCH {
                    let Ok(more) = finished.try_recv() else { break };
                    batch.extend(more);
                }
                let mut plain = Vec::with_capacity(batch.len());
                for one in batch {
                    if one.settlement.is_plain() {
                        plain.push(one);
                    } else {
                        publishing.push(Box::pin(settle_one(&engine, one)));
                    }
                }
                if !plain.is_empty() {
                    flights.push(Box::pin(settle_batch(&engine, plain)));
                }
            }
        }
    }
}

/// Settles tasks that leave nothing behind but a result.
async fn settle_batch(engine: &Engine, batch: Vec<Finished>) {
    let _settling = engine.settling.begin(batch.iter().filter_map(|one| one.ticket.job().cloned()).collect());
    let mut metas = Vec::with_capacity(batch.len());
    let mut events = Vec::new();
    let mut tickets = Vec::with_capacity(batch.len());
    for Finished { ticket, settlement } in batch {
        for step in settlement.steps {
            match step {
                Step::Store(meta) => metas.push(*meta),
                Step::Emit(event) => events.push(event),
                Step::Publish(_) | Step::ChordPart(_) => {
                    tracing::error!("a settlement with messages went the plain way; this is a bug")
                }
            }
        }
        tickets.push((ticket, settlement.disposition));
    }
    let stored = store(&engine.ground(), &mut metas).await;
    for event in events {
        engine.emitter.emit(EventBody::Task(event));
    }
    for (ticket, disposition) in tickets {
        settle(engine, ticket, if stored { disposition } else { Disposition::Requeue }).await;
    }
}

/// Settles a task that leaves messages behind, step by step.
pub(crate) async fn settle_one(engine: &Engine, finished: Finished) {
    let Finished { ticket, settlement } = finished;
    let _settling = engine.settling.begin(ticket.job().cloned().into_iter().collect());
    let Settlement { task_id, steps, disposition } = settlement;
    match perform(engine.ground(), task_id.as_ref(), steps).await {
        Ok(()) => settle(engine, ticket, disposition).await,
        Err(Trouble::GiveUp) => settle(engine, ticket, Disposition::Requeue).await,
        Err(Trouble::Refused(problem)) => fail_instead(engine, ticket, &problem).await,
    }
}

/// Settles the message, and tells other workers that know of the job.
async fn settle(engine: &Engine, ticket: Ticket, disposition: Disposition) {
    let Some(job) = ticket.job().filter(|job| job.has_lease()).cloned() else {
        return ticket.settle(disposition);
    };
    if disposition != Disposition::Requeue && !job.is_live() {
        // First of all: its message may be on its way to anybody.
        leases::end(engine, &job, true).await;
        return ticket.settle(disposition);
    }
    ticket.settle(disposition);
    leases::end(engine, &job, false).await;
}

/// What steps are carried out on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) celery: &'a Celery,
    /// Where events go, if anywhere.
    pub(crate) emitter: Option<&'a Emitter>,
    /// How long broker and store are tried.
    pub(crate) patience: Duration,
    /// What is due later than this goes through the broker's delayed delivery.
    pub(crate) eta_horizon: Duration,
    /// The tasks here that are errbacks of the new style.
    pub(crate) new_style: &'a HashSet<TaskName>,
}

impl<'a> Ground<'a> {
    /// Without a worker around.
    pub(crate) fn alone(celery: &'a Celery, new_style: &'a HashSet<TaskName>) -> Ground<'a> {
        let patience = Duration::from_secs(5);
        Ground { celery, emitter: None, patience, eta_horizon: Duration::MAX, new_style }
    }

    fn emit(&self, event: Box<TaskEvent>) {
        if let Some(emitter) = self.emitter {
            emitter.emit(EventBody::Task(event));
        }
    }
}

/// What keeps steps from being carried out.
pub(super) enum Trouble {
    /// The broker refuses a message for good.
    Refused(String),
    /// Broker or store could not be reached for long enough.
    GiveUp,
}

/// Carries steps out in order; stops at the first that fails. A task's own result lists as children what was published
/// before it.
pub(super) fn perform<'a>(
    ground: Ground<'a>,
    task_id: Option<&'a TaskId>,
    steps: Vec<Step>,
) -> BoxFuture<'a, Result<(), Trouble>> {
    Box::pin(async move { perform_with(ground, task_id, steps, &mut Vec::new()).await })
}

/// As [`perform`], with `children` that were published before; those of these steps are added.
pub(super) fn perform_with<'a>(
    ground: Ground<'a>,
    task_id: Option<&'a TaskId>,
    steps: Vec<Step>,
    children: &'a mut Vec<ResultTuple>,
) -> BoxFuture<'a, Result<(), Trouble>> {
    // Boxed: the end of a chord may be the end of a member of another chord.
    Box::pin(async move {
        for step in steps {
            match step {
                Step::Publish(follow_up) => match apply::publish(&ground, follow_up).await {
                    Publishing::Confirmed(child) => children.extend(child),
                    Publishing::Refused(problem) => return Err(Trouble::Refused(problem)),
                    Publishing::GaveUp(error) => {
                        let id = task_id.map_or("?", TaskId::as_str);
                        tracing::error!(id, %error, "a follow-up could not be published; the message is given back");
                        return Err(Trouble::GiveUp);
                    }
                },
                Step::Store(mut meta) => {
                    if task_id == Some(&meta.task_id) {
                        meta.children.get_or_insert_default().append(children);
                    }
                    if !store(&ground, &mut vec![*meta]).await {
                        return Err(Trouble::GiveUp);
                    }
                }
                Step::ChordPart(report) => chord::report(&ground, *report).await?,
                Step::Emit(event) => ground.emit(event),
            }
        }
        Ok(())
    })
}

/// What a task was to leave behind is refused by the broker for good: the task fails with that, unless that is what
/// failed already.
async fn fail_instead(engine: &Engine, ticket: Ticket, problem: &str) {
    let Some(job) = ticket.job().cloned() else {
        return settle(engine, ticket, Disposition::Discard).await;
    };
    tracing::error!(id = %job.request.id(), problem, "a follow-up of this task cannot be published; the task fails");
    let (wants, now) = (engine.wants(job.rules), SystemTime::now());
    let Settlement { task_id, steps, disposition } =
        settle::unpublishable(&job.request, job.rules, problem, now, wants);
    let mut errbacks = Vec::new();
    let mut others = Vec::new();
    for step in steps {
        match step {
            Step::Publish(_) => errbacks.push(step),
            other => others.push(other),
        }
    }
    if perform(engine.ground(), task_id.as_ref(), others).await.is_err() {
        return settle(engine, ticket, Disposition::Requeue).await;
    }
    if let Err(Trouble::Refused(problem)) = perform(engine.ground(), task_id.as_ref(), errbacks).await {
        tracing::error!(id = %job.request.id(), problem, "its errbacks cannot be published either");
    }
    settle(engine, ticket, disposition).await;
}

/// Stores results, trying again while the store is unreachable. False when patience is at an end.
pub(super) async fn store(ground: &Ground<'_>, metas: &mut Vec<ResultMeta>) -> bool {
    if metas.is_empty() {
        return true;
    }
    let (patience, backend) = (Patience { span: ground.patience, pause: PAUSE }, ground.celery.backend());
    let problem = "results could not be stored yet";
    match patience.attempt(problem, BackendError::is_transient, || backend.store_many(metas)).await {
        Ok(()) => true,
        Err(Stuck::Refused(error)) => store_singly(ground, metas, &error).await,
        Err(Stuck::GaveUp(error)) => {
            tracing::error!(%error, count = metas.len(), "results could not be stored; their messages are given back");
            metrics::counter!("celery_worker_results_unstored_total").increment(metas.len() as u64);
            false
        }
    }
}

/// One of the results is refused for good: stores the others, and in its place a failure that says so.
async fn store_singly(ground: &Ground<'_>, metas: &mut Vec<ResultMeta>, error: &BackendError) -> bool {
    let mut all = true;
    for meta in metas.drain(..) {
        let Err(error) = ground.celery.backend().store(&meta).await else { continue };
        tracing::error!(id = %meta.task_id, %error, "this result cannot be stored; a failure is stored in its place");
        let failure = settle::unstorable(&meta, &error.to_string());
        if let Err(error) = ground.celery.backend().store(&failure).await {
            tracing::error!(id = %meta.task_id, %error, "that failure could not be stored either");
            all = false;
        }
    }
    tracing::debug!(%error, "results were stored one by one");
    all
}

/// Asks the store something, trying again while it is unreachable.
pub(super) async fn persist_store<T, F>(ground: &Ground<'_>, ask: impl Fn() -> F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let patience = Patience { span: ground.patience, pause: PAUSE };
    let problem = "the result store does not answer yet";
    match patience.attempt(problem, BackendError::is_transient, ask).await {
        Ok(answer) => Ok(answer),
        Err(Stuck::Refused(error)) => Err(Trouble::Refused(error.to_string())),
        Err(Stuck::GaveUp(error)) => {
            tracing::error!(%error, "the result store does not answer; the message is given back");
            Err(Trouble::GiveUp)
        }
    }
}
