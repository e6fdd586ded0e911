//! Write Celery tasks in Rust, and run them.

// So that `#[task]`, which names this crate, works inside it.
extern crate self as celery_worker;

pub mod beat;
mod consumer;
pub mod context;
mod nodename;
mod pool;
pub mod prelude;
mod stats;
pub mod task;
mod worker;

#[doc(hidden)]
pub use task::private as __private;
