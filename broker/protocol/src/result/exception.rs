//! Exceptions in results: `{"exc_type": …, "exc_message": […], "exc_module": …}`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    RawArgs,
    pyjson::{self, Scanner, null, raw_owned, write_str},
    repr,
};

/// An exception as Python sees it.
///
/// A Python client looks `exc_module` up among its loaded modules; if the class is not there, it makes one of that name.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteException {
    /// The class, with dots where it is nested in others.
    pub exc_type: String,
    /// What the exception was made with: its `args`.
    pub exc_message: RawArgs,
    /// The module of the class.
    pub exc_module: Option<String>,
}

impl RemoteException {
    /// An exception of Python's own, such as `ValueError`, with one text.
    pub fn builtin(exc_type: &str, text: &str) -> Self {
        Self::new(exc_type, "builtins", text)
    }

    /// An exception with one text.
    pub fn new(exc_type: &str, exc_module: &str, text: &str) -> Self {
        Self::with_args(exc_type, exc_module, [text])
    }

    /// An exception with these arguments. An argument without JSON form becomes `null`.
    pub fn with_args<T: Serialize>(
        exc_type: &str,
        exc_module: &str,
        args: impl IntoIterator<Item = T>,
    ) -> Self {
        let raw = |arg| pyjson::to_raw(&arg).unwrap_or_else(|_| null());
        Self {
            exc_type: exc_type.to_owned(),
            exc_message: args.into_iter().map(raw).collect::<Vec<_>>().into(),
            exc_module: Some(exc_module.to_owned()),
        }
    }

    /// The message as `str(exception)` shows it in Python: the only argument, or all of them as a tuple.
    pub fn message(&self) -> String {
        match self.exc_message.as_slice() {
            [] => String::new(),
            [one] => pyjson::from_str::<String>(one.get()).unwrap_or_else(|_| repr::exact(one.get())),
            all => format!("({})", exact_list(all)),
        }
    }

    /// The exception as `repr(exception)` shows it in Python: `ValueError('boom')`.
    pub fn repr(&self) -> String {
        let name = self.exc_type.rsplit('.').next().unwrap_or(&self.exc_type);
        format!("{name}({})", exact_list(self.exc_message.as_slice()))
    }

    /// Reads the result of a failed task. Celery's own readers take a plain text for the message too.
    ///
    /// # Errors
    /// It is not an object with `exc_type`.
    pub fn from_raw(raw: &RawValue) -> Result<Self, pyjson::Error> {
        #[derive(Deserialize)]
        struct Wire {
            exc_type: String,
            #[serde(default)]
            exc_message: Option<Box<RawValue>>,
            #[serde(default)]
            exc_module: Option<String>,
        }
        let wire: Wire = pyjson::from_str(raw.get())?;
        let exc_message = match wire.exc_message {
            None => RawArgs::new(),
            Some(value) if value.get().starts_with('[') => {
                RawArgs::scan(&mut Scanner::new(value.get().as_bytes(), pyjson::MAX_DEPTH)?, usize::MAX)?
            }
            Some(value) => vec![value].into(),
        };
        Ok(Self { exc_type: wire.exc_type, exc_message, exc_module: wire.exc_module })
    }

    /// The exception as the result of a failed task.
    pub fn to_raw(&self) -> Box<RawValue> {
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(b"{\"exc_type\": ");
        write_str(&mut out, &self.exc_type);
        out.extend_from_slice(b", \"exc_message\": ");
        self.exc_message.write(&mut out);
        out.extend_from_slice(b", \"exc_module\": ");
        match &self.exc_module {
            Some(module) => write_str(&mut out, module),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        String::from_utf8(out).map_or_else(|_| null(), raw_owned)
    }
}

fn exact_list(args: &[Box<RawValue>]) -> String {
    args.iter().map(|arg| repr::exact(arg.get())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_shows_it() {
        let one = RemoteException::builtin("ValueError", "boom");
        assert_eq!(
            one.to_raw().get(),
            r#"{"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"}"#
        );
        assert_eq!((one.message().as_str(), one.repr().as_str()), ("boom", "ValueError('boom')"));
        let two: RemoteException = RemoteException::from_raw(&raw_owned(
            r#"{"exc_type": "A.B", "exc_message": ["boom", 1], "exc_module": null}"#.to_owned(),
        ))
        .unwrap();
        assert_eq!((two.message().as_str(), two.repr().as_str()), ("('boom', 1)", "B('boom', 1)"));
        let text = RemoteException::builtin("KeyError", "Can't retry");
        assert_eq!(text.repr(), "KeyError(\"Can't retry\")");
        let none = RemoteException::with_args::<()>("E", "m", []);
        assert_eq!((none.message().as_str(), none.repr().as_str()), ("", "E()"));
    }

    #[test]
    fn a_plain_message_is_read() {
        let raw = raw_owned(r#"{"exc_type": "E", "exc_message": "boom"}"#.to_owned());
        assert_eq!(RemoteException::from_raw(&raw).unwrap().message(), "boom");
        for bad in ["null", "\"x\"", "{}", "{\"exc_type\": 1}"] {
            assert!(RemoteException::from_raw(&raw_owned(bad.to_owned())).is_err());
        }
    }
}
