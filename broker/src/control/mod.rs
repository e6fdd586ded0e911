//! Remote control over the exchange `celery.pidbox`: asking workers ([`Client`]) and being asked ([`Node`]). What
//! requests and replies look like is celery-protocol's.

mod client;
mod cluster;
mod node;

pub use client::{Client, Destination};
pub use cluster::{Cluster, MAX_REVOCATIONS, MemoryCluster, Pace, Revocation};
pub use node::Node;

use std::time::Duration;

use bytes::Bytes;
use celery_protocol::{HeaderMap, Nodename, Properties, RawMessage, control};
use serde_json::Value;

use crate::Celery;
use crate::amqp::{ExchangeSpec, QueueSpec};

/// How long a queue for requests or replies outlives its reader (`control_queue_expires`).
const EXPIRES: Duration = Duration::from_secs(10);
/// How long a request or reply waits for its reader (`control_queue_ttl`).
const MESSAGE_TTL: Duration = Duration::from_secs(300);

/// The fanout exchange for requests.
fn request_exchange() -> ExchangeSpec {
    ExchangeSpec::transient(control::EXCHANGE, "fanout")
}

/// The direct exchange for replies.
fn reply_exchange() -> ExchangeSpec {
    ExchangeSpec::transient(control::REPLY_EXCHANGE, "direct")
}

fn private_queue(name: celery_protocol::QueueName) -> QueueSpec {
    QueueSpec::private(name, EXPIRES, MESSAGE_TTL)
}

/// A control message; requests are persistent and replies are not, as kombu sends them.
fn message(
    headers: impl IntoIterator<Item = (String, Value)>,
    body: Vec<u8>,
    delivery_mode: u8,
) -> RawMessage {
    RawMessage {
        properties: Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            delivery_mode: Some(delivery_mode),
            priority: Some(0),
            ..Properties::default()
        },
        headers: HeaderMap::from_iter(headers),
        body: Bytes::from(body),
    }
}

impl Celery {
    /// Asks workers.
    pub fn control(&self) -> Client {
        Client::new(self.clone())
    }

    /// Is asked, as the worker of this name.
    pub fn control_node(&self, name: &Nodename) -> Node {
        Node::start(self.clone(), name)
    }
}
