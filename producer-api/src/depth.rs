//! `queue_limit`: how many messages wait in a queue, asked at most a few times a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use celery_protocol::QueueName;

use crate::plan::Plan;
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;

/// How long a length is taken to stay true.
const FRESH: Duration = Duration::from_millis(250);
/// Queues that are remembered.
const KNOWN: usize = 1024;

/// The lengths of queues, as last seen.
#[derive(Debug, Default)]
pub struct Depths(Mutex<HashMap<QueueName, (Instant, Option<u32>)>>);

impl Depths {
    fn fresh(&self, queue: &QueueName) -> Option<Option<u32>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(queue).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, depth)| *depth)
    }

    fn note(&self, queue: QueueName, depth: Option<u32>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if known.len() < KNOWN {
            known.insert(queue, (Instant::now(), depth));
        }
    }
}

/// How many messages are ready in a queue; `None` if it does not exist.
///
/// # Errors
/// The broker cannot be asked.
pub async fn of(api: &Api, queue: &QueueName) -> Result<Option<u32>, Problem> {
    if let Some(depth) = api.depths.fresh(queue) {
        return Ok(depth);
    }
    let asked = api.celery.queue_depth(queue).await;
    let depth = asked.map_err(|err| Problem::from_broker(&err).outcome(Outcome::NotPublished))?;
    let depth = depth.map(|depth| depth.ready);
    api.depths.note(queue.clone(), depth);
    Ok(depth)
}

/// Holds a submission to its `queue_limit`, if it has one. The length may be a quarter of a second old, and others may
/// publish meanwhile: it is a brake, not a bound.
///
/// # Errors
/// `queue-limit`, `queue-unknown`, or the broker cannot be asked.
pub async fn check(api: &Api, plan: &Plan) -> Result<(), Problem> {
    let Some(limit) = plan.queue_limit else { return Ok(()) };
    let queue = plan.record.queue.as_deref().and_then(|name| QueueName::parse(name).ok());
    let depth = match &queue {
        Some(queue) => of(api, queue).await?,
        None => None,
    };
    match depth {
        Some(depth) if depth > limit => {
            let detail = format!("{depth} messages wait in the queue, and {limit} may");
            Err(Problem::new(Kind::QueueLimit, detail).outcome(Outcome::NotPublished).retry_after(5))
        }
        Some(_) => Ok(()),
        // It is declared when the task finds it missing, and is empty then.
        None if queue.is_some_and(|queue| api.own_queues.contains(queue.as_str())) => Ok(()),
        None => {
            let problem =
                Problem::field(Kind::QueueUnknown, "/queue_limit", "there is no such queue to measure");
            Err(problem.outcome(Outcome::NotPublished))
        }
    }
}
