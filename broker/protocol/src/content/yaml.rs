//! YAML bodies, turned into JSON and back, so that everything else knows JSON only.
//!
//! Read as `yaml.safe_load` reads what `yaml.safe_dump` writes: YAML 1.1's plain scalars, `!!binary`, anchors (copied,
//! within the bounds of an unpacked body). Any other tag is refused, Python's object tags among them. Base 60 numbers
//! and merge keys, which nothing dumps, are texts.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::msgpack::write_bytes;
use crate::{
    Limits, WireTime,
    pyjson::{Cursor, EncodeError, Error, ErrorKind, Number, NumberText, float_repr, write_str},
};

/// Longer keys need YAML's explicit form.
const SIMPLE_KEY: usize = 512;

/// The JSON text of a body.
pub(super) fn to_json(body: &[u8], limits: &Limits) -> Result<Vec<u8>, Error> {
    let text = crate::pyjson::text(body)?;
    let mut writer =
        Writer { out: Vec::with_capacity(body.len()), open: Vec::new(), anchors: HashMap::new(), limits };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|err| {
            let at = err.marker().index();
            Error::new(ErrorKind::Data(format!("not YAML: {}", super::cut(err.info()))), at)
        })?;
        documents += usize::from(matches!(event, Event::DocumentStart(_)));
        if documents > 1 {
            return Err(Error::new(ErrorKind::Trailing, span.start.index()));
        }
        writer.event(&event).map_err(|kind| Error::new(kind, span.start.index()))?;
    }
    if writer.out.is_empty() {
        writer.out.extend_from_slice(b"null");
    }
    Ok(writer.out)
}

struct Writer<'a> {
    out: Vec<u8>,
    open: Vec<Container>,
    /// Where in `out` each anchored value begins and ends.
    anchors: HashMap<usize, (usize, usize)>,
    limits: &'a Limits,
}

/// A container that is being written.
struct Container {
    start: usize,
    anchor: usize,
    mapping: bool,
    /// Keys and values so far.
    count: usize,
}

impl Writer<'_> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), ErrorKind> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.before(true)?;
                let start = self.out.len();
                self.scalar(text, *style, tag.as_deref())?;
                self.key_as_text(start);
                self.after(*anchor, start);
            }
            Event::Alias(anchor) => {
                self.before(true)?;
                let (start, end) =
                    *self.anchors.get(anchor).ok_or(ErrorKind::Syntax("an anchor that is complete"))?;
                let at = self.out.len();
                self.out.extend_from_within(start..end);
                if self.is_key() && !self.out[at..].starts_with(b"\"") {
                    return Err(ErrorKind::Syntax("a key"));
                }
                self.after(0, at);
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                let mapping = matches!(event, Event::MappingStart(..));
                if tag.as_ref().is_some_and(|tag| !core(tag, if mapping { "map" } else { "seq" })) {
                    return Err(ErrorKind::Syntax("a tag that is read"));
                }
                self.before(false)?;
                if self.open.len() >= self.limits.depth {
                    return Err(ErrorKind::TooDeep);
                }
                self.open.push(Container { start: self.out.len(), anchor: *anchor, mapping, count: 0 });
                self.out.push(if mapping { b'{' } else { b'[' });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Container { start, anchor, mapping, .. }) = self.open.pop() {
                    self.out.push(if mapping { b'}' } else { b']' });
                    self.after(anchor, start);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_key(&self) -> bool {
        self.open.last().is_some_and(|container| container.mapping && container.count.is_multiple_of(2))
    }

    /// What separates a value from the one before; `scalar` if it may be a key.
    fn before(&mut self, scalar: bool) -> Result<(), ErrorKind> {
        if self.out.len() > self.limits.decompressed {
            return Err(ErrorKind::TooMany);
        }
        if self.is_key() && !scalar {
            return Err(ErrorKind::Syntax("a key"));
        }
        if let Some(container) = self.open.last() {
            let separator: &[u8] = match (container.mapping, container.count) {
                (_, 0) => b"",
                (true, count) if count % 2 == 1 => b": ",
                _ => b", ",
            };
            self.out.extend_from_slice(separator);
        }
        Ok(())
    }

    fn after(&mut self, anchor: usize, start: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, (start, self.out.len()));
        }
        if let Some(container) = self.open.last_mut() {
            container.count += 1;
        }
    }

    /// A key that is no text becomes one, as Python's JSON coerces it.
    fn key_as_text(&mut self, start: usize) {
        if self.is_key() && self.out.get(start) != Some(&b'"') {
            self.out.insert(start, b'"');
            self.out.push(b'"');
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<(), ErrorKind> {
        match tag {
            None if style == ScalarStyle::Plain => self.plain(text),
            None => write_str(&mut self.out, text),
            Some(tag) if core(tag, "str") => write_str(&mut self.out, text),
            Some(tag) if core(tag, "binary") => {
                let packed: String = text.split_whitespace().collect();
                let bytes = STANDARD.decode(packed).map_err(|_| ErrorKind::Syntax("base64"))?;
                if self.is_key() {
                    return Err(ErrorKind::Syntax("a key"));
                }
                write_bytes(&mut self.out, &bytes);
            }
            Some(tag) if ["int", "float", "bool", "null", "timestamp"].iter().any(|name| core(tag, name)) => {
                self.plain(text);
            }
            Some(_) => return Err(ErrorKind::Syntax("a tag that is read")),
        }
        Ok(())
    }

    /// A scalar without quotes: whatever YAML 1.1 takes it for.
    fn plain(&mut self, text: &str) {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => self.out.extend_from_slice(b"null"),
            "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                self.out.extend_from_slice(b"true");
            }
            "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
                self.out.extend_from_slice(b"false");
            }
            _ => match integer(text).or_else(|| float(text)) {
                Some(number) => self.out.extend_from_slice(number.as_bytes()),
                None if self.is_key() => write_str(&mut self.out, text),
                None => match timestamp(text) {
                    Some((kind, value)) => {
                        let tagged = format!("{{\"__type__\": \"{kind}\", \"__value__\": \"{value}\"}}");
                        self.out.extend_from_slice(tagged.as_bytes());
                    }
                    None => write_str(&mut self.out, text),
                },
            },
        }
    }
}

