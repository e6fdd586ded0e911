//! Python's `repr` of JSON values, shortened as Celery's `saferepr` does it (celery/utils/saferepr.py).
//!
//! Feeds the `argsrepr` and `kwargsrepr` headers, events and logs. It reads the JSON text directly and stops at the
//! budget, so a large argument costs no more than the budget. Not a parser: the text is assumed to be valid JSON, and
//! anything else yields some text and never a panic.

use std::fmt::Write as _;

use serde_json::value::RawValue;

/// Celery's default length of a representation, in characters (`argsrepr_maxsize`, `resultrepr_maxsize`).
pub const DEFAULT_BUDGET: usize = 1024;

/// Containers nested deeper than this are shown as `[...]` or `{...}` (`task_repr_maxlevels`).
pub const MAX_LEVELS: usize = 3;

/// Positional arguments as a Python tuple: `(2, 3)`, `(1,)`, `()`.
pub fn argsrepr(args: &[Box<RawValue>]) -> String {
    let mut out = Printer::new(DEFAULT_BUDGET);
    if out.token("(") {
        out.level += 1;
        for (i, arg) in args.iter().enumerate() {
            if (i > 0 && !out.token(", ")) || !out.value(&mut Cursor::new(arg.get())) {
                break;
            }
        }
        out.close(if args.len() == 1 { ",)" } else { ")" });
    }
    out.text
}

/// Keyword arguments as a Python dict: `{'x': 1}`.
pub fn kwargsrepr(kwargs: &[(String, Box<RawValue>)]) -> String {
    let mut out = Printer::new(DEFAULT_BUDGET);
    if out.token("{") {
        out.level += 1;
        for (i, (name, value)) in kwargs.iter().enumerate() {
            let shown = (i == 0 || out.token(", "))
                && out.quoted(name)
                && out.token(": ")
                && out.value(&mut Cursor::new(value.get()));
            if !shown {
                break;
            }
        }
        out.close("}");
    }
    out.text
}

/// One JSON value as Python would print it, in about `budget` characters.
pub fn repr(json: &str, budget: usize) -> String {
    let mut out = Printer::new(budget);
    out.value(&mut Cursor::new(json));
    out.text
}

/// A text as a quoted Python string, shortened to about `budget` characters.
pub fn quoted(text: &str, budget: usize) -> String {
    let mut out = Printer::new(budget);
    out.quoted(text);
    out.text
}

/// A float as Python prints it: `1.0`, `1e+16`, `1e-05`, `inf`, `nan`.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // Rust's `{:e}` has the shortest digits that round-trip, as Python's repr has.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// The growing text, what is left of the budget and how deep we are.
struct Printer {
    text: String,
    left: usize,
    level: usize,
    cut: bool,
}

impl Printer {
    fn new(budget: usize) -> Self {
        Self { text: String::with_capacity(32), left: budget, level: 0, cut: false }
    }

    /// False when the budget was used up before this token, which is then left out.
    fn room(&mut self) -> bool {
        if self.cut {
            return false;
        }
        if self.left == 0 {
            self.text.push_str(", ...");
            self.cut = true;
        }
        !self.cut
    }

    /// Opening brackets, separators, numbers: whole or not at all.
    fn token(&mut self, token: &str) -> bool {
        if !self.room() {
            return false;
        }
        self.text.push_str(token);
        self.left = self.left.saturating_sub(token.chars().count());
        true
    }

    /// Closing brackets are always shown, and count only while there is room.
    fn close(&mut self, token: &str) {
        self.text.push_str(token);
        self.left = self.left.saturating_sub(token.chars().count());
        self.level = self.level.saturating_sub(1);
    }

    fn number(&mut self, text: &str) -> bool {
        if !self.room() {
            return false;
        }
        let shown = truncated(text, self.left);
        self.left = self.left.saturating_sub(shown.chars().count());
        self.text.push_str(&shown);
        true
    }

