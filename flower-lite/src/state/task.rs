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
use super::mark::{Call, Kind, Mark, Sent, Success, Trouble, What};
use super::time::UnixTime;

/// How many events of one task are kept. Beyond it the oldest go, except for those that tell what was called.
pub const MAX_MARKS: usize = 64;

/// The first-seen number of a task in this process; never used again for another one.
pub type Serial = u64;

/// A task as its events show it.
#[derive(Clone, Debug)]
pub struct Task {
    id: TaskKey,
    serial: Serial,
    version: u64,
    /// Sorted by [`Mark::order`], without duplicates, never empty once recorded.
    marks: Vec<Mark>,
    /// How many marks were dropped for want of room.
    forgotten: u32,
    /// What the marks cost, in bytes.
    marks_weight: usize,
    standing: Standing,
    /// Its worker fell silent while it ran.
    orphaned: bool,
}

/// What the timeline amounts to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    state: TaskState,
    at: UnixTime,
    worker: Option<Arc<str>>,
}

/// How a mark was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was new.
    New,
    /// It was there already: a duplicate.
    Known,
}

impl Task {
    /// A task of which nothing is known yet.
    #[must_use]
    pub fn new(id: TaskKey, serial: Serial) -> Task {
        let standing = Standing::nothing();
        Task {
            id,
            serial,
            version: 0,
            marks: Vec::new(),
            forgotten: 0,
            marks_weight: 0,
            standing,
            orphaned: false,
        }
    }

    /// Puts `mark` in its place and derives everything else anew.
    pub fn record(&mut self, mark: Mark, version: u64) -> Taken {
        let ends = mark.what.state().is_ready();
        if mark.stored && self.marks.iter().any(|known| !known.stored && known.what.state().is_ready()) {
            return Taken::Known;
        }
        if ends && self.is_completed() {
            // Now it is told by the worker itself, or the backend has thought again.
            let stored = self.marks.iter().filter(|known| known.stored).map(Mark::weight).sum();
            self.marks_weight = self.marks_weight.saturating_sub(stored);
            self.marks.retain(|known| !known.stored);
        }
        match self.marks.binary_search_by(|known| known.order(&mark)) {
            Ok(_) => return Taken::Known,
            Err(place) => {
                self.marks_weight += mark.weight();
                self.marks.insert(place, mark);
            }
        }
        self.version = version;
        if self.marks.len() > MAX_MARKS {
            self.forget_one();
        }
        self.standing = Standing::of(&self.marks);
        Taken::New
    }

    /// Drops the oldest mark that doesn't tell what was called.
    fn forget_one(&mut self) {
        let call = self.call_index();
        let spare = (0..self.marks.len())
            .find(|&index| Some(index) != call && self.marks[index].what.kind() != Kind::Sent);
        let forgotten = self.marks.remove(spare.unwrap_or(0));
        self.marks_weight = self.marks_weight.saturating_sub(forgotten.weight());
        self.forgotten += 1;
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
    pub fn id(&self) -> &TaskKey {
        &self.id
    }

    /// Its number in the order in which this process first saw tasks.
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
        self.standing.worker.as_ref()
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
        self.marks.iter().any(|mark| mark.stored)
    }

    /// Its events, oldest first.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// How many of its events were dropped because there were more than [`MAX_MARKS`].
    #[must_use]
    pub fn forgotten(&self) -> u32 {
        self.forgotten
    }

    /// What was called: as the worker of the newest attempt received it, else as the client sent it.
    #[must_use]
    pub fn call(&self) -> Option<&Call> {
        self.call_index().and_then(|index| self.marks[index].what.call())
    }

    fn call_index(&self) -> Option<usize> {
        let newest = |kind: Kind| {
            let calls = self.marks.iter().enumerate().filter(|(_, mark)| mark.what.kind() == kind);
            // `max_by_key` gives the last of equals: the newest.
            calls.max_by_key(|(_, mark)| mark.what.call().map(|call| call.retries)).map(|(index, _)| index)
        };
        newest(Kind::Received).or_else(|| newest(Kind::Sent))
    }

    /// The task that called it. A retry is sent by the task itself and says so: then the first attempt knows better.
    #[must_use]
    pub fn parent(&self) -> Option<&TaskKey> {
        let told = self.marks.iter().rev().filter_map(|mark| mark.what.call()?.parent.as_ref());
        told.into_iter().find(|parent| **parent != self.id)
    }

    /// The registered name.
    #[must_use]
    pub fn name(&self) -> Option<&Arc<str>> {
        self.call().and_then(|call| call.name.as_ref())
    }

    /// How it was sent and by whom, if a client told.
    #[must_use]
    pub fn sent(&self) -> Option<(&Sent, &Arc<str>)> {
        self.marks.iter().rev().find_map(|mark| match &mark.what {
            What::Sent(sent) => Some((&**sent, &mark.origin)),
            _ => None,
        })
    }

