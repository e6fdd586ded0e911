//! Which failures of a task retry by themselves, and which are expected: `autoretry_for`, `dont_autoretry_for`, `throws`.

use std::error::Error;

use super::failure::Failure;
use super::python;

/// Matchers for a task's failures. Made by `#[task]`; a hand-written task sets [`Task::RULES`](super::Task::RULES).
#[derive(Debug, Clone, Copy, Default)]
pub struct FailureRules {
    /// Retried as if the body had returned `ctx.retry().because(err)`.
    pub autoretry_for: &'static [ErrorMatch],
    /// Exceptions to `autoretry_for`.
    pub dont_autoretry_for: &'static [ErrorMatch],
    /// Part of the task's contract: a failure all the same, but logged as news rather than as an error with a traceback.
    pub throws: &'static [ErrorMatch],
}

impl FailureRules {
    /// No failure retries by itself, none is expected.
    pub const NONE: Self = Self { autoretry_for: &[], dont_autoretry_for: &[], throws: &[] };

    pub(crate) fn retries(&self, failure: &Failure) -> bool {
        any(self.autoretry_for, failure) && !any(self.dont_autoretry_for, failure)
    }

    pub(crate) fn expects(&self, failure: &Failure) -> bool {
        any(self.throws, failure)
    }
}

fn any(matchers: &[ErrorMatch], failure: &Failure) -> bool {
    matchers.iter().any(|matcher| matcher.matches(failure))
}

/// Recognises a failure by its Rust type or by the name that Python sees.
#[derive(Debug, Clone, Copy)]
pub struct ErrorMatch(Kind);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Type(fn(&(dyn Error + 'static)) -> bool),
    Name(&'static str),
}

impl ErrorMatch {
    /// Failures that came from an error of type `E`.
    #[must_use]
    pub const fn of<E: Error + 'static>() -> Self {
        Self(Kind::Type(is::<E>))
    }

    /// Failures with this `exc_type`, or with one that Python derives from it: `"OSError"` also means `ConnectionError`,
    /// `"Exception"` means all.
    #[must_use]
    pub const fn named(exc_type: &'static str) -> Self {
        Self(Kind::Name(exc_type))
    }

    /// Whether this failure is meant.
    #[must_use]
    pub fn matches(&self, failure: &Failure) -> bool {
        match self.0 {
            Kind::Type(is) => failure.source().is_some_and(is),
            Kind::Name(base) => python::is_a(failure.exc_type(), base),
        }
    }
}

fn is<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    error.is::<E>()
}
