//! Small values with a lifetime that the programs of this project keep beside the results: keys of idempotent requests,
//! ids of batches, one-time tickets. Celery has nothing like them, so the keys are ours; the values are the caller's bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use crate::error::{BackendError, BackendErrorKind};

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
    /// Does one operation under one lock; notes that have expired are not there.
    fn answer<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Kept) -> Result<T, BackendError>,
    ) -> Answer<'static, T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(std::future::ready(operation(&mut kept)))
    }
}

fn alive(until: &Option<Instant>) -> bool {
    until.is_none_or(|until| until > Instant::now())
}

fn read(kept: &Kept, key: &str) -> Option<Vec<u8>> {
    kept.get(key).filter(|(_, until)| alive(until)).map(|(value, _)| value.clone())
}

/// # Errors
/// There are [`CAPACITY`] notes that have not expired.
fn write(kept: &mut Kept, key: &str, value: &[u8], ttl: Duration) -> Result<(), BackendError> {
    if kept.len() >= CAPACITY && !kept.contains_key(key) {
        kept.retain(|_, (_, until)| alive(until));
        if kept.len() >= CAPACITY {
            let context = format!("{CAPACITY} notes are kept in memory");
            return Err(BackendError::new(BackendErrorKind::OutOfMemory, context));
        }
    }
    kept.insert(key.to_owned(), (value.to_owned(), Instant::now().checked_add(ttl)));
    Ok(())
}

impl Notes for MemoryNotes {
    fn put<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, ()> {
        self.answer(|kept| write(kept, key, value, ttl))
    }

    fn put_new<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(|kept| match read(kept, key) {
            None => write(kept, key, value, ttl).map(|()| None),
            earlier => Ok(earlier),
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        expected: &'a [u8],
        value: &'a [u8],
        ttl: Duration,
    ) -> Answer<'a, bool> {
        self.answer(|kept| match read(kept, key).as_deref() == Some(expected) {
            true => write(kept, key, value, ttl).map(|()| true),
            false => Ok(false),
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(|kept| Ok(read(kept, key)))
    }

    fn take<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(|kept| Ok(kept.remove(key).filter(|(_, until)| alive(until)).map(|(value, _)| value)))
    }

    fn remove<'a>(&'a self, key: &'a str, expected: &'a [u8]) -> Answer<'a, bool> {
        self.answer(|kept| {
            let fits = read(kept, key).as_deref() == Some(expected);
            if fits {
                kept.remove(key);
            }
            Ok(fits)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn of_many_who_try_one_succeeds() {
        let notes = MemoryNotes::default();
        for round in 0..2000 {
            let once = |n: u8| {
                let first = notes.put_new("key", &[n], LONG).now_or_never();
                let taken = notes.take("key").now_or_never();
                (matches!(first, Some(Ok(None))), matches!(taken, Some(Ok(Some(_)))))
            };
            let done: Vec<(bool, bool)> = std::thread::scope(|scope| {
                let trying: Vec<_> = (0..4).map(|n| scope.spawn(move || once(n))).collect();
                trying.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let firsts = done.iter().filter(|(first, _)| *first).count();
            let takes = done.iter().filter(|(_, taken)| *taken).count();
            assert_eq!(firsts, takes, "round {round}: what was written once was taken once");
        }
    }

    #[tokio::test]
    async fn when_full_nothing_that_counts_is_thrown_away() {
        let notes = MemoryNotes::default();
        for n in 1..CAPACITY {
            notes.put(&n.to_string(), b"x", LONG).await.expect("room");
        }
        notes.put("short", b"x", Duration::ZERO).await.expect("room");
        // What has expired makes room, what has not does not.
        assert_eq!(notes.put_new("one more", b"y", LONG).await.expect("room"), None);
        let refused = notes.put("too many", b"y", LONG).await.expect_err("full");
        assert_eq!(refused.kind(), BackendErrorKind::OutOfMemory);
        for key in ["1", "99999", "one more"] {
            assert!(notes.get(key).await.expect("memory").is_some(), "{key}");
        }
        assert!(notes.replace("1", b"x", b"z", LONG).await.expect("its place is there"));
        assert_eq!(notes.take("1").await.expect("memory").as_deref(), Some(&b"z"[..]));
        notes.put("too many", b"y", LONG).await.expect("room again");
    }
}
