//! The server on a real RabbitMQ and a real Redis, asked over HTTP. The tests play the worker, or start a Python one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod app;
mod bad_input;
mod batch;
mod canvas;
mod idempotency;
mod many;
mod openapi;
mod pressure;
mod program;
mod raw_http;
mod read;
mod readme;
mod streams;
mod submit;
mod system;
mod walkthrough;
