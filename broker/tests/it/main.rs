//! celery-broker against real servers.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

mod backend;
mod chords;
mod consume;
mod publish;
mod send;
mod signals;
mod tls;
