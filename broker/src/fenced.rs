//! A lease, and records that only its holder may change: how several processes share work that one of them does at a time.
//!
//! A holder that is frozen for longer than its lease lasts has lost it without knowing. So every change names the
//! holder's token and what the holder believes to be there, and both are compared where the record is kept, in one step.
//! Celery has nothing like it; keys and values are ours.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::error::BackendError;
use futures_util::future::BoxFuture;

type Answer<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// Values by key.
pub type Records = BTreeMap<String, Vec<u8>>;

/// Who changes what: the lease's name, the token of its holder, and how long it holds from now.
#[derive(Debug, Clone, Copy)]
pub struct Hold<'a> {
    /// The name of the lease and of what it guards.
    pub name: &'a str,
    /// Proves that the lease is ours.
    pub token: &'a str,
    /// How long it lasts, counted from each use.
    pub ttl: Duration,
}

/// How a change went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is made, and the lease lasts for longer.
    Made,
    /// The lease is not ours any more; nothing was changed.
    NotHolder,
    /// Something else is there than was expected; nothing was changed.
    Differs,
}

/// Keeps leases with their records.
pub trait Fenced: fmt::Debug + Send + Sync + 'static {
    /// Takes the lease if nobody has it, or keeps it for longer if it is ours; says whether it is ours now.
    fn hold<'a>(&'a self, hold: Hold<'a>) -> Answer<'a, bool>;

    /// Gives the lease up, if it is ours.
    fn release<'a>(&'a self, hold: Hold<'a>) -> Answer<'a, bool>;

    /// The guarded records.
    fn records<'a>(&'a self, name: &'a str) -> Answer<'a, Records>;

    /// Replaces a record, if the lease is ours and the record is still `expected`. `None` stands for no record.
    fn replace<'a>(
        &'a self,
        hold: Hold<'a>,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Answer<'a, Change>;

    /// The entries beside the records, which anybody may edit.
    fn entries<'a>(&'a self, name: &'a str) -> Answer<'a, Records>;

    /// Writes an entry; `None` removes it.
    fn edit<'a>(&'a self, name: &'a str, key: &'a str, value: Option<&'a [u8]>) -> Answer<'a, ()>;
}

/// Leases in this process, beside the memory backend: for tests.
#[derive(Debug, Clone)]
pub struct MemoryFenced {
    guarded: Arc<Mutex<HashMap<String, Guarded>>>,
    clock: Clock,
}

impl Default for MemoryFenced {
    fn default() -> Self {
        Self::with_clock(Clock::system())
    }
}

#[derive(Debug, Default)]
struct Guarded {
    holder: Option<(String, SystemTime)>,
    records: Records,
    entries: Records,
}

impl Guarded {
    fn is_held(&self, token: &str, now: SystemTime) -> bool {
        self.holder.as_ref().is_some_and(|(holder, until)| holder == token && *until > now)
    }

    fn hold(&mut self, hold: Hold<'_>, now: SystemTime) {
        self.holder = now.checked_add(hold.ttl).map(|until| (hold.token.to_owned(), until));
    }
}

impl MemoryFenced {
    /// Whose leases end by this clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self { guarded: Arc::default(), clock }
    }

    fn answer<T: Send + 'static>(
        &self,
        name: &str,
        answer: impl FnOnce(&mut Guarded) -> T,
    ) -> Answer<'static, T> {
        let mut all = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        let value = answer(all.entry(name.to_owned()).or_default());
        Box::pin(std::future::ready(Ok(value)))
    }
}

impl Fenced for MemoryFenced {
    fn hold<'a>(&'a self, hold: Hold<'a>) -> Answer<'a, bool> {
        let now = self.clock.now();
        self.answer(hold.name, |guarded| {
            let free = guarded.holder.as_ref().is_none_or(|(_, until)| *until <= now);
            let ours = free || guarded.is_held(hold.token, now);
            if ours {
                guarded.hold(hold, now);
            }
            ours
        })
    }

    fn release<'a>(&'a self, hold: Hold<'a>) -> Answer<'a, bool> {
        let now = self.clock.now();
        self.answer(hold.name, |guarded| {
            let ours = guarded.is_held(hold.token, now);
            if ours {
                guarded.holder = None;
            }
            ours
        })
    }

    fn records<'a>(&'a self, name: &'a str) -> Answer<'a, Records> {
        self.answer(name, |guarded| guarded.records.clone())
    }

    fn replace<'a>(
        &'a self,
        hold: Hold<'a>,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Answer<'a, Change> {
        let now = self.clock.now();
        self.answer(hold.name, |guarded| {
            if !guarded.is_held(hold.token, now) {
                return Change::NotHolder;
            }
            if guarded.records.get(key).map(Vec::as_slice) != expected {
                return Change::Differs;
            }
            set(&mut guarded.records, key, value);
            guarded.hold(hold, now);
            Change::Made
        })
    }

    fn entries<'a>(&'a self, name: &'a str) -> Answer<'a, Records> {
        self.answer(name, |guarded| guarded.entries.clone())
    }

    fn edit<'a>(&'a self, name: &'a str, key: &'a str, value: Option<&'a [u8]>) -> Answer<'a, ()> {
        self.answer(name, |guarded| set(&mut guarded.entries, key, value))
    }
}

fn set(records: &mut Records, key: &str, value: Option<&[u8]>) {
    match value {
        Some(value) => drop(records.insert(key.to_owned(), value.to_owned())),
        None => drop(records.remove(key)),
    }
}
