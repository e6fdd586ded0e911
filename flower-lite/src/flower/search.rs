//! Flower's query language for tasks, and lists of tasks as Flower orders and cuts them.
//!
//! Words are looked for anywhere in a task; `name:`, `state:`, `worker:`, `args:`, `kwargs:` and `result:` look in one
//! place; `kwargs:key=value` compares one argument. A space is AND, `OR` is weaker than it, parentheses group.

use std::cmp::Ordering;
use std::fmt;

use celery_protocol::TaskState;

use crate::state::mark::Kind;
use crate::state::task::Task;
use crate::state::tasks::Tasks;
use crate::state::text::contains_ignoring_case;
use crate::state::time::UnixTime;

/// The longest query, in characters.
const MAX_QUERY: usize = 2_048;
/// The most words in it.
const MAX_TOKENS: usize = 128;
/// How deep parentheses may be.
const MAX_DEPTH: usize = 5;
/// The shortest text that is looked for.
const MIN_TEXT: usize = 3;

/// A query that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Everything.
    All,
    /// One word.
    Term {
        /// Where it is looked for.
        field: Option<Field>,
        /// What.
        value: String,
    },
    /// All of these.
    And(Vec<Query>),
    /// Any of these.
    Or(Vec<Query>),
}

/// A place to look in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a field of a task")]
pub enum Field {
    Name,
    State,
    Worker,
    Args,
    Kwargs,
    Result,
}

/// Why a query can't be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    message: String,
    position: Option<usize>,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.position {
            Some(position) => write!(f, " at position {position}."),
            None => f.write_str("."),
        }
    }
}

impl std::error::Error for QueryError {}

fn wrong<T>(message: impl Into<String>, position: usize) -> Result<T, QueryError> {
    Err(QueryError { message: message.into(), position: Some(position) })
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Term(String),
}

/// Reads a query.
///
/// # Errors
/// Says what is wrong, and at which character.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    let text = text.trim();
    if text.chars().count() > MAX_QUERY {
        return Err(QueryError { message: format!("Query exceeds {MAX_QUERY} characters"), position: None });
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(Query::All);
    }
    let mut reader = Reader { tokens: &tokens, at: 0 };
    let query = reader.any(0)?;
    match reader.tokens.get(reader.at) {
        None => Ok(query),
        Some((_, position)) => wrong("Unexpected ')'", *position),
    }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let begin = at;
        let token = match chars[at] {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' => {
                at += 1;
                Token::Open
            }
            ')' => {
                at += 1;
                Token::Close
            }
            _ => word(&chars, &mut at)?,
        };
        tokens.push((token, begin));
        if tokens.len() > MAX_TOKENS {
            return Err(QueryError { message: format!("Query exceeds {MAX_TOKENS} tokens"), position: None });
        }
    }
    Ok(tokens)
}

fn word(chars: &[char], at: &mut usize) -> Result<Token, QueryError> {
    let begin = *at;
    let (mut value, mut quoted, mut inside) = (String::new(), false, false);
    while let Some(&c) = chars.get(*at) {
        match (c, chars.get(*at + 1)) {
            ('\\', Some(&next @ ('"' | '\\'))) => {
                value.push(next);
                *at += 1;
            }
            ('"', _) => {
                quoted = true;
                inside = !inside;
            }
            (c, _) if !inside && (c.is_whitespace() || c == '(' || c == ')') => break,
            (c, _) => value.push(c),
        }
        *at += 1;
    }
    match (&*value, quoted) {
        _ if inside => wrong("Unterminated quoted phrase", begin),
        ("", _) => wrong("Empty search term", begin),
        ("AND", false) => Ok(Token::And),
        ("OR", false) => Ok(Token::Or),
        ("NOT", false) => wrong("NOT is not supported", begin),
        _ => Ok(Token::Term(value)),
    }
}

