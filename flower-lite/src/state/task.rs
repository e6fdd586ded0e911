//! One task: its timeline, and what follows from it.
//!
//! Events arrive late, twice, out of order, or not at all. So a task keeps the *set* of its events, sorted, and derives
//! everything else from that set: whatever order the same events come in, the outcome is the same. The rule that gives
//! the state is Celery's (`celery.events.state`): an event moves a task on unless the state it stands for comes before
//! the present one; a retry is exempt, since it begins the next attempt.
//!
//! Celery applies that rule in the order of arrival. Here it is applied in the order of happening: by the senders' clocks,
//! but attempt by attempt. For a stream in order both give the same, but for one rule: see `height`.

use std::collections::HashMap;
use std::sync::Arc;

use celery_protocol::TaskState;

use super::key::TaskKey;
use super::mark::{Kind, Mark};
use super::packed::{Entry, NameList, Packed};
use super::time::UnixTime;

/// How many events of one task are kept. Beyond it the oldest go, except for those that tell what was called.
pub const MAX_MARKS: usize = 64;

/// The number of a task in this process. When it is forgotten, another one may get it.
pub type Serial = u32;

/// A task as its events show it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its id, and its marks: sorted by [`Mark::order`], without duplicates, never empty once recorded.
    packed: Packed,
    version: u64,
    /// How many marks were dropped for want of room.
    forgotten: u32,
    serial: Serial,
    standing: Standing,
    /// How many marks there are.
    count: u8,
    /// Its worker fell silent while it ran.
    orphaned: bool,
    /// Its end was told by the result backend.
    completed: bool,
}

/// What the timeline amounts to.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    state: TaskState,
    at: UnixTime,
    /// The worker, by its number among the names.
    worker: Option<u16>,
}

/// How a mark was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was new.
    New,
    /// It was there already: a duplicate.
    Known,
}

/// What was called, as told when a task is sent and again when it is received; see [`mark::Call`](super::mark::Call).
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `mark::Call`")]
pub struct Call<'a> {
    pub name: Option<&'a Arc<str>>,
    pub args: Option<&'a str>,
    pub kwargs: Option<&'a str>,
    pub root: Option<&'a str>,
    pub retries: u32,
    pub eta: Option<UnixTime>,
    pub expires: Option<UnixTime>,
}

/// Where a task was sent, and by whom; see [`mark::Sent`](super::mark::Sent).
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `mark::Sent`")]
pub struct Sent<'a> {
    pub client: Option<&'a Arc<str>>,
    pub queue: Option<&'a Arc<str>>,
    pub exchange: Option<&'a Arc<str>>,
    pub routing_key: Option<&'a Arc<str>>,
}

/// An exception: the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `mark::Trouble`")]
pub struct Trouble<'a> {
    pub exception: Option<&'a str>,
    pub traceback: Option<&'a str>,
}

impl Task {
    /// A task of which nothing is known yet.
    #[must_use]
    pub fn new(id: &str, serial: Serial) -> Task {
        Task {
            packed: Packed::new(id),
            version: 0,
            forgotten: 0,
            serial,
            standing: Standing::nothing(),
            count: 0,
            orphaned: false,
            completed: false,
        }
    }

    /// Puts `mark` in its place and derives everything else anew. `share` gives the one copy of a list of names.
    pub fn record(
        &mut self,
        mark: &Mark,
        version: u64,
        share: &mut dyn FnMut(Vec<Arc<str>>) -> NameList,
    ) -> Taken {
        let ends = mark.what.state().is_ready();
        if mark.stored && self.entries().any(|known| !known.stored && known.state().is_ready()) {
            return Taken::Known;
        }
        if ends && self.completed {
            // Now it is told by the worker itself, or the backend has thought again.
            self.packed.retain(|_, known| !known.stored, share);
        }
        let mut place = None;
        for known in self.entries() {
            match known.order(mark) {
                std::cmp::Ordering::Less => place = Some(known.end()),
                std::cmp::Ordering::Equal => return Taken::Known,
                std::cmp::Ordering::Greater => break,
            }
        }
        self.packed.insert(place, mark, share);
        self.version = version;
        if self.entries().count() > MAX_MARKS {
            self.forget_one(share);
        }
        self.count = u8::try_from(self.entries().count()).unwrap_or(u8::MAX);
        self.completed = self.entries().any(|mark| mark.stored);
        self.standing = Standing::of(&self.packed);
        Taken::New
    }

    /// Drops the oldest mark that doesn't tell what was called.
    fn forget_one(&mut self, share: &mut dyn FnMut(Vec<Arc<str>>) -> NameList) {
        let call = self.call_entry().map(|call| call.end());
        let spare = self
            .entries()
            .position(|entry| Some(entry.end()) != call && entry.kind != Kind::Sent)
            .unwrap_or(0);
        self.packed.retain(|index, _| index != spare, share);
        self.forgotten += 1;
    }

