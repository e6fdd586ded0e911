//! Real servers and Python peers for the tests; nothing here is a mock.
//!
//! Everything a test starts is its own: servers listen on free ports of 127.0.0.1, keep their data in a
//! temporary folder, and end with the test process, whichever way that ends (see [`Program`]).
//! A server or peer that is not installed fails the test and names what to install; nothing is skipped.
//!
//! ```no_run
//! # async fn test() {
//! use celery_testkit::{PythonWorker, Rabbit, Redis};
//!
//! let broker = Rabbit::shared().await.vhost("orders").await; // an empty vhost of one shared server
//! let backend = Redis::shared().await.database(); // an empty database of one shared server
//! let peer = PythonWorker::peer(&broker, &backend, &["--pool", "solo"]).await;
//! # }
//! ```
//!
//! The helpers panic when they cannot do what was asked, with the output of the process concerned:
//! that is what a test wants. The crate uses no other crate of the workspace.

pub mod wait;

mod program;
pub use program::{Program, binary};

mod rabbitmq;
pub use rabbitmq::{QueueState, Rabbit};

mod redis;
pub use redis::Redis;

mod python;
pub use python::{Flower, Output, Python, PythonWorker, peer_app};

pub mod config;
pub mod document;
pub mod golden;
mod guard;
pub mod kubelet;
pub mod ports;
