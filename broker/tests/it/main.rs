//! celery-broker against real servers.

mod support;

mod backend;
mod consume;
mod publish;
mod send;
