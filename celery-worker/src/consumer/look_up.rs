//! What is asked about a redelivered call before it is run: has it been completed before, and does it run elsewhere?

use std::sync::Arc;
use std::time::Duration;

use celery_protocol::{ResultMeta, TaskId, TaskState};
use futures_util::future::join_all;

use super::{Held, Intake, Wait};
use crate::pool::{Job, leases};
use crate::trace::{Finished, Ticket, settle};
use crate::worker::engine::Engine;

/// How long the look-up of redelivered calls may take before they are run anyway.
const DEADLINE: Duration = Duration::from_secs(3);

/// Redelivered jobs, and what is known of them.
pub(super) type LookedUp = Vec<(Arc<Job>, Found)>;

/// What is known of a redelivered job.
#[derive(Debug)]
pub(super) enum Found {
    /// Its result is SUCCESS: it only lacks its ack.
    Done(Box<ResultMeta>),
    /// It has ended in another way, on a worker that could not ack it any more.
    Ended,
    /// Another worker runs it.
    Elsewhere,
    /// Nothing: it is to be run.
    Nothing,
}

async fn ask(engine: &Engine, suspects: &[Arc<Job>]) -> Vec<Found> {
    let ids: Vec<TaskId> = suspects.iter().map(|job| job.request.id().clone()).collect();
    let mut metas = match engine.celery.backend().get_many(&ids).await {
        Ok(metas) => metas,
        Err(err) => {
            tracing::warn!(%err, "redelivered tasks are run without a look at their results");
            return Vec::new();
        }
    };
    let done = |meta: Option<ResultMeta>| meta.filter(|meta| meta.status == TaskState::Success).map(Box::new);
    let found = suspects.iter().enumerate().map(|(index, job)| {
        let done = done(metas.get_mut(index).and_then(Option::take));
        async move {
            match done {
                Some(meta) => Found::Done(meta),
                None => match leases::find(engine, job).await {
                    Some(leases::Lease::Ended) => Found::Ended,
                    Some(leases::Lease::Elsewhere) => Found::Elsewhere,
                    None => Found::Nothing,
                },
            }
        }
    });
    join_all(found).await
}

impl Intake {
    pub(super) fn may_be_known(&self, job: &Job) -> bool {
        self.engine.settings.deduplicate && job.rules.acks_late
    }

    /// Asks the result store about redelivered jobs.
    pub(super) fn look_up(&mut self, suspects: Vec<Arc<Job>>) {
        if suspects.is_empty() {
            return;
        }
        let engine = self.engine.clone();
        self.lookups.push(Box::pin(async move {
            let found = tokio::time::timeout(DEADLINE, ask(&engine, &suspects)).await.unwrap_or_default();
            let found = found.into_iter().chain(std::iter::repeat_with(|| Found::Nothing));
            suspects.into_iter().zip(found).collect()
        }));
    }

    /// The store has answered, or it has not.
    pub(super) async fn looked_up(&mut self, jobs: LookedUp) {
        let now = self.engine.now();
        let (mut ready, mut over) = (Vec::new(), Vec::new());
        for (job, found) in jobs {
            match found {
                Found::Done(meta) => {
                    tracing::info!(
                        "Task {}[{}] has been completed before",
                        job.request.task(),
                        job.request.id()
                    );
                    metrics::counter!("celery_worker_deduplicated_total").increment(1);
                    let settlement = settle::completed_before(&job.request, meta.result);
                    over.push(Finished { ticket: Ticket::Job(job), settlement });
                }
                Found::Ended => {
                    tracing::info!("Task {}[{}] has ended before", job.request.task(), job.request.id());
                    metrics::counter!("celery_worker_deduplicated_total").increment(1);
                    job.ack();
                }
                Found::Elsewhere if job.is_live() => {
                    tracing::info!(id = %job.request.id(), "another worker runs this task: its message waits for the end");
                    let again = now + self.engine.settings.running_lease / 2;
                    self.hold(again, Held { job, wait: Wait::Elsewhere });
                }
                Found::Nothing if job.is_live() => self.rate_limited(job, now, &mut ready),
                Found::Elsewhere | Found::Nothing => {}
            }
        }
        self.engine.pool.start(ready);
        self.hand_on(over).await;
    }
}
