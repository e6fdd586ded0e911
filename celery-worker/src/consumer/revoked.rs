//! The tasks that must not start: a bounded, ageing set of ids, and stamps that revoke whatever carries them.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, SystemTime};

use serde_json::Value;

/// As Celery's `CELERY_WORKER_REVOKES_MAX`.
const MAX_IDS: usize = 50_000;
/// As Celery's `CELERY_WORKER_REVOKE_EXPIRES`.
const MAX_AGE: Duration = Duration::from_secs(10_800);
/// More stamp names, or values of one name, are refused: they have no age and would grow for ever.
const MAX_STAMPS: usize = 1_000;

/// What a worker knows to be revoked.
#[derive(Debug)]
pub(crate) struct Revoked<K> {
    ids: LimitedSet<K>,
    stamps: HashMap<String, Vec<Value>>,
}

impl<K: Clone + Eq + Hash> Default for Revoked<K> {
    fn default() -> Self {
        Revoked::new(MAX_AGE)
    }
}

impl<K: Clone + Eq + Hash> Revoked<K> {
    /// Nothing is revoked; what will be is forgotten after `max_age`.
    pub(crate) fn new(max_age: Duration) -> Revoked<K> {
        Revoked { ids: LimitedSet::new(MAX_IDS, max_age), stamps: HashMap::new() }
    }

    /// Nothing is revoked: the common case, which costs no look-up.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.stamps.is_empty()
    }

    /// Revokes a task.
    pub(crate) fn add(&mut self, id: K, now: SystemTime) {
        self.ids.insert(id, now);
    }

    /// Revokes whatever carries the stamp `name` with one of `values`; false when the limit is reached.
    pub(crate) fn add_stamp(&mut self, name: &str, values: impl IntoIterator<Item = Value>) -> bool {
        if !self.stamps.contains_key(name) && self.stamps.len() >= MAX_STAMPS {
            return false;
        }
        let known = self.stamps.entry(name.to_owned()).or_default();
        for value in values {
            if known.len() >= MAX_STAMPS {
                return false;
            }
            if !known.contains(&value) {
                known.push(value);
            }
        }
        true
    }

    /// Whether the task is revoked by its id.
    pub(crate) fn has(&self, id: &K) -> bool {
        self.ids.contains(id)
    }

    /// Whether one of the stamps given (name and value; a list stands for each of its members) is revoked.
    pub(crate) fn has_stamp<'a>(&self, stamps: impl IntoIterator<Item = (&'a str, &'a Value)>) -> bool {
        stamps.into_iter().any(|(name, value)| {
            self.stamps.get(name).is_some_and(|revoked| match value {
                Value::Array(values) => values.iter().any(|value| revoked.contains(value)),
                value => revoked.contains(value),
            })
        })
    }

    /// The revoked stamps by name.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.stamps.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// The revoked ids, oldest first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &K> {
        self.ids.iter()
    }
}

/// A set that forgets: the oldest first when it is full, and whatever is older than `max_age`.
#[derive(Debug)]
pub(crate) struct LimitedSet<K> {
    added: HashMap<K, SystemTime>,
    order: VecDeque<(K, SystemTime)>,
    capacity: usize,
    max_age: Duration,
}

impl<K: Clone + Eq + Hash> LimitedSet<K> {
    /// An empty set.
    pub(crate) fn new(capacity: usize, max_age: Duration) -> LimitedSet<K> {
        LimitedSet { added: HashMap::new(), order: VecDeque::new(), capacity, max_age }
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    /// Adds an item or renews its age.
    pub(crate) fn insert(&mut self, item: K, now: SystemTime) {
        self.added.insert(item.clone(), now);
        self.order.push_back((item, now));
        let oldest_kept = now.checked_sub(self.max_age).unwrap_or(SystemTime::UNIX_EPOCH);
        while let Some((_, added)) = self.order.front() {
            if *added >= oldest_kept
                && self.added.len() <= self.capacity
                && self.order.len() <= 2 * self.capacity
            {
                break;
            }
            let Some((item, added)) = self.order.pop_front() else { break };
            if self.added.get(&item) == Some(&added) {
                self.added.remove(&item);
            }
        }
    }

    /// Whether the item is in the set.
    pub(crate) fn contains(&self, item: &K) -> bool {
        self.added.contains_key(item)
    }

    /// All items, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.order.iter().filter(|(item, added)| self.added.get(item) == Some(added)).map(|(item, _)| item)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn the_oldest_goes_when_the_set_is_full() {
        let mut set = LimitedSet::new(3, Duration::from_secs(100));
        for n in 0..5 {
            set.insert(n, at(n));
        }
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        set.insert(2, at(5));
        set.insert(9, at(6));
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [4, 2, 9]);
        assert_eq!(set.added.len(), 3);
    }

    #[test]
    fn what_is_too_old_goes() {
        let mut set = LimitedSet::new(10, Duration::from_secs(100));
        set.insert('a', at(0));
        set.insert('b', at(101));
        assert!(!set.contains(&'a') && set.contains(&'b'));
    }

    #[test]
    fn renewing_one_item_for_ever_does_not_grow() {
        let mut set = LimitedSet::new(3, Duration::from_secs(1_000_000));
        for n in 0..1_000 {
            set.insert('a', at(n));
        }
        assert!(set.order.len() <= 7 && set.contains(&'a'));
    }

    #[test]
    fn stamps_match_by_value_and_lists_by_member() {
        let mut revoked = Revoked::<u8>::default();
        assert!(revoked.is_empty());
        assert!(revoked.add_stamp("job", [json!("j1"), json!("j2")]));
        let has = |name, value: Value| revoked.has_stamp([(name, &value)]);
        assert!(has("job", json!("j1")) && has("job", json!(["j0", "j2"])));
        assert!(!has("job", json!("j3")) && !has("other", json!("j1")));
    }
}
