//! The programs end to end, as their users meet them: real servers, the built binaries, and Python Celery,
//! Flower and HTTP on the other side.
//!
//! `CELERIAC_WORKER=python` puts Python Celery in the place of our worker, to see what a test would say
//! about it.

#![expect(clippy::unwrap_used, reason = "a test")]

mod stage;

mod clients;
mod container;
mod flower_actions;
mod http;
mod kubernetes;
mod malformed;
mod monitors;
mod outage;
mod pages;
mod pages_of_text;
mod python_client;
mod python_worker;
mod remote_control;
mod walkthrough;
