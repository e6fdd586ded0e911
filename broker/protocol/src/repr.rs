//! `argsrepr`, `kwargsrepr` and the `result` of events: JSON as Python would print it, shortened as Celery shortens it.
//!
//! Three levels deep, about 1,024 characters; what is left out shows as `...`, brackets always close. Quotes in strings
//! are escaped, line breaks and backslashes are not: these texts are for reading, not for parsing.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use crate::pyjson::{Cursor, MAX_DEPTH, Number, NumberText, float_repr};

/// Celery's default length of a representation, in characters (`argsrepr_maxsize`, `resultrepr_maxsize`). Quotes and
/// brackets may go slightly beyond.
pub const DEFAULT_BUDGET: usize = 1024;

/// Containers nested deeper than this are shown as `[...]` or `{...}` (`task_repr_maxlevels`).
pub const MAX_LEVELS: usize = 3;

/// Positional arguments as a Python tuple: `(2, 3)`, `(1,)`, `()`.
pub fn argsrepr(args: &[Box<RawValue>]) -> String {
    let mut repr = Repr::new(DEFAULT_BUDGET);
    let _ = repr.tuple(args.iter().map(|arg| arg.get()));
    repr.out
}

/// Keyword arguments as a Python dict: `{'x': 1}`.
pub fn kwargsrepr(kwargs: &[(String, Box<RawValue>)]) -> String {
    let mut repr = Repr::new(DEFAULT_BUDGET);
    let _ = repr.dict(kwargs.iter().map(|(key, value)| (key.as_str(), value.get())));
    repr.out
}

/// One JSON value as Python would print it, in about `budget` characters. Text that is not JSON yields some text.
pub fn repr(json: &str, budget: usize) -> String {
    let mut repr = Repr::new(budget);
    let _ = repr.value(&mut Cursor::new(json));
    repr.out
}

/// One JSON value exactly as Python's `repr` prints it, unlike [`repr`] with all its quotes and escapes, and in full.
pub fn exact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    write_exact(&mut Cursor::new(json), &mut out);
    out
}

/// A text as a quoted Python string, shortened to about `budget` characters.
pub fn quoted(text: &str, budget: usize) -> String {
    let mut repr = Repr::new(budget);
    let _ = repr.string(text);
    repr.out
}

/// A float as Python prints it: `1.0`, `1e+16`, `1e-05`, `inf`, `nan`.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else {
        float_repr(value)
    }
}

/// A representation in the making.
struct Repr {
    out: String,
    /// Characters left. Closing brackets are free once it is used up.
    budget: usize,
    /// Brackets to close, outermost first.
    open: Vec<&'static str>,
}

/// `Break`: the budget is used up and everything is closed.
type Flow = ControlFlow<()>;

impl Repr {
    fn new(budget: usize) -> Self {
        Self { out: String::new(), budget: budget.max(1), open: Vec::new() }
    }

