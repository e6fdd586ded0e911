//! The states of a task, Celery's and custom ones.

use std::{cmp::Ordering, convert::Infallible, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The state of a task. Custom states (`PROGRESS` by custom) are any other text.
///
/// Ordered by Celery's precedence: what shadows the other when both are known is greater. Custom states are between
/// FAILURE and REVOKED, and among themselves by name, so that the order is total.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Nothing is known of it: not sent, waiting, or forgotten.
    Pending,
    /// A worker has the message. Only events tell so, no worker stores it.
    Received,
    /// It runs; stored if the task tracks that.
    Started,
    /// It failed and was sent again.
    Retry,
    /// It is done; a stored SUCCESS is never overwritten.
    Success,
    /// It raised an exception.
    Failure,
    /// It was revoked or it expired.
    Revoked,
    /// A worker refused it. Only events tell so.
    Rejected,
    /// It threw its result away. Never stored.
    Ignored,
    /// Any other text.
    Custom(Arc<str>),
}

impl TaskState {
    /// Celery's name of the state.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Received => "RECEIVED",
            Self::Started => "STARTED",
            Self::Retry => "RETRY",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Rejected => "REJECTED",
            Self::Ignored => "IGNORED",
            Self::Custom(name) => name,
        }
    }

    /// Whether a result in this state is final: SUCCESS, FAILURE or REVOKED.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }

    /// Whether the result in this state is an exception: FAILURE, REVOKED or RETRY.
    pub fn is_exception(&self) -> bool {
        matches!(self, Self::Failure | Self::Revoked | Self::Retry)
    }

    /// Whether waiting for a result in this state raises its exception: FAILURE or REVOKED.
    pub fn propagates(&self) -> bool {
        matches!(self, Self::Failure | Self::Revoked)
    }

    /// Celery's precedence, smaller shadows greater.
    fn rank(&self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Custom(_) => 2,
            Self::Revoked => 3,
            Self::Started => 4,
            Self::Received => 5,
            Self::Rejected => 6,
            Self::Retry => 7,
            Self::Pending => 8,
            Self::Ignored => 9,
        }
    }
}

impl Ord for TaskState {
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank()).then_with(|| self.as_str().cmp(other.as_str()))
    }
}

impl PartialOrd for TaskState {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<&str> for TaskState {
    fn from(name: &str) -> Self {
        match name {
            "PENDING" => Self::Pending,
            "RECEIVED" => Self::Received,
            "STARTED" => Self::Started,
            "RETRY" => Self::Retry,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "REVOKED" => Self::Revoked,
            "REJECTED" => Self::Rejected,
            "IGNORED" => Self::Ignored,
            custom => Self::Custom(custom.into()),
        }
    }
}

impl FromStr for TaskState {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(name.into())
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TaskState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_is_celerys() {
        let states = [
            "PENDING", "RETRY", "REJECTED", "RECEIVED", "STARTED", "REVOKED", "PROGRESS", "FAILURE",
            "SUCCESS",
        ];
        let states = states.map(TaskState::from);
        assert!(states.is_sorted());
        assert_eq!(TaskState::from("SUCCESS"), TaskState::Success);
        assert_eq!(TaskState::from("PROGRESS").as_str(), "PROGRESS");
        assert!(
            TaskState::Revoked.propagates()
                && TaskState::Retry.is_exception()
                && !TaskState::Retry.is_ready()
        );
    }
}
