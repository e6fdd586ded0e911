//! A task's id as events write it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A task's id as events write it: any text. A monitor shows what other programs do, also what they should not have
/// done; where an id is sent on, it must first become a [`celery_protocol::TaskId`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey(Arc<str>);

impl TaskKey {
    /// The longest id, in bytes.
    pub const MAX: usize = 255;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TaskKey {
    fn from(text: &str) -> TaskKey {
        TaskKey(text.into())
    }
}

impl Borrow<str> for TaskKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
