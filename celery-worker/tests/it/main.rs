//! The worker against a real RabbitMQ and a real Redis, in this process.
//!
//! One binary for all of them, so that they are linked once. [`stage`] starts servers and workers and holds the tasks that
//! the tests call.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_value,
    clippy::unnecessary_literal_unwrap,
    unreachable_pub,
    reason = "a test fails by panicking; its tasks are as public as people's"
)]

mod stage;

mod bad_input;
mod beat;
mod canvas;
mod control;
mod defects;
mod flow;
mod hostile;
mod lifecycle;
mod limits;
mod outcomes;
mod prefork;
mod shutdown;
