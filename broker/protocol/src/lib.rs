//! Celery wire formats, pure: no IO, no clock, no randomness.

pub mod ids;
pub mod time;
pub mod limits;
pub mod pyjson;
pub mod args;
pub mod repr;

pub use crate::{
    ids::{GroupId, IdError, Nodename, QueueName, TaskId, TaskName, Ticket},
    limits::Limits,
    time::{TimeError, WireTime},
};