    /// How it succeeded.
    #[must_use]
    pub fn success(&self) -> Option<&Success> {
        self.marks.iter().rev().find_map(|mark| match &mark.what {
            What::Succeeded(success) => Some(&**success),
            _ => None,
        })
    }

    /// The exception of its last attempt that failed.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        self.marks.iter().rev().find_map(|mark| match &mark.what {
            What::Failed(trouble) | What::Retried(trouble) => Some(&**trouble),
            _ => None,
        })
    }

    /// When it last had an event of this kind.
    #[must_use]
    pub fn when(&self, kind: Kind) -> Option<UnixTime> {
        self.marks.iter().rev().find(|mark| mark.what.kind() == kind).map(|mark| mark.at)
    }

    /// The highest logical clock among its events.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.marks.iter().map(|mark| mark.clock).max().unwrap_or(0)
    }

    /// The time by which tasks are listed: when it was received, or the first thing that is known.
    #[must_use]
    pub fn listed_at(&self) -> UnixTime {
        self.when(Kind::Received)
            .or_else(|| self.when(Kind::Sent))
            .or_else(|| self.marks.first().map(|mark| mark.at))
            .unwrap_or(UnixTime::EPOCH)
    }

    /// Seconds that it ran: as the worker measured it, or for a failure from its start to its end.
    #[must_use]
    pub fn runtime(&self) -> Option<f64> {
        if let Some(success) = self.success() {
            return success.runtime;
        }
        let end = self.marks.iter().rev().find(|mark| mark.what.kind() == Kind::Failed)?;
        let start = self.marks.iter().rev().find(|mark| {
            mark.what.kind() == Kind::Started && mark.origin == end.origin && mark.at <= end.at
        })?;
        Some(end.at.since(start.at))
    }

    /// What it costs to keep this task, in bytes; an estimate that counts every text.
    #[must_use]
    pub fn weight(&self) -> usize {
        // An entry in five indexes, in the map of ids and in the queue of recent changes.
        const INDEXED: usize = 7 * 40;
        size_of::<Task>() + INDEXED + self.id.as_str().len() + self.marks_weight
    }
}

impl Standing {
    fn nothing() -> Standing {
        Standing { state: TaskState::Pending, at: UnixTime::EPOCH, worker: None }
    }

    fn of(marks: &[Mark]) -> Standing {
        let mut standing = Standing::nothing();
        match retries_in_front(marks) {
            None => marks.iter().for_each(|mark| standing.step(mark)),
            Some(marks) => marks.into_iter().for_each(|mark| standing.step(mark)),
        }
        standing
    }

    fn step(&mut self, mark: &Mark) {
        let state = mark.what.state();
        let sent = matches!(mark.what, What::Sent(_));
        let retry = state == TaskState::Retry || self.state == TaskState::Retry;
        // A retry's message is sent before the retry is told of, so its `sent` never ends the state RETRY.
        let moves = if retry { !sent } else { height(&state) >= height(&self.state) };
        if moves {
            self.state = state;
            self.at = mark.at;
        }
        // Who has to do with it last; once it has ended, who ended it.
        if !sent && (moves || !self.state.is_ready()) {
            self.worker = Some(mark.origin.clone());
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
fn retries_in_front(marks: &[Mark]) -> Option<Vec<&Mark>> {
    let attempt = |mark: &Mark| match &mark.what {
        What::Received(call) => Some(call.retries),
        _ => None,
    };
    if !marks.iter().any(|mark| attempt(mark) > Some(0)) {
        return None;
    }
    let mut open: HashMap<&str, Vec<u32>> = HashMap::new();
    for mark in marks {
        if let Some(attempt) = attempt(mark) {
            open.entry(&mark.origin).or_default().push(attempt);
        }
    }
    // Each mark with its place; a retry that is out of place gets that of the attempt after it.
    let mut places: Vec<(usize, bool, &Mark)> = Vec::with_capacity(marks.len());
    for (index, mark) in marks.iter().enumerate() {
        let mut place = (index, true, mark);
        if mark.what.kind() == Kind::Retried
            && let Some(own) = open.get_mut(&*mark.origin).and_then(take_least)
            && let Some(next) = marks.iter().position(|mark| attempt(mark) > Some(own))
            && next < index
        {
            place = (next, false, mark);
        }
        places.push(place);
    }
    places.sort_by_key(|&(place, in_place, _)| (place, in_place));
    Some(places.into_iter().map(|(_, _, mark)| mark).collect())
}

fn take_least(attempts: &mut Vec<u32>) -> Option<u32> {
    let (index, _) = attempts.iter().enumerate().min_by_key(|(_, attempt)| **attempt)?;
    Some(attempts.remove(index))
}
