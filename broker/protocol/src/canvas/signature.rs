//! One call as data: task, arguments, options. Inside messages and in Celery's JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::SignatureOptions;
use crate::{
    RawArgs, RawKwargs, RawMap, TaskName,
    ids::IdError,
    pyjson::{self, EncodeError, MAX_DEPTH, Scanner, null, raw_owned, write_str},
};

/// Arguments that one signature may carry; as [`Limits::DEFAULT`](crate::Limits::DEFAULT).
const ARGUMENTS: usize = crate::Limits::DEFAULT.arguments;

/// A call that has not been made: what `task.s(…)` is in Python.
///
/// A chain, group or chord is a signature too, of the task `celery.chain`, `celery.group` or `celery.chord`, with the
/// parts in its keyword arguments..
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// The task to call.
    pub task: TaskName,
    /// Positional arguments.
    pub args: RawArgs,
    /// Keyword arguments.
    pub kwargs: RawKwargs,
    /// How to call it.
    pub options: SignatureOptions,
    /// `chain`, `group`, `chord`, or nothing for a plain call.
    pub subtask_type: Option<String>,
    /// Takes no arguments from the call before.
    pub immutable: bool,
    /// Keys that this crate does not model.
    pub extra: RawMap,
}

/// Why JSON is not a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a signature: {0}")]
pub struct SignatureError(pub(crate) String);

impl Signature {
    /// A call of `task` without arguments.
    pub fn new(task: TaskName) -> Self {
        Self {
            task,
            args: RawArgs::new(),
            kwargs: RawKwargs::new(),
            options: SignatureOptions::new(),
            subtask_type: None,
            immutable: false,
            extra: RawMap::new(),
        }
    }

    /// With one more positional argument.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn arg<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self, EncodeError> {
        self.args.push(value)?;
        Ok(self)
    }

    /// With one more keyword argument.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn kwarg<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Result<Self, EncodeError> {
        self.kwargs.insert(name, value)?;
        Ok(self)
    }

    /// Taking no arguments from the call before: Python's `.si(…)`.
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// Reads Celery's JSON form. Only `task` must be there.
    ///
    /// # Errors
    /// The text is not JSON, or a part is not of the right type.
    pub fn from_json(text: &str) -> Result<Self, SignatureError> {
        let mut scanner = Scanner::new(text.as_bytes(), MAX_DEPTH)?;
        let mut object = scanner.object()?;
        let (mut task, mut args, mut kwargs) = (None, RawArgs::new(), RawKwargs::new());
        let (mut options, mut subtask_type, mut immutable) = (SignatureOptions::new(), None, false);
        let mut extra = RawMap::new();
        while let Some(key) = scanner.next_key(&mut object)? {
            match &*key {
                "task" => task = Some(pyjson::from_str::<TaskName>(scanner.value()?)?),
                "args" if scanner.peek() == Some(b'[') => args = RawArgs::scan(&mut scanner, ARGUMENTS)?,
                "kwargs" if scanner.peek() == Some(b'{') => {
                    kwargs = RawKwargs::scan(&mut scanner, ARGUMENTS)?;
                }
                "options" if scanner.peek() == Some(b'{') => {
                    options = RawMap::scan(&mut scanner, ARGUMENTS)?.into();
                }
                "args" | "kwargs" | "options" => {
                    if scanner.value()? != "null" {
                        return Err(SignatureError(format!("{key} is of the wrong type")));
                    }
                }
                "subtask_type" => subtask_type = pyjson::from_str(scanner.value()?)?,
                "immutable" => {
                    immutable = pyjson::from_str::<Option<bool>>(scanner.value()?)?.unwrap_or(false);
                }
                _ => {
                    let value = raw_owned(scanner.value()?.to_owned());
                    if extra.len() == 100 {
                        return Err(SignatureError("too many unknown keys".to_owned()));
                    }
                    extra.insert_raw(key.into_owned(), value);
                }
            }
        }
        scanner.end()?;
        let task = task.ok_or_else(|| SignatureError("no task".to_owned()))?;
        Ok(Self { task, args, kwargs, options, subtask_type, immutable, extra })
    }

    /// Celery's JSON form as a raw value.
    pub fn to_raw(&self) -> Box<RawValue> {
        let mut out = Vec::with_capacity(160);
        self.write(&mut out);
        String::from_utf8(out).map_or_else(|_| null(), raw_owned)
    }

    /// Appends Celery's JSON form to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"task\": ");
        write_str(out, self.task.as_str());
        out.extend_from_slice(b", \"args\": ");
        self.args.write(out);
        out.extend_from_slice(b", \"kwargs\": ");
        self.kwargs.write(out);
        out.extend_from_slice(b", \"options\": ");
        self.options.as_map().write(out);
        out.extend_from_slice(b", \"subtask_type\": ");
        match &self.subtask_type {
            Some(kind) => write_str(out, kind),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b", \"immutable\": ");
        out.extend_from_slice(if self.immutable { b"true" } else { b"false" });
        self.extra.write_pairs(out, false);
        out.push(b'}');
    }
}

impl From<pyjson::Error> for SignatureError {
    fn from(err: pyjson::Error) -> Self {
        Self(err.to_string())
    }
}

impl From<EncodeError> for SignatureError {
    fn from(err: EncodeError) -> Self {
        Self(err.to_string())
    }
}

impl From<IdError> for SignatureError {
    fn from(err: IdError) -> Self {
        Self(err.to_string())
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_raw().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        Self::from_json(raw.get()).map_err(de::Error::custom)
    }
}