fn core(tag: &Tag, name: &str) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == name
}

/// Sign and the rest.
fn signed(text: &str) -> (&'static str, &str) {
    match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    }
}

/// A decimal, hexadecimal, octal (`017`) or binary integer, as JSON.
fn integer(text: &str) -> Option<String> {
    let (sign, rest) = signed(text);
    let digits = rest.replace('_', "");
    let in_base = |digits: &str, base: u32| {
        u128::from_str_radix(digits, base).ok().map(|number| format!("{sign}{number}"))
    };
    match rest.as_bytes() {
        [b'0', b'x', ..] => in_base(&digits[2..], 16),
        [b'0', b'b', ..] => in_base(&digits[2..], 2),
        [b'0'] => Some("0".to_owned()),
        [b'0', ..] => in_base(&digits[1..], 8),
        [b'1'..=b'9', ..] if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(format!("{sign}{digits}"))
        }
        _ => None,
    }
}

/// A float as YAML 1.1 knows it: with a dot, and a sign in its exponent.
fn float(text: &str) -> Option<String> {
    let (sign, rest) = signed(text);
    match rest {
        ".inf" | ".Inf" | ".INF" => return Some(format!("{sign}Infinity")),
        ".nan" | ".NaN" | ".NAN" => return Some("NaN".to_owned()),
        _ => {}
    }
    let plain = rest.replace('_', "");
    let (mantissa, exponent) =
        plain.split_once(['e', 'E']).map_or((plain.as_str(), None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let signed_exponent =
        |text: &str| text.strip_prefix(['+', '-']).is_some_and(|text| !text.is_empty() && digits(text));
    let fine = !(whole.is_empty() && fraction.is_empty())
        && digits(whole)
        && digits(fraction)
        && exponent.is_none_or(signed_exponent);
    let value: f64 = if fine { format!("{sign}{plain}").parse().ok()? } else { return None };
    Some(if value.is_finite() { float_repr(value) } else { format!("{sign}Infinity") })
}

/// A date or a time, by the names of kombu's extended types.
fn timestamp(text: &str) -> Option<(&'static str, String)> {
    if !text.as_bytes().first().is_some_and(u8::is_ascii_digit) || !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let dashed = text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    if !dashed {
        return None;
    }
    let time = WireTime::parse(text).ok()?;
    if text.len() == 10 { Some(("date", text.to_owned())) } else { Some(("datetime", time.isoformat())) }
}

/// The YAML form of JSON text: flow style, ASCII.
pub(super) fn from_json(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let text = std::str::from_utf8(json).map_err(|err| EncodeError(err.to_string()))?;
    let mut out = String::with_capacity(json.len() + 1);
    write(&mut Cursor::new(text), &mut out).map_err(|err| EncodeError(err.to_string()))?;
    out.push('\n');
    Ok(out.into_bytes())
}

fn write(cursor: &mut Cursor<'_>, out: &mut String) -> Result<(), Error> {
    match cursor.peek() {
        Some(b'"') => write_text(cursor, out).map(drop),
        Some(open @ (b'[' | b'{')) => {
            let close = if open == b'[' { b']' } else { b'}' };
            cursor.eat(open);
            out.push(char::from(open));
            let mut first = true;
            while !cursor.eat(close) {
                if !std::mem::take(&mut first) {
                    if !cursor.eat(b',') {
                        return Err(cursor.expected("a comma"));
                    }
                    out.push_str(", ");
                }
                if open == b'{' {
                    let start = out.len();
                    write_text(cursor, out)?;
                    if out.len() - start > SIMPLE_KEY {
                        out.insert_str(start, "? ");
                        out.push(' ');
                    }
                    if !cursor.eat(b':') {
                        return Err(cursor.expected("a colon"));
                    }
                    out.push_str(": ");
                }
                write(cursor, out)?;
            }
            out.push(char::from(close));
            Ok(())
        }
        Some(b't') => cursor.word("true").map(|()| out.push_str("true")),
        Some(b'f') => cursor.word("false").map(|()| out.push_str("false")),
        Some(b'n') => cursor.word("null").map(|()| out.push_str("null")),
        _ => {
            let NumberText { text, kind } = cursor.number()?;
            match kind {
                Number::Int | Number::BigInt => out.push_str(text),
                Number::Float => out.push_str(&dotted(&float_repr(text.parse().unwrap_or_default()))),
                Number::NonFinite if text == "NaN" => out.push_str(".nan"),
                Number::NonFinite => out.push_str(if text.starts_with('-') { "-.inf" } else { ".inf" }),
            }
            Ok(())
        }
    }
}

/// `1e+16` as `1.0e+16`: without the dot it would be a text.
fn dotted(float: &str) -> String {
    match float.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => float.to_owned(),
    }
}

fn write_text(cursor: &mut Cursor<'_>, out: &mut String) -> Result<(), Error> {
    use std::fmt::Write;
    let text = cursor.string()?.unescape().map_err(|kind| cursor.error(kind))?;
    out.push('"');
    for char in text.chars() {
        // writing to a String cannot fail
        let _ = match char {
            '"' | '\\' => write!(out, "\\{char}"),
            ' '..='~' => write!(out, "{char}"),
            '\u{10000}'.. => write!(out, "\\U{:08X}", u32::from(char)),
            _ => write!(out, "\\u{:04X}", u32::from(char)),
        };
    }
    out.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> Result<String, String> {
        to_json(yaml.as_bytes(), &Limits::DEFAULT)
            .map(|json| String::from_utf8(json).unwrap())
            .map_err(|err| err.to_string())
    }

    #[test]
    fn plain_scalars_are_what_yaml_1_1_says() {
        for (yaml, expected) in [
            ("1", "1"),
            ("-12_3", "-123"),
            ("0x1F", "31"),
            ("017", "15"),
            ("0b101", "5"),
            ("100000000000000000000000", "100000000000000000000000"),
            ("1.5", "1.5"),
            ("1.0e+16", "1e+16"),
            ("1e16", "\"1e16\""),
            ("-.inf", "-Infinity"),
            (".nan", "NaN"),
            ("yes", "true"),
            ("Off", "false"),
            ("~", "null"),
            ("", "null"),
            ("null", "null"),
            ("'1'", "\"1\""),
            ("\"\\u00e9\"", "\"\\u00e9\""),
            ("abc", "\"abc\""),
            ("12:30", "\"12:30\""),
            ("2030-01-02", r#"{"__type__": "date", "__value__": "2030-01-02"}"#),
            (
                "2030-01-02 03:04:05+00:00",
                r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05+00:00"}"#,
            ),
            (
                "2030-01-02 03:04:05.5",
                r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05.500000"}"#,
            ),
            ("!!str 1", "\"1\""),
            ("!!binary /w==", r#"{"__type__": "base64", "__value__": "/w=="}"#),
        ] {
            assert_eq!(json(yaml).as_deref(), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn containers_and_anchors() {
        assert_eq!(
            json("- - 1\n  - {a: b, 1: 2, ~: 3}\n- []\n").unwrap(),
            r#"[[1, {"a": "b", "1": 2, "null": 3}], []]"#
        );
        assert_eq!(json("a: &x [1]\nb: *x\n").unwrap(), r#"{"a": [1], "b": [1]}"#);
        assert_eq!(json("? long\n: 1\n").unwrap(), r#"{"long": 1}"#);
    }

    #[test]
    fn objects_laughs_and_depth_are_refused() {
        for yaml in [
            "!!python/object/apply:os.system ['true']",
            "!!python/name:os.system",
            "!custom x",
            "!!set {a}",
            "- &a [*a]",
            "[1",
            "{a: 1",
            "--- 1\n--- 2\n",
            "? [1]\n: 2\n",
            "*a",
        ] {
            assert!(json(yaml).is_err(), "{yaml}");
        }
        let laughs: String = (1..20)
            .map(|level| format!("- &a{level} [{}]\n", vec![format!("*a{}", level - 1); 20].join(", ")))
            .collect();
        assert!(json(&format!("- &a0 [lol]\n{laughs}")).is_err());
        assert!(json(&"[".repeat(100_000)).is_err());
        assert!(json(&"- ".repeat(10_000)).is_err());
    }

    #[test]
    fn json_becomes_yaml_and_json_again() {
        let long = "k".repeat(2000);
        for text in [
            r#"[[1, -1, 1.5, 1e+16, 1e-07, NaN, -Infinity], {"a": null, "yes": true}, "x: y # z", "\u00e9\ud83d\ude00\n\u007f", [], {}]"#.to_owned(),
            format!("{{\"{long}\": [\"{long}\"]}}"),
        ] {
            let yaml = from_json(text.as_bytes()).unwrap();
            assert_eq!(json(std::str::from_utf8(&yaml).unwrap()).unwrap(), text);
        }
        assert!(from_json(b"[\"\\ud800\"]").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in "[-a-z0-9\\[\\]{}:&*!? \n'\".#|>~,]{0,40}") {
            let _ = json(&body);
        }
    }
}
