//! All tasks that are remembered, with the indexes that make lists cheap and the bounds that keep memory flat.
//!
//! Each index holds tasks by the time they are listed by, so that a page of a list is read off its end, whatever the
//! number of tasks. What was changed longest ago is forgotten first; how much was forgotten is counted.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use celery_protocol::TaskState;
use hashbrown::HashTable;

use super::key::TaskKey;
use super::mark::Mark;
use super::order::{Order, Place};
use super::packed::NameList;
use super::task::{Serial, Taken, Task};
use super::time::UnixTime;

/// The tasks.
#[derive(Debug, Default)]
pub struct Tasks {
    /// The numbers of tasks, by the hash of their ids; the ids themselves are in the tasks.
    ids: HashTable<Serial>,
    hasher: RandomState,
    /// By number.
    tasks: Vec<Option<Task>>,
    /// Numbers that no task has.
    free: Vec<Serial>,
    names: NameLists,
    /// Changes, oldest first: (version, task). An entry is stale when its task has changed again since.
    changes: VecDeque<(u64, Serial)>,
    weight: usize,
    evicted: u64,
    orphaned: usize,
    places: Places,
    children: HashMap<TaskKey, BTreeSet<Serial>>,
}

/// The lists of names that tasks share: there are few of them, one for each worker and name, about.
#[derive(Debug, Default)]
struct NameLists {
    lists: HashSet<NameList>,
    sweep_at: usize,
}

impl NameLists {
    /// How many are kept before those that no task has any more are looked for.
    const SWEEP_AT_LEAST: usize = 1_024;

    fn share(&mut self, names: Vec<Arc<str>>) -> NameList {
        if let Some(known) = self.lists.get(&*names) {
            return known.clone();
        }
        if self.lists.len() >= self.sweep_at.max(NameLists::SWEEP_AT_LEAST) {
            self.lists.retain(|list| Arc::strong_count(list) > 1);
            self.sweep_at = self.lists.len() * 2;
        }
        let names: NameList = names.into();
        self.lists.insert(names.clone());
        names
    }
}

/// The indexes.
#[derive(Debug, Default)]
struct Places {
    all: Order,
    by_change: Order,
    by_state: HashMap<TaskState, Order>,
    by_name: HashMap<Arc<str>, Order>,
    by_worker: HashMap<Arc<str>, Order>,
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
    pub fn record(&mut self, id: &str, mark: &Mark, version: u64) -> Recorded {
        let serial = self.serial_of(id).unwrap_or_else(|| self.add(id));
        let Some(task) = self.tasks.get_mut(serial as usize).and_then(Option::as_mut) else {
            return Recorded { taken: Taken::Known, ran_on: None };
        };
        let ran_on = task.is_running().then(|| task.worker().cloned()).flatten();
        let before = (task.count() > 0).then(|| Keys::of(task));
        let weight = before.as_ref().map_or(0, |_| task.weight());
        let names = &mut self.names;
        if task.record(mark, version, &mut |list| names.share(list)) == Taken::Known {
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
        let Some(serial) = self.serial_of(id) else { return false };
        let Some(task) = self.tasks.get_mut(serial as usize).and_then(Option::as_mut) else { return false };
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
        let serial = self.serial_of(id);
        if let Some(task) = serial.and_then(|serial| self.tasks.get_mut(serial as usize)?.as_mut()) {
            task.forgot(marks);
        }
    }

    fn serial_of(&self, id: &str) -> Option<Serial> {
        let is_it = |serial: &Serial| self.numbered(*serial).is_some_and(|task| task.id() == id);
        self.ids.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn numbered(&self, serial: Serial) -> Option<&Task> {
        self.tasks.get(serial as usize)?.as_ref()
    }

    fn add(&mut self, id: &str) -> Serial {
        let serial = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            // Memory ends long before numbers do.
            Serial::try_from(self.tasks.len() - 1).unwrap_or(Serial::MAX)
        });
        if let Some(slot) = self.tasks.get_mut(serial as usize) {
            *slot = Some(Task::new(id, serial));
        }
        let (tasks, hasher) = (&self.tasks, &self.hasher);
        let hash = |serial: &Serial| {
            let task = tasks.get(*serial as usize).and_then(Option::as_ref);
            hasher.hash_one(task.map_or("", Task::id))
        };
        self.ids.insert_unique(hasher.hash_one(id), serial, hash);
        serial
    }

