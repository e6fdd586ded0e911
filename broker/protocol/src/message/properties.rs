//! What AMQP delivers: basic properties, a table of headers, bytes. No interpretation.

use bytes::Bytes;
use serde_json::{Map, Value};

/// A table of headers as JSON values.
pub type HeaderMap = Map<String, Value>;

/// AMQP's basic properties, without the table of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// MIME type of the body before compression.
    pub content_type: Option<String>,
    /// Character encoding of the body before compression: `utf-8` or `binary`.
    pub content_encoding: Option<String>,
    /// 1: lost when the broker restarts; 2: kept.
    pub delivery_mode: Option<u8>,
    /// Higher is more urgent, 0 to 9 by custom. Celery leaves it out when a queue is named and no priority is.
    pub priority: Option<u8>,
    /// The task id, as Celery sends it.
    pub correlation_id: Option<String>,
    /// Queue for results of the RPC backend; kept when the message is sent again.
    pub reply_to: Option<String>,
    /// Milliseconds after which the broker drops the message, in digits.
    pub expiration: Option<String>,
    /// Not set by Celery.
    pub message_id: Option<String>,
    /// Seconds since 1970; not set by Celery.
    pub timestamp: Option<u64>,
    /// Not set by Celery.
    pub type_: Option<String>,
    /// Not set by Celery; if set, the broker checks that it is the connection's user.
    pub user_id: Option<String>,
    /// Not set by Celery.
    pub app_id: Option<String>,
}

impl Properties {
    /// The `delivery_mode` that survives a restart of the broker.
    pub const PERSISTENT: u8 = 2;
    /// The `delivery_mode` that does not.
    pub const TRANSIENT: u8 = 1;
}

/// A message as delivered or as to be published.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawMessage {
    /// Basic properties.
    pub properties: Properties,
    /// The table of headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// About how many bytes the headers take: keys and texts, and 8 for everything else.
pub(super) fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(key, value)| key.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum::<usize>() + 8,
        Value::Object(map) => size(map) + 8,
        _ => 8,
    }
}
