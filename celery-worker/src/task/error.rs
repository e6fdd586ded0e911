//! How a task's body ends otherwise than with a value: [`TaskError`], made by `?` or by name.

use std::error::Error;
use std::fmt;
use std::panic::Location;

use super::failure::Failure;
use crate::context::{Interrupt, Retry};

/// What a task returns.
pub type TaskResult<T> = Result<T, TaskError>;

/// Why a task has no result.
///
/// `?` on any error makes a [`Failure`](TaskError::Failure) of it. This type is deliberately no [`Error`] itself: that is
/// what allows the conversion from every other one.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The task failed: the caller gets this exception, errbacks run.
    Failure(Failure),
    /// Run it again later: `Err(ctx.retry().into())`.
    Retry(Retry),
    /// Done, but nothing is stored, no event is sent and no callback runs.
    Ignore,
    /// The message is refused: with `requeue` another worker gets it, without it the queue's dead-letter exchange does.
    Reject {
        /// Whether the broker is to deliver it again.
        requeue: bool,
        /// Shown as `Reject(reason, requeue)`.
        reason: String,
    },
    /// Another task runs in this one's place, under its id. Made by [`Context::replace`](crate::context::Context::replace).
    Replaced,
    /// The task stopped because it was told to. Made by [`Context::checkpoint`](crate::context::Context::checkpoint).
    Interrupted(Interrupt),
}

impl TaskError {
    /// Refuses the message for good; a dead-letter exchange may keep it.
    #[must_use]
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject { requeue: false, reason: reason.to_string() }
    }

    /// Gives the message back to the queue, for another worker.
    #[must_use]
    pub fn requeue(reason: impl fmt::Display) -> Self {
        Self::Reject { requeue: true, reason: reason.to_string() }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for TaskError {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::Failure(Failure::of(error, Location::caller()))
    }
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Retry> for TaskError {
    fn from(retry: Retry) -> Self {
        Self::Retry(retry)
    }
}

impl From<Interrupt> for TaskError {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

/// Names the exception for an error that has none of its own, or not the right one.
///
/// ```
/// use celery_worker::prelude::*;
///
/// fn port(text: &str) -> TaskResult<u16> {
///     text.parse::<u16>().or_raise("ValueError")
/// }
/// # assert!(matches!(port("x"), Err(TaskError::Failure(failure)) if failure.exc_type() == "ValueError"));
/// ```
pub trait OrRaise<T> {
    /// The value, or a failure of this exception with the error as its message.
    ///
    /// # Errors
    /// If `self` is an error.
    #[track_caller]
    fn or_raise(self, exc_type: &str) -> TaskResult<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> OrRaise<T> for Result<T, E> {
    #[track_caller]
    fn or_raise(self, exc_type: &str) -> TaskResult<T> {
        let place = Location::caller();
        self.map_err(|error| Failure::raised(exc_type, error.into(), place).into())
    }
}

/// What a task's function may return: a `Result` whose error becomes a [`TaskError`].
#[diagnostic::on_unimplemented(
    message = "a task can't return `{Self}`",
    label = "return `TaskResult<{Self}>` here",
    note = "a task says how it went: `TaskResult<T>`, or `Result<T, E>` with an error that `?` accepts"
)]
pub trait TaskReturn {
    /// What the caller gets.
    type Output;

    /// The common form.
    fn into_result(self) -> TaskResult<Self::Output>;
}

impl<T, E: Into<TaskError>> TaskReturn for Result<T, E> {
    type Output = T;

    fn into_result(self) -> TaskResult<T> {
        self.map_err(Into::into)
    }
}

/// Ends a task with a named exception: `raise!("ValueError", "{n} is no age")`, or `raise!("StopIteration")` without a
/// message. Names of Python's builtin exceptions are those at a Python caller.
#[macro_export]
macro_rules! raise {
    ($exc_type:expr $(,)?) => {
        return ::core::result::Result::Err($crate::task::Failure::named($exc_type).into())
    };
    ($exc_type:expr, $($message:tt)+) => {
        return ::core::result::Result::Err($crate::task::Failure::new($exc_type, ::core::format_args!($($message)+)).into())
    };
}