    /// Forgets the task that was changed longest ago, if there is more than `room`.
    pub fn evict_beyond(&mut self, room: Room) -> Option<Task> {
        if self.len() <= room.tasks && self.weight <= room.bytes {
            return None;
        }
        while let Some((version, serial)) = self.changes.pop_front() {
            if self.numbered(serial).is_some_and(|task| task.version() == version) {
                self.evicted += 1;
                return self.remove(serial);
            }
        }
        None
    }

    fn remove(&mut self, serial: Serial) -> Option<Task> {
        let task = self.tasks.get_mut(serial as usize)?.take()?;
        self.free.push(serial);
        if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(task.id()), |known| *known == serial) {
            entry.remove();
        }
        let keys = Keys::of(&task);
        self.places.remove(&keys, serial);
        self.orphaned = self.orphaned.saturating_sub(usize::from(task.is_orphaned()));
        unlink(&mut self.children, keys.parent.as_ref(), serial);
        self.weight = self.weight.saturating_sub(task.weight());
        Some(task)
    }

    /// Keeps the queue of changes at no more than a quarter above the number of tasks.
    fn drop_stale_changes(&mut self) {
        if self.changes.len() > self.len() + self.len() / 4 + 64 {
            let tasks = &self.tasks;
            self.changes.retain(|(version, serial)| {
                let task = tasks.get(*serial as usize).and_then(Option::as_ref);
                task.is_some_and(|task| task.version() == *version)
            });
        }
    }

    /// The task with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.numbered(self.serial_of(id)?)
    }

    /// How many tasks are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
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
            .filter_map(|(changed, serial)| self.numbered(*serial).filter(|task| task.version() == *changed))
    }

    /// The same, oldest change first.
    pub fn changes_after(&self, version: u64) -> impl Iterator<Item = &Task> {
        let from = self.changes.partition_point(|(changed, _)| *changed <= version);
        self.changes
            .range(from..)
            .filter_map(|(changed, serial)| self.numbered(*serial).filter(|task| task.version() == *changed))
    }

    /// The tasks whose parent is `id`, oldest first.
    pub fn children(&self, id: &str) -> impl Iterator<Item = &Task> {
        let mut children: Vec<&Task> = self.called_by(id).collect();
        children.sort_by_key(|child| (child.listed_at(), child.serial()));
        children.into_iter()
    }

    fn called_by(&self, id: &str) -> impl Iterator<Item = &Task> {
        self.children.get(id).into_iter().flatten().filter_map(|serial| self.numbered(*serial))
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
            for child in self.called_by(caller) {
                if seen.insert(child.serial()) {
                    found.push(child);
                    callers.push(child.id());
                }
            }
        }
        found.into_iter()
    }

    /// The task at a place of an index.
    #[must_use]
    pub fn at(&self, place: Place) -> Option<&Task> {
        self.numbered(place.serial())
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
        let places = self.places.by_state.get(state).into_iter();
        places
            .flat_map(move |places| places.after(after))
            .filter_map(|place| self.at(place))
            .filter(move |task| task.timestamp() < before || task.is_orphaned())
            .take(limit)
    }

    /// Every task, by the time it came into its state, newest first.
    pub fn by_change(&self) -> impl Iterator<Item = &Task> {
        self.places.by_change.iter().rev().filter_map(|place| self.at(place))
    }

    /// Every task, by time.
    #[must_use]
    pub fn all(&self) -> &Order {
        &self.places.all
    }

    /// The tasks in `state`, by time.
    #[must_use]
    pub fn in_state(&self, state: &TaskState) -> Option<&Order> {
        self.places.by_state.get(state)
    }

    /// The tasks of exactly this name, by time.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Order> {
        self.places.by_name.get(name)
    }

    /// The tasks of this worker, by time.
    #[must_use]
    pub fn on_worker(&self, worker: &str) -> Option<&Order> {
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
        Keys {
            listed_at: task.listed_at(),
            changed_at: task.timestamp(),
            state: task.state().clone(),
            name: task.name().cloned(),
            worker: task.worker().cloned(),
            parent: task.parent().map(TaskKey::from),
        }
    }
}