struct Reader<'a> {
    tokens: &'a [(Token, usize)],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, position)| *position)
    }

    fn any(&mut self, depth: usize) -> Result<Query, QueryError> {
        let mut parts = vec![self.all(depth)?];
        while self.peek() == Some(&Token::Or) {
            self.operator("OR")?;
            parts.push(self.all(depth)?);
        }
        Ok(combined(parts, Query::Or))
    }

    fn all(&mut self, depth: usize) -> Result<Query, QueryError> {
        let mut parts = vec![self.one(depth)?];
        loop {
            match self.peek() {
                None | Some(Token::Close | Token::Or) => return Ok(combined(parts, Query::And)),
                Some(Token::And) => self.operator("AND")?,
                Some(Token::Term(_) | Token::Open) => {}
            }
            parts.push(self.one(depth)?);
        }
    }

    fn operator(&mut self, name: &str) -> Result<(), QueryError> {
        let position = self.position();
        self.at += 1;
        match self.peek() {
            Some(Token::Term(_) | Token::Open) => Ok(()),
            _ => wrong(format!("{name} must be followed by a search term"), position),
        }
    }

    fn one(&mut self, depth: usize) -> Result<Query, QueryError> {
        let position = self.position();
        match self.peek().cloned() {
            Some(Token::Term(value)) => {
                self.at += 1;
                term(value, position)
            }
            Some(Token::Open) => {
                if depth >= MAX_DEPTH {
                    return wrong(format!("Query nesting exceeds {MAX_DEPTH} levels"), position);
                }
                self.at += 1;
                if self.peek() == Some(&Token::Close) {
                    return wrong("Empty group", position);
                }
                let query = self.any(depth + 1)?;
                if self.peek() != Some(&Token::Close) {
                    return wrong("Missing closing parenthesis", position);
                }
                self.at += 1;
                Ok(query)
            }
            _ => wrong("Expected a search term", position),
        }
    }
}

fn combined(mut parts: Vec<Query>, make: impl Fn(Vec<Query>) -> Query) -> Query {
    if parts.len() == 1 { parts.remove(0) } else { make(parts) }
}

fn term(text: String, position: usize) -> Result<Query, QueryError> {
    let field = text.split_once(':').and_then(|(name, _)| {
        Some(match name.to_lowercase().as_str() {
            "name" => Field::Name,
            "state" => Field::State,
            "worker" => Field::Worker,
            "args" => Field::Args,
            "kwargs" => Field::Kwargs,
            "result" => Field::Result,
            _ => return None,
        })
    });
    let value = match field {
        Some(_) => text.split_once(':').map(|(_, value)| value.to_owned()).unwrap_or_default(),
        None if text.starts_with('-') => return wrong("Negation with '-' is not supported", position),
        None => text,
    };
    if value.is_empty() {
        return wrong("Search qualifier requires a value", position);
    }
    let exact = field == Some(Field::State) || field == Some(Field::Kwargs) && value.contains('=');
    if !exact && value.trim().chars().count() < MIN_TEXT {
        return wrong(
            format!("Substring search terms must contain at least {MIN_TEXT} characters"),
            position,
        );
    }
    Ok(Query::Term { field, value })
}

impl Query {
    /// Whether a task is meant.
    #[must_use]
    pub fn matches(&self, task: &Task) -> bool {
        match self {
            Query::All => true,
            Query::And(parts) => parts.iter().all(|part| part.matches(task)),
            Query::Or(parts) => parts.iter().any(|part| part.matches(task)),
            Query::Term { field, value } => matches_term(task, *field, value),
        }
    }
}

fn matches_term(task: &Task, field: Option<Field>, value: &str) -> bool {
    let has = |text: Option<&str>| text.is_some_and(|text| contains_ignoring_case(text, value));
    let call = task.call();
    let args = call.and_then(|call| call.args);
    let kwargs = call.and_then(|call| call.kwargs);
    let result = || task.result();
    let (name, worker) = (task.name().map(|name| &**name), task.worker().map(|worker| &**worker));
    match field {
        Some(Field::State) => task.state().as_str().eq_ignore_ascii_case(value),
        Some(Field::Kwargs) => match value.split_once('=') {
            Some((key, value)) => kwargs.is_some_and(|kwargs| has_pair(kwargs, key.trim(), value.trim())),
            None => has(kwargs),
        },
        Some(Field::Name) => has(name),
        Some(Field::Worker) => has(worker),
        Some(Field::Args) => has(args),
        Some(Field::Result) => has(result()),
        None => {
            has(Some(task.id()))
                || has(name)
                || has(Some(task.state().as_str()))
                || has(worker)
                || has(args)
                || has(kwargs)
                || has(result())
        }
    }
}

