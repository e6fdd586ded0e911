//! A strict, bounded scanner: checks JSON text and cuts it into raw slices, without building values or recursing.

use std::borrow::Cow;

use super::{
    Error, ErrorKind, MAX_DEPTH,
    cursor::{Cursor, Number},
};

/// What a scanned text holds that most JSON readers refuse or change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// `NaN`, `Infinity`, `-Infinity` or a float beyond an `f64`.
    pub non_finite: bool,
    /// An integer beyond 64 bits.
    pub big_int: bool,
    /// A string with half of a surrogate pair.
    pub lone_surrogate: bool,
}

/// Checks that `bytes` are exactly one JSON value: UTF-8 without byte order mark, nothing before or behind, at most
/// `depth` deep.
///
/// # Errors
/// Where and why they are not.
pub fn scan(bytes: &[u8], depth: usize) -> Result<Scan, Error> {
    let mut scanner = Scanner::new(bytes, depth)?;
    scanner.value()?;
    scanner.end()?;
    Ok(scanner.seen)
}

/// Walks over a JSON text; the caller says what it expects and gets raw slices of checked JSON.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    cursor: Cursor<'a>,
    depth: usize,
    seen: Scan,
}

/// An object that a [`Scanner`] has entered.
#[derive(Debug)]
pub struct Object {
    first: bool,
}

/// An array that a [`Scanner`] has entered.
#[derive(Debug)]
pub(crate) struct Array {
    first: bool,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `bytes`; values may be nested at most `depth` deep ([`MAX_DEPTH`] at most).
    ///
    /// # Errors
    /// The bytes are not UTF-8.
    pub fn new(bytes: &'a [u8], depth: usize) -> Result<Self, Error> {
        Ok(Self::at(Cursor::new(super::text(bytes)?), depth))
    }

    pub(super) fn at(cursor: Cursor<'a>, depth: usize) -> Self {
        Self { cursor, depth: depth.min(MAX_DEPTH), seen: Scan::default() }
    }

