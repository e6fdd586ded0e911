//! A task's failure: the exception that a Python caller sees, and where it came from.

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use celery_broker::GetError;
use celery_protocol::result::RemoteException;
use celery_protocol::{RawArgs, TaskName, pyjson};
use serde::Serialize;

use super::python;

/// Why a task failed, as an exception with a name, arguments and a cause.
///
/// `?` makes one of any error: its type's name is the exception's, its text the one argument, and its sources go into the
/// traceback. To choose the exception, build one:
///
/// ```
/// use celery_worker::prelude::*;
///
/// fn check(age: i64) -> TaskResult<i64> {
///     if age < 0 {
///         return Err(Failure::new("ValueError", format!("{age} is no age")).into());
///     }
///     Ok(age)
/// }
/// # assert!(check(-1).is_err());
/// ```
///
/// A name that Python's builtins have (`ValueError`, `KeyError`, …) is that class at a Python caller; any other becomes a
/// class of that name. [`module`](Self::module) is for an exception that the caller has defined itself.
#[derive(Clone)]
pub struct Failure(Box<Inner>);

#[derive(Clone)]
struct Inner {
    exception: RemoteException,
    source: Option<Arc<dyn Error + Send + Sync>>,
    place: Option<&'static Location<'static>>,
    traceback: Traceback,
}

#[derive(Clone)]
enum Traceback {
    /// Written from place and sources when asked for.
    Own,
    /// Given with the failure, for one that comes from elsewhere.
    Text(String),
    /// None, as Celery has it for a task that was not running any more.
    None,
}

impl Failure {
    /// The exception `exc_type(message)`.
    #[track_caller]
    #[must_use]
    pub fn new(exc_type: &str, message: impl fmt::Display) -> Self {
        Self::named(exc_type).arg(message.to_string())
    }

    /// The exception `exc_type()`; [`arg`](Self::arg) adds arguments.
    #[track_caller]
    #[must_use]
    pub fn named(exc_type: &str) -> Self {
        let module =
            if python::is_builtin(exc_type) { python::BUILTIN_MODULE } else { python::GENERATED_MODULE };
        Self::build(exc_type.to_owned(), module.to_owned(), Some(Location::caller()))
    }

    fn build(exc_type: String, exc_module: String, place: Option<&'static Location<'static>>) -> Self {
        let exception =
            RemoteException { exc_type, exc_message: RawArgs::new(), exc_module: Some(exc_module) };
        Self(Box::new(Inner { exception, source: None, place, traceback: Traceback::Own }))
    }

