//! Queues: pause and go on, purge.
//!
//! A paused queue is one that no worker reads: every worker that does is told to stop, and so is each that is found to read
//! it later, until the pause ends; then those that were stopped are told to go on. Messages wait meanwhile. What workers
//! had fetched before is run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use celery_broker::Celery;
use celery_broker::control::Destination;
use celery_protocol::QueueName;
use celery_protocol::control::Command;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::workers::{plain_queue, tell};
use super::{Doing, Done, broker};
use crate::audit::Audit;
use crate::clock;
use crate::error::Problem;
use crate::monitor::Shared;

/// How many queues may be paused at a time.
const MAX_PAUSED: usize = 1_000;
/// How often workers are looked for that read a paused queue.
const EACH: Duration = Duration::from_secs(5);
/// The longest reason.
const MAX_REASON: usize = 500;
/// Under which name the pauses are kept.
const KEPT: &str = "pauses";

type Outcome = Result<(String, Vec<Done>), Problem>;

/// A queue that is paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Who paused it.
    pub by: String,
    /// When.
    pub at: f64,
    /// Why.
    pub reason: Option<String>,
    /// The workers that were stopped reading it.
    pub workers: BTreeSet<String>,
}

/// All that are paused; kept beside the audit log.
#[derive(Debug, Default)]
pub struct Pauses {
    paused: Mutex<BTreeMap<String, Pause>>,
    kept: Option<Audit>,
}

impl Pauses {
    /// Those that were kept.
    #[must_use]
    pub fn restore(kept: Option<Audit>) -> Pauses {
        let text = kept.as_ref().and_then(|kept| {
            let read = kept.kept(KEPT);
            read.inspect_err(|error| tracing::error!(%error, "the pauses of queues can't be read"))
                .ok()
                .flatten()
        });
        let paused = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Pauses { paused: Mutex::new(paused), kept }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pause>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All, by queue.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Pause> {
        self.lock().clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Pause>)) {
        let mut paused = self.lock();
        change(&mut paused);
        let Some(kept) = &self.kept else { return };
        let text = serde_json::to_string(&*paused).unwrap_or_default();
        if let Err(error) = kept.keep(KEPT, &text) {
            tracing::error!(%error, "the pauses of queues can't be kept: they end when the monitor does");
        }
    }

    /// Notes that these workers were stopped reading the queue.
    fn stopped(&self, queue: &str, workers: &BTreeSet<String>) {
        self.change(|paused| {
            if let Some(pause) = paused.get_mut(queue) {
                pause.workers.extend(workers.iter().cloned());
            }
        });
    }
}

/// A queue that is to be paused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToPause {
    queue: String,
    reason: Option<String>,
}

pub(super) async fn pause(doing: &Doing<'_>, asked: ToPause) -> Outcome {
    let ToPause { queue, reason } = asked;
    QueueName::parse(queue.clone()).map_err(|error| Problem::bad_parameter("queue", error))?;
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(Problem::bad_parameter("reason", format!("is longer than {MAX_REASON} characters")));
    }
    let pauses = doing.monitor.pauses();
    if pauses.lock().len() >= MAX_PAUSED && !pauses.lock().contains_key(&queue) {
        return Err(Problem::bad_parameter("queue", format!("{MAX_PAUSED} queues are paused already")));
    }
    // Remembered first: who starts meanwhile is stopped too.
    let (by, at) = (doing.visitor.called().to_owned(), clock::now().seconds());
    pauses.change(|paused| {
        let workers = paused.get(&queue).map(|pause| pause.workers.clone()).unwrap_or_default();
        paused.insert(
            queue.clone(),
            Pause { by, at, reason: reason.filter(|reason| !reason.is_empty()), workers },
        );
    });
    let readers = readers(doing, &queue);
    let command = Command::CancelConsumer { queue: queue.clone() };
    let results = tell(doing, &command, readers.into_iter().collect()).await?;
    let stopped: BTreeSet<String> =
        results.iter().filter(|done| done.ok).map(|done| done.target.clone()).collect();
    pauses.stopped(&queue, &stopped);
    look_again(doing.monitor.shared(), doing.celery, &stopped).await;
    let message = match results.len() {
        0 => format!("{queue} is paused; no worker reads it now, and none that starts will"),
        all => format!("{queue} is paused; {} of {all} workers stopped reading it", stopped.len()),
    };
    let results = if results.is_empty() { vec![Done::ok(queue)] } else { results };
    Ok((message, results))
}

/// A queue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    queue: String,
}

