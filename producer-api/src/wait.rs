//! Waiting for a result: by subscription, bounded in number and time, never by polling.

use std::time::Duration;

use celery_protocol::TaskId;
use celery_protocol::result::ResultMeta;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::problem::{Kind, Problem};
use crate::state::Api;

/// Waits until the task has ended, the time is up or the server shuts down; answers the last state seen, if any.
///
/// The subscription exists before the current state is read, so no change can fall between the two.
///
/// # Errors
/// `too-many-waits`, or `result-backend-unavailable`.
pub async fn until_ready(api: &Api, id: &TaskId, limit: Duration) -> Result<Option<ResultMeta>, Problem> {
    let deadline = Instant::now() + limit;
    let Some(_pass) = api.waits.enter() else {
        let detail = format!("{} requests are waiting already", api.waits.limit());
        return Err(Problem::new(Kind::TooManyWaits, detail).retry_after(1));
    };
    let mut states = api.celery.backend().watch(id).await.map_err(|err| Problem::from_backend(&err))?;
    let mut last = None;
    loop {
        tokio::select! {
            state = states.next() => match state {
                Some(meta) if meta.status.is_ready() => return Ok(Some(meta)),
                Some(meta) => last = Some(meta),
                None => return Ok(last),
            },
            () = tokio::time::sleep_until(deadline) => return Ok(last),
            () = api.drain.cancelled() => return Ok(last),
        }
    }
}
