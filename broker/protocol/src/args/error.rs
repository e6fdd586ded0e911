//! What can be wrong with a call's arguments, in the words of Python's `TypeError`.

use std::fmt;

use super::{Call, signature::Parameters};

/// Why arguments don't fit a task's parameters; `Display` is what Python would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    kind: BindErrorKind,
    message: String,
    /// The parameter that serde missed.
    pub(super) missing: Option<&'static str>,
    /// The parameters, if the arguments were assigned to a struct's.
    parameters: Option<Parameters>,
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

    fn new(kind: BindErrorKind, message: String) -> Self {
        Self { kind, message, missing: None, parameters: None }
    }

    pub(super) fn unexpected(function: &str, name: &str) -> Self {
        Self::new(
            BindErrorKind::Unexpected,
            format!("{function}() got an unexpected keyword argument '{name}'"),
        )
    }

    pub(super) fn repeated(function: &str, name: &str) -> Self {
        Self::new(BindErrorKind::Repeated, format!("{function}() got multiple values for argument '{name}'"))
    }

    pub(super) fn too_many(function: &str, taken: usize, given: usize) -> Self {
        let (plural, verb) = (plural(taken), if given == 1 { "was" } else { "were" });
        let message =
            format!("{function}() takes {taken} positional argument{plural} but {given} {verb} given");
        Self::new(BindErrorKind::TooMany, message)
    }

    pub(super) fn too_few(function: &str, missing: usize) -> Self {
        let plural = plural(missing);
        let message = format!("{function}() missing {missing} required positional argument{plural}");
        Self::new(BindErrorKind::Missing, message)
    }

    pub(super) fn value(function: &str, name: &str, problem: &str) -> Self {
        Self::new(BindErrorKind::Value, format!("{function}() argument '{name}': {problem}"))
    }

    /// With the parameters that the arguments were for.
    pub(super) fn among(self, parameters: Parameters) -> Self {
        Self { parameters: Some(parameters), ..self }
    }

    /// With the whole story, for which `required` finds out which parameters have no default.
    pub(super) fn in_full(self, call: &Call<'_>, required: impl FnOnce() -> Vec<&'static str>) -> Self {
        let Some(parameters) = self.parameters else { return self };
        let message = match (self.kind, self.missing) {
            (BindErrorKind::Missing, Some(first)) => {
                let mut required = required();
                if !required.contains(&first) {
                    required.push(first);
                }
                missing(call, &parameters, &required)
            }
            (BindErrorKind::TooMany, _) => beyond(call, &parameters, &required()),
            _ => return self,
        };
        Self { message, ..self }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `f() missing 2 required positional arguments: 'x' and 'y'`
fn missing(call: &Call<'_>, parameters: &Parameters, required: &[&'static str]) -> String {
    let absent =
        |name: &&'static str| required.contains(name) && !call.kwargs.iter().any(|(given, _)| given == *name);
    let mut names: Vec<&str> =
        parameters.positional.iter().copied().skip(call.args.len()).filter(absent).collect();
    let mut kind = "positional";
    if names.is_empty() {
        kind = "keyword-only";
        names = parameters.keyword_only.iter().copied().filter(absent).collect();
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let list = match quoted.as_slice() {
        [first, last] => format!("{first} and {last}"),
        [front @ .., last] if !front.is_empty() => format!("{}, and {last}", front.join(", ")),
        few => few.concat(),
    };
    let count = names.len();
    format!("{}() missing {count} required {kind} argument{}: {list}", call.function, plural(count))
}

/// `f() takes from 1 to 3 positional arguments but 4 were given`
fn beyond(call: &Call<'_>, parameters: &Parameters, required: &[&'static str]) -> String {
    let most = parameters.positional.len();
    let least = parameters.positional.iter().filter(|name| required.contains(name)).count();
    let taken = if least == most {
        format!("{most} positional argument{}", plural(most))
    } else {
        format!("from {least} to {most} positional arguments")
    };
    let given = call.args.len();
    let verb = if given == 1 { "was" } else { "were" };
    format!("{}() takes {taken} but {given} {verb} given", call.function)
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BindError {}

impl serde::de::Error for BindError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(BindErrorKind::Value, message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        let message = format!("missing 1 required positional argument: '{field}'");
        Self { missing: Some(field), ..Self::new(BindErrorKind::Missing, message) }
    }
}