    /// Made by `?`.
    pub(crate) fn of<E: Error + Send + Sync + 'static>(error: E, place: &'static Location<'static>) -> Self {
        let (exc_type, module) = python::of_rust_type(std::any::type_name::<E>());
        let mut failure = Self::build(exc_type, module, Some(place));
        // A task that waits for another one fails as that one did.
        match (&error as &dyn Any).downcast_ref::<GetError>() {
            Some(GetError::Failed(remote)) => failure.0.exception = remote.exception.clone(),
            _ => failure = failure.arg(error.to_string()),
        }
        failure.caused_by(error)
    }

    /// Made by `or_raise`.
    pub(crate) fn raised(
        exc_type: &str,
        error: Box<dyn Error + Send + Sync>,
        place: &'static Location<'static>,
    ) -> Self {
        let mut failure = Self::new(exc_type, &error);
        failure.0.place = Some(place);
        failure.0.source = Some(Arc::from(error));
        failure
    }

    /// Celery's own exceptions. The modules are those of Celery, billiard and kombu, and the classes are exceptions.
    fn known(module: &'static str, exc_type: &'static str) -> Self {
        let mut failure = Self::build(exc_type.to_owned(), module.to_owned(), None);
        failure.0.traceback = Traceback::None;
        failure
    }

    /// Adds an argument of the exception, which a Python caller finds in `exc.args`.
    #[must_use]
    pub fn arg(mut self, value: impl Serialize) -> Self {
        // What JSON can't hold shows as text, as Celery does with an argument that does not serialise.
        let raw = pyjson::to_raw(&value)
            .unwrap_or_else(|err| pyjson::to_raw(&err.to_string()).unwrap_or_else(|_| pyjson::null()));
        self.0.exception.exc_message.push_raw(raw);
        self
    }

    /// The Python module that defines the exception. Celery looks the class up there if the caller has it loaded, and
    /// never imports it. What is no module name is ignored.
    #[must_use]
    pub fn module(mut self, module: &str) -> Self {
        self.0.exception.exc_module = Some(python::module(module).to_owned());
        self
    }

    /// The error behind it: shown in the traceback, and what `autoretry_for` and `throws` match by type.
    #[must_use]
    pub fn caused_by(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(error.into()));
        self
    }

    /// A traceback text in place of the one that is made from the error and its sources.
    #[must_use]
    pub fn with_traceback(mut self, text: impl Into<String>) -> Self {
        self.0.traceback = Traceback::Text(text.into());
        self
    }

    /// The exception's class name.
    #[must_use]
    pub fn exc_type(&self) -> &str {
        &self.0.exception.exc_type
    }

    /// The exception as it is stored and sent; [`repr`](RemoteException::repr) shows it as Python does.
    #[must_use]
    pub fn exception(&self) -> &RemoteException {
        &self.0.exception
    }

    /// The Rust error behind it.
    #[must_use]
    pub fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }

    /// The traceback that is stored with it, in the manner of Python's. `None` for what did not happen inside a task.
    #[must_use]
    pub fn traceback(&self, task: &TaskName) -> Option<String> {
        match &self.0.traceback {
            Traceback::None => None,
            Traceback::Text(text) => Some(text.clone()),
            Traceback::Own => Some(self.written_traceback(task)),
        }
    }

    fn written_traceback(&self, task: &TaskName) -> String {
        let mut text = String::from("Traceback (most recent call last):\n");
        // `?` inside a library reports a place in Rust's standard library, which helps nobody.
        if let Some(place) = self.0.place.filter(|place| !place.file().starts_with("/rustc/")) {
            // Writing to a String can't fail.
            let _ = writeln!(text, "  File \"{}\", line {}, in {task}", place.file(), place.line());
        }
        let _ = writeln!(text, "{self}");
        let mut shown = self.0.exception.message();
        let mut source = self.source();
        while let Some(error) = source {
            let next = error.to_string();
            // Many errors repeat their source's text, or are their own first argument.
            if next != shown {
                let _ = writeln!(text, "  caused by: {next}");
            }
            shown = next;
            source = error.source();
        }
        text
    }
}

/// `ValueError: -1 is no age`, the last line of a Python traceback.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.exc_type())?;
        if self.0.exception.exc_message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.0.exception.message())
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("exception", &self.0.exception.repr())
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::of(error, Location::caller())
    }
}

/// The failures that a worker makes itself, under the names that Celery gives them.
impl Failure {
    /// Arguments that don't fit the task's parameters.
    pub(crate) fn type_error(text: impl fmt::Display) -> Self {
        Self::known(python::BUILTIN_MODULE, "TypeError").arg(text.to_string())
    }

    /// A result that JSON can't hold.
    pub(crate) fn encode_error(text: impl fmt::Display) -> Self {
        Self::known("kombu.exceptions", "EncodeError").arg(text.to_string())
    }

    /// The body panicked: a bug in it, reported with the panic's message.
    #[must_use]
    pub fn panicked(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let mut failure = Self::build("Panic".to_owned(), python::GENERATED_MODULE.to_owned(), None);
        failure = failure.arg(message.unwrap_or("the task panicked with something that is no text"));
        failure
    }

    /// No task is registered under this name.
    #[must_use]
    pub fn not_registered(name: &str) -> Self {
        Self::known("celery.exceptions", "NotRegistered").arg(name)
    }

    /// The soft limit passed.
    #[must_use]
    pub fn soft_time_limit() -> Self {
        let mut failure = Self::known("billiard.exceptions", "SoftTimeLimitExceeded");
        failure.0.traceback = Traceback::Own;
        failure
    }

    /// The hard limit passed.
    #[must_use]
    pub fn time_limit(limit: Duration) -> Self {
        let failure = Self::known("billiard.exceptions", "TimeLimitExceeded");
        if limit.subsec_nanos() == 0 {
            failure.arg(limit.as_secs())
        } else {
            failure.arg(limit.as_secs_f64())
        }
    }

    /// The task was revoked, terminated or had expired: `"revoked"`, `"terminated"`, `"expired"`.
    #[must_use]
    pub fn revoked(reason: &str) -> Self {
        Self::known("celery.exceptions", "TaskRevokedError").arg(reason)
    }

    /// The task refused its message.
    #[must_use]
    pub fn rejected(reason: &str, requeue: bool) -> Self {
        Self::known("celery.exceptions", "Reject").arg(reason).arg(requeue)
    }

