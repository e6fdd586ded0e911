//! All tasks that are remembered, with the indexes that make lists cheap and the bounds that keep memory flat.
//!
//! Each index holds tasks by the time they are listed by, so that a page of a list is read off its end, whatever the
//! number of tasks. What was changed longest ago is forgotten first; how much was forgotten is counted.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use celery_protocol::TaskState;

use super::key::TaskKey;
use super::mark::Mark;
use super::task::{Serial, Taken, Task};
use super::time::UnixTime;

/// A place in an index: the time a task is listed by; its serial decides between equals.
pub type Place = (UnixTime, Serial);

/// The tasks.
#[derive(Debug, Default)]
pub struct Tasks {
    ids: HashMap<TaskKey, Serial>,
    tasks: HashMap<Serial, Task>,
    next: Serial,
    /// Changes, oldest first: (version, task). An entry is stale when its task has changed again since.
    changes: VecDeque<(u64, Serial)>,
    weight: usize,
    evicted: u64,
    orphaned: usize,
    places: Places,
    children: HashMap<TaskKey, BTreeSet<Serial>>,
}

/// The indexes.
#[derive(Debug, Default)]
struct Places {
    all: BTreeSet<Place>,
    by_change: BTreeSet<Place>,
    by_state: HashMap<TaskState, BTreeSet<Place>>,
    by_name: HashMap<Arc<str>, BTreeSet<Place>>,
    by_worker: HashMap<Arc<str>, BTreeSet<Place>>,
}

/// How much may be remembered.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Tasks.
    pub tasks: usize,
    /// Bytes, as [`Task::weight`] estimates them.
    pub bytes: usize,
}

/// What a task was before a mark was recorded, and how that was taken.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Whether the mark was new.
    pub taken: Taken,
    /// The worker that was running the task before.
    pub ran_on: Option<Arc<str>>,
}

impl Tasks {
    /// Records `mark` for the task `id`, which is made if it isn't known.
    pub fn record(&mut self, id: &TaskKey, mark: Mark, version: u64) -> Recorded {
        let serial = match self.ids.get(id) {
            Some(&serial) => serial,
            None => self.add(id.clone()),
        };
        let Some(task) = self.tasks.get_mut(&serial) else {
            return Recorded { taken: Taken::Known, ran_on: None };
        };
        let ran_on = task.is_running().then(|| task.worker().cloned()).flatten();
        let before = (!task.marks().is_empty()).then(|| Keys::of(task));
        let weight = before.as_ref().map_or(0, |_| task.weight());
        if task.record(mark, version) == Taken::Known {
            return Recorded { taken: Taken::Known, ran_on };
        }
        self.weight = self.weight.saturating_sub(weight) + task.weight();
        let after = Keys::of(task);
        let parent = before.as_ref().and_then(|before| before.parent.as_ref());
        if parent != after.parent.as_ref() {
            unlink(&mut self.children, parent, serial);
            if let Some(parent) = &after.parent {
                self.children.entry(parent.clone()).or_default().insert(serial);
            }
        }
        self.places.update(before.as_ref(), &after, serial);
        self.changes.push_back((version, serial));
        self.drop_stale_changes();
        Recorded { taken: Taken::New, ran_on }
    }

    /// Notes whether the worker of the task `id` fell silent while it ran. Gives whether that is news.
    pub fn orphan(&mut self, id: &str, orphaned: bool, version: u64) -> bool {
        let Some(&serial) = self.ids.get(id) else { return false };
        let Some(task) = self.tasks.get_mut(&serial) else { return false };
        let listed = task.version() == version;
        if !task.orphan(orphaned, version) {
            return false;
        }
        self.orphaned = if orphaned { self.orphaned + 1 } else { self.orphaned.saturating_sub(1) };
        if !listed {
            self.changes.push_back((version, serial));
            self.drop_stale_changes();
        }
        true
    }

    /// Notes that marks of the task `id` were dropped before this process knew it.
    pub(super) fn forgot(&mut self, id: &str, marks: u32) {
        if let Some(task) = self.ids.get(id).and_then(|serial| self.tasks.get_mut(serial)) {
            task.forgot(marks);
        }
    }

    fn add(&mut self, id: TaskKey) -> Serial {
        let serial = self.next;
        self.next += 1;
        self.ids.insert(id.clone(), serial);
        self.tasks.insert(serial, Task::new(id, serial));
        serial
    }