/// Whether `kwargs`, Python's repr of a dictionary, has `key` with `value`: as text, with or without its quotes.
fn has_pair(kwargs: &str, key: &str, value: &str) -> bool {
    pairs(kwargs).into_iter().any(|(own_key, own_value)| {
        own_key.eq_ignore_ascii_case(key)
            && (own_value.eq_ignore_ascii_case(value) || unquoted(own_value).eq_ignore_ascii_case(value))
    })
}

/// The pairs at the top of a dictionary's repr.
fn pairs(text: &str) -> Vec<(&str, &str)> {
    let Some(inside) = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    let (mut depth, mut quote, mut escaped, mut begin, mut colon) = (0_usize, None, false, 0, None);
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ':') if depth == 0 && colon.is_none() => colon = Some(at),
            (None, ',') if depth == 0 => {
                parts.extend(pair(inside, begin, colon, at));
                (begin, colon) = (at + 1, None);
            }
            (None, _) => {}
        }
    }
    parts.extend(pair(inside, begin, colon, inside.len()));
    parts
}

fn pair(text: &str, begin: usize, colon: Option<usize>, end: usize) -> Option<(&str, &str)> {
    let colon = colon?;
    Some((unquoted(text[begin..colon].trim()), text[colon + 1..end].trim()))
}

fn unquoted(text: &str) -> &str {
    let inside = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inside('\'').or_else(|| inside('"')).unwrap_or(text)
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a field of a task")]
pub enum SortKey {
    Name,
    State,
    Received,
    Started,
}

/// A list that is asked for.
#[derive(Clone, Debug)]
pub struct Listing<'a> {
    /// Of this name.
    pub name: Option<&'a str>,
    /// Of this worker.
    pub worker: Option<&'a str>,
    /// In this state.
    pub state: Option<TaskState>,
    /// Received at this time or later, or not at all.
    pub start: Option<UnixTime>,
    /// Received at this time or earlier, or not at all.
    pub end: Option<UnixTime>,
    /// And meant by this.
    pub query: Query,
    /// By what, and whether greatest first; else by the time of the last change, newest first.
    pub sort: Option<(SortKey, bool)>,
    /// How many are left out in front.
    pub offset: usize,
    /// How many are wanted.
    pub limit: usize,
}

/// What was found.
#[derive(Debug)]
pub struct Found<'a> {
    /// The rows.
    pub tasks: Vec<&'a Task>,
    /// How many there are, where that was counted on the way.
    pub total: Option<usize>,
}

