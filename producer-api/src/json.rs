//! A strict, bounded look at a JSON body before anything is built from it.
//!
//! `args` and `kwargs` go into the AMQP message byte for byte, so what a lenient parser would forgive would reach a
//! Python worker: duplicate keys (which one counts?), lone surrogates, integers that Python refuses to read, nesting
//! that exhausts a stack. [`check`] walks the text once, without building values, and names the place of the first
//! fault as a JSON pointer. Called by the body extractor (`extract.rs`); serde parses only what passed here.

use std::collections::HashSet;
use std::fmt;

use crate::dto::form::escaped;

/// Python's `int()` refuses longer decimal strings (`sys.int_info.default_max_str_digits`), so a Python worker could
/// not even decode the message.
pub const MAX_DIGITS: usize = 4300;

/// The first thing wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// JSON pointer of the value or object that holds the fault; `""` is the whole body.
    pub pointer: String,
    /// Byte offset in the body.
    pub offset: usize,
}

/// What [`check`] objects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing there.
    Empty,
    /// Not UTF-8, or it starts with a byte order mark.
    Encoding,
    /// Breaks RFC 8259's grammar.
    Syntax(&'static str),
    /// `NaN`, `Infinity` or `-Infinity`: Python writes them, JSON has no such numbers.
    NotFinite,
    /// Nested deeper than allowed.
    TooDeep,
    /// The same key twice in one object.
    DuplicateKey,
    /// `\ud800` without its other half: not a character.
    LoneSurrogate,
    /// An integer that Python would refuse.
    TooManyDigits,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Empty => f.write_str("the body is empty"),
            FaultKind::Encoding => f.write_str("the body is not UTF-8 without a byte order mark"),
            FaultKind::Syntax(what) => f.write_str(what),
            FaultKind::NotFinite => f.write_str("NaN and Infinity are not JSON"),
            FaultKind::TooDeep => f.write_str("nested too deeply"),
            FaultKind::DuplicateKey => f.write_str("the object has the same key twice"),
            FaultKind::LoneSurrogate => f.write_str("a \\u escape is half of a surrogate pair"),
            FaultKind::TooManyDigits => write!(f, "an integer has more than {MAX_DIGITS} digits"),
        }?;
        write!(f, " (at byte {})", self.offset)
    }
}

/// Accepts `body` if it is one JSON text nested at most `max_depth` deep with nothing to object to.
///
/// # Errors
/// The first [`Fault`].
pub fn check(body: &[u8], max_depth: usize) -> Result<&str, Fault> {
    let whole = |kind, offset| Fault { kind, pointer: String::new(), offset };
    let text = std::str::from_utf8(body).map_err(|err| whole(FaultKind::Encoding, err.valid_up_to()))?;
    if text.starts_with('\u{feff}') {
        return Err(whole(FaultKind::Encoding, 0));
    }
    let mut walker = Walker { bytes: text.as_bytes(), at: 0, path: Vec::new(), max_depth };
    walker.space();
    if walker.peek().is_none() {
        return Err(whole(FaultKind::Empty, walker.at));
    }
    walker.value()?;
    walker.space();
    match walker.peek() {
        None => Ok(text),
        Some(_) => Err(whole(FaultKind::Syntax("something follows the JSON text"), walker.at)),
    }
}

/// One step of a JSON pointer: where a key's text lies, or an index.
enum Step {
    Key(String),
    Index(usize),
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    path: Vec<Step>,
    max_depth: usize,
}