    fn entries(&self) -> super::packed::Entries<'_> {
        self.packed.entries()
    }

    fn newest(&self, fits: impl Fn(Kind) -> bool) -> Option<Entry<'_>> {
        self.entries().filter(|entry| fits(entry.kind)).last()
    }

    /// Notes whether its worker fell silent while it ran. Gives whether that is news.
    pub fn orphan(&mut self, orphaned: bool, version: u64) -> bool {
        let news = self.orphaned != orphaned;
        if news {
            self.orphaned = orphaned;
            self.version = version;
        }
        news
    }

    /// Notes that so many of its marks were dropped before.
    pub fn forgot(&mut self, marks: u32) {
        self.forgotten += marks;
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.packed.id()
    }

    /// Its id, to be kept.
    #[must_use]
    pub fn key(&self) -> TaskKey {
        TaskKey::from(self.id())
    }

    /// Its number.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The version of the cluster state in which it last changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &TaskState {
        &self.standing.state
    }

    /// When it came into its state.
    #[must_use]
    pub fn timestamp(&self) -> UnixTime {
        self.standing.at
    }

    /// The worker that had to do with it last, or that ended it.
    #[must_use]
    pub fn worker(&self) -> Option<&Arc<str>> {
        self.packed.name(usize::from(self.standing.worker?))
    }

    /// Whether a worker is at it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.standing.state, TaskState::Started | TaskState::Custom(_)) && self.worker().is_some()
    }

    /// Whether its worker fell silent while it ran. What will become of it is not known: with late acknowledgement the
    /// broker gives it to another worker, else it is gone.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.orphaned
    }

    /// Whether its end was told by the result backend and by no event.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.completed
    }

    /// Its events, oldest first.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.entries().map(|entry| entry.mark()).collect()
    }

    /// How many events of it are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// When its first event happened.
    #[must_use]
    pub fn first_at(&self) -> Option<UnixTime> {
        self.entries().next().map(|entry| entry.at)
    }

    /// How many of its events were dropped because there were more than [`MAX_MARKS`].
    #[must_use]
    pub fn forgotten(&self) -> u32 {
        self.forgotten
    }

    /// What was called: as the worker of the newest attempt received it, else as the client sent it.
    #[must_use]
    pub fn call(&self) -> Option<Call<'_>> {
        self.call_entry().map(|entry| Call {
            name: entry.name(),
            args: entry.args(),
            kwargs: entry.kwargs(),
            root: entry.root(),
            retries: entry.retries(),
            eta: entry.eta(),
            expires: entry.expires(),
        })
    }

    fn call_entry(&self) -> Option<Entry<'_>> {
        let newest = |kind: Kind| {
            let calls = self.entries().filter(|entry| entry.kind == kind);
            // `max_by_key` gives the last of equals: the newest.
            calls.max_by_key(Entry::retries)
        };
        newest(Kind::Received).or_else(|| newest(Kind::Sent))
    }

    /// The task that called it. A retry is sent by the task itself and says so: then the first attempt knows better.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        let told = self.entries().filter_map(|entry| entry.parent());
        told.filter(|parent| *parent != self.id()).last()
    }

    /// The registered name.
    #[must_use]
    pub fn name(&self) -> Option<&Arc<str>> {
        self.call_entry().and_then(|call| call.name())
    }

    /// Whether it is not to be run before some time.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.call_entry().is_some_and(|call| call.eta().is_some())
    }

    /// How it was sent and by whom, if a client told.
    #[must_use]
    pub fn sent(&self) -> Option<Sent<'_>> {
        self.newest(|kind| kind == Kind::Sent).map(|entry| Sent {
            client: entry.origin(),
            queue: entry.queue(),
            exchange: entry.exchange(),
            routing_key: entry.routing_key(),
        })
    }

    /// The queue that it was sent to, if a client told.
    #[must_use]
    pub fn queue(&self) -> Option<&Arc<str>> {
        self.sent().and_then(|sent| sent.queue)
    }

    /// Python's repr of the result, if it succeeded.
    #[must_use]
    pub fn result(&self) -> Option<&str> {
        self.newest(|kind| kind == Kind::Succeeded).and_then(|entry| entry.result())
    }

    /// Seconds that it ran, as the worker that succeeded with it measured them.
    #[must_use]
    pub fn measured(&self) -> Option<f64> {
        self.newest(|kind| kind == Kind::Succeeded).and_then(|entry| entry.runtime())
    }

    /// The exception of its last attempt that failed.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble<'_>> {
        self.newest(|kind| matches!(kind, Kind::Failed | Kind::Retried))
            .map(|entry| Trouble { exception: entry.exception(), traceback: entry.traceback() })
    }

    /// When it last had an event of this kind.
    #[must_use]
    pub fn when(&self, kind: Kind) -> Option<UnixTime> {
        self.newest(|known| known == kind).map(|entry| entry.at)
    }

    /// The highest logical clock among its events.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.entries().map(|entry| entry.clock).max().unwrap_or(0)
    }

    /// The time by which tasks are listed: when it was received, or the first thing that is known.
    #[must_use]
    pub fn listed_at(&self) -> UnixTime {
        self.when(Kind::Received)
            .or_else(|| self.when(Kind::Sent))
            .or_else(|| self.first_at())
            .unwrap_or(UnixTime::EPOCH)
    }

    /// Seconds that it ran: as the worker measured it, or for a failure from its start to its end.
    #[must_use]
    pub fn runtime(&self) -> Option<f64> {
        if let Some(success) = self.newest(|kind| kind == Kind::Succeeded) {
            return success.runtime();
        }
        let end = self.newest(|kind| kind == Kind::Failed)?;
        let starts = self
            .entries()
            .filter(|entry| entry.kind == Kind::Started && entry.origin == end.origin && entry.at <= end.at);
        Some(end.at.since(starts.last()?.at))
    }

    /// What it costs to keep this task, in bytes; an estimate that counts every text.
    #[must_use]
    pub fn weight(&self) -> usize {
        // A place in five indexes and in the queue of recent changes, a number by its id, and what the allocator takes.
        const INDEXED: usize = 5 * 14 + 24 + 10 + 16;
        size_of::<Task>() + INDEXED + self.packed.len()
    }
}

