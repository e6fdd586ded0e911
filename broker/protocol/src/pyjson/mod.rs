//! JSON as Python's `json` module writes and reads it.
//!
//! Out: `", "` and `": "` between the parts, everything beyond ASCII escaped, floats as `repr` prints them, so that
//! bytes made here equal bytes made by Celery. In: a strict, bounded scanner that builds no values (`scan`), and a
//! serde deserializer (`de`). Both know what Python emits and `serde_json` does not take: `NaN`, `Infinity`, integers
//! of any length, lone surrogates, deep nesting. Such values are kept word for word while they are only passed on
//! (as [`RawValue`]); bound to a Rust type that can't hold them they are an error, never another number.

mod cursor;
mod de;
mod raw;
mod scan;
mod write;

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

pub(crate) use cursor::{Cursor, Number, NumberText};
pub use de::Deserializer;
pub use raw::{NULL, null, raw, raw_owned};
pub(crate) use raw::{is_raw, offer as offer_raw};
pub use scan::{Object, Scan, Scanner, scan};
pub(crate) use write::float_repr;
pub use write::{write_str, write_value};

/// The deepest nesting that is read, as deep as Python's own decoder goes by default, roughly.
pub const MAX_DEPTH: usize = 512;

/// The longest integer that is read, in digits: Python's own limit.
pub const MAX_DIGITS: usize = 4300;

/// Why a text is not JSON, or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    /// Where in the text, in bytes.
    at: usize,
}

/// What is wrong with a JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Not JSON; says what was expected.
    Syntax(&'static str),
    /// Something follows the value.
    Trailing,
    /// Not UTF-8.
    Utf8,
    /// Nested deeper than allowed.
    TooDeep,
    /// An integer of more than [`MAX_DIGITS`] digits.
    TooManyDigits,
    /// More elements than allowed.
    TooMany,
    /// `NaN`, `Infinity` or a float beyond an `f64`, where a number was asked for.
    NonFinite,
    /// An integer beyond 64 bits, where a number was asked for.
    IntegerRange,
    /// Half of a surrogate pair, where text was asked for.
    LoneSurrogate,
    /// JSON, but not of the wanted type; the text is serde's.
    Data(String),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, at: usize) -> Self {
        Self { kind, at }
    }

    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Where in the text, in bytes from its start.
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(f, "expected {what}"),
            Self::Trailing => f.write_str("more text after the value"),
            Self::Utf8 => f.write_str("not UTF-8"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::TooManyDigits => f.write_str("an integer with too many digits"),
            Self::TooMany => f.write_str("too many elements"),
            Self::NonFinite => f.write_str("a number that is not finite"),
            Self::IntegerRange => f.write_str("an integer beyond 64 bits"),
            Self::LoneSurrogate => f.write_str("a string with half of a surrogate pair"),
            Self::Data(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Data(text) => f.write_str(text),
            kind => write!(f, "{kind} at byte {}", self.at),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ErrorKind::Data(message.to_string()), 0)
    }
}

/// A value that JSON has no form for, such as a map whose keys are not strings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot be written as JSON: {0}")]
pub struct EncodeError(pub(crate) String);

/// Appends `value` to `out`, as Python would write it.
///
/// A float that is not finite becomes `null`: Celery's JSON may hold `NaN`, most other readers refuse it.
///
/// # Errors
/// The value has no JSON form, or its own `Serialize` fails.
pub fn to_writer<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    write::serialize(out, value)
}

/// `value` as JSON bytes, as Python would write it.
///
/// # Errors
/// As [`to_writer`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(64);
    to_writer(&mut out, value)?;
    Ok(out)
}

/// `value` as JSON text, as Python would write it.
///
/// # Errors
/// As [`to_writer`].
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, EncodeError> {
    String::from_utf8(to_vec(value)?).map_err(|err| EncodeError(err.to_string()))
}

/// `value` as a raw JSON value, as Python would write it.
///
/// # Errors
/// As [`to_writer`].
pub fn to_raw<T: Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, EncodeError> {
    Ok(raw_owned(to_string(value)?))
}

/// Reads a value of type `T` from JSON text as Python writes it.
///
/// # Errors
/// The text is not JSON, not of type `T`, or a number or text in it can't be held by the type that is asked for.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let mut deserializer = Deserializer::new(text);
    let value = T::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads a value of type `T` from JSON bytes as Python writes it.
///
/// # Errors
/// As [`from_str`], and when the bytes are not UTF-8.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_str(text(bytes)?)
}

/// The bytes as text.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|err| Error::new(ErrorKind::Utf8, err.valid_up_to()))
}
