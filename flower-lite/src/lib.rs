//! flower-lite: a live monitor for Celery.
//!
//! Workers of any kind (Python's, ours) tell what they do in events. The monitor keeps what follows from them in memory
//! and serves it as JSON, as a live stream, and as pages. It is a program of its own, and a library with one door:
//! [`scope`] mounts it into another actix-web program.
//!
//! # Layout
//!
//! * [`state`]: the state of a cluster, pure; [`view`] makes JSON of it.
//! * [`collector`]: the one task that writes the state; [`monitor`]: the handle by which everyone reads it.
//! * `source`: where events come from; [`config`]: the program's settings.
//! * [`recording`]: events to a file, and back from there.
//! * [`live`]: what live clients are told.
//! * [`history`]: the state on disk, searchable.
//! * [`inspect`]: what workers answer when they are asked; [`queues`]: how deep their queues are.
//! * [`routes`]: what is served; [`assets`]: the built pages; [`guard`]: which hosts are answered for; [`access`]: who
//!   may come in and change something.
//! * [`flower`]: Flower's own HTTP API; [`metrics`]: its numbers for Prometheus, and celery-exporter's.
//! * [`actions`]: what can be changed, [`audit`] who did; [`redact`]: what nobody is to see.
//! * [`alerts`]: what goes wrong, told to a webhook by [`outbound`] requests.
//! * [`startup`]: puts a monitor together.

pub mod access;
pub mod actions;
pub mod alerts;
pub mod assets;
pub mod audit;
pub mod clock;
pub mod collector;
pub mod config;
pub mod error;
pub mod failures;
pub mod flower;
pub mod guard;
pub mod history;
pub mod inspect;
pub mod live;
pub mod metrics;
pub mod monitor;
pub mod outbound;
pub mod queues;
pub mod recording;
pub mod redact;
pub mod routes;
mod source;
pub mod startup;
pub mod state;
mod stored;
pub mod telemetry;
pub mod view;

pub use monitor::{Monitor, MonitorOptions};
pub use routes::scope;
