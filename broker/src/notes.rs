//! Small values with a lifetime that the programs of this project keep beside the results: keys of idempotent requests,
//! ids of batches, one-time tickets. Celery has nothing like them, so the keys are ours; the values are the caller's bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use crate::error::BackendError;

/// Notes that a process keeps in its memory; more are not taken.
const CAPACITY: usize = 100_000;

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Keeps notes by key. Each operation is atomic.
pub trait Notes: fmt::Debug + Send + Sync + 'static {
    /// Writes a note.
    fn put<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, ()>;

    /// Writes a note if there is none: `None` means written, else the earlier one, which stays.
    fn put_new<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>>;

    /// Replaces the note if it still is `expected`; says whether it was.
    fn replace<'a>(
        &'a self,
        key: &'a str,
        expected: &'a [u8],
        value: &'a [u8],
        ttl: Duration,
    ) -> Answer<'a, bool>;

    /// Reads a note.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>>;

    /// Reads a note and removes it: of many who try, one gets it.
    fn take<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>>;

    /// Removes the note if it still is `expected`; says whether it was.
    fn remove<'a>(&'a self, key: &'a str, expected: &'a [u8]) -> Answer<'a, bool>;
}

/// Notes in this process, beside the memory backend.
#[derive(Debug, Clone, Default)]
pub struct MemoryNotes(Arc<Mutex<Kept>>);

/// Values, and until when they are kept.
type Kept = HashMap<String, (Vec<u8>, Option<Instant>)>;

impl MemoryNotes {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= CAPACITY {
            notes.clear();
        }
        notes
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        let notes = self.lock();
        let (value, until) = notes.get(key)?;
        until.is_none_or(|until| until > Instant::now()).then(|| value.clone())
    }

    fn write(&self, key: &str, value: &[u8], ttl: Duration) {
        self.lock().insert(key.to_owned(), (value.to_owned(), Instant::now().checked_add(ttl)));
    }
}

fn ready<T: Send + 'static>(value: T) -> Answer<'static, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Notes for MemoryNotes {
    fn put<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, ()> {
        self.write(key, value, ttl);
        ready(())
    }

    fn put_new<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>> {
        let earlier = self.read(key);
        if earlier.is_none() {
            self.write(key, value, ttl);
        }
        ready(earlier)
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        expected: &'a [u8],
        value: &'a [u8],
        ttl: Duration,
    ) -> Answer<'a, bool> {
        let fits = self.read(key).as_deref() == Some(expected);
        if fits {
            self.write(key, value, ttl);
        }
        ready(fits)
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        ready(self.read(key))
    }

    fn take<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        let value = self.read(key);
        self.lock().remove(key);
        ready(value)
    }

    fn remove<'a>(&'a self, key: &'a str, expected: &'a [u8]) -> Answer<'a, bool> {
        let fits = self.read(key).as_deref() == Some(expected);
        if fits {
            self.lock().remove(key);
        }
        ready(fits)
    }
}
