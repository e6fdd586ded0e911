//! Write Celery tasks in Rust, and run them.

mod consumer;
mod nodename;
mod pool;
mod stats;
mod worker;
pub mod beat;
