//! The worker against a real RabbitMQ and a real Redis, in this process.
//!
//! One binary for all of them, so that they are linked once. [`stage`] starts servers and workers and holds the tasks that
//! the tests call.

mod stage;

mod outcomes;
mod bad_input;
mod flow;
mod canvas;
mod control;