impl Places {
    /// Moves a task from where it was to where it belongs; what hasn't changed stays where it is.
    fn update(&mut self, before: Option<&Keys>, after: &Keys, serial: Serial) {
        let Some(before) = before else { return self.insert(after, serial) };
        let (old, new) = (Place::new(before.listed_at, serial), Place::new(after.listed_at, serial));
        if before.changed_at != after.changed_at {
            self.by_change.remove(Place::new(before.changed_at, serial));
            self.by_change.insert(Place::new(after.changed_at, serial));
        }
        if old != new {
            self.all.remove(old);
            self.all.insert(new);
        }
        if old != new || before.state != after.state {
            take_out(&mut self.by_state, Some(&before.state), old);
            put_in(&mut self.by_state, Some(&after.state), new);
        }
        if old != new || before.name != after.name {
            take_out(&mut self.by_name, before.name.as_ref(), old);
            put_in(&mut self.by_name, after.name.as_ref(), new);
        }
        if old != new || before.worker != after.worker {
            take_out(&mut self.by_worker, before.worker.as_ref(), old);
            put_in(&mut self.by_worker, after.worker.as_ref(), new);
        }
    }

    fn insert(&mut self, keys: &Keys, serial: Serial) {
        let place = Place::new(keys.listed_at, serial);
        self.all.insert(place);
        self.by_change.insert(Place::new(keys.changed_at, serial));
        put_in(&mut self.by_state, Some(&keys.state), place);
        put_in(&mut self.by_name, keys.name.as_ref(), place);
        put_in(&mut self.by_worker, keys.worker.as_ref(), place);
    }

    fn remove(&mut self, keys: &Keys, serial: Serial) {
        let place = Place::new(keys.listed_at, serial);
        self.all.remove(place);
        self.by_change.remove(Place::new(keys.changed_at, serial));
        take_out(&mut self.by_state, Some(&keys.state), place);
        take_out(&mut self.by_name, keys.name.as_ref(), place);
        take_out(&mut self.by_worker, keys.worker.as_ref(), place);
    }
}

fn put_in<K: Clone + std::hash::Hash + Eq>(orders: &mut HashMap<K, Order>, key: Option<&K>, place: Place) {
    let Some(key) = key else { return };
    match orders.get_mut(key) {
        Some(order) => order.insert(place),
        None => orders.entry(key.clone()).or_default().insert(place),
    }
}

/// Removes `place` from the index of `key`, and the index with its last one: a flood of keys must not pile up.
fn take_out<K: std::hash::Hash + Eq>(orders: &mut HashMap<K, Order>, key: Option<&K>, place: Place) {
    let Some(key) = key else { return };
    if let Some(order) = orders.get_mut(key) {
        order.remove(place);
        if order.is_empty() {
            orders.remove(key);
        }
    }
}

fn unlink(children: &mut HashMap<TaskKey, BTreeSet<Serial>>, parent: Option<&TaskKey>, serial: Serial) {
    let Some(parent) = parent else { return };
    if let Some(set) = children.get_mut(parent) {
        set.remove(&serial);
        if set.is_empty() {
            children.remove(parent);
        }
    }
}
