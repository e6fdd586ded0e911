//! The record of a submission: what makes an unknown id different from a pending one, and a repeated id safe.
//!
//! One JSON value in Redis per submission, under a key of this project (`celeriac:submission:<id>`), with a bounded lifetime. This module is the record and the decision what a second submission
//! with the same id means; `celery_broker::submission` stores it. Celery itself never looks at it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How far a submission got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A request is publishing it right now, or died while it did.
    Publishing,
    /// The broker has confirmed it.
    Accepted,
    /// The broker did not answer in time.
    Unknown,
    /// It was deleted by request.
    Forgotten,
}

/// What is kept of a submission. Members that are absent in an older record read as their default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// How far it got.
    pub stage: Stage,
    /// When the record was written, in seconds since 1970.
    pub at: f64,
    /// Digest of the body, without its id: tells a repetition from another task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// The task's name.
    #[serde(default)]
    pub task: String,
    /// The queue, unless an exchange chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The exchange.
    #[serde(default)]
    pub exchange: String,
    /// The routing key.
    #[serde(default)]
    pub routing_key: String,
    /// When it was submitted, as in the answer.
    #[serde(default)]
    pub submitted_at: String,
    /// `eta` of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
    /// `expires` of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// The first task of the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_id: Option<String>,
    /// The task that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Whether the result is kept, where the submission said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_result: Option<bool>,
    /// The stamps.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub stamps: Map<String, Value>,
    /// What the submitter noted.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
    /// The positional arguments, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Box<RawValue>>,
    /// The keyword arguments, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kwargs: Option<Box<RawValue>>,
}

/// What to do with a submission whose id has a record already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The broker has it: answer with the task's state.
    Deduplicate,
    /// Nobody knows whether the broker has it: publish it again, under the same id.
    Resend,
    /// Another request is at it: come back in a moment.
    InProgress,
    /// It is another task.
    Conflict,
}

impl Record {
    /// What is left of a task that was deleted by request.
    pub fn forgotten(at: f64) -> Record {
        Record {
            stage: Stage::Forgotten,
            at,
            fingerprint: String::new(),
            task: String::new(),
            queue: None,
            exchange: String::new(),
            routing_key: String::new(),
            submitted_at: String::new(),
            eta: None,
            expires_at: None,
            group_id: None,
            root_id: None,
            parent_id: None,
            ignore_result: None,
            stamps: Map::new(),
            meta: Map::new(),
            args: None,
            kwargs: None,
        }
    }

    /// Reads a stored record.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        serde_json::from_slice(bytes).ok()
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and raw JSON only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a new submission with `fingerprint` at `now` means for this record; a request that has been publishing for
    /// longer than `patience` is taken for dead.
    pub fn repeat(&self, fingerprint: &str, now: f64, patience: Duration) -> Repeat {
        match self.stage {
            Stage::Forgotten => Repeat::Resend,
            _ if self.fingerprint != fingerprint => Repeat::Conflict,
            Stage::Accepted => Repeat::Deduplicate,
            Stage::Unknown => Repeat::Resend,
            Stage::Publishing if now - self.at < patience.as_secs_f64() => Repeat::InProgress,
            Stage::Publishing => Repeat::Resend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stage: Stage) -> Record {
        let text = format!(
            r#"{{"stage":{},"at":100,"fingerprint":"f"}}"#,
            serde_json::to_string(&stage).expect("word")
        );
        Record::decode(text.as_bytes()).expect("a record")
    }

    #[test]
    fn a_repeated_id_is_decided_by_body_and_stage() {
        let patience = Duration::from_secs(10);
        for (stage, fingerprint, now, expected) in [
            (Stage::Accepted, "f", 101.0, Repeat::Deduplicate),
            (Stage::Accepted, "g", 101.0, Repeat::Conflict),
            (Stage::Unknown, "f", 101.0, Repeat::Resend),
            (Stage::Unknown, "g", 101.0, Repeat::Conflict),
            (Stage::Publishing, "f", 101.0, Repeat::InProgress),
            (Stage::Publishing, "f", 111.0, Repeat::Resend),
            (Stage::Publishing, "g", 111.0, Repeat::Conflict),
            (Stage::Forgotten, "g", 101.0, Repeat::Resend),
        ] {
            assert_eq!(
                record(stage).repeat(fingerprint, now, patience),
                expected,
                "{stage:?} {fingerprint} {now}"
            );
        }
    }

    #[test]
    fn keeps_arguments_byte_for_byte() {
        let mut stored = record(Stage::Accepted);
        stored.args = RawValue::from_string("[1.50, 1e400, 123456789012345678901234567890]".to_owned()).ok();
        let read = Record::decode(&stored.encode()).expect("a record");
        assert_eq!(read.args.expect("args").get(), "[1.50, 1e400, 123456789012345678901234567890]");
        assert!(Record::decode(b"not json").is_none());
    }
}
