//! Why a message is not one: a closed list of reasons for metrics, a sentence for the log, the id if it can be read.

use std::fmt;

use serde_json::Value;

use super::{HeaderMap, Headers};
use crate::TaskId;

/// The kinds of fault that a message can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The body is not `[args, kwargs, embed]`, or not readable at all.
    BadBody,
    /// Callbacks, errbacks, chain or chord are not signatures.
    BadEmbed,
    /// The id is missing, not text, or not a [`TaskId`].
    BadId,
    /// The task name is missing, not text, or not a [`TaskName`](crate::TaskName).
    BadTaskName,
    /// A header that decides about the run has a value that it can't have.
    BadHeader,
    /// `eta` is not a time.
    InvalidEta,
    /// `expires` is not a time.
    InvalidExpires,
    /// No content type.
    ContentMissing,
    /// A content type that is never read: pickle, or unknown.
    ContentDisallowed,
    /// A known content type or encoding that has no reader here, or that can't hold a call.
    ContentUnsupported,
    /// A compression that is unknown or has no reader here.
    UnknownCompression,
    /// The body is not compressed as the header says.
    BadCompression,
    /// Body, headers, or the unpacked body are beyond the limits.
    TooLarge,
}

impl Reason {
    /// The reason as one word for metrics and logs.
    pub fn slug(self) -> &'static str {
        match self {
            Self::BadBody => "bad_body",
            Self::BadEmbed => "bad_embed",
            Self::BadId => "bad_id",
            Self::BadTaskName => "bad_task_name",
            Self::BadHeader => "bad_header",
            Self::InvalidEta => "invalid_eta",
            Self::InvalidExpires => "invalid_expires",
            Self::ContentMissing => "content_missing",
            Self::ContentDisallowed => "content_disallowed",
            Self::ContentUnsupported => "content_unsupported",
            Self::UnknownCompression => "unknown_compression",
            Self::BadCompression => "bad_compression",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slug())
    }
}

/// A message that can't be run. It is to be rejected without requeue, never acked away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Malformed {
    /// The kind of fault.
    pub reason: Reason,
    /// The fault in words. Holds at most a short piece of the message, without control characters.
    pub detail: String,
    /// The id, if it can be read; a FAILURE can be stored under it.
    pub task_id: Option<TaskId>,
    /// The text in the header `task`, cut to 255 characters, if it is text.
    pub task: Option<String>,
}

impl Malformed {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), task_id: None, task: None }
    }

    /// With the names that unvalidated headers give.
    pub(crate) fn of(headers: &HeaderMap, reason: Reason, detail: impl Into<String>) -> Self {
        let text = |key: &str| headers.get(key).and_then(Value::as_str);
        Self {
            reason,
            detail: detail.into(),
            task_id: text("id").and_then(|id| TaskId::parse(id).ok()),
            task: text("task").map(|task| task.chars().take(255).collect()),
        }
    }

    /// With the names that validated headers give.
    pub(crate) fn naming(self, headers: &Headers) -> Self {
        Self { task_id: Some(headers.id.clone()), task: Some(headers.task.to_string()), ..self }
    }
}
