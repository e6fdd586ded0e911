//! Chords under watch, so that none waits for ever.
//!
//! Celery counts the members of a chord that have ended. A member that is lost (its worker was killed after an early ack,
//! its queue was purged) is never counted, and neither the body nor an errback ever runs. Whoever starts a chord, or counts
//! its first member, puts it under watch here; workers look for those in which nothing has happened for too long.

use std::fmt;
use std::time::Duration;

use celery_protocol::{GroupId, TaskId};
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use crate::backend::ChordClaim;
use crate::error::BackendError;

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// A chord that is to be watched.
#[derive(Debug, Clone)]
pub struct WatchedChord {
    /// The header.
    pub group: GroupId,
    /// The signature of the body.
    pub body: Box<RawValue>,
    /// The root of the workflow, if it is known.
    pub root_id: Option<TaskId>,
    /// How long nothing may happen in it: no member starts to count.
    pub patience: Duration,
}

/// A chord in which nothing has happened for too long. The claim to end it is ours.
#[derive(Debug, Clone)]
pub struct OverdueChord {
    /// The chord.
    pub chord: WatchedChord,
    /// Proves that we may end it.
    pub claim: ChordClaim,
    /// Members that have ended.
    pub done: u64,
    /// Their number, if it is known.
    pub total: Option<u64>,
}

impl OverdueChord {
    /// Whether all members have ended, and only the body was never sent: whoever claimed it has died.
    pub fn is_complete(&self) -> bool {
        self.total == Some(self.done)
    }
}

/// Watches chords.
pub trait ChordWatch: fmt::Debug + Send + Sync + 'static {
    /// From now on the chord is watched, until its body is sent or it has failed. A chord that is watched already stays as
    /// it is.
    fn watch<'a>(&'a self, chord: &'a WatchedChord) -> Answer<'a, ()>;

    /// Not any more.
    fn unwatch<'a>(&'a self, group: &'a GroupId) -> Answer<'a, ()>;

    /// Claims at most `limit` chords that are overdue. One that is not ended within the lifetime of its claim is claimed
    /// again, here or by another worker.
    fn overdue(&self, limit: usize) -> Answer<'_, Vec<OverdueChord>>;

    /// At most `limit` chords that should have been looked at by now, and for how long: nobody watches them. Claims nothing.
    fn late(&self, _limit: usize) -> Answer<'_, Vec<(GroupId, Duration)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}
