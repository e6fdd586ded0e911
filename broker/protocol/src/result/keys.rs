//! The names of Celery's keys in Redis. A channel on which a result is announced has the name of its key.

use crate::{GroupId, TaskId};

/// What stands before every key: `global_keyprefix`, with `_` behind it unless it ends in one of `: _ - .`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(String);

/// The keys of one chord. All of them are of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChordKeys {
    /// Sorted set (or list) of the encoded results.
    pub results: String,
    /// How many members were added while it ran.
    pub total_diff: String,
    /// The size, written by the producer with the last header task.
    pub size: String,
    /// Set of `id:score` of the members that were counted.
    pub seen: String,
    /// Who sends the body: a token, or `done`.
    pub claim: String,
}

impl Prefix {
    /// From the setting `global_keyprefix`; empty is none.
    pub fn new(global_keyprefix: &str) -> Self {
        let mut prefix = global_keyprefix.to_owned();
        if !prefix.is_empty() && !prefix.ends_with([':', '_', '-', '.']) {
            prefix.push('_');
        }
        Self(prefix)
    }

    /// What stands before every key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a task's record.
    pub fn task_meta(&self, id: &TaskId) -> String {
        [&self.0, "celery-task-meta-", id.as_str()].concat()
    }

    /// The key of a group's record.
    pub fn group_meta(&self, id: &GroupId) -> String {
        [&self.0, "celery-taskset-meta-", id.as_str()].concat()
    }

    /// The keys of a chord.
    pub fn chord(&self, id: &GroupId) -> ChordKeys {
        let group = self.group_meta(id);
        let key = |suffix: &str| [&group, suffix].concat();
        ChordKeys {
            results: key(".j"),
            total_diff: key(".t"),
            size: key(".s"),
            seen: key(".d"),
            claim: key(".c"),
        }
    }

    /// The task that a key of [`task_meta`](Self::task_meta) is of.
    pub fn task_of(&self, key: &str) -> Option<TaskId> {
        TaskId::parse(key.strip_prefix(&*self.0)?.strip_prefix("celery-task-meta-")?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_celerys() {
        let id = TaskId::parse("a").unwrap();
        assert_eq!(Prefix::new("").task_meta(&id), "celery-task-meta-a");
        assert_eq!(Prefix::new("app").task_meta(&id), "app_celery-task-meta-a");
        assert_eq!(Prefix::new("app:").task_meta(&id), "app:celery-task-meta-a");
        assert_eq!(Prefix::new("app").task_of("app_celery-task-meta-a"), Some(id.clone()));
        assert_eq!(Prefix::new("").chord(&id.into()).size, "celery-taskset-meta-a.s");
    }
}
