//! Periodic tasks: the scheduler behind `celery-beat`.
//!
//! [`entry`] reads the schedule, [`plan`] knows what is due, [`store`] remembers it over restarts, [`service`] sends.

pub mod crontab;
pub mod entry;
pub mod plan;
pub mod schedule;
pub mod service;
pub mod store;
