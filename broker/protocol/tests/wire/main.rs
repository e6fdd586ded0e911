//! The wire as Celery 5.7.0 writes it: golden files captured from a running Celery by
//! `broker/testkit/python/capture.py`, and bad input that must be refused on purpose.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test tells what is wrong by ending")]

mod bad_input;
mod canvas;
mod control;
mod events;
mod golden;
mod messages;
mod properties;
mod python;
mod results;
