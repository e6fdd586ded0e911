//! A child died with its task: what becomes of the message.
//!
//! Celery's matrix: an early-acked task and, by default, a late-acked one fail with `WorkerLostError`; with
//! `reject_on_worker_lost` a late-acked one is delivered again. There Celery goes on for ever, so a task that takes its
//! process with it kills one child after the other. Here it is delivered `max_crashes` times, as [`crashes`] counts; then
//! it fails, and its message is rejected, so that a dead-letter exchange can keep it.

use std::time::Duration;

use celery_protocol::event::EventBody;

use super::settled;
use crate::pool::{Job, crashes};
use crate::task::{Failure, Outcome};
use crate::trace::events;
use crate::trace::settle::{Disposition, Settlement};
use crate::worker::catalog::Rules;
use crate::worker::engine::Engine;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It fails, by the rules for failures.
    Fail,
    /// It is delivered again.
    Again,
    /// It fails, and its message is rejected.
    Poison,
}

/// Decides after the `crashes`-th crash; `None`: nobody could count.
fn fate(rules: Rules, crashes: Option<u64>, max_crashes: u32) -> Fate {
    if !rules.acks_late || !rules.reject_on_worker_lost {
        return Fate::Fail;
    }
    // Uncounted it must not go round for ever.
    match crashes {
        Some(crashes) if crashes < u64::from(max_crashes) => Fate::Again,
        _ => Fate::Poison,
    }
}

/// What follows; `ending` is how the process ended, `before` how often the job was lost already.
pub(super) async fn settlement(
    engine: &Engine,
    job: &Job,
    before: Option<u64>,
    ending: &str,
    runtime: Duration,
) -> Settlement {
    let text = format!("Worker exited prematurely: {ending} Job: {}.", job.request.id());
    tracing::error!(id = %job.request.id(), task = %job.request.task(), "{text}");
    let times_lost = before.filter(|_| engine.celery.cluster().is_some()).map(|before| before + 1);
    let failure = |text: &str| Outcome::Failure { failure: Failure::worker_lost(text), expected: false };
    match fate(job.rules, times_lost, engine.settings.max_crashes) {
        Fate::Fail => {
            crashes::end(engine, job).await;
            settled(engine, job, failure(&text), false, runtime)
        }
        Fate::Again => {
            if engine.wants(job.rules).events {
                engine.emitter.emit(EventBody::Task(Box::new(events::rejected(job.request.id(), true))));
            }
            Settlement {
                task_id: Some(job.request.id().clone()),
                steps: Vec::new(),
                disposition: Disposition::Requeue,
            }
        }
        Fate::Poison => {
            let times = times_lost.map_or("too often".to_owned(), |times| format!("{times} times"));
            let text = format!("{text} It has taken its process with it {times} and is not run again.");
            crashes::poisoned(engine, job, &text, runtime)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn celerys_matrix_with_an_end_to_it() {
        let rules = |acks_late, reject_on_worker_lost| Rules {
            acks_late,
            acks_on_failure: true,
            acks_on_timeout: true,
            reject_on_worker_lost,
            ignore_result: false,
            store_errors: false,
            track_started: false,
            send_events: true,
        };
        for (rules, crashes, expected) in [
            (rules(false, false), None, Fate::Fail),
            (rules(false, true), Some(1), Fate::Fail),
            (rules(true, false), None, Fate::Fail),
            (rules(true, true), Some(1), Fate::Again),
            (rules(true, true), Some(2), Fate::Again),
            (rules(true, true), Some(3), Fate::Poison),
            (rules(true, true), None, Fate::Poison),
        ] {
            assert_eq!(fate(rules, crashes, 3), expected, "{rules:?} {crashes:?}");
        }
    }
}
