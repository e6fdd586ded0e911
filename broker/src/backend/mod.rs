//! Where results are kept.
//!
//! [`ResultBackend`] is implemented by Redis (Celery's own bytes and rules), by this process's memory (tests) and by
//! nothing at all ("disabled"). One conformance suite runs over them.

use std::fmt;
use std::sync::Arc;

use celery_protocol::{GroupId, Properties, ResultMeta, ResultTuple, TaskId, TaskState};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::value::RawValue;

use crate::chord_watch::ChordWatch;
use crate::control::Cluster;
use crate::error::{BackendError, BackendErrorKind};
use crate::fenced::Fenced;
use crate::notes::Notes;
use crate::submission::SubmissionIndex;

mod called;
mod disabled;
mod mailbox;
mod memory;
pub(crate) mod redis;
pub(crate) mod rpc;

pub use called::Called;
pub use disabled::DisabledBackend;
pub use memory::MemoryBackend;

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Keeps results of tasks.
///
/// Every call is bounded in time; what is written is announced to those who [`watch`](Self::watch).
pub trait ResultBackend: fmt::Debug + Send + Sync + 'static {
    /// A call has come: `properties` are those of its message. For backends that answer the caller, which is remembered
    /// until the answer is dropped; others do nothing. Drop it when the message is settled or belongs to somebody else.
    fn called(&self, id: &TaskId, properties: &Properties) -> Called {
        let _ = (id, properties);
        Called::default()
    }

    /// Stores the state of a task. A stored SUCCESS is never overwritten; everything else is.
    fn store<'a>(&'a self, meta: &'a ResultMeta) -> Answer<'a, ()> {
        self.store_many(std::slice::from_ref(meta))
    }

    /// Stores many states, in one go. On an error any of them may have been stored; storing again is harmless.
    fn store_many<'a>(&'a self, metas: &'a [ResultMeta]) -> Answer<'a, ()>;

    /// The state of a task; `None` if nothing is known of it.
    fn get<'a>(&'a self, id: &'a TaskId) -> Answer<'a, Option<ResultMeta>>;

    /// The states of many tasks, in the order of `ids`.
    fn get_many<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, Vec<Option<ResultMeta>>>;

    /// The state now (if any) and all that follow. The stream ends after a final state, never before; a failing backend
    /// only delays it. It is subscribed before the state is read, so that nothing falls in between.
    fn watch<'a>(&'a self, id: &'a TaskId) -> Answer<'a, BoxStream<'static, ResultMeta>>;

    /// Forgets a task.
    fn forget<'a>(&'a self, id: &'a TaskId) -> Answer<'a, ()>;

    /// Stores the shape of a group, for `GroupResult.restore`.
    fn store_group<'a>(&'a self, group: &'a ResultTuple) -> Answer<'a, ()>;

    /// The shape of a group.
    fn get_group<'a>(&'a self, id: &'a GroupId) -> Answer<'a, Option<ResultTuple>>;

    /// Forgets the shape of a group.
    fn forget_group<'a>(&'a self, id: &'a GroupId) -> Answer<'a, ()>;

    /// A producer is about to send the last header task of a chord of `size` results.
    fn chord_start<'a>(&'a self, group: &'a GroupId, size: u64) -> Answer<'a, ()> {
        let _ = (group, size);
        unsupported(CHORDS)
    }

    /// A running chord gets one more member.
    fn chord_grow<'a>(&'a self, group: &'a GroupId, by: i64) -> Answer<'a, ()> {
        let _ = (group, by);
        unsupported(CHORDS)
    }

    /// A header task has ended. Whoever gets [`ChordProgress::Claimed`] must send the body.
    fn chord_part<'a>(&'a self, part: &'a ChordPart) -> Answer<'a, ChordProgress> {
        let _ = part;
        unsupported(CHORDS)
    }

    /// The results of a chord's header, in order.
    fn chord_results<'a>(&'a self, group: &'a GroupId) -> Answer<'a, Vec<ChordMember>> {
        let _ = group;
        unsupported(CHORDS)
    }

    /// Keeps the claim on a chord's body for longer; `false`: it was lost, somebody else sends the body.
    fn chord_extend<'a>(&'a self, claim: &'a ChordClaim, seconds: u64) -> Answer<'a, bool> {
        let _ = (claim, seconds);
        unsupported(CHORDS)
    }

    /// Gives a claim back that cannot be used: whoever asks next may have it. One that is lost stays as it is.
    fn chord_release<'a>(&'a self, claim: &'a ChordClaim) -> Answer<'a, ()> {
        let _ = claim;
        unsupported(CHORDS)
    }

    /// The body is sent: forgets the header's results and leaves a mark for late duplicates.
    fn chord_done<'a>(&'a self, claim: &'a ChordClaim) -> Answer<'a, ()> {
        let _ = claim;
        unsupported(CHORDS)
    }

    /// The body cannot be sent: nobody else shall try.
    fn chord_abort<'a>(&'a self, group: &'a GroupId) -> Answer<'a, ()> {
        let _ = group;
        unsupported(CHORDS)
    }

    /// Whether the backend answers.
    fn ping(&self) -> Answer<'_, ()>;

    /// Where the HTTP interface records submissions; `None` if this backend keeps nothing.
    fn submissions(&self) -> Option<Arc<dyn SubmissionIndex>> {
        None
    }

    /// What the workers of this backend know together; `None` if this backend keeps nothing.
    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        None
    }

    /// Where several processes share records that one of them may change at a time; `None` if this backend keeps nothing.
    fn fenced(&self) -> Option<Arc<dyn Fenced>> {
        None
    }

    /// Where the programs of this project keep notes; `None` if this backend keeps nothing.
    fn notes(&self) -> Option<Arc<dyn Notes>> {
        None
    }

    /// Watches chords, so that none waits for ever; `None` if this backend cannot.
    fn chord_watch(&self) -> Option<Arc<dyn ChordWatch>> {
        None
    }

    /// Every state of every task that is stored from now on, by whomever. The stream ends when the connection does; what
    /// was announced meanwhile is lost, so that whoever subscribes again has to read again.
    fn watch_all(&self) -> Answer<'_, BoxStream<'static, ResultMeta>> {
        unsupported("this result backend does not announce results")
    }

    /// What kind of backend this is, for `report` and logs: `redis`, `memory`, `disabled`.
    fn name(&self) -> &'static str;
}