    fn tuple<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a str>) -> Flow {
        let close = if items.len() == 1 { ",)" } else { ")" };
        self.enter("(", close)?;
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.token(", ")?;
            }
            self.value(&mut Cursor::new(item))?;
        }
        self.leave()
    }

    fn dict<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Flow {
        self.enter("{", "}")?;
        for (index, (key, value)) in pairs.enumerate() {
            if index > 0 {
                self.token(", ")?;
            }
            self.string(key)?;
            self.token(": ")?;
            self.value(&mut Cursor::new(value))?;
        }
        self.leave()
    }

    fn value(&mut self, cursor: &mut Cursor<'_>) -> Flow {
        match cursor.peek() {
            Some(b'[') if self.open.len() >= MAX_LEVELS => self.elided("[...]", cursor),
            Some(b'{') if self.open.len() >= MAX_LEVELS => self.elided("{...}", cursor),
            Some(b'[') => {
                cursor.eat(b'[');
                self.enter("[", "]")?;
                while !cursor.eat(b']') && cursor.peek().is_some() {
                    if cursor.eat(b',') {
                        self.token(", ")?;
                    }
                    self.value(cursor)?;
                }
                self.leave()
            }
            Some(b'{') => {
                cursor.eat(b'{');
                self.enter("{", "}")?;
                while !cursor.eat(b'}') && cursor.peek().is_some() {
                    if cursor.eat(b',') {
                        self.token(", ")?;
                    }
                    self.text(cursor)?;
                    cursor.eat(b':');
                    self.token(": ")?;
                    self.value(cursor)?;
                }
                self.leave()
            }
            Some(b'"') => self.text(cursor),
            Some(b't') => self.word(cursor, "true", "True"),
            Some(b'f') => self.word(cursor, "false", "False"),
            Some(b'n') => self.word(cursor, "null", "None"),
            _ => self.number(cursor),
        }
    }

    /// A container below the last level that is shown.
    fn elided(&mut self, shown: &'static str, cursor: &mut Cursor<'_>) -> Flow {
        self.token(shown)?;
        if cursor.skip_value(MAX_DEPTH).is_err() { self.end() } else { Flow::Continue(()) }
    }

    fn text(&mut self, cursor: &mut Cursor<'_>) -> Flow {
        match cursor.string() {
            // half of a surrogate pair has no form in UTF-8: its escape is shown
            Ok(string) => match string.unescape() {
                Ok(text) => self.string(&text),
                Err(_) => self.string(string.inner),
            },
            Err(_) => self.end(),
        }
    }

    fn word(&mut self, cursor: &mut Cursor<'_>, word: &'static str, shown: &str) -> Flow {
        if cursor.word(word).is_err() { self.end() } else { self.atom(shown) }
    }

    fn number(&mut self, cursor: &mut Cursor<'_>) -> Flow {
        match cursor.number() {
            Ok(NumberText { text, kind: Number::Int | Number::BigInt }) => self.atom(text),
            Ok(NumberText { text: "NaN", .. }) => self.atom("nan"),
            Ok(NumberText { text, kind: Number::NonFinite }) => {
                self.atom(if text.starts_with('-') { "-inf" } else { "inf" })
            }
            Ok(NumberText { text, kind: Number::Float }) => {
                self.atom(&float_repr(text.parse().unwrap_or_default()))
            }
            Err(_) => self.end(),
        }
    }

    /// A number, `True`, `False` or `None`.
    fn atom(&mut self, text: &str) -> Flow {
        self.check()?;
        let shown = truncate(text, self.budget);
        self.push(&shown);
        Flow::Continue(())
    }

    fn string(&mut self, text: &str) -> Flow {
        self.check()?;
        let shown = format!("'{}'", truncate(text, self.budget).replace('\'', "\\'"));
        self.push(&shown);
        Flow::Continue(())
    }

    fn token(&mut self, text: &'static str) -> Flow {
        self.check()?;
        self.push(text);
        Flow::Continue(())
    }

    fn enter(&mut self, bracket: &'static str, close: &'static str) -> Flow {
        self.token(bracket)?;
        self.open.push(close);
        Flow::Continue(())
    }

    fn leave(&mut self) -> Flow {
        if let Some(close) = self.open.pop() {
            self.push(close);
        }
        Flow::Continue(())
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.budget = self.budget.saturating_sub(text.chars().count());
    }

    /// Ends the representation if nothing more fits.
    fn check(&mut self) -> Flow {
        if self.budget > 0 { Flow::Continue(()) } else { self.end() }
    }

    fn end(&mut self) -> Flow {
        self.out.push_str(", ...");
        while let Some(close) = self.open.pop() {
            self.out.push_str(close);
        }
        Flow::Break(())
    }
}

/// Cuts a text of `budget` or more characters, back to its last space, and marks it with `...`.
fn truncate(text: &str, budget: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(budget.saturating_sub(1)) {
        None => text.into(),
        Some((at, last)) => {
            let cut = &text[..at + last.len_utf8()];
            format!("{}...", cut.rsplit_once(' ').map_or(cut, |(front, _)| front)).into()
        }
    }
}

fn write_exact(cursor: &mut Cursor<'_>, out: &mut String) {
    let container = |cursor: &mut Cursor<'_>,
                     out: &mut String,
                     close: u8,
                     item: &dyn Fn(&mut Cursor<'_>, &mut String)| {
        let open = if close == b']' { b'[' } else { b'{' };
        cursor.eat(open);
        out.push(char::from(open));
        while !cursor.eat(close) && cursor.peek().is_some() {
            if cursor.eat(b',') {
                out.push_str(", ");
            }
            let before = cursor.position();
            item(cursor, out);
            if cursor.position() == before {
                return;
            }
        }
        out.push(char::from(close));
    };
    match cursor.peek() {
        Some(b'[') => container(cursor, out, b']', &write_exact),
        Some(b'{') => container(cursor, out, b'}', &|cursor, out| {
            write_exact(cursor, out);
            cursor.eat(b':');
            out.push_str(": ");
            write_exact(cursor, out);
        }),
        Some(b'"') => {
            if let Ok(string) = cursor.string() {
                // half of a surrogate pair shows as the escape that Python prints too
                write_literal(&string.unescape().unwrap_or(string.inner.into()), out);
            }
        }
        _ => {
            let mut atom = Repr::new(usize::MAX);
            let _ = atom.value(cursor);
            out.push_str(&atom.out);
        }
    }
}

