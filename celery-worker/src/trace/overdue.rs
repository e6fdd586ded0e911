//! Looks for chords that have lost a member, and ends them: see [`celery_broker::chord_watch`].

use std::sync::Arc;
use std::time::Duration;

use celery_broker::chord_watch::ChordWatch;
use tokio_util::sync::CancellationToken;

use super::chord;
use crate::worker::engine::Engine;

/// Chords ended at a time.
const BATCH: usize = 32;

/// Looks until `stop`.
pub(crate) async fn run(
    engine: Arc<Engine>,
    watch: Arc<dyn ChordWatch>,
    patience: Duration,
    stop: CancellationToken,
) {
    let every = (patience / 10).clamp(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        // The body of a chord may be for a queue that this worker is about to make.
        if !engine.has_consumed() {
            continue;
        }
        tokio::select! {
            // A chord whose end is cut short is ended by another look, with the claim run out.
            () = stop.cancelled() => return,
            () = look(&engine, &*watch) => {}
        }
    }
}

async fn look(engine: &Engine, watch: &dyn ChordWatch) {
    let overdue = match watch.overdue(BATCH).await {
        Ok(overdue) => overdue,
        Err(error) => return tracing::debug!(%error, "chords cannot be looked at"),
    };
    for one in overdue {
        let group = one.chord.group.clone();
        if chord::end_overdue(&engine.ground(), one).await.is_err() {
            tracing::warn!(%group, "an overdue chord could not be ended; it is tried again");
        }
    }
}