impl Listing<'_> {
    /// Carries it out. Without a sort, only as many tasks are looked at as are needed.
    #[must_use]
    pub fn run<'a>(&self, tasks: &'a Tasks) -> Found<'a> {
        let end = self.offset.saturating_add(self.limit);
        let Some((key, descending)) = self.sort else {
            let newest = tasks.by_change().filter(|task| self.matches(task));
            let rows = newest.skip(self.offset).take(self.limit).collect();
            let total = self.is_everything().then(|| tasks.len());
            return Found { tasks: rows, total };
        };
        let mut rows: Vec<&Task> = tasks
            .all()
            .iter()
            .filter_map(|place| tasks.at(place))
            .filter(|task| self.matches(task))
            .collect();
        let total = rows.len();
        let order = |a: &&Task, b: &&Task| {
            let order = compare(a, b, key).then_with(|| a.id().cmp(b.id()));
            if descending { order.reverse() } else { order }
        };
        if end < rows.len() {
            rows.select_nth_unstable_by(end, order);
            rows.truncate(end);
        }
        rows.sort_unstable_by(order);
        Found { tasks: rows.into_iter().skip(self.offset).collect(), total: Some(total) }
    }

    fn is_everything(&self) -> bool {
        self.name.is_none()
            && self.worker.is_none()
            && self.state.is_none()
            && self.start.is_none()
            && self.end.is_none()
            && self.query == Query::All
    }

    fn matches(&self, task: &Task) -> bool {
        let same = |wanted: Option<&str>, own: Option<&std::sync::Arc<str>>| {
            wanted.is_none_or(|wanted| own.is_some_and(|own| own.eq_ignore_ascii_case(wanted)))
        };
        self.state.as_ref().is_none_or(|state| task.state() == state)
            && same(self.name, task.name())
            && same(self.worker, task.worker())
            && self.is_in_time(task)
            && self.query.matches(task)
    }

    fn is_in_time(&self, task: &Task) -> bool {
        if self.start.is_none() && self.end.is_none() {
            return true;
        }
        let Some(received) = task.when(Kind::Received) else { return true };
        self.start.is_none_or(|start| received >= start) && self.end.is_none_or(|end| received <= end)
    }
}

/// What has no value comes before what has one.
fn compare(a: &Task, b: &Task, key: SortKey) -> Ordering {
    match key {
        SortKey::Name => {
            a.name().map(|name| name.to_lowercase()).cmp(&b.name().map(|name| name.to_lowercase()))
        }
        SortKey::State => a.state().as_str().cmp(b.state().as_str()),
        SortKey::Received => a.when(Kind::Received).cmp(&b.when(Kind::Received)),
        SortKey::Started => a.when(Kind::Started).cmp(&b.when(Kind::Started)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        parse(text).map_or_else(|error| error.to_string(), |query| format!("{query:?}"))
    }

    #[test]
    fn queries_are_read_by_flowers_grammar() {
        let term = |field, value: &str| Query::Term { field, value: value.into() };
        assert_eq!(parse("  "), Ok(Query::All));
        assert_eq!(parse("state:FAILURE"), Ok(term(Some(Field::State), "FAILURE")));
        assert_eq!(
            parse("name:add OR (args:foo \"b c\")"),
            Ok(Query::Or(vec![
                term(Some(Field::Name), "add"),
                Query::And(vec![term(Some(Field::Args), "foo"), term(None, "b c")]),
            ]))
        );
        assert_eq!(parse("http://x"), Ok(term(None, "http://x")), "only known fields are fields");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (query, error) in [
            ("ab", "Substring search terms must contain at least 3 characters at position 0."),
            ("abc OR", "OR must be followed by a search term at position 4."),
            ("abc NOT def", "NOT is not supported at position 4."),
            ("abc -def", "Negation with '-' is not supported at position 4."),
            ("\"abc", "Unterminated quoted phrase at position 0."),
            ("()", "Empty group at position 0."),
            ("(abc", "Missing closing parenthesis at position 0."),
            ("abc)", "Unexpected ')' at position 3."),
            ("name:", "Search qualifier requires a value at position 0."),
            ("((((((abc))))))", "Query nesting exceeds 5 levels at position 5."),
        ] {
            assert_eq!(told(query), error, "{query}");
        }
        assert!(told(&"x".repeat(2_049)).starts_with("Query exceeds 2048 characters."));
        assert!(told(&"abc ".repeat(129)).starts_with("Query exceeds 128 tokens."));
    }

    #[test]
    fn one_argument_of_a_call_can_be_asked_for() {
        let kwargs = "{'id': 7, 'note': 'a, b: c', 'list': [1, {'id': 8}], \"it's\": \"x\"}";
        for (key, value, found) in [
            ("id", "7", true),
            ("id", "8", false),
            ("note", "a, b: c", true),
            ("note", "'a, b: c'", true),
            ("list", "[1, {'id': 8}]", true),
            ("it's", "x", true),
            ("other", "7", false),
        ] {
            assert_eq!(has_pair(kwargs, key, value), found, "{key}={value}");
        }
        assert!(!has_pair("...", "id", "7"));
    }
}
