//! The writing half: `serde_json`'s serializer with Python's separators, escapes and float format.

use std::io;

use serde::Serialize;
use serde_json::{
    Value,
    ser::{CharEscape, Formatter},
};

use super::EncodeError;

/// Python's separators `", "` and `": "`, `ensure_ascii`, and `repr` of floats.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // serde_json passes everything here that it need not escape: all that is left is DEL and beyond ASCII
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|byte| byte >= 0x7f) {
            let (plain, other) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = other.chars();
            if let Some(char) = chars.next() {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => out.write_all(b"\\\\"),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }

    fn write_f32<W: io::Write + ?Sized>(&mut self, out: &mut W, value: f32) -> io::Result<()> {
        write_float(out, &format!("{value:e}"))
    }

    fn write_f64<W: io::Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        write_float(out, &format!("{value:e}"))
    }
}

pub(super) fn serialize<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    let mut serializer = serde_json::Serializer::with_formatter(out, Python);
    value.serialize(&mut serializer).map_err(|err| EncodeError(err.to_string()))
}

/// Python's `repr` of a finite float.
pub(crate) fn float_repr(value: f64) -> String {
    let mut out = Vec::with_capacity(24);
    // writing to a Vec cannot fail
    let _ = write_float(&mut out, &format!("{value:e}"));
    String::from_utf8(out).unwrap_or_default()
}

/// Appends `text` as a JSON string.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if serialize(out, text).is_err() {
        // a string into a Vec cannot fail
        out.extend_from_slice(b"\"\"");
    }
}

/// Appends `value`; a `Value` always has a JSON form.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    let start = out.len();
    if serialize(out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// Python's `repr` of a finite float, from its shortest digits in the form `d[.ddd]e±x`.
fn write_float<W: io::Write + ?Sized>(out: &mut W, scientific: &str) -> io::Result<()> {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (first, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    out.write_all(sign.as_bytes())?;
    if !(-4..16).contains(&exponent) {
        let dot = if fraction.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{first}{dot}{fraction}e{sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = usize::try_from(-1 - exponent).unwrap_or(0);
        return write!(out, "0.{:0<zeros$}{first}{fraction}", "");
    }
    let whole = usize::try_from(exponent).unwrap_or(0);
    match fraction.split_at_checked(whole) {
        Some((whole, rest)) if !rest.is_empty() => write!(out, "{first}{whole}.{rest}"),
        _ => write!(out, "{first}{fraction:0<whole$}.0"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::pyjson::{from_str, to_string};

    #[test]
    fn floats_as_repr_prints_them() {
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1.5, "1.5"),
            (100.0, "100.0"),
            (123_456.789, "123456.789"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (0.0001, "0.0001"),
            (0.001_25, "0.00125"),
            (0.000_01, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e-100, "1e-100"),
            (-2.5e300, "-2.5e+300"),
            (1_795_486_684.34, "1795486684.34"),
        ] {
            assert_eq!(to_string(&float).unwrap(), text);
        }
        assert_eq!(to_string(&f64::NAN).unwrap(), "null");
    }

    #[test]
    fn separators_and_escapes() {
        let map = BTreeMap::from([("a", vec![1, 2]), ("é", vec![])]);
        assert_eq!(to_string(&map).unwrap(), r#"{"a": [1, 2], "\u00e9": []}"#);
        assert_eq!(
            to_string("a\"\\/\u{8}\u{c}\n\r\t\u{1}\u{7f}é😀").unwrap(),
            r#""a\"\\/\b\f\n\r\t\u0001\u007f\u00e9\ud83d\ude00""#
        );
        assert!(to_string(&BTreeMap::from([((1, 2), 3)])).is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "\\PC{0,8}".prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in json()) {
            let text = to_string(&value).unwrap();
            prop_assert!(text.is_ascii());
            // serde_json's own reader may be off by one digit in a float
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            prop_assert_eq!(&from_str::<serde_json::Value>(&text).unwrap(), &value);
        }

        #[test]
        fn reads_what_serde_json_writes(value in json()) {
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }
}
