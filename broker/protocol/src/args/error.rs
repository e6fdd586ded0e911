//! What can be wrong with a call's arguments, in the words of Python's `TypeError`.

use std::fmt;

/// Why arguments don't fit a task's parameters; `Display` is what Python would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    kind: BindErrorKind,
    message: String,
}

/// The kinds of misfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindErrorKind {
    /// A required parameter got no value.
    Missing,
    /// A keyword that no parameter has.
    Unexpected,
    /// One parameter given both by position and by keyword.
    Repeated,
    /// More positional arguments than parameters.
    TooMany,
    /// A value that the parameter's type can't take.
    Value,
}

impl BindError {
    /// The kind of misfit.
    pub fn kind(&self) -> BindErrorKind {
        self.kind
    }

    pub(super) fn unexpected(function: &str, name: &str) -> Self {
        Self {
            kind: BindErrorKind::Unexpected,
            message: format!("{function}() got an unexpected keyword argument '{name}'"),
        }
    }

    pub(super) fn repeated(function: &str, name: &str) -> Self {
        Self {
            kind: BindErrorKind::Repeated,
            message: format!("{function}() got multiple values for argument '{name}'"),
        }
    }

    pub(super) fn too_many(function: &str, taken: usize, given: usize) -> Self {
        let (plural, verb) = (if taken == 1 { "" } else { "s" }, if given == 1 { "was" } else { "were" });
        Self {
            kind: BindErrorKind::TooMany,
            message: format!(
                "{function}() takes {taken} positional argument{plural} but {given} {verb} given"
            ),
        }
    }

    pub(super) fn too_few(function: &str, missing: usize) -> Self {
        let plural = if missing == 1 { "" } else { "s" };
        Self {
            kind: BindErrorKind::Missing,
            message: format!("{function}() missing {missing} required positional argument{plural}"),
        }
    }

    pub(super) fn value(function: &str, name: &str, problem: &str) -> Self {
        Self { kind: BindErrorKind::Value, message: format!("{function}() argument '{name}': {problem}") }
    }

    /// Fills in the function's name, which serde's `missing_field` doesn't know.
    pub(super) fn in_call(mut self, function: &str) -> Self {
        if self.kind == BindErrorKind::Missing && self.message.starts_with("missing ") {
            self.message = format!("{function}() {}", self.message);
        }
        self
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BindError {}

impl serde::de::Error for BindError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { kind: BindErrorKind::Value, message: message.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            kind: BindErrorKind::Missing,
            message: format!("missing 1 required positional argument: '{field}'"),
        }
    }
}
