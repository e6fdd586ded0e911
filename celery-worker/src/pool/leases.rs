//! Long tasks are made known to the other workers of the result store, so that none runs a second time beside the first.
//!
//! A broker delivers a message again when it has lost patience (RabbitMQ's `consumer_timeout`) or its consumer's connection,
//! and to whomever it likes. The worker that runs the task takes the message over ([`Job::adopt_from`]), but another one knows
//! nothing of it. So a task that has run for a while has a note in the store, renewed for as long as it runs: who finds one
//! keeps the message and asks again. A worker that dies renews nothing, and its task is run again a moment later.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Job;
use crate::worker::engine::Engine;

/// How long the store may take to write or read a note.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long it is known that a task has ended whose message could not be acked.
const KEPT: Duration = Duration::from_secs(86_400);
/// What the note of such a task says; the others name the worker.
const ENDED: &[u8] = b"ended";

/// What is known of a task that runs or ran elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Another worker runs it.
    Elsewhere,
    /// It has ended, and only its message is left.
    Ended,
}

/// Renews the notes of long tasks until `stop`.
pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let every = engine.settings.running_lease / 3;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let now = engine.now();
        let long = |job: &Arc<Job>| {
            let ran = job.started().and_then(|start| now.duration_since(start).ok());
            job.rules.acks_late && ran.is_some_and(|ran| ran >= every) && !job.is_settled()
        };
        let jobs: Vec<_> = engine.pool.running().into_iter().filter(long).collect();
        join_all(jobs.iter().map(|job| renew(&engine, job))).await;
    }
}

async fn renew(engine: &Engine, job: &Job) {
    let Some(notes) = engine.celery.notes() else { return };
    job.lease();
    let key = key(job);
    let put = notes.put(&key, engine.instance.as_bytes(), engine.settings.running_lease);
    if !matches!(tokio::time::timeout(DEADLINE, put).await, Ok(Ok(()))) {
        tracing::debug!(id = %job.request.id(), "other workers could not be told that this task runs");
    }
}

/// What is known of a job that somebody else may run.
pub(crate) async fn find(engine: &Engine, job: &Job) -> Option<Lease> {
    match engine.celery.notes()?.get(&key(job)).await {
        Ok(Some(note)) if note == ENDED => Some(Lease::Ended),
        Ok(Some(note)) if note != engine.instance.as_bytes() => Some(Lease::Elsewhere),
        Ok(_) => None,
        Err(err) => {
            tracing::debug!(id = %job.request.id(), %err, "nobody knows whether another worker runs this task");
            None
        }
    }
}

/// A job that has a note has ended. `unheard`: it was settled, but its message is not here any more.
pub(crate) async fn end(engine: &Engine, job: &Job, unheard: bool) {
    let Some(notes) = engine.celery.notes().filter(|_| job.has_lease()) else { return };
    let key = key(job);
    let told = async {
        match unheard {
            true => notes.put(&key, ENDED, KEPT).await.map(|()| true),
            false => notes.remove(&key, engine.instance.as_bytes()).await,
        }
    };
    if !matches!(tokio::time::timeout(DEADLINE, told).await, Ok(Ok(_))) {
        tracing::debug!(id = %job.request.id(), "other workers could not be told that this task has ended");
    }
}

fn key(job: &Job) -> String {
    format!("running:{}:{}", job.request.id(), job.request.retries())
}
