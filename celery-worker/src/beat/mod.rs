//! Periodic tasks: the scheduler behind `celery-beat`.

pub mod schedule;
pub mod store;