    pub(super) fn into_cursor(self) -> Cursor<'a> {
        self.cursor
    }

    /// What the values passed so far hold.
    pub fn seen(&self) -> Scan {
        self.seen
    }

    /// The first byte of the next value, without passing it.
    pub fn peek(&mut self) -> Option<u8> {
        self.cursor.peek()
    }

    /// Passes `byte`, if it is next.
    ///
    /// # Errors
    /// It is not; `what` says what was expected.
    pub(crate) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Error> {
        if self.cursor.eat(byte) { Ok(()) } else { Err(self.cursor.expected(what)) }
    }

    /// Passes one value, whatever it is, and gives its text.
    ///
    /// # Errors
    /// What comes is not a value, or nested too deeply.
    pub fn value(&mut self) -> Result<&'a str, Error> {
        self.cursor.peek();
        let start = self.cursor.at;
        // one bit for each open container: set for an object
        let mut open = [0_u64; MAX_DEPTH.div_ceil(64)];
        let mut depth = 0;
        'value: loop {
            match self.cursor.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    if depth == self.depth {
                        return Err(self.cursor.error(ErrorKind::TooDeep));
                    }
                    let object = bracket == b'{';
                    let bit = 1 << (depth % 64);
                    if object {
                        open[depth / 64] |= bit;
                    } else {
                        open[depth / 64] &= !bit;
                    }
                    self.cursor.at += 1;
                    if self.cursor.eat(if object { b'}' } else { b']' }) {
                        // empty: closed at once
                    } else {
                        depth += 1;
                        if object {
                            self.skip_key()?;
                        }
                        continue 'value;
                    }
                }
                _ => self.scalar()?,
            }
            // behind a value: close containers until one goes on
            loop {
                if depth == 0 {
                    return Ok(&self.cursor.text[start..self.cursor.at]);
                }
                let object = open[(depth - 1) / 64] & (1 << ((depth - 1) % 64)) != 0;
                if self.cursor.eat(b',') {
                    if object {
                        self.skip_key()?;
                    }
                    continue 'value;
                }
                if !self.cursor.eat(if object { b'}' } else { b']' }) {
                    return Err(self.cursor.expected("a comma or the end of the container"));
                }
                depth -= 1;
            }
        }
    }

    /// Enters an array, which must be next.
    pub(crate) fn array(&mut self) -> Result<Array, Error> {
        self.expect(b'[', "an array")?;
        Ok(Array { first: true })
    }

    /// Moves to the next element of an array; `false` at its end, which is passed.
    pub(crate) fn next_element(&mut self, array: &mut Array) -> Result<bool, Error> {
        self.next(&mut array.first, b']')
    }

    /// Enters an object, which must be next.
    ///
    /// # Errors
    /// Something else is next.
    pub fn object(&mut self) -> Result<Object, Error> {
        self.expect(b'{', "an object")?;
        Ok(Object { first: true })
    }

    /// Moves to the next value of an object and gives its key; `None` at its end, which is passed.
    ///
    /// # Errors
    /// The object is broken, or the key is not text.
    pub fn next_key(&mut self, object: &mut Object) -> Result<Option<Cow<'a, str>>, Error> {
        if !self.next(&mut object.first, b'}')? {
            return Ok(None);
        }
        let key = self.cursor.string()?.unescape().map_err(|kind| self.cursor.error(kind))?;
        self.expect(b':', "a colon")?;
        Ok(Some(key))
    }

    /// Nothing but white space may be left.
    ///
    /// # Errors
    /// Something is left.
    pub fn end(&mut self) -> Result<(), Error> {
        self.cursor.end()
    }

    fn next(&mut self, first: &mut bool, end: u8) -> Result<bool, Error> {
        if self.cursor.eat(end) {
            return Ok(false);
        }
        if !*first {
            self.expect(b',', "a comma or the end of the container")?;
        }
        *first = false;
        Ok(true)
    }

    fn skip_key(&mut self) -> Result<(), Error> {
        self.seen.lone_surrogate |= self.cursor.string()?.lone_surrogate;
        self.expect(b':', "a colon")
    }

    fn scalar(&mut self) -> Result<(), Error> {
        match self.cursor.peek() {
            Some(b'"') => self.seen.lone_surrogate |= self.cursor.string()?.lone_surrogate,
            Some(b't') => self.cursor.word("true")?,
            Some(b'f') => self.cursor.word("false")?,
            Some(b'n') => self.cursor.word("null")?,
            _ => match self.cursor.number()?.kind {
                Number::Int | Number::Float => {}
                Number::BigInt => self.seen.big_int = true,
                Number::NonFinite => self.seen.non_finite = true,
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> Result<Scan, ErrorKind> {
        scan(text.as_bytes(), MAX_DEPTH).map_err(|err| err.kind)
    }

    #[test]
    fn takes_what_python_writes_and_says_what_is_odd() {
        let none = Scan::default();
        for text in
            ["0", "-0", "1.5e-7", "[]", "{}", " [1, {\"a\": [true, false, null]}, \"x\\u00e9\\\"\"]\n"]
        {
            assert_eq!(check(text), Ok(none), "{text}");
        }
        for text in ["NaN", "[Infinity]", "{\"a\": -Infinity}", "1e400"] {
            assert_eq!(check(text), Ok(Scan { non_finite: true, ..none }), "{text}");
        }
        for text in ["18446744073709551616", "-9223372036854775809", "1".repeat(4300).as_str()] {
            assert_eq!(check(text), Ok(Scan { big_int: true, ..none }), "{text}");
        }
        for text in ["18446744073709551615", "-9223372036854775808"] {
            assert_eq!(check(text), Ok(none), "{text}");
        }
        for text in ["\"\\ud800\"", "\"\\udc00\\ud800\"", "{\"\\ud800\": 1}"] {
            assert_eq!(check(text), Ok(Scan { lone_surrogate: true, ..none }), "{text}");
        }
        assert_eq!(check("\"\\ud83d\\ude00\""), Ok(none));
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in [
            "",
            " ",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1,}",
            "{a: 1}",
            "01",
            "+1",
            "1.",
            ".5",
            "-",
            "1e",
            "nul",
            "nulll",
            "tru",
            "'a'",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "[1 2]",
            "{\"a\" 1}",
            "-NaN",
            "\u{feff}1",
            "// 1",
            "[1]]",
            "1 2",
            "{1: 2}",
        ] {
            assert!(check(text).is_err(), "{text:?}");
        }
        assert_eq!(check(&"1".repeat(4301)), Err(ErrorKind::TooManyDigits));
        assert_eq!(scan(b"\"\xff\"", 5).map_err(|err| err.kind), Err(ErrorKind::Utf8));
    }

    #[test]
    fn depth_is_counted_not_recursed() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(&nested(512)).is_ok());
        assert_eq!(check(&nested(513)), Err(ErrorKind::TooDeep));
        assert_eq!(check(&nested(1_000_000)), Err(ErrorKind::TooDeep));
        assert_eq!(check(&"{\"a\": ".repeat(100_000)), Err(ErrorKind::TooDeep));
        let mixed = format!("{}1{}", "{\"a\": [".repeat(256), "]}".repeat(256));
        assert!(check(&mixed).is_ok());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{},:\" 0-9eE.+\\-tfn\\\\u]{0,12}") {
            let ours = check(&text);
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            // serde_json looks neither for halves of surrogate pairs nor at the size of numbers here
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
        }
    }
}