    /// Forgets the task that was changed longest ago, if there is more than `room`.
    pub fn evict_beyond(&mut self, room: Room) -> Option<Task> {
        if self.tasks.len() <= room.tasks && self.weight <= room.bytes {
            return None;
        }
        while let Some((version, serial)) = self.changes.pop_front() {
            if self.tasks.get(&serial).is_some_and(|task| task.version() == version) {
                self.evicted += 1;
                return self.remove(serial);
            }
        }
        None
    }

    fn remove(&mut self, serial: Serial) -> Option<Task> {
        let task = self.tasks.remove(&serial)?;
        let keys = Keys::of(&task);
        self.places.remove(&keys, serial);
        self.orphaned = self.orphaned.saturating_sub(usize::from(task.is_orphaned()));
        unlink(&mut self.children, keys.parent.as_ref(), serial);
        self.ids.remove(task.id());
        self.weight = self.weight.saturating_sub(task.weight());
        Some(task)
    }

    /// Keeps the queue of changes at no more than about twice the number of tasks.
    fn drop_stale_changes(&mut self) {
        if self.changes.len() > 2 * self.tasks.len() + 64 {
            let tasks = &self.tasks;
            self.changes
                .retain(|(version, serial)| tasks.get(serial).is_some_and(|task| task.version() == *version));
        }
    }

    /// The task with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.ids.get(id).and_then(|serial| self.tasks.get(serial))
    }

    /// How many tasks are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many were forgotten for want of room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What the remembered tasks cost, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// How many tasks are in each state that any task is in.
    pub fn count_by_state(&self) -> impl Iterator<Item = (&TaskState, usize)> {
        self.places.by_state.iter().map(|(state, places)| (state, places.len()))
    }

    /// Every name that a remembered task has, with the number of such tasks.
    pub fn count_by_name(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.places.by_name.iter().map(|(name, places)| (name, places.len()))
    }

    /// The tasks changed after `version`, newest change first.
    pub fn changed_since(&self, version: u64) -> impl Iterator<Item = &Task> {
        self.changes
            .iter()
            .rev()
            .take_while(move |(changed, _)| *changed > version)
            .filter_map(|(changed, serial)| self.tasks.get(serial).filter(|task| task.version() == *changed))
    }

    /// The same, oldest change first.
    pub fn changes_after(&self, version: u64) -> impl Iterator<Item = &Task> {
        let from = self.changes.partition_point(|(changed, _)| *changed <= version);
        self.changes
            .range(from..)
            .filter_map(|(changed, serial)| self.tasks.get(serial).filter(|task| task.version() == *changed))
    }

    /// The tasks whose parent is `id`, oldest first.
    pub fn children(&self, id: &str) -> impl Iterator<Item = &Task> {
        self.children.get(id).into_iter().flatten().filter_map(|serial| self.tasks.get(serial))
    }

    /// The tasks of the workflow that begins with `root`: those that were called from there on, as far as they are
    /// remembered.
    pub fn workflow(&self, root: &str) -> impl Iterator<Item = &Task> {
        let mut found: Vec<&Task> = self.get(root).into_iter().collect();
        let mut seen: BTreeSet<Serial> = found.iter().map(|task| task.serial()).collect();
        let mut next = 0;
        let mut callers: Vec<&str> = vec![root];
        while let Some(caller) = callers.get(next).copied() {
            next += 1;
            for child in
                self.children.get(caller).into_iter().flatten().filter_map(|serial| self.tasks.get(serial))
            {
                if seen.insert(child.serial()) {
                    found.push(child);
                    callers.push(child.id().as_str());
                }
            }
        }
        found.into_iter()
    }

    /// The task at a place of an index.
    #[must_use]
    pub fn at(&self, place: Place) -> Option<&Task> {
        self.tasks.get(&place.1)
    }

    /// How many tasks were running when their worker fell silent.
    #[must_use]
    pub fn orphaned(&self) -> usize {
        self.orphaned
    }

    /// Up to `limit` tasks of `state` from `after` on that came into it before `before`, for somebody who looks after them
    /// in turn.
    pub fn left_in(
        &self,
        state: &TaskState,
        after: Option<Place>,
        before: UnixTime,
        limit: usize,
    ) -> impl Iterator<Item = &Task> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let places = self.places.by_state.get(state).into_iter();
        places
            .flat_map(move |places| places.range((from, std::ops::Bound::Unbounded)))
            .filter_map(|&place| self.at(place))
            .filter(move |task| task.timestamp() < before || task.is_orphaned())
            .take(limit)
    }

    /// Every task, by the time it came into its state, newest first.
    pub fn by_change(&self) -> impl Iterator<Item = &Task> {
        self.places.by_change.iter().rev().filter_map(|&place| self.at(place))
    }

    /// Every task, by time.
    #[must_use]
    pub fn all(&self) -> &BTreeSet<Place> {
        &self.places.all
    }

    /// The tasks in `state`, by time.
    #[must_use]
    pub fn in_state(&self, state: &TaskState) -> Option<&BTreeSet<Place>> {
        self.places.by_state.get(state)
    }

    /// The tasks of exactly this name, by time.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&BTreeSet<Place>> {
        self.places.by_name.get(name)
    }

    /// The tasks of this worker, by time.
    #[must_use]
    pub fn on_worker(&self, worker: &str) -> Option<&BTreeSet<Place>> {
        self.places.by_worker.get(worker)
    }
}