/// A string literal: in single quotes, unless it has some and no double ones.
fn write_literal(text: &str, out: &mut String) {
    use std::fmt::Write;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char == quote => out.extend(['\\', char]),
            char if char.is_control() => {
                // writing to a String cannot fail
                let _ = write!(out, "\\x{:02x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raws(values: &[&str]) -> Vec<Box<RawValue>> {
        values.iter().map(|text| RawValue::from_string((*text).to_owned()).unwrap()).collect()
    }

    #[test]
    fn values_look_as_in_python() {
        let cases = [
            ("1", "1"),
            ("-0.5", "-0.5"),
            ("1.0", "1.0"),
            ("1e16", "1e+16"),
            ("1e15", "1000000000000000.0"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("1e400", "inf"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("true", "True"),
            ("null", "None"),
            (r#""it's""#, r"'it\'s'"),
            (r#""a\nb\\c""#, "'a\nb\\c'"),
            (r#""\u00e9""#, "'é'"),
            ("[]", "[]"),
            ("{}", "{}"),
            (r#"{"a": [1, 2.5], "b": null}"#, "{'a': [1, 2.5], 'b': None}"),
            ("[ 1 ,\n2 ]", "[1, 2]"),
            ("[[[[1]]]]", "[[[[...]]]]"),
            (r#"{"a": {"b": {"c": {"d": 1}}}}"#, "{'a': {'b': {'c': {...}}}}"),
        ];
        for (json, want) in cases {
            assert_eq!(repr(json, DEFAULT_BUDGET), want, "{json}");
        }
    }

    #[test]
    fn exact_is_pythons_own_repr() {
        for (json, want) in [
            (r#""it's""#, r#""it's""#),
            (r#""it's \"so\"""#, r#"'it\'s "so"'"#),
            (r#""a\nb\\c\u0001\u00e9""#, r"'a\nb\\c\x01é'"),
            (
                r#"[1, 2.0, null, {"a": [true, "b"]}, [], {}, NaN]"#,
                "[1, 2.0, None, {'a': [True, 'b']}, [], {}, nan]",
            ),
            ("[[[[[1]]]]]", "[[[[[1]]]]]"),
        ] {
            assert_eq!(exact(json), want, "{json}");
        }
        for text in
            ["", "[", "{", "[1", "{\"a\"", "\"abc", "]", ",,,", "[}", "{1:2}", "[[[[[[", "é,é", "{\"a\" 1}"]
        {
            let _ = exact(text);
        }
    }

    #[test]
    fn arguments_are_a_tuple_and_a_dict() {
        assert_eq!(argsrepr(&raws(&["2", "3"])), "(2, 3)");
        assert_eq!(argsrepr(&raws(&["1"])), "(1,)");
        assert_eq!(argsrepr(&[]), "()");
        let kwargs: Vec<_> = ["x".to_owned(), "y".to_owned()].into_iter().zip(raws(&["1", "[2]"])).collect();
        assert_eq!(kwargsrepr(&kwargs), "{'x': 1, 'y': [2]}");
        assert_eq!(kwargsrepr(&[]), "{}");
    }

    /// Expected texts printed by Celery 5.7.0's `saferepr(value, budget)`.
    #[test]
    fn long_values_end_in_dots() {
        let cases = [
            (r#"["aaaaaaaaaa", "bbbbbbbbbb", "cc"]"#, 20, "['aaaaaaaaaa', 'bbbbb...', ...]"),
            (r#""hello wonderful world""#, 12, "'hello...'"),
            ("[1, 2, 3, 4, 5, 6]", 8, "[1, 2, 3..., ...]"),
            (r#"{"key": "value", "other": [1, 2, 3]}"#, 18, "{'key': 'value', 'o...', ...}"),
            ("[[1, 2], [3, 4]]", 7, "[[1, 2], ...]"),
            ("1234567890", 5, "12345..."),
        ];
        for (json, budget, want) in cases {
            assert_eq!(repr(json, budget), want, "{json} in {budget}");
        }
    }

    #[test]
    fn text_that_is_not_json_never_hangs_or_panics() {
        for text in
            ["", "[", "{", "[1", "{\"a\"", "\"abc", "]", ",,,", "[}", "{1:2}", "[[[[[[", "é,é", "{\"a\" 1}"]
        {
            let _ = repr(text, 10);
        }
    }
}