    fn quoted(&mut self, text: &str) -> bool {
        if !self.room() {
            return false;
        }
        let shown = truncated(text, self.left).replace('\'', "\\'");
        self.left = self.left.saturating_sub(shown.chars().count() + 2);
        let _ = write!(self.text, "'{shown}'");
        true
    }

    /// Prints the value at the cursor; false when the budget ran out.
    fn value(&mut self, json: &mut Cursor<'_>) -> bool {
        match json.peek() {
            Some(b'"') => {
                let text = json.string();
                self.quoted(&text)
            }
            Some(b'[') => self.container(json, ["[", "]", "[...]"], |out, json| out.value(json)),
            Some(b'{') => self.container(json, ["{", "}", "{...}"], |out, json| {
                let key = json.string();
                json.eat(b':');
                out.quoted(&key) && out.token(": ") && out.value(json)
            }),
            _ => {
                let word = json.word();
                match word {
                    "true" => self.number("True"),
                    "false" => self.number("False"),
                    "null" => self.number("None"),
                    "NaN" => self.number("nan"),
                    "Infinity" => self.number("inf"),
                    "-Infinity" => self.number("-inf"),
                    _ if word.contains(['.', 'e', 'E']) => {
                        self.number(&word.parse::<f64>().map_or_else(|_| word.to_owned(), float))
                    }
                    _ => self.number(word),
                }
            }
        }
    }

    fn container(
        &mut self,
        json: &mut Cursor<'_>,
        [open, close, deeper]: [&str; 3],
        mut item: impl FnMut(&mut Self, &mut Cursor<'_>) -> bool,
    ) -> bool {
        if self.level >= MAX_LEVELS {
            json.skip();
            return self.token(deeper);
        }
        if !self.token(open) {
            return false;
        }
        self.level += 1;
        json.eat(open.as_bytes().first().copied().unwrap_or_default());
        let mut first = true;
        while let Some(next) = json.peek() {
            if next == b']' || next == b'}' {
                json.eat(next);
                break;
            }
            if (!first && !(json.eat(b',') && self.token(", "))) || !item(self, json) {
                break;
            }
            first = false;
        }
        self.close(close);
        !self.cut
    }
}

/// Celery's `truncate`: a text of at least `budget` characters ends at its last space before that, and in `...`.
fn truncated(text: &str, budget: usize) -> String {
    match text.char_indices().nth(budget.saturating_sub(1)) {
        Some((at, last)) if budget > 0 => {
            let head = text.get(..at + last.len_utf8()).unwrap_or(text);
            let head = head.rsplit_once(' ').map_or(head, |(before, _)| before);
            format!("{head}...")
        }
        _ => text.to_owned(),
    }
}

/// A position in JSON text.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t']);
        self.rest.as_bytes().first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        found
    }

    /// A number or keyword.
    fn word(&mut self) -> &'a str {
        self.peek();
        let end = self.rest.find([',', ']', '}', ':', ' ', '\n', '\r', '\t']).unwrap_or(self.rest.len());
        // Never stand still, whatever the text is.
        let end = if end == 0 { self.rest.chars().next().map_or(0, char::len_utf8) } else { end };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A string, unescaped.
    fn string(&mut self) -> String {
        let raw = self.raw_string();
        serde_json::from_str(raw).unwrap_or_else(|_| raw.trim_matches('"').to_owned())
    }

    /// A string with its quotes, as written.
    fn raw_string(&mut self) -> &'a str {
        if self.peek() != Some(b'"') {
            return self.word();
        }
        let mut escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let (raw, rest) = self.rest.split_at(end.map_or(self.rest.len(), |at| at + 2));
        self.rest = rest;
        raw
    }

    /// Passes over one value, however deep, without recursion.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'"' => {
                    self.raw_string();
                }
                b',' | b':' => {}
                _ => {
                    self.word();
                }
            }
            if matches!(byte, b'[' | b'{' | b']' | b'}' | b',' | b':') {
                self.rest = self.rest.get(1..).unwrap_or_default();
            }
            if depth == 0 {
                break;
            }
        }
    }
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