    /// What ran the task is gone.
    #[must_use]
    pub fn worker_lost(text: &str) -> Self {
        Self::known("billiard.exceptions", "WorkerLostError").arg(text)
    }

    /// A part of the chord failed.
    #[must_use]
    pub fn chord_error(text: &str) -> Self {
        Self::known("celery.exceptions", "ChordError").arg(text)
    }

    /// Asked for something that can't be.
    #[must_use]
    pub fn improperly_configured(text: &str) -> Self {
        let mut failure = Self::known("celery.exceptions", "ImproperlyConfigured").arg(text);
        failure.0.traceback = Traceback::Own;
        failure
    }

    pub(crate) fn max_retries_exceeded(text: impl fmt::Display) -> Self {
        let mut failure = Self::known("celery.exceptions", "MaxRetriesExceededError").arg(text.to_string());
        failure.0.traceback = Traceback::Own;
        failure
    }
}

#[cfg(test)]
mod tests {
    use celery_protocol::TaskName;

    use super::*;
    use crate::prelude::*;

    fn traceback(error: TaskError) -> String {
        let TaskError::Failure(failure) = error else { panic!("{error:?}") };
        failure.traceback(&TaskName::parse("t.task").unwrap()).unwrap()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the page could not be loaded")]
    struct LoadError(#[source] std::io::Error);

    const LINE: u32 = line!() + 2;
    fn load() -> TaskResult<()> {
        Err(LoadError(std::io::Error::other("connection refused")))?;
        Ok(())
    }

    #[test]
    fn an_error_becomes_an_exception_with_place_and_causes() {
        let error = load().unwrap_err();
        let line = format!("line {LINE}, in t.task");
        let text = traceback(error);
        assert!(text.contains(&line), "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "Traceback (most recent call last):");
        assert!(lines[1].starts_with("  File \"") && lines[1].contains("failure.rs\", line "), "{text}");
        assert_eq!(
            lines[2..],
            ["LoadError: the page could not be loaded", "  caused by: connection refused"]
        );
    }

    #[test]
    fn an_exception_is_named_as_asked_and_keeps_its_arguments() {
        let failure = Failure::named("TooMuch").module("shop.errors").arg(100).arg("limit");
        assert_eq!(
            failure.exception().to_raw().get(),
            r#"{"exc_type": "TooMuch", "exc_message": [100, "limit"], "exc_module": "shop.errors"}"#
        );
        assert_eq!(failure.to_string(), "TooMuch: (100, 'limit')");
        let builtin = Failure::new("ValueError", "no age");
        assert_eq!(builtin.exception().exc_module.as_deref(), Some("builtins"));
        for name in ["SystemExit", "KeyboardInterrupt", "UnicodeDecodeError", "BaseException", "eval", "Mine"]
        {
            let module = Failure::new(name, "").exception().exc_module.clone().unwrap();
            assert!(module.contains("::"), "{name} would be looked up in {module}");
        }
    }

    #[test]
    fn what_json_cannot_hold_shows_as_text() {
        let bad: std::collections::HashMap<Vec<u8>, i64> = [(vec![1], 1)].into();
        let failure = Failure::named("ValueError").arg(bad);
        assert!(failure.exception().message().contains("key must be a string"), "{failure}");
    }

    #[test]
    fn a_panic_is_reported_with_its_message() {
        for payload in [Box::new("boom") as Box<dyn Any + Send>, Box::new(String::from("boom"))] {
            assert_eq!(Failure::panicked(&*payload).exception().repr(), "Panic('boom')");
        }
        assert!(Failure::panicked(&1_u8).to_string().starts_with("Panic: the task panicked"));
    }

    #[test]
    fn raise_and_or_raise_name_the_exception() {
        fn raised(with: bool) -> TaskResult<()> {
            if with {
                raise!("ValueError", "{} is no age", -1);
            }
            raise!("StopIteration")
        }
        let shown = |error| match error {
            TaskError::Failure(failure) => failure.exception().repr(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(raised(true).unwrap_err()), "ValueError('-1 is no age')");
        assert_eq!(shown(raised(false).unwrap_err()), "StopIteration()");
        assert_eq!(shown(Err::<(), _>("no").or_raise("KeyError").unwrap_err()), "KeyError('no')");
        let boxed: Box<dyn Error + Send + Sync> = "x".parse::<u8>().unwrap_err().into();
        let failure = Failure::raised("ValueError", boxed, Location::caller());
        assert!(failure.source().unwrap().is::<std::num::ParseIntError>());
    }
}
