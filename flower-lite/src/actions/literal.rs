//! Python's literals as JSON: how the arguments of a task are had back from what an event tells of them.
//!
//! Events carry `repr`, cut to some length. So this is strict: whatever could be more than it says (an object, a text that
//! ends in `...`, something taken out) is refused, and the one who asks has to write the arguments down.

use std::fmt::Write as _;

use crate::redact::REDACTED;

/// How deeply values may lie in each other.
const MAX_DEPTH: usize = 64;

/// Why a text is not taken for the whole value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWhole {
    /// It was cut.
    #[error("what the event tells of them is cut short")]
    Cut,
    /// Something was taken out of it.
    #[error("values were taken out by their names")]
    Redacted,
    /// It has a value that JSON does not have.
    #[error("they hold something that is no plain value, at character {0}")]
    Other(usize),
}

/// The JSON text of a tuple, list or dict as Python writes it.
///
/// # Errors
/// Says why it can't be known.
pub fn to_json(text: &str) -> Result<String, NotWhole> {
    if text.contains(REDACTED) {
        return Err(NotWhole::Redacted);
    }
    let mut reader = Reader { text, at: 0, out: String::with_capacity(text.len()) };
    reader.value(0)?;
    reader.blanks();
    if reader.at < text.len() { Err(reader.wrong()) } else { Ok(reader.out) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    out: String,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, expected: char) -> bool {
        self.blanks();
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn wrong(&self) -> NotWhole {
        let rest = self.rest();
        if rest.is_empty() || rest.starts_with("...") || rest.starts_with('\u{2026}') {
            NotWhole::Cut
        } else {
            NotWhole::Other(self.text.get(..self.at).map_or(0, |before| before.chars().count()))
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), NotWhole> {
        self.blanks();
        if depth > MAX_DEPTH {
            return Err(self.wrong());
        }
        match self.peek() {
            Some('(') => self.items(')', depth),
            Some('[') => self.items(']', depth),
            Some('{') => self.dict(depth),
            Some('\'' | '"') => self.text(),
            Some(c) if c == '-' || c.is_ascii_digit() => self.number(),
            _ => {
                for (python, json) in [("None", "null"), ("True", "true"), ("False", "false")] {
                    let next = self.rest().strip_prefix(python).map(|rest| rest.chars().next());
                    if next.is_some_and(|next| next.is_none_or(|c| !c.is_alphanumeric() && c != '_')) {
                        self.at += python.len();
                        self.out.push_str(json);
                        return Ok(());
                    }
                }
                Err(self.wrong())
            }
        }
    }

    fn items(&mut self, close: char, depth: usize) -> Result<(), NotWhole> {
        self.at += 1;
        self.out.push('[');
        let mut first = true;
        while !self.take(close) {
            if !first {
                self.out.push(',');
            }
            self.value(depth + 1)?;
            // `(1)` is no tuple.
            let comma = self.take(',');
            self.blanks();
            if !comma && (self.peek() != Some(close) || (close == ')' && first)) {
                return Err(self.wrong());
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    fn dict(&mut self, depth: usize) -> Result<(), NotWhole> {
        self.at += 1;
        self.out.push('{');
        let mut first = true;
        while !self.take('}') {
            if !first {
                self.out.push(',');
            }
            first = false;
            self.blanks();
            if !matches!(self.peek(), Some('\'' | '"')) {
                return Err(self.wrong());
            }
            self.text()?;
            if !self.take(':') {
                return Err(self.wrong());
            }
            self.out.push(':');
            self.value(depth + 1)?;
            if !self.take(',') {
                self.blanks();
                if self.peek() != Some('}') {
                    return Err(self.wrong());
                }
            }
        }
        self.out.push('}');
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotWhole> {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let number = rest.get(..end).unwrap_or_default().to_owned();
        // What JSON takes for a number is one of Python's too, but for complex ones.
        let follows = rest.get(end..).and_then(|rest| rest.chars().next());
        if follows.is_some_and(|c| c.is_alphanumeric() || c == '_')
            || serde_json::from_str::<serde_json::Number>(&number).is_err()
        {
            return Err(self.wrong());
        }
        self.at += end;
        self.out.push_str(&number);
        Ok(())
    }

    fn text(&mut self) -> Result<(), NotWhole> {
        let begin = self.at;
        let Some(quote) = self.peek() else { return Err(NotWhole::Cut) };
        self.at += 1;
        let mut value = String::new();
        loop {
            let Some(c) = self.peek() else { return Err(NotWhole::Cut) };
            self.at += c.len_utf8();
            match c {
                c if c == quote => break,
                '\\' => value.push(self.escape().ok_or_else(|| self.wrong())?),
                c => value.push(c),
            }
        }
        if value.ends_with("...") {
            self.at = begin;
            return Err(NotWhole::Cut);
        }
        let _ = write!(self.out, "{}", serde_json::Value::from(value));
        Ok(())
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        let digits = match c {
            'n' => return Some('\n'),
            'r' => return Some('\r'),
            't' => return Some('\t'),
            '\\' | '\'' | '"' => return Some(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return None,
        };
        let code = self.rest().get(..digits)?;
        let value = u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?;
        self.at += digits;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_had_back() {
        for (python, json) in [
            ("()", "[]"),
            ("(1002,)", "[1002]"),
            (
                "(1, -2.5, 1e+30, 123456789012345678901234567890)",
                "[1,-2.5,1e+30,123456789012345678901234567890]",
            ),
            ("{'a': None, \"b'\": [True, False, {}]}", r#"{"a":null,"b'":[true,false,{}]}"#),
            (r"['it\'s', 'a\n\\', '\xe9\u20ac', 'ü']", r#"["it's","a\n\\","é€","ü"]"#),
            ("[(1, 2), 'x']", r#"[[1,2],"x"]"#),
        ] {
            assert_eq!(to_json(python).as_deref(), Ok(json), "{python}");
        }
    }

    #[test]
    fn what_could_be_more_is_refused() {
        for (python, told) in [
            ("", NotWhole::Cut),
            ("(1, 2", NotWhole::Cut),
            ("(1, ...)", NotWhole::Cut),
            ("('a lot...',)", NotWhole::Cut),
            ("('a lo", NotWhole::Cut),
            ("{'password': '[redacted]'}", NotWhole::Redacted),
            ("(1)", NotWhole::Other(2)),
            ("(datetime(2020, 1, 1),)", NotWhole::Other(1)),
            ("(<Obj at 0x1>,)", NotWhole::Other(1)),
            ("({1, 2},)", NotWhole::Other(2)),
            ("({1: 2},)", NotWhole::Other(2)),
            ("(nan,)", NotWhole::Other(1)),
            ("(b'x',)", NotWhole::Other(1)),
            ("(1j,)", NotWhole::Other(1)),
            ("(1,) x", NotWhole::Other(5)),
            ("(Nonesuch,)", NotWhole::Other(1)),
        ] {
            assert_eq!(to_json(python), Err(told), "{python}");
        }
    }
}