impl Standing {
    fn nothing() -> Standing {
        Standing { state: TaskState::Pending, at: UnixTime::EPOCH, worker: None }
    }

    fn of(packed: &Packed) -> Standing {
        let mut standing = Standing::nothing();
        match retries_in_front(packed) {
            None => packed.entries().for_each(|entry| standing.step(&entry)),
            Some(entries) => entries.iter().for_each(|entry| standing.step(entry)),
        }
        standing
    }

    fn step(&mut self, entry: &Entry<'_>) {
        let state = entry.state();
        let sent = entry.kind == Kind::Sent;
        let retry = state == TaskState::Retry || self.state == TaskState::Retry;
        // A retry's message is sent before the retry is told of, so its `sent` never ends the state RETRY.
        let moves = if retry { !sent } else { height(&state) >= height(&self.state) };
        if moves {
            self.state = state;
            self.at = entry.at;
        }
        // Who has to do with it last; once it has ended, who ended it.
        if !sent && (moves || !self.state.is_ready()) {
            self.worker = u16::try_from(entry.origin).ok();
        }
    }
}

/// Celery's precedence of states: the higher one stays. One place differs: Celery has states of an application's own above
/// REVOKED, and so shows a task that was terminated while in progress as in progress for ever.
fn height(state: &TaskState) -> u8 {
    match state {
        TaskState::Success => 9,
        TaskState::Failure => 8,
        TaskState::Revoked => 7,
        TaskState::Custom(_) | TaskState::Ignored => 6,
        TaskState::Started => 5,
        TaskState::Received => 4,
        TaskState::Rejected => 3,
        TaskState::Retry => 2,
        TaskState::Pending => 1,
    }
}

/// The order of happening, where it isn't that of the sender's clocks: `None` where it is.
///
/// A retry is told of after its message was sent, by another process than the one that runs it next; or by a host whose
/// clock is ahead. So `retried` may be dated after what it led to, and would undo it. It belongs in front of the first
/// attempt that came after its own, which is the earliest one that its worker had not been through with.
fn retries_in_front(packed: &Packed) -> Option<Vec<Entry<'_>>> {
    let attempt = |entry: &Entry<'_>| (entry.kind == Kind::Received).then(|| entry.retries());
    if !packed.entries().any(|entry| attempt(&entry) > Some(0)) {
        return None;
    }
    let entries: Vec<Entry<'_>> = packed.entries().collect();
    let mut open: HashMap<usize, Vec<u32>> = HashMap::new();
    for entry in &entries {
        if let Some(attempt) = attempt(entry) {
            open.entry(entry.origin).or_default().push(attempt);
        }
    }
    // Each mark with its place; a retry that is out of place gets that of the attempt after it.
    let mut places: Vec<(usize, bool, Entry<'_>)> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let mut place = (index, true, *entry);
        if entry.kind == Kind::Retried
            && let Some(own) = open.get_mut(&entry.origin).and_then(take_least)
            && let Some(next) = entries.iter().position(|entry| attempt(entry) > Some(own))
            && next < index
        {
            place = (next, false, *entry);
        }
        places.push(place);
    }
    places.sort_by_key(|&(place, in_place, _)| (place, in_place));
    Some(places.into_iter().map(|(_, _, entry)| entry).collect())
}

fn take_least(attempts: &mut Vec<u32>) -> Option<u32> {
    let (index, _) = attempts.iter().enumerate().min_by_key(|(_, attempt)| **attempt)?;
    Some(attempts.remove(index))
}
