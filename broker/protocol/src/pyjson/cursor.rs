//! The tokens of JSON text, one at a time. What is built from them is the business of `scan` and `de`.

use std::borrow::Cow;

use super::{Error, ErrorKind, MAX_DIGITS, Scanner};

/// A position in JSON text.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// An integer that an `i64` or a `u64` holds.
    Int,
    /// An integer beyond that.
    BigInt,
    /// A fraction or an exponent, within an `f64`.
    Float,
    /// `NaN`, `Infinity`, `-Infinity`, or a float beyond an `f64`.
    NonFinite,
}

/// A number token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberText<'a> {
    pub(crate) text: &'a str,
    pub(crate) kind: Number,
}

/// A string token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Str<'a> {
    /// The text between the quotes.
    pub(crate) inner: &'a str,
    pub(super) escaped: bool,
    pub(super) lone_surrogate: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.at)
    }

    pub(crate) fn expected(&self, what: &'static str) -> Error {
        self.error(ErrorKind::Syntax(what))
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// The next byte that is not white space, without passing it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes().get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Passes `byte` if it is next after white space.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        if self.peek().is_some() { Err(self.error(ErrorKind::Trailing)) } else { Ok(()) }
    }

    pub(crate) fn word(&mut self, word: &'static str) -> Result<(), Error> {
        if self.bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.expected("a value"))
        }
    }

    /// Passes one value, at most `depth` deep, and gives its text.
    pub(crate) fn skip_value(&mut self, depth: usize) -> Result<&'a str, Error> {
        let mut scanner = Scanner::at(self.clone(), depth);
        let value = scanner.value()?;
        *self = scanner.into_cursor();
        Ok(value)
    }

    /// Passes a string; its opening quote must be next.
    pub(crate) fn string(&mut self) -> Result<Str<'a>, Error> {
        if !self.eat(b'"') {
            return Err(self.expected("a string"));
        }
        let start = self.at;
        let (mut escaped, mut lone_surrogate) = (false, false);
        loop {
            let rest = &self.bytes()[self.at..];
            let plain = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            self.at += plain.unwrap_or(rest.len());
            match self.bytes().get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    lone_surrogate |= self.escape()?.is_none();
                }
                _ => return Err(self.expected("the end of a string")),
            }
        }
        let inner = &self.text[start..self.at];
        self.at += 1;
        Ok(Str { inner, escaped, lone_surrogate })
    }

    /// Passes an escape and gives its character, or `None` for half of a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, Error> {
        let Some(&kind) = self.bytes().get(self.at + 1) else {
            return Err(self.expected("an escape"));
        };
        let simple = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex(self.at + 2)?;
                self.at += 6;
                if (0xd800..0xdc00).contains(&high) && self.bytes()[self.at..].starts_with(b"\\u") {
                    let low = self.hex(self.at + 2)?;
                    if (0xdc00..0xe000).contains(&low) {
                        self.at += 6;
                        return Ok(char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)));
                    }
                }
                return Ok(char::from_u32(high));
            }
            _ => return Err(self.expected("an escape")),
        };
        self.at += 2;
        Ok(Some(simple))
    }

    fn hex(&self, at: usize) -> Result<u32, Error> {
        let digits = self.bytes().get(at..at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.expected("four hexadecimal digits"))
    }

    /// Passes a number (or `NaN`, `Infinity`, `-Infinity`) and gives its text.
    pub(crate) fn number(&mut self) -> Result<NumberText<'a>, Error> {
        let start = self.at;
        let bytes = self.bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        match bytes.get(at) {
            Some(b'I') => {
                self.at = at;
                self.word("Infinity")?;
                return Ok(NumberText { text: &self.text[start..self.at], kind: Number::NonFinite });
            }
            Some(b'N') if at == start => {
                self.word("NaN")?;
                return Ok(NumberText { text: &self.text[start..self.at], kind: Number::NonFinite });
            }
            Some(b'0') => at += 1,
            Some(b'1'..=b'9') => at = digits(at),
            _ => return Err(self.expected("a value")),
        }
        let whole = at - start;
        let mut float = false;
        if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
            float = true;
            at = digits(at + 1);
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            if bytes.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
                float = true;
                at = digits(at + 1 + sign);
            }
        }
        let text = &self.text[start..at];
        let kind = if float {
            let finite =
                (whole < 300 && !text.contains(['e', 'E'])) || text.parse::<f64>().is_ok_and(f64::is_finite);
            if finite { Number::Float } else { Number::NonFinite }
        } else if whole < 19 || text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
            Number::Int
        } else if whole > MAX_DIGITS {
            return Err(self.error(ErrorKind::TooManyDigits));
        } else {
            Number::BigInt
        };
        self.at = at;
        Ok(NumberText { text, kind })
    }
}

impl<'a> Str<'a> {
    /// The string without its escapes.
    pub(crate) fn unescape(self) -> Result<Cow<'a, str>, ErrorKind> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.inner));
        }
        let mut out = String::with_capacity(self.inner.len());
        let mut cursor = Cursor::new(self.inner);
        while let Some(plain) = self.inner[cursor.at..].find('\\') {
            out.push_str(&self.inner[cursor.at..cursor.at + plain]);
            cursor.at += plain;
            match cursor.escape() {
                Ok(Some(char)) => out.push(char),
                _ => return Err(ErrorKind::LoneSurrogate),
            }
        }
        out.push_str(&self.inner[cursor.at..]);
        Ok(Cow::Owned(out))
    }
}
