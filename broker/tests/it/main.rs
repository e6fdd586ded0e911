//! celery-broker against real servers.

mod support;

mod consume;
mod publish;