/// What the indexes know of a task.
#[derive(Debug, PartialEq)]
struct Keys {
    listed_at: UnixTime,
    changed_at: UnixTime,
    state: TaskState,
    name: Option<Arc<str>>,
    worker: Option<Arc<str>>,
    parent: Option<TaskKey>,
}

impl Keys {
    fn of(task: &Task) -> Keys {
        let call = task.call();
        Keys {
            listed_at: task.listed_at(),
            changed_at: task.timestamp(),
            state: task.state().clone(),
            name: call.and_then(|call| call.name.clone()),
            worker: task.worker().cloned(),
            parent: task.parent().cloned(),
        }
    }
}

impl Places {
    /// Moves a task from where it was to where it belongs; what hasn't changed stays where it is.
    fn update(&mut self, before: Option<&Keys>, after: &Keys, serial: Serial) {
        let Some(before) = before else { return self.insert(after, serial) };
        let (old, new) = ((before.listed_at, serial), (after.listed_at, serial));
        if before.changed_at != after.changed_at {
            self.by_change.remove(&(before.changed_at, serial));
            self.by_change.insert((after.changed_at, serial));
        }
        if old != new {
            self.all.remove(&old);
            self.all.insert(new);
        }
        if old != new || before.state != after.state {
            take_out(&mut self.by_state, Some(&before.state), &old);
            put_in(&mut self.by_state, Some(&after.state), new);
        }
        if old != new || before.name != after.name {
            take_out(&mut self.by_name, before.name.as_ref(), &old);
            put_in(&mut self.by_name, after.name.as_ref(), new);
        }
        if old != new || before.worker != after.worker {
            take_out(&mut self.by_worker, before.worker.as_ref(), &old);
            put_in(&mut self.by_worker, after.worker.as_ref(), new);
        }
    }

    fn insert(&mut self, keys: &Keys, serial: Serial) {
        let place = (keys.listed_at, serial);
        self.all.insert(place);
        self.by_change.insert((keys.changed_at, serial));
        put_in(&mut self.by_state, Some(&keys.state), place);
        put_in(&mut self.by_name, keys.name.as_ref(), place);
        put_in(&mut self.by_worker, keys.worker.as_ref(), place);
    }

    fn remove(&mut self, keys: &Keys, serial: Serial) {
        let place = (keys.listed_at, serial);
        self.all.remove(&place);
        self.by_change.remove(&(keys.changed_at, serial));
        take_out(&mut self.by_state, Some(&keys.state), &place);
        take_out(&mut self.by_name, keys.name.as_ref(), &place);
        take_out(&mut self.by_worker, keys.worker.as_ref(), &place);
    }
}

fn put_in<K: Clone + std::hash::Hash + Eq, V: Ord>(
    sets: &mut HashMap<K, BTreeSet<V>>,
    key: Option<&K>,
    value: V,
) {
    let Some(key) = key else { return };
    match sets.get_mut(key) {
        Some(set) => {
            set.insert(value);
        }
        None => {
            sets.insert(key.clone(), BTreeSet::from([value]));
        }
    }
}

/// Removes `value` from the set of `key`, and the set with its last value: a flood of keys must not pile up.
fn take_out<K: std::hash::Hash + Eq, V: Ord>(sets: &mut HashMap<K, BTreeSet<V>>, key: Option<&K>, value: &V) {
    let Some(key) = key else { return };
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

fn unlink(children: &mut HashMap<TaskKey, BTreeSet<Serial>>, parent: Option<&TaskKey>, serial: Serial) {
    take_out(children, parent, &serial);
}