pub(super) async fn resume(doing: &Doing<'_>, asked: One) -> Outcome {
    let One { queue } = asked;
    let pauses = doing.monitor.pauses();
    let Some(pause) = pauses.all().remove(&queue) else {
        return Err(Problem::not_found(format!("the queue {queue} is not paused")));
    };
    pauses.change(|paused| drop(paused.remove(&queue)));
    let online: Vec<String> = {
        let state = doing.monitor.state();
        let online =
            |worker: &String| state.worker(worker).is_some_and(crate::state::worker::Worker::is_online);
        pause.workers.iter().filter(|worker| online(worker)).cloned().collect()
    };
    let results = tell(doing, &Command::AddConsumer(plain_queue(queue.clone())), online).await?;
    let started: BTreeSet<String> =
        results.iter().filter(|done| done.ok).map(|done| done.target.clone()).collect();
    look_again(doing.monitor.shared(), doing.celery, &started).await;
    let message = match results.len() {
        0 => format!("{queue} is not paused any more; workers read it as they are started"),
        all => format!("{} of {all} workers read {queue} again", started.len()),
    };
    let results = if results.is_empty() { vec![Done::ok(queue)] } else { results };
    Ok((message, results))
}

/// A queue that is to be emptied; its name stands there twice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToPurge {
    queue: String,
    #[serde(default)]
    confirm: String,
}

pub(super) async fn purge(doing: &Doing<'_>, asked: ToPurge) -> Outcome {
    let ToPurge { queue, confirm } = asked;
    if confirm != queue {
        return Err(Problem::bad_parameter("confirm", "must be the name of the queue"));
    }
    let name = QueueName::parse(queue.clone()).map_err(|error| Problem::bad_parameter("queue", error))?;
    let depth = doing.celery.queue_depth(&name).await.map_err(|error| broker(&error))?;
    if depth.is_none() {
        return Err(Problem::not_found(format!("the broker has no queue {queue}")));
    }
    let count = doing.celery.purge(&name).await.map_err(|error| broker(&error))?;
    let done = Done { count: Some(u64::from(count)), ..Done::ok(queue.clone()) };
    Ok((format!("{count} messages were deleted from {queue}"), vec![done]))
}

/// The workers that say they read a queue, of those that are online.
fn readers(doing: &Doing<'_>, queue: &str) -> BTreeSet<String> {
    reading(doing.monitor.shared(), queue)
}

fn reading(shared: &Shared, queue: &str) -> BTreeSet<String> {
    let readers = shared.answers.readers().remove(queue).unwrap_or_default();
    let state = shared.state();
    let online = |name: &str| state.worker(name).is_some_and(crate::state::worker::Worker::is_online);
    readers.into_iter().map(|reader| reader.worker).filter(|worker| online(worker)).collect()
}

/// Has workers say again which queues they read, so that nobody is told twice.
async fn look_again(shared: &Shared, celery: &Celery, workers: &BTreeSet<String>) {
    if workers.is_empty() {
        return;
    }
    let to = Destination::Nodes(workers.iter().cloned().collect());
    match celery.control().call(&Command::ActiveQueues, to, Duration::from_secs(1)).await {
        Ok(replies) => {
            for reply in replies {
                shared.answers.keep(reply.node, "active_queues", reply.value);
            }
        }
        Err(error) => tracing::debug!(%error, "workers could not be asked for their queues"),
    }
}

/// Looks after paused queues until `stop`.
pub(crate) async fn keep_holding(shared: Arc<Shared>, celery: Celery, stop: CancellationToken) {
    let mut turn = tokio::time::interval(EACH);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => hold(&shared, &celery).await,
        }
    }
}

/// Stops workers that were found to read a paused queue.
async fn hold(shared: &Shared, celery: &Celery) {
    for queue in shared.pauses.all().into_keys() {
        let late = reading(shared, &queue);
        if late.is_empty() {
            continue;
        }
        let to = Destination::Nodes(late.iter().cloned().collect());
        let command = Command::CancelConsumer { queue: queue.clone() };
        match celery.control().call(&command, to, Duration::from_secs(2)).await {
            Ok(replies) => {
                let stopped = replies.into_iter().filter(|reply| reply.value.get("ok").is_some());
                let stopped: BTreeSet<String> = stopped.map(|reply| reply.node).collect();
                tracing::info!(queue, ?stopped, "workers began to read a paused queue, and were stopped");
                shared.pauses.stopped(&queue, &stopped);
                look_again(shared, celery, &stopped).await;
            }
            Err(error) => tracing::warn!(%error, queue, "workers that read a paused queue could not be told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_outlives_the_process() {
        let audit = Audit::open(None, Duration::from_secs(60)).expect("memory");
        let pauses = Pauses::restore(Some(audit.clone()));
        let pause = Pause { by: "anna".into(), at: 1.0, reason: None, workers: BTreeSet::new() };
        pauses.change(|paused| drop(paused.insert("slow".into(), pause)));
        pauses.stopped("slow", &BTreeSet::from(["a@h".to_owned()]));
        let again = Pauses::restore(Some(audit.clone())).all();
        assert_eq!(again["slow"].workers, BTreeSet::from(["a@h".to_owned()]));
        pauses.change(|paused| drop(paused.remove("slow")));
        assert!(Pauses::restore(Some(audit)).all().is_empty());
    }
}
