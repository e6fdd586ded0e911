//! Periodic tasks: the scheduler behind `celery-beat`.
//!
//! [`entry`] reads the schedule, [`plan`] knows what is due, [`store`] remembers it over restarts, [`service`] sends.

pub mod crontab;
pub mod schedule;
pub mod entry;
pub mod plan;
pub mod store;
pub mod service;
