//! Celery wire formats, pure: no IO, no clock, no randomness.

pub mod args;
pub mod ext;
pub mod event;
pub mod ids;
pub mod limits;
pub mod pyjson;
pub mod repr;
pub mod time;

pub use crate::{
    ids::{GroupId, IdError, Nodename, QueueName, TaskId, TaskName, Ticket},
    limits::Limits,
    time::{TimeError, WireTime},
};
