//! The wire as Celery 5.7.0 writes it: golden files captured from a running Celery by
//! `broker/testkit/python/capture.py`, and bad input that must be refused on purpose.

mod canvas;
mod control;
mod events;
mod golden;
mod messages;
mod python;
mod results;
