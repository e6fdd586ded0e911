//! Values that nobody is to see, taken out by the names of their arguments: before anything is kept, shown or written.
//!
//! What events tell of arguments is text, Python's `repr`, and may be cut off anywhere. So it is read as far as it goes:
//! a quoted key with a colon behind it, or a name with `=` behind it, and then one value.

use std::sync::Arc;

use celery_protocol::event::{Event, EventBody};
use celery_protocol::glob;
use serde_json::Value;

/// What stands in the place of a value.
pub const REDACTED: &str = "[redacted]";
/// What is taken out unless the settings say otherwise.
pub const USUAL: &str = "*password*,*passwd*,*passphrase*,*secret*,token,*_token,*apikey*,*api_key*,*private_key*,authorization,*credential*,*cookie*";
/// How deeply texts within texts are looked at.
const MAX_DEPTH: usize = 3;

/// Takes values out.
#[derive(Clone, Debug)]
pub struct Redactor {
    names: Arc<[Name]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Exactly(String),
    Begins(String),
    Ends(String),
    Contains(String),
    Fits(String),
}

impl Name {
    fn parse(glob: &str) -> Name {
        let glob = glob.to_lowercase();
        let plain = |text: &str| !text.contains(['*', '?', '[']);
        match (glob.strip_prefix('*'), glob.strip_suffix('*')) {
            _ if plain(&glob) => Name::Exactly(glob),
            (Some(rest), _) if plain(rest) => Name::Ends(rest.to_owned()),
            (_, Some(rest)) if plain(rest) => Name::Begins(rest.to_owned()),
            (Some(rest), Some(_)) if rest.strip_suffix('*').is_some_and(plain) => {
                Name::Contains(rest.trim_end_matches('*').to_owned())
            }
            _ => Name::Fits(glob),
        }
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Name::Exactly(text) => name == text,
            Name::Begins(text) => name.starts_with(text),
            Name::Ends(text) => name.ends_with(text),
            Name::Contains(text) => name.contains(text),
            Name::Fits(glob) => glob::matches(glob, name),
        }
    }
}

impl Default for Redactor {
    fn default() -> Redactor {
        Redactor::new(USUAL.split(','))
    }
}

impl Redactor {
    /// One that takes out values of arguments with such names (globs; case doesn't matter).
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Redactor {
        Redactor { names: names.into_iter().map(|name| Name::parse(name.trim())).collect() }
    }

    fn hides(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.names.iter().any(|known| known.fits(&name))
    }

    /// What a text becomes; `None` if nothing has to be taken out.
    #[must_use]
    pub fn text(&self, text: &str) -> Option<String> {
        if self.names.is_empty() { None } else { self.inside(text, 0) }
    }

    /// Takes values out of a text.
    pub fn apply(&self, text: &mut Option<String>) {
        if let Some(changed) = text.as_deref().and_then(|text| self.text(text)) {
            *text = Some(changed);
        }
    }