impl Walker<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            match step {
                Step::Key(key) => pointer.push_str(&escaped(key)),
                Step::Index(index) => pointer.push_str(&index.to_string()),
            }
        }
        Fault { kind, pointer, offset: self.at }
    }

    fn syntax(&self, what: &'static str) -> Fault {
        self.fault(FaultKind::Syntax(what))
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(None),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'N' | b'I') => Err(self.fault(FaultKind::NotFinite)),
            Some(_) => Err(self.syntax("a value was expected")),
            None => Err(self.syntax("the text ends too early")),
        }
    }

    /// Walks from an opening bracket to the closing one, with `item` called at each item in between.
    fn items(
        &mut self,
        close: u8,
        missing: &'static str,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.path.len() >= self.max_depth {
            return Err(self.fault(FaultKind::TooDeep));
        }
        self.at += 1;
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        for index in 0.. {
            item(self, index)?;
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(byte) if byte == close => {
                    self.at += 1;
                    break;
                }
                _ => return Err(self.syntax(missing)),
            }
        }
        Ok(())
    }

    /// Walks a value that stands at `step`.
    fn below(&mut self, step: Step) -> Result<(), Fault> {
        self.path.push(step);
        self.value()?;
        self.path.pop();
        Ok(())
    }

    fn object(&mut self) -> Result<(), Fault> {
        let mut seen = Seen::default();
        self.items(b'}', "a comma or } was expected", |walker, _| {
            if walker.peek() != Some(b'"') {
                return Err(walker.syntax("a key in double quotes was expected"));
            }
            let start = walker.at;
            let mut key = String::new();
            walker.string(Some(&mut key))?;
            if !seen.insert(&key) {
                walker.at = start;
                return Err(walker.fault(FaultKind::DuplicateKey));
            }
            walker.space();
            if walker.peek() != Some(b':') {
                return Err(walker.syntax("a colon was expected"));
            }
            walker.at += 1;
            walker.space();
            walker.below(Step::Key(key))
        })
    }

    fn array(&mut self) -> Result<(), Fault> {
        self.items(b']', "a comma or ] was expected", |walker, index| walker.below(Step::Index(index)))
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.syntax("a value was expected"))
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'I') => return Err(self.fault(FaultKind::NotFinite)),
            Some(b'0') => {
                self.at += 1;
                if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    return Err(self.syntax("a number starts with 0"));
                }
            }
            _ => match self.digits() {
                0 => return Err(self.syntax("a digit was expected")),
                n if n > MAX_DIGITS => return Err(self.fault(FaultKind::TooManyDigits)),
                _ => {}
            },
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.syntax("a digit was expected"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.syntax("a digit was expected"));
            }
        }
        Ok(())
    }

    /// Walks a string; with `into`, also decodes it (keys must be compared decoded).
    fn string(&mut self, mut into: Option<&mut String>) -> Result<(), Fault> {
        self.at += 1;
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
                self.at += 1;
            }
            if let Some(key) = into.as_deref_mut() {
                // The whole text is UTF-8 and the stops are ASCII, so the slice is UTF-8.
                key.push_str(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default());
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let letter = self.escape()?;
                    if let Some(key) = into.as_deref_mut() {
                        key.push(letter);
                    }
                }
                Some(_) => return Err(self.syntax("a control character in a string must be escaped")),
                None => return Err(self.syntax("the text ends inside a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let letter = self.bytes.get(self.at + 1).copied();
        let plain = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.syntax("an unknown escape")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let first = self.hex4(self.at).ok_or_else(|| self.syntax("\\u needs four hexadecimal digits"))?;
        let code = match first {
            0xd800..=0xdbff => match self.hex4(self.at + 6) {
                Some(low @ 0xdc00..=0xdfff) => {
                    self.at += 6;
                    0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00)
                }
                _ => return Err(self.fault(FaultKind::LoneSurrogate)),
            },
            code => code,
        };
        let letter = char::from_u32(code).ok_or_else(|| self.fault(FaultKind::LoneSurrogate))?;
        self.at += 6;
        Ok(letter)
    }

    /// The value of `\u` and four hexadecimal digits at `at`.
    fn hex4(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 6)?;
        let digits = bytes.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
    }
}

/// The keys of one object: a list while there are few, as in nearly every body.
#[derive(Default)]
struct Seen {
    few: Vec<String>,
    many: HashSet<String>,
}

