//! Remote control over the exchange `celery.pidbox` (kombu/pidbox.py, celery/worker/control.py): requests, the commands
//! that they stand for, and replies.
//!
//! Reading is strict about shapes and generous about content: a request of a wrong shape is an error that can be logged
//! or answered, an unknown command or a wrong argument is told to the caller in Celery's words. Nothing here acts; the
//! worker does.

mod command;
mod request;

pub use command::{Command, CommandError, Election, NewQueue};
pub use request::{ControlError, Pattern, ReplyTo, Request};

use serde_json::{Map, Value};

use crate::{ids::Nodename, pyjson};

/// Celery's fanout exchange for requests (`control_exchange` + `.pidbox`).
pub const EXCHANGE: &str = "celery.pidbox";
/// The direct exchange for replies.
pub const REPLY_EXCHANGE: &str = "reply.celery.pidbox";

/// The queue on which a node receives requests.
pub fn node_queue(node: &Nodename) -> String {
    format!("{node}.celery.pidbox")
}

/// The queue on which a client with this object id receives replies.
pub fn reply_queue(oid: &str) -> String {
    format!("{oid}.reply.celery.pidbox")
}

/// One node's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Who answers.
    pub node: String,
    /// What; `{"error": …}` when it went wrong.
    pub value: Value,
}

impl Reply {
    /// The body of a reply message: `{"<node>": <value>}`.
    ///
    /// # Errors
    /// A float that JSON can't hold.
    pub fn encode(&self) -> Result<Vec<u8>, pyjson::EncodeError> {
        let mut map = Map::new();
        map.insert(self.node.clone(), self.value.clone());
        pyjson::to_vec(&map)
    }

    /// Reads the body of a reply message.
    ///
    /// # Errors
    /// The body is not a JSON object.
    pub fn decode(body: &[u8]) -> Result<Vec<Reply>, ControlError> {
        let map: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| ControlError::new(error.to_string()))?;
        Ok(map.into_iter().map(|(node, value)| Reply { node, value }).collect())
    }
}

/// The value of a reply that tells of an error: `{"error": "…"}`.
pub fn error_value(text: impl Into<String>) -> Value {
    serde_json::json!({ "error": text.into() })
}

/// The value of a reply that says that all is well: `{"ok": "…"}`.
pub fn ok_value(text: impl Into<String>) -> Value {
    serde_json::json!({ "ok": text.into() })
}

#[cfg(test)]
mod tests;