    /// Takes values out of JSON, and out of the texts in it.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, value) in map.iter_mut() {
                    if self.hides(name) {
                        *value = REDACTED.into();
                    } else {
                        self.json(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::String(text) => {
                if let Some(changed) = self.text(text) {
                    *text = changed;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Takes values out of an event.
    pub fn event(&self, event: &mut Event) {
        if self.names.is_empty() {
            return;
        }
        let extra = match &mut event.body {
            EventBody::Task(task) => {
                let fields = &mut task.fields;
                self.apply(&mut fields.args);
                self.apply(&mut fields.kwargs);
                self.apply(&mut fields.result);
                self.apply(&mut fields.exception);
                &mut fields.extra
            }
            EventBody::Other { fields, .. } => fields,
            EventBody::Worker(_) => return,
        };
        for (name, value) in extra.iter_mut() {
            if self.hides(name) {
                *value = REDACTED.into();
            } else {
                self.json(value);
            }
        }
    }

    fn inside(&self, text: &str, depth: usize) -> Option<String> {
        let bytes = text.as_bytes();
        let mut out = String::new();
        let (mut kept, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            if matches!(byte, b'\'' | b'"') {
                let end = end_of_quoted(bytes, at);
                let inner = text.get(at + 1..end.saturating_sub(1).max(at + 1)).unwrap_or_default();
                let colon = skip_blanks(bytes, end);
                if bytes.get(colon) == Some(&b':') && self.hides(inner) {
                    let begin = skip_blanks(bytes, colon + 1);
                    let value = end_of_value(bytes, begin, b"");
                    out.push_str(text.get(kept..begin)?);
                    out.push(char::from(byte));
                    out.push_str(REDACTED);
                    out.push(char::from(byte));
                    (kept, at) = (value, value);
                    continue;
                }
                if depth < MAX_DEPTH
                    && inner.contains([':', '='])
                    && let Some(changed) = self.inside(inner, depth + 1)
                {
                    out.push_str(text.get(kept..=at)?);
                    out.push_str(&changed);
                    kept = at + 1 + inner.len();
                }
                at = end;
            } else if byte.is_ascii_alphabetic() || byte == b'_' {
                let end = bytes[at..]
                    .iter()
                    .position(|byte| !is_of_name(*byte))
                    .map_or(bytes.len(), |more| at + more);
                let assigned = bytes.get(end) == Some(&b'=') && bytes.get(end + 1) != Some(&b'=');
                if assigned && self.hides(text.get(at..end).unwrap_or_default()) {
                    let value = end_of_value(bytes, end + 1, b"& ;");
                    out.push_str(text.get(kept..=end)?);
                    out.push_str(REDACTED);
                    (kept, at) = (value, value);
                } else {
                    at = end;
                }
            } else {
                at += 1;
            }
        }
        if kept == 0 {
            return None;
        }
        out.push_str(text.get(kept..)?);
        Some(out)
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn skip_blanks(bytes: &[u8], from: usize) -> usize {
    bytes
        .get(from..)
        .and_then(|rest| rest.iter().position(|byte| *byte != b' '))
        .map_or(bytes.len(), |more| from + more)
}

/// Behind the quote that ends the text which begins at `from`.
fn end_of_quoted(bytes: &[u8], from: usize) -> usize {
    let quote = bytes.get(from).copied().unwrap_or_default();
    let mut at = from + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Behind the value that begins at `from`; one that is cut off ends with the text.
fn end_of_value(bytes: &[u8], from: usize, also: &[u8]) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\'' | b'"' => {
                at = end_of_quoted(bytes, at);
                continue;
            }
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' | b'>' if depth > 0 => depth -= 1,
            b')' | b']' | b'}' | b'>' => return at,
            b',' if depth == 0 => return at,
            byte if depth == 0 && also.contains(&byte) => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_go_by_the_names_of_their_arguments() {
        let redactor = Redactor::default();
        for (text, expected) in [
            (
                "{'user': 'a', 'password': 'canary', 'n': 1}",
                "{'user': 'a', 'password': '[redacted]', 'n': 1}",
            ),
            ("{'Password': ['canary', {'x': 'canary'}]}", "{'Password': '[redacted]'}"),
            ("{'a': {'api_key': b'canary'}, 'b': 2}", "{'a': {'api_key': '[redacted]'}, 'b': 2}"),
            ("({'secret': <Obj canary>}, 3)", "({'secret': '[redacted]'}, 3)"),
            ("(Login(user='a', password='can\\'ary, x'), 1)", "(Login(user='a', password=[redacted]), 1)"),
            ("('https://x/?access_token=canary&n=1',)", "('https://x/?access_token=[redacted]&n=1',)"),
            ("('{\"token\": \"canary\", \"n\": 1}',)", "('{\"token\": \"[redacted]\", \"n\": 1}',)"),
            ("{'password': 'canary and more th...", "{'password': '[redacted]'"),
            (
                "{'password': 'canary', 'secret': 'canary'}",
                "{'password': '[redacted]', 'secret': '[redacted]'}",
            ),
            ("{'päss': 'ü', 'password': 'canäry'}", "{'päss': 'ü', 'password': '[redacted]'}"),
            ("KeyError(\"password='canary'\")", "KeyError(\"password=[redacted]\")"),
        ] {
            assert_eq!(redactor.text(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "(1, 2)",
            "{'tokens': 5, 'max_tokens': 7}",
            "('password', 'x')",
            "{'a': 'password'}",
            "password == 1",
            "'",
        ] {
            assert_eq!(redactor.text(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_globs() {
        let redactor = Redactor::new(["pin", "card_*", "*_key", "*iban*", "x?z"]);
        for (name, hidden) in [
            ("pin", true),
            ("PIN", true),
            ("spin", false),
            ("card_no", true),
            ("my_key", true),
            ("key_my", false),
            ("the_iban_2", true),
            ("xyz", true),
            ("xz", false),
            ("password", false),
        ] {
            assert_eq!(redactor.hides(name), hidden, "{name}");
        }
        assert_eq!(Redactor::new([]).text("{'password': 'x'}"), None);
    }

    #[test]
    fn json_and_events_are_cleaned() {
        let redactor = Redactor::default();
        let mut value = json!({"kwargs": {"password": {"a": 1}}, "args": ["{'secret': 1}"], "n": [1, null]});
        redactor.json(&mut value);
        assert_eq!(
            value,
            json!({"kwargs": {"password": REDACTED}, "args": ["{'secret': '[redacted]'}"], "n": [1, null]})
        );
        let body = json!([
            {"type": "task-received", "uuid": "1", "hostname": "a@h", "timestamp": 1.0, "clock": 1, "args": "()",
             "kwargs": "{'password': 'canary'}", "own": {"token": "canary"}},
            {"type": "task-succeeded", "uuid": "1", "hostname": "a@h", "timestamp": 1.0, "clock": 1, "result": "{'token': 'canary'}"},
            {"type": "shop-login", "hostname": "a@h", "timestamp": 1.0, "clock": 1, "password": "canary"},
        ]);
        for event in celery_protocol::event::decode(body.to_string().as_bytes()).expect("events") {
            let mut event = event.expect("an event");
            redactor.event(&mut event);
            let shown = format!("{event:?}");
            assert!(!shown.contains("canary") && shown.contains(REDACTED), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_looked_at(text in "[-a-z'\"\\\\{}()\\[\\],:= üpassword]{0,60}") {
            let once = Redactor::default().text(&text);
            if let Some(once) = once {
                // What was taken out stays out.
                prop_assert!(once.contains(REDACTED));
            }
        }
    }
}
