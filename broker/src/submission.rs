//! What was submitted through the HTTP interface, for listings and for repeated requests. Celery has nothing like it, so
//! the keys are ours; the records are the caller's bytes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use celery_protocol::TaskId;
use futures_util::future::BoxFuture;

use crate::error::BackendError;

/// Submissions that are listed; older ones drop out of the list.
pub const CAPACITY: usize = 100_000;

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// A submission on the list, and its place there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// When it was listed, in microseconds since 1970.
    pub at: u64,
    /// The task.
    pub id: TaskId,
}

/// Remembers submissions by task id.
pub trait SubmissionIndex: fmt::Debug + Send + Sync + 'static {
    /// Records a submission and lists it.
    fn put<'a>(&'a self, id: &'a TaskId, record: &'a [u8], ttl: Duration) -> Answer<'a, ()>;

    /// As [`put`](Self::put), only if there is no record: `None` means recorded now, else the earlier record, which stays.
    fn put_new<'a>(&'a self, id: &'a TaskId, record: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>>;

    /// The record of a submission.
    fn get<'a>(&'a self, id: &'a TaskId) -> Answer<'a, Option<Vec<u8>>>;

    /// The records of many, in the order of `ids`.
    fn get_many<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, Vec<Option<Vec<u8>>>>;

    /// Forgets a submission.
    fn remove<'a>(&'a self, id: &'a TaskId) -> Answer<'a, ()>;

    /// The newest submissions that are listed.
    fn recent(&self, limit: usize) -> Answer<'_, Vec<TaskId>>;

    /// The listed submissions that come after `before` when the newest come first; with `None` from the newest on.
    /// `before` need not be on the list any more, so pages do not shift when others submit or forget.
    fn page<'a>(&'a self, before: Option<&'a Listed>, limit: usize) -> Answer<'a, Vec<Listed>>;

    /// Takes submissions off the list, keeping their records.
    fn unlist<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, ()>;
}

/// Submissions in this process, beside the memory backend.
#[derive(Debug, Clone, Default)]
pub struct MemorySubmissions(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    records: HashMap<TaskId, (Vec<u8>, Option<Instant>)>,
    listed: BTreeMap<u64, TaskId>,
    last: u64,
}

impl MemorySubmissions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T: Send + 'static>(&self, answer: impl FnOnce(&mut State) -> T) -> Answer<'static, T> {
        let value = answer(&mut self.lock());
        Box::pin(std::future::ready(Ok(value)))
    }
}

impl State {
    fn put(&mut self, id: &TaskId, record: &[u8], ttl: Duration) {
        let until = Instant::now().checked_add(ttl);
        if self.records.insert(id.clone(), (record.to_owned(), until)).is_none() {
            // Unique, and increasing even if the clock is set back.
            self.last = now().max(self.last + 1);
            self.listed.insert(self.last, id.clone());
        }
        if self.listed.len() > CAPACITY
            && let Some((_, oldest)) = self.listed.pop_first()
        {
            self.records.remove(&oldest);
        }
    }

    fn get(&self, id: &TaskId) -> Option<Vec<u8>> {
        let (record, until) = self.records.get(id)?;
        until.is_none_or(|until| until > Instant::now()).then(|| record.clone())
    }
}

impl SubmissionIndex for MemorySubmissions {
    fn put<'a>(&'a self, id: &'a TaskId, record: &'a [u8], ttl: Duration) -> Answer<'a, ()> {
        self.answer(|state| state.put(id, record, ttl))
    }

    fn put_new<'a>(&'a self, id: &'a TaskId, record: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(|state| {
            let earlier = state.get(id);
            if earlier.is_none() {
                state.put(id, record, ttl);
            }
            earlier
        })
    }

    fn get<'a>(&'a self, id: &'a TaskId) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(|state| state.get(id))
    }

    fn get_many<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, Vec<Option<Vec<u8>>>> {
        self.answer(|state| ids.iter().map(|id| state.get(id)).collect())
    }

    fn remove<'a>(&'a self, id: &'a TaskId) -> Answer<'a, ()> {
        self.answer(|state| {
            state.records.remove(id);
            state.listed.retain(|_, listed| listed != id);
        })
    }

    fn recent(&self, limit: usize) -> Answer<'_, Vec<TaskId>> {
        self.answer(|state| state.listed.values().rev().take(limit).cloned().collect())
    }

    fn page<'a>(&'a self, before: Option<&'a Listed>, limit: usize) -> Answer<'a, Vec<Listed>> {
        let end = before.map_or(u64::MAX, |before| before.at);
        self.answer(|state| {
            let older = state.listed.range(..end).rev().take(limit);
            older.map(|(at, id)| Listed { at: *at, id: id.clone() }).collect()
        })
    }

    fn unlist<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, ()> {
        self.answer(|state| state.listed.retain(|_, listed| !ids.contains(listed)))
    }
}

/// The present in microseconds: exact in a double for two more centuries.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
