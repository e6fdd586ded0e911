//! Many tasks as one: their states together, and waiting for all or any of them by one subscription.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use celery_protocol::TaskId;
use celery_protocol::result::{ResultMeta, TaskState};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::hub::{Subscription, What};
use crate::problem::{Kind, Problem};
use crate::state::Api;

/// States that are read in one go.
const TOGETHER: usize = 1000;

/// When a wait for many is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// All have ended.
    #[default]
    All,
    /// One has ended.
    Any,
}

/// The states of tasks, in the order of `ids`.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn states(api: &Api, ids: &[TaskId]) -> Result<Vec<Option<ResultMeta>>, Problem> {
    let mut states = Vec::with_capacity(ids.len());
    for piece in ids.chunks(TOGETHER) {
        let read = api.celery.backend().get_many(piece).await;
        states.extend(read.map_err(|err| Problem::from_backend(&err))?);
    }
    Ok(states)
}

/// How many tasks are in which state.
pub fn count<'a>(states: impl IntoIterator<Item = &'a Option<ResultMeta>>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for meta in states {
        let state = meta.as_ref().map_or("PENDING", |meta| meta.status.as_str());
        *counts.entry(state.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Whether a task has ended.
pub fn ended(meta: Option<&ResultMeta>) -> bool {
    meta.is_some_and(|meta| meta.status.is_ready())
}

/// Whether a task has ended well.
pub fn succeeded(meta: Option<&ResultMeta>) -> bool {
    meta.is_some_and(|meta| meta.status == TaskState::Success)
}

/// The states of tasks, once enough of them have ended, the time is up, or the server shuts down.
///
/// # Errors
/// `too-many-waits`, `result-backend-unavailable`.
pub async fn wait(
    api: &Api,
    ids: &[TaskId],
    limit: Option<Duration>,
    until: WaitFor,
) -> Result<Vec<Option<ResultMeta>>, Problem> {
    let Some(limit) = limit else { return states(api, ids).await };
    let deadline = Instant::now() + limit;
    let distinct = ids.iter().collect::<HashSet<_>>().len();
    let _pass = pass(api)?;
    // Subscribed first, read afterwards: nothing can fall in between.
    let mut subscription = api.hub.subscribe(None).await?;
    loop {
        let found = states(api, ids).await?;
        let mut open: HashSet<&TaskId> =
            ids.iter().zip(&found).filter(|(_, meta)| !ended(meta.as_ref())).map(|(id, _)| id).collect();
        let over = |open: &HashSet<&TaskId>| match until {
            WaitFor::All => open.is_empty(),
            WaitFor::Any => open.len() < distinct,
        };
        if ids.is_empty() || over(&open) {
            return Ok(found);
        }
        // Whole states are read again when it may be over, or when something was missed.
        loop {
            let heard = tokio::select! {
                heard = next(&mut subscription) => heard,
                () = tokio::time::sleep_until(deadline) => return states(api, ids).await,
                () = api.drain.cancelled() => return Ok(found),
            };
            match heard {
                Heard::Ended(id) => {
                    open.remove(&id);
                }
                Heard::Other => continue,
                Heard::Missed => break,
                Heard::Closed => return Ok(found),
            }
            if over(&open) {
                break;
            }
        }
    }
}

/// A place among the open waits.
///
/// # Errors
/// `too-many-waits`.
pub fn pass(api: &Api) -> Result<crate::gate::Pass, Problem> {
    api.waits.enter().ok_or_else(|| {
        let detail = format!("{} requests are waiting already", api.waits.limit());
        Problem::new(Kind::TooManyWaits, detail).retry_after(1)
    })
}

enum Heard {
    Ended(TaskId),
    Other,
    Missed,
    Closed,
}

async fn next(subscription: &mut Subscription) -> Heard {
    match subscription.said.recv().await {
        Ok(said) => match &said.what {
            What::State(change) if change.ready => Heard::Ended(change.id.clone()),
            What::State(_) => Heard::Other,
            What::Gap => Heard::Missed,
        },
        Err(RecvError::Lagged(_)) => Heard::Missed,
        Err(RecvError::Closed) => Heard::Closed,
    }
}