impl Seen {
    fn insert(&mut self, key: &str) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key.to_owned());
        }
        if self.few.iter().any(|known| known == key) {
            return false;
        }
        self.few.push(key.to_owned());
        if self.few.len() > 16 {
            self.many = self.few.drain(..).collect();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (FaultKind, String) {
        let fault = check(text.as_bytes(), 4).expect_err(text);
        (fault.kind, fault.pointer)
    }

    #[test]
    fn accepts_what_is_json() {
        for text in [
            "{}",
            " [ ] ",
            "null",
            "-0.5e+10",
            "1e400",
            "\"\\ud83d\\ude00 \\u00e9\"",
            "[[[[]]]]",
            r#"{"a":{"a":1},"b":[1,2.50,{"a":true}],"c\n":"\u0000"}"#,
            "123456789012345678901234567890",
        ] {
            assert_eq!(check(text.as_bytes(), 4), Ok(text));
        }
    }

    #[test]
    fn names_the_fault_and_its_place() {
        assert_eq!(fault("").0, FaultKind::Empty);
        assert_eq!(fault("  ").0, FaultKind::Empty);
        assert_eq!(fault("\u{feff}{}").0, FaultKind::Encoding);
        assert_eq!(fault("{\"args\":[1,NaN]}"), (FaultKind::NotFinite, "/args/1".into()));
        assert_eq!(fault("{\"args\":[-Infinity]}"), (FaultKind::NotFinite, "/args/0".into()));
        assert_eq!(fault("{\"a\":1,\"a\":2}"), (FaultKind::DuplicateKey, String::new()));
        assert_eq!(fault("{\"k/~\":{\"a\":1,\"\\u0061\":2}}"), (FaultKind::DuplicateKey, "/k~1~0".into()));
        assert_eq!(fault("[[[[[]]]]]"), (FaultKind::TooDeep, "/0/0/0/0".into()));
        assert_eq!(fault("[\"\\ud800\"]"), (FaultKind::LoneSurrogate, "/0".into()));
        assert_eq!(fault("[\"\\udc00\"]"), (FaultKind::LoneSurrogate, "/0".into()));
        assert_eq!(fault("[\"\\ud800\\u0041\"]"), (FaultKind::LoneSurrogate, "/0".into()));
        assert_eq!(fault(&"9".repeat(MAX_DIGITS + 1)).0, FaultKind::TooManyDigits);
        for text in [
            "{", "[1,]", "{\"a\"}", "{\"a\":}", "{,}", "01", "1.", "1e", "-", "+1", "tru", "'a'", "{} x",
            "\"", "\"\n\"", "\"\\x\"", "[1 2]", "{a:1}", "[//]",
        ] {
            assert!(matches!(fault(text).0, FaultKind::Syntax(_)), "{text}");
        }
        assert_eq!(check(b"[\"\xff\"]", 4).expect_err("not UTF-8").kind, FaultKind::Encoding);
    }

    #[test]
    fn agrees_with_serde_on_what_is_json() {
        let texts = [
            "0",
            "-1",
            "1.5",
            "[]",
            "[1,2]",
            "{\"a\":[{}]}",
            "\"x\"",
            "[",
            "]",
            "{]",
            "1..2",
            "--1",
            "0x1",
            "nul",
            "[,]",
            "\"\\u12\"",
            "\t1\n",
            "[1]]",
        ];
        for text in texts {
            assert_eq!(
                check(text.as_bytes(), 64).is_ok(),
                serde_json::from_str::<serde_json::Value>(text).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn finds_a_duplicate_among_many_keys() {
        let keys: Vec<String> = (0..1000).map(|i| format!("\"k{i}\":0")).collect();
        assert!(check(format!("{{{}}}", keys.join(",")).as_bytes(), 4).is_ok());
        assert_eq!(fault(&format!("{{{},\"k5\":0}}", keys.join(","))).0, FaultKind::DuplicateKey);
    }
}
