//! Write Celery tasks in Rust, and run them.
//!
//! # Layout
//!
//! * [`task`], [`context`]: what one writes tasks with; [`prelude`] has all of it; [`testing`]: their unit tests.
//! * [`Worker`]: what runs them. `consumer` (from messages to jobs) → `pool` (concurrency slots) → `trace` (from a call to
//!   its consequences), and beside them `control` (remote control) and `heartbeat`.
//! * [`config`]: the settings by Celery's names; [`nodename`]: `w1@%h`; [`health`]: what probes read.
//! * [`beat`]: periodic tasks.

// So that `#[task]`, which names this crate, works inside it.
extern crate self as celery_worker;

pub mod context;
pub mod prelude;
pub mod task;
pub mod testing;

mod builtin;
mod consumer;
mod control;
mod heartbeat;
mod pool;
mod signals;
mod stats;
mod trace;
mod worker;

pub mod beat;
pub mod config;
pub mod guide;
pub mod health;
pub mod nodename;

pub use pool::autoscale::Range as AutoscaleRange;
#[doc(hidden)]
pub use task::private as __private;
pub use worker::{
    BuildError, BuildErrorKind, NewQueues, Settings, Stopped, Worker, WorkerBuilder, WorkerError,
    WorkerHandle,
};
