//! The only code that knows lapin: connections, publishing, consuming, topology.
//!
//! ```text
//! Link (connection) ── Session ──┬── Lane      ◄── Publisher       one channel, confirms, exact returns
//!  supervised, redials for ever  ├── Keeper    ◄── Consumer        one channel, prefetch, ack ledger
//!                                └── topology, look-ups            a channel each
//! ```

pub(crate) mod backoff;
pub(crate) mod connection;
pub(crate) mod delayed;
mod fault;
pub(crate) mod sift;
pub(crate) mod table;
pub(crate) mod topology;

mod inflight;
mod lane;
mod publisher;
mod returns;

mod consumer;
mod delivery;
mod keeper;
mod ledger;
mod repair;

pub use consumer::{ConsumeOptions, Consumer, ConsumerEvent};
pub use delayed::undelayed;
pub use delivery::{Delivery, Requeue, Token};
pub use publisher::{PublishOptions, Publisher, Route, WhenUnavailable};
pub use sift::Verdict;
pub use topology::{ExchangeSpec, Existing, QueueDepth, QueueSpec};

/// Log directives that go before a program's own (`tracing_subscriber`'s `EnvFilter`): the AMQP library calls it an error
/// when the broker closes a channel, which is how the broker answers our own questions, such as whether a queue exists.
/// Whatever is an error is told by this crate.
pub const LOG_DIRECTIVES: &str = "lapin::channel=off";
