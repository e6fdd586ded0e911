//! `MessagePack` bodies, turned into JSON and back, so that everything else knows JSON only.
//!
//! Binary values become the extended type `bytes` (or `base64`), as kombu's JSON writes them; keys that are not text
//! become text as Python's JSON coerces them.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    Limits,
    pyjson::{Cursor, EncodeError, Error, ErrorKind, Number, NumberText, float_repr, write_str},
};

/// The JSON text of a body.
pub(super) fn to_json(body: &[u8], limits: &Limits) -> Result<Vec<u8>, Error> {
    let mut reader = Reader { body, at: 0, out: Vec::with_capacity(body.len() * 2), limits };
    reader.value(0)?;
    if reader.at < body.len() {
        return Err(reader.error(ErrorKind::Trailing));
    }
    Ok(reader.out)
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    out: Vec<u8>,
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.at)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..count) else {
            return Err(self.error(ErrorKind::Syntax("more bytes")));
        };
        self.at += count;
        Ok(taken)
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u64, Error> {
        Ok(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// Two's complement of `bytes` bytes.
    fn signed(&mut self, bytes: usize) -> Result<i64, Error> {
        let unused = 64 - 8 * u32::try_from(bytes).unwrap_or(8);
        Ok((self.unsigned(bytes)? << unused).cast_signed() >> unused)
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Error> {
        usize::try_from(self.unsigned(bytes)?).map_err(|_| self.error(ErrorKind::TooMany))
    }

    fn value(&mut self, depth: usize) -> Result<(), Error> {
        if depth > self.limits.depth {
            return Err(self.error(ErrorKind::TooDeep));
        }
        if self.out.len() > self.limits.decompressed {
            return Err(self.error(ErrorKind::TooMany));
        }
        let marker = self.take(1)?.first().copied().unwrap_or_default();
        match marker {
            0x00..=0x7f => self.text(&marker.to_string()),
            0x80..=0x8f => return self.map(usize::from(marker & 0x0f), depth),
            0x90..=0x9f => return self.array(usize::from(marker & 0x0f), depth),
            0xa0..=0xbf => return self.string(usize::from(marker & 0x1f)),
            0xc0 => self.text("null"),
            0xc2 => self.text("false"),
            0xc3 => self.text("true"),
            0xc4..=0xc6 => {
                let length = self.length(1 << (marker - 0xc4))?;
                let bytes = self.take(length)?;
                write_bytes(&mut self.out, bytes);
            }
            0xca => {
                let bits = u32::try_from(self.unsigned(4)?).unwrap_or_default();
                self.float(f64::from(f32::from_bits(bits)));
            }
            0xcb => {
                let bits = self.unsigned(8)?;
                self.float(f64::from_bits(bits));
            }
            0xcc..=0xcf => {
                let number = self.unsigned(1 << (marker - 0xcc))?;
                self.text(&number.to_string());
            }
            0xd0..=0xd3 => {
                let number = self.signed(1 << (marker - 0xd0))?;
                self.text(&number.to_string());
            }
            0xd9..=0xdb => {
                let length = self.length(1 << (marker - 0xd9))?;
                return self.string(length);
            }
            0xdc | 0xdd => {
                let length = self.length(if marker == 0xdc { 2 } else { 4 })?;
                return self.array(length, depth);
            }
            0xde | 0xdf => {
                let length = self.length(if marker == 0xde { 2 } else { 4 })?;
                return self.map(length, depth);
            }
            0xe0..=0xff => self.text(&marker.cast_signed().to_string()),
            _ => return Err(self.error(ErrorKind::Syntax("a value that has a form in JSON"))),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn float(&mut self, value: f64) {
        let text = match value {
            value if value.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            value => float_repr(value),
        };
        self.text(&text);
    }

    fn string(&mut self, length: usize) -> Result<(), Error> {
        let bytes = self.take(length)?;
        write_str(&mut self.out, crate::pyjson::text(bytes)?);
        Ok(())
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<(), Error> {
        self.out.push(b'[');
        for index in 0..length {
            if index > 0 {
                self.text(", ");
            }
            self.value(depth + 1)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<(), Error> {
        self.out.push(b'{');
        for index in 0..length {
            if index > 0 {
                self.text(", ");
            }
            let start = self.out.len();
            self.value(depth + 1)?;
            match self.out.get(start) {
                Some(b'"') => {}
                Some(b'[' | b'{') | None => return Err(self.error(ErrorKind::Syntax("a key"))),
                Some(_) => {
                    self.out.insert(start, b'"');
                    self.out.push(b'"');
                }
            }
            self.text(": ");
            self.value(depth + 1)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Appends kombu's JSON form of bytes.
pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"{\"__type__\": ");
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.extend_from_slice(b"\"bytes\", \"__value__\": ");
            write_str(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"\"base64\", \"__value__\": \"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// The `MessagePack` form of JSON text.
pub(super) fn from_json(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let text = std::str::from_utf8(json).map_err(|err| EncodeError(err.to_string()))?;
    let mut out = Vec::with_capacity(json.len());
    write(&mut Cursor::new(text), &mut out).map_err(|err| EncodeError(err.to_string()))?;
    Ok(out)
}

fn write(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match cursor.peek() {
        Some(b'"') => write_text(cursor, out),
        Some(b'[') => {
            let (count, items) = write_items(cursor, b']')?;
            write_header(out, count, 0x90, 0x0f, 0xdc);
            out.extend_from_slice(&items);
            Ok(())
        }
        Some(b'{') => {
            let (count, items) = write_items(cursor, b'}')?;
            write_header(out, count, 0x80, 0x0f, 0xde);
            out.extend_from_slice(&items);
            Ok(())
        }
        Some(b't') => cursor.word("true").map(|()| out.push(0xc3)),
        Some(b'f') => cursor.word("false").map(|()| out.push(0xc2)),
        Some(b'n') => cursor.word("null").map(|()| out.push(0xc0)),
        _ => write_number(cursor, out),
    }
}

/// The elements of an array, or keys and values of an object: how many, and their bytes.
fn write_items(cursor: &mut Cursor<'_>, close: u8) -> Result<(usize, Vec<u8>), Error> {
    cursor.eat(if close == b']' { b'[' } else { b'{' });
    let (mut count, mut items) = (0, Vec::new());
    while !cursor.eat(close) {
        if count > 0 && !cursor.eat(b',') {
            return Err(cursor.expected("a comma"));
        }
        if close == b'}' {
            write_text(cursor, &mut items)?;
            if !cursor.eat(b':') {
                return Err(cursor.expected("a colon"));
            }
        }
        write(cursor, &mut items)?;
        count += 1;
    }
    Ok((count, items))
}

fn write_text(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let text = cursor.string()?.unescape().map_err(|kind| cursor.error(kind))?;
    if text.len() > 31 && u8::try_from(text.len()).is_ok() {
        out.push(0xd9);
        out.extend(u8::try_from(text.len()));
    } else {
        write_header(out, text.len(), 0xa0, 0x1f, 0xda);
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// A length in the marker itself, in two bytes behind `wide`, or in four bytes behind the marker after that.
fn write_header(out: &mut Vec<u8>, length: usize, small: u8, most: u8, wide: u8) {
    if let Some(length) = u8::try_from(length).ok().filter(|length| *length <= most) {
        out.push(small | length);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(wide);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(wide + 1);
        // a body is limited to far less
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

fn write_number(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let NumberText { text, kind } = cursor.number()?;
    let float = match kind {
        Number::Int => match (text.parse::<i8>(), text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(small), ..) if small >= -32 => {
                out.extend_from_slice(&small.to_be_bytes());
                return Ok(());
            }
            (_, Ok(number), _) => {
                out.push(0xcf);
                out.extend_from_slice(&number.to_be_bytes());
                return Ok(());
            }
            (_, _, Ok(number)) => {
                out.push(0xd3);
                out.extend_from_slice(&number.to_be_bytes());
                return Ok(());
            }
            _ => return Err(cursor.error(ErrorKind::IntegerRange)),
        },
        Number::BigInt => return Err(cursor.error(ErrorKind::IntegerRange)),
        Number::Float => text.parse().unwrap_or(f64::NAN),
        Number::NonFinite => match text {
            "NaN" => f64::NAN,
            text if text.starts_with('-') => f64::NEG_INFINITY,
            _ => f64::INFINITY,
        },
    };
    out.push(0xcb);
    out.extend_from_slice(&float.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &[u8]) -> Result<String, ErrorKind> {
        to_json(body, &Limits::DEFAULT)
            .map(|json| String::from_utf8(json).unwrap())
            .map_err(|err| err.kind().clone())
    }

    #[test]
    fn every_marker() {
        for (body, expected) in [
            (&[0x07][..], "7"),
            (&[0xff], "-1"),
            (&[0xc0], "null"),
            (&[0xc3], "true"),
            (&[0xcc, 200], "200"),
            (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "18446744073709551615"),
            (&[0xd0, 0x80], "-128"),
            (&[0xd1, 0xff, 0x7f], "-129"),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
            (&[0xca, 0x3f, 0xc0, 0, 0], "1.5"),
            (&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "NaN"),
            (&[0xa2, 0xc3, 0xa9], "\"\\u00e9\""),
            (&[0xd9, 1, b'a'], "\"a\""),
            (&[0xc4, 1, b'a'], r#"{"__type__": "bytes", "__value__": "a"}"#),
            (&[0xc4, 1, 0xff], r#"{"__type__": "base64", "__value__": "/w=="}"#),
            (&[0x92, 1, 0x90], "[1, []]"),
            (&[0xdc, 0, 1, 2], "[2]"),
            (&[0x82, 0xa1, b'a', 1, 2, 3], r#"{"a": 1, "2": 3}"#),
            (&[0xde, 0, 1, 0xc0, 0xc2], r#"{"null": false}"#),
        ] {
            assert_eq!(json(body).as_deref(), Ok(expected), "{body:x?}");
        }
    }

    #[test]
    fn bad_bodies_are_errors() {
        for body in [
            &[][..],
            &[0xc1],
            &[0xd9],
            &[0xda, 0xff, 0xff],
            &[0xa2, 0xc3, 0x28],
            &[0x92, 1],
            &[0x81, 0x90, 1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[1, 2],
            &[0xd4, 1, 0],
        ] {
            assert!(json(body).is_err(), "{body:x?}");
        }
        assert_eq!(json(&[0x91; 1000]), Err(ErrorKind::TooDeep));
    }

    #[test]
    fn json_becomes_msgpack_and_json_again() {
        for text in [
            "[[1, -1, -32, -33, 127, 128, 18446744073709551615, -9223372036854775808], {}, null]",
            r#"[true, false, 1.5, "a", "\u00e9", {"k": [[], {}]}]"#,
            "[NaN, Infinity, -Infinity, 1e+16]",
        ] {
            let packed = from_json(text.as_bytes()).unwrap();
            assert_eq!(json(&packed).unwrap(), text);
        }
        let long =
            format!("[\"{}\", \"{}\", [{}1]]", "a".repeat(40), "b".repeat(70_000), "1, ".repeat(70_000));
        assert_eq!(json(&from_json(long.as_bytes()).unwrap()).unwrap(), long);
        assert!(from_json(b"[100000000000000000000]").is_err());
        assert!(from_json(b"[\"\\ud800\"]").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = json(&body);
        }
    }
}
