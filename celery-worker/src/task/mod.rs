//! Writing tasks: the [`task`] attribute, the traits behind it, and how a task ends.
//!
//! [`Task`] says how a task runs, [`TaskDef`] what its callers need to know. [`TaskError`] and [`Failure`] are its ends
//! other than a value, [`FromRef`] its access to the worker's state. [`registry`] keeps tasks of all types side by side,
//! [`outcome`] decides what an end means under the task's options.
#![doc = ""]
#![doc = include_str!("../../../docs/tasks.md")]

mod error;
mod failure;
pub mod outcome;
#[doc(hidden)]
pub mod private;
mod python;
pub mod registry;
mod rules;
mod state;

use std::future::Future;

pub use celery_macros::task;
pub use celery_protocol::{TaskDef, TaskOptions};

pub use error::{OrRaise, TaskError, TaskResult, TaskReturn};
pub use failure::Failure;
pub use outcome::{Outcome, Resend};
pub use registry::{ErasedTask, RawCall, Registry, RegistryError, RegistryErrorKind, Tasks};
pub use rules::{ErrorMatch, FailureRules};
pub use state::FromRef;

use crate::context::Context;

/// A task that a worker with the state `S` can run. Implemented by [`#[task]`](task), or by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task for a worker with the state `{S}`",
    note = "put `#[task(name = \"…\")]` on the function, and give the worker the state that its `#[state]` parameters need"
)]
pub trait Task<S>: TaskDef {
    /// Default: Celery's defaults, with acknowledgement as the worker's settings say.
    const OPTIONS: TaskOptions = TaskOptions::DEFAULT;
    /// Default: no failure retries by itself.
    const RULES: FailureRules = FailureRules::NONE;
    /// Whether the future works without pausing, and needs a thread of the blocking pool. Default: no.
    const BLOCKING: bool = false;
    /// How it is called when it is the `link_error` of another task. Default: by a message with the failed task's id.
    const ERRBACK: ErrbackStyle = ErrbackStyle::Old;

    /// Runs the task once.
    fn run(
        state: &S,
        ctx: Context,
        params: Self::Params,
    ) -> impl Future<Output = TaskResult<Self::Output>> + Send + 'static;
}

/// The two ways in which Celery calls an errback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrbackStyle {
    /// As a task of its own, with the id of the failed one as its first argument.
    #[default]
    Old,
    /// In the worker where the task failed, with its request, exception and traceback: `#[task(…, errback)]`.
    New,
}

#[cfg(test)]
mod tests;