/// The end of one header task of a chord.
#[derive(Debug, Clone)]
pub struct ChordPart {
    /// The chord.
    pub group: GroupId,
    /// The header task.
    pub task: TaskId,
    /// SUCCESS, FAILURE or REVOKED.
    pub state: TaskState,
    /// The value, or the exception.
    pub result: Box<RawValue>,
    /// Position in the header; tasks without one come last.
    pub index: Option<u32>,
    /// Seconds for which a claim holds before another worker may take it.
    pub claim_seconds: u64,
    /// What proves the claim, if this part gets it; made once, so that whoever asks again after a lost answer finds the
    /// claim to be its own.
    pub token: String,
}

/// How far a chord is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChordProgress {
    /// Not all header tasks have ended, or the producer has not sent the last one yet.
    Waiting {
        /// Header tasks that have ended.
        done: u64,
        /// Their number, when it is known.
        total: Option<u64>,
    },
    /// All have ended, and the body is ours to send.
    Claimed(ChordClaim),
    /// All have ended, and somebody else is sending the body.
    Taken,
    /// The body was sent before; this is a late duplicate.
    Late,
}

/// The right to send a chord's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChordClaim {
    /// The chord.
    pub group: GroupId,
    /// Proves that the claim is ours.
    pub token: String,
}

/// The result of one header task.
#[derive(Debug, Clone)]
pub struct ChordMember {
    /// The task.
    pub task: TaskId,
    /// SUCCESS, FAILURE or REVOKED.
    pub state: TaskState,
    /// The value, or the exception.
    pub result: Box<RawValue>,
}

/// What backends that do not keep results say of chords.
const CHORDS: &str =
    "a chord needs a result backend that keeps results, such as redis:// (set result_backend)";

fn unsupported<T>(what: &str) -> Answer<'static, T>
where
    T: Send + 'static,
{
    let error = BackendError::new(BackendErrorKind::Unsupported, what);
    Box::pin(std::future::ready(Err(error)))
}
