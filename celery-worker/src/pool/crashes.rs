//! A task that takes the whole worker with it is redelivered, and would take one worker after the other.
//!
//! So each start of a redelivered late-ack call is counted in the result store, and forgotten again when the call has ended
//! in whatever orderly way. What stays counted are starts without an end, and each came after one more: the delivery before
//! it. A call with too many of them is not run: it fails, and its message is rejected, so that a dead-letter exchange can
//! keep it. First deliveries cost nothing. It is one count for both kinds of pool: a child that dies with its task is a
//! start without an end, as is a whole worker that does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Job;
use crate::task::{Failure, Outcome};
use crate::trace::settle::{self, Disposition, Ended, Settlement};
use crate::worker::engine::Engine;

/// How long the store may take to count.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long a count is kept.
const KEPT: Duration = Duration::from_secs(86_400);

/// Whether starts of this job are counted.
fn counted(job: &Job) -> bool {
    job.rules.acks_late && job.request.delivery().redelivered
}

/// Counts one more start; `None` if nobody can count.
async fn count(engine: &Engine, job: &Job) -> Option<u64> {
    let cluster = engine.celery.cluster()?;
    tokio::time::timeout(DEADLINE, cluster.count(&key(job), KEPT)).await.ok()?.ok()
}

/// Counts the start of a job: how often it was lost before, `None` if nobody can count.
///
/// # Errors
/// What follows if it is not to be run.
pub(crate) async fn begin(engine: &Engine, job: &Arc<Job>) -> Result<Option<u64>, Settlement> {
    if !counted(job) {
        return Ok(Some(0));
    }
    let Some(lost) = count(engine, job).await else { return Ok(None) };
    if lost < u64::from(engine.settings.max_crashes) {
        return Ok(Some(lost));
    }
    let text = format!("The worker was lost {lost} times while it ran this task; it is not run again.");
    tracing::error!(id = %job.request.id(), task = %job.request.task(), "{text}");
    Err(poisoned(engine, job, &text, Duration::ZERO))
}

/// The job has ended in an orderly way.
pub(crate) async fn end(engine: &Engine, job: &Job) {
    if !counted(job) {
        return;
    }
    if let Some(cluster) = engine.celery.cluster() {
        let _ = tokio::time::timeout(DEADLINE, cluster.forget_count(&key(job))).await;
    }
}

/// The job fails, and its message is rejected whatever its rules say.
pub(crate) fn poisoned(engine: &Engine, job: &Job, text: &str, runtime: Duration) -> Settlement {
    let settlement = settle::settle(Ended {
        request: &job.request,
        rules: job.rules,
        outcome: Outcome::Failure { failure: Failure::worker_lost(text), expected: false },
        timed_out: false,
        children: Vec::new(),
        runtime,
        now: SystemTime::now(),
        new_style: engine.catalog.new_style(),
        wants: engine.wants(job.rules),
    });
    Settlement { disposition: Disposition::Discard, ..settlement }
}

fn key(job: &Job) -> String {
    format!("crashes:{}", job.request.id())
}
