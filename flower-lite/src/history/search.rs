//! Finding tasks in the history: by any mix of filters, newest or oldest first, a page at a time.
//!
//! A search walks one index, the one that the fewest tasks are in, and checks everything else on the way. How many tasks
//! it looks at is bounded: a page that is cut short for it says so, and where to go on. So a question that nothing answers
//! costs no more than any other.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use celery_protocol::glob;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::{History, record};
use crate::state::task::Task;
use crate::state::text::contains_ignoring_case;

/// The shortest text that can be looked for: the index is of groups of three characters.
pub const MIN_TEXT: usize = 3;
/// How many tasks one page looks at.
const BUDGET: usize = 20_000;
/// From how many on a filter is no longer worth collecting. In tests the limits are low, so that each way is taken.
const FEW: usize = if cfg!(test) { 8 } else { 5_000 };
/// The same for a text.
const FEW_TEXTS: usize = if cfg!(test) { 10 } else { 10_000 };
/// How many indexes may be walked at a time: one for each name that fits, or state.
const MAX_STREAMS: usize = if cfg!(test) { 3 } else { 64 };
/// How many keys of an index are read at a time.
const CHUNK: usize = if cfg!(test) { 3 } else { 1_024 };
/// How many groups of three characters are asked for.
const MAX_TRIGRAMS: usize = 24;

/// What is looked for; what isn't said fits all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// In one of these states.
    pub states: Vec<String>,
    /// With a name that matches this glob.
    pub name: Option<String>,
    /// Of this worker.
    pub worker: Option<String>,
    /// Sent to this queue.
    pub queue: Option<String>,
    /// Of the workflow that begins with this task.
    pub root: Option<String>,
    /// Received at this time or later.
    pub since: Option<f64>,
    /// Received at this time or earlier.
    pub until: Option<f64>,
    /// Ran for so many seconds at least.
    pub min_runtime: Option<f64>,
    /// Ran for so many seconds at most.
    pub max_runtime: Option<f64>,
    /// With this text in id, name, arguments, result, exception or an own event's fields.
    pub text: Option<String>,
    /// Oldest first, instead of newest.
    pub oldest_first: bool,
    /// How many.
    pub limit: usize,
    /// After this place.
    pub cursor: Option<Cursor>,
}

/// A place in the history: the time by which a task is listed, then the order in which tasks were saved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cursor {
    at: f64,
    n: i64,
}

/// What was found.
#[derive(Debug)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
    /// Whether the page was filled, or everything was looked at. If not, go on.
    pub complete: bool,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.at.to_bits(), self.n)
    }
}

/// A text is not a cursor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a next_cursor of an earlier answer to the same question")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let (at, n) = text.split_once('.').ok_or(NotACursor)?;
        let at = u64::from_str_radix(at, 16).map(f64::from_bits).map_err(|_| NotACursor)?;
        let n = i64::from_str_radix(n, 16).map_err(|_| NotACursor)?;
        if at.is_finite() { Ok(Cursor { at, n }) } else { Err(NotACursor) }
    }
}

impl History {
    /// Looks for tasks.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn search(&self, query: &Query) -> rusqlite::Result<Page> {
        self.read(|connection| Search::new(connection, query)?.run())
    }
}

/// A search under way.
struct Search<'a> {
    connection: &'a Connection,
    query: &'a Query,
    /// The names that fit the glob; `None` where too many do.
    names: Option<Vec<String>>,
    /// The text as it stands in JSON, for a first look without reading it.
    escaped: Option<String>,
    streams: Vec<Stream>,
}

/// The keys of one index, in order, read a few at a time.
#[derive(Debug, Default)]
struct Stream {
    /// What must hold, and the values.
    conditions: Vec<(&'static str, Value)>,
    keys: VecDeque<Cursor>,
    /// Where to go on.
    after: Option<Cursor>,
    done: bool,
}

impl<'a> Search<'a> {
    fn new(connection: &'a Connection, query: &'a Query) -> rusqlite::Result<Search<'a>> {
        let mut search = Search {
            connection,
            query,
            names: None,
            escaped: query.text.as_deref().map(|text| {
                serde_json::to_string(text).map(|json| json[1..json.len() - 1].to_owned()).unwrap_or_default()
            }),
            streams: Vec::new(),
        };
        if let Some(pattern) = &query.name {
            search.names = search.names_like(pattern)?;
        }
        search.streams = search.choose()?;
        for stream in &mut search.streams {
            stream.after = query.cursor;
        }
        Ok(search)
    }

    fn names_like(&self, pattern: &str) -> rusqlite::Result<Option<Vec<String>>> {
        if !glob::is_pattern(pattern) {
            return Ok(Some(vec![pattern.to_owned()]));
        }
        let mut all = self.connection.prepare_cached("SELECT name FROM name")?;
        let mut rows = all.query([])?;
        let mut names = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if glob::matches(pattern, &name) {
                names.push(name);
            }
            if names.len() > MAX_STREAMS {
                return Ok(None);
            }
        }
        Ok(Some(names))
    }

    /// Which indexes to walk.
    fn choose(&self) -> rusqlite::Result<Vec<Stream>> {
        let query = self.query;
        if let Some(root) = &query.root {
            return Ok(vec![self.collect(
                "SELECT at, n FROM task WHERE id = ?1 UNION ALL
                SELECT at, n FROM task WHERE root = ?1 AND root <> id",
                root.clone().into(),
            )?]);
        }
        let mut best: (usize, Vec<Stream>) = (usize::MAX, vec![Stream::default()]);
        for streams in self.candidates() {
            let mut count = 0;
            for stream in &streams {
                count += self.count(stream, FEW - count.min(FEW))?;
            }
            if count < best.0 {
                best = (count, streams);
            }
        }
        let few = best.0 < FEW;
        if !few && (query.min_runtime.is_some() || query.max_runtime.is_some()) {
            let sql = "SELECT at, n FROM task WHERE runtime BETWEEN ?1 AND ?2 LIMIT ?3";
            let (least, most) = (query.min_runtime.unwrap_or(0.0), query.max_runtime.unwrap_or(f64::MAX));
            let keys = self.keys(sql, vec![least.into(), most.into(), limit(FEW)])?;
            if keys.len() < FEW {
                return Ok(vec![self.sorted(keys)]);
            }
        }
        if let Some(text) = query.text.as_deref().filter(|_| !few) {
            let sql = "SELECT task.at, task.n FROM task_text JOIN task ON task.n = task_text.rowid
                WHERE task_text MATCH ?1 LIMIT ?2";
            let keys = self.keys(sql, vec![trigrams(text).into(), limit(FEW_TEXTS)])?;
            if keys.len() < FEW_TEXTS {
                return Ok(vec![self.sorted(keys)]);
            }
        }
        Ok(best.1)
    }

    /// The ways to walk indexes, each of which finds everything.
    fn candidates(&self) -> Vec<Vec<Stream>> {
        let query = self.query;
        let one = |condition: &'static str, value: &str| Stream {
            conditions: vec![(condition, value.to_owned().into())],
            ..Stream::default()
        };
        let mut candidates = Vec::new();
        let states: Vec<Stream> = query.states.iter().map(|state| one("state = ?", state)).collect();
        if let Some(names) = &self.names {
            let of_names = names.iter().map(|name| one("name = ?", name));
            if states.is_empty() || names.len() * states.len() > MAX_STREAMS {
                candidates.push(of_names.collect());
            } else {
                let both = of_names.flat_map(|name| {
                    query
                        .states
                        .iter()
                        .map(move |state| {
                            let mut conditions = name.conditions.clone();
                            conditions.push(("state = ?", state.clone().into()));
                            Stream { conditions, ..Stream::default() }
                        })
                        .collect::<Vec<_>>()
                });
                candidates.push(both.collect());
            }
        }
        if let Some(worker) = &query.worker {
            candidates.push(vec![one("worker = ?", worker)]);
        }
        if let Some(queue) = &query.queue {
            candidates.push(vec![one("queue = ?", queue)]);
        }
        if !states.is_empty() && states.len() <= MAX_STREAMS {
            candidates.push(states);
        }
        candidates
    }

    /// The keys that `sql` finds for one value, as a stream.
    fn collect(&self, sql: &str, value: Value) -> rusqlite::Result<Stream> {
        Ok(self.sorted(self.keys(sql, vec![value])?))
    }

    fn keys(&self, sql: &str, values: Vec<Value>) -> rusqlite::Result<Vec<Cursor>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_map(params_from_iter(values), key)?.collect()
    }

    /// Keys in the order of the page, without those that came before.
    fn sorted(&self, mut keys: Vec<Cursor>) -> Stream {
        keys.retain(|key| self.query.cursor.is_none_or(|cursor| self.comes_before(cursor, *key)));
        keys.sort_by(|a, b| {
            if self.comes_before(*a, *b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
        });
        keys.dedup();
        Stream { keys: keys.into(), done: true, ..Stream::default() }
    }

    fn comes_before(&self, a: Cursor, b: Cursor) -> bool {
        let order = a.at.total_cmp(&b.at).then(a.n.cmp(&b.n));
        if self.query.oldest_first { order.is_lt() } else { order.is_gt() }
    }

    /// How many tasks are in a stream, up to `most`.
    fn count(&self, stream: &Stream, most: usize) -> rusqlite::Result<usize> {
        let (conditions, mut values) = self.conditions(stream, None);
        values.push(limit(most));
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM task WHERE {conditions} LIMIT ?)");
        self.connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))
    }

    fn conditions(&self, stream: &Stream, after: Option<Cursor>) -> (String, Vec<Value>) {
        let mut text: Vec<&str> = stream.conditions.iter().map(|(condition, _)| *condition).collect();
        let mut values: Vec<Value> = stream.conditions.iter().map(|(_, value)| value.clone()).collect();
        if let Some(since) = self.query.since {
            text.push("at >= ?");
            values.push(since.into());
        }
        if let Some(until) = self.query.until {
            text.push("at <= ?");
            values.push(until.into());
        }
        if let Some(Cursor { at, n }) = after {
            text.push(if self.query.oldest_first {
                "at >= ? AND (at > ? OR n > ?)"
            } else {
                "at <= ? AND (at < ? OR n < ?)"
            });
            values.extend([at.into(), at.into(), n.into()]);
        }
        let text = if text.is_empty() { String::from("1") } else { text.join(" AND ") };
        (text, values)
    }

    /// Reads the next keys of a stream.
    fn refill(&mut self, index: usize, some: usize) -> rusqlite::Result<()> {
        let stream = &self.streams[index];
        let (conditions, mut values) = self.conditions(stream, stream.after);
        values.push(limit(some));
        let order = if self.query.oldest_first { "at, n" } else { "at DESC, n DESC" };
        let sql = format!("SELECT at, n FROM task WHERE {conditions} ORDER BY {order} LIMIT ?");
        let keys = self.keys(&sql, values)?;
        let stream = &mut self.streams[index];
        stream.done = keys.len() < some;
        stream.after = keys.last().copied().or(stream.after);
        stream.keys = keys.into();
        Ok(())
    }

    /// The next key of all streams.
    fn next(&mut self, some: usize) -> rusqlite::Result<Option<Cursor>> {
        for index in 0..self.streams.len() {
            if self.streams[index].keys.is_empty() && !self.streams[index].done {
                self.refill(index, some)?;
            }
        }
        let heads = self
            .streams
            .iter()
            .enumerate()
            .filter_map(|(index, stream)| Some((index, *stream.keys.front()?)));
        let first = heads.reduce(|a, b| if self.comes_before(b.1, a.1) { b } else { a });
        Ok(first.and_then(|(index, _)| self.streams[index].keys.pop_front()))
    }

    fn run(mut self) -> rusqlite::Result<Page> {
        let mut page = Page { tasks: Vec::new(), next: None, complete: true };
        let mut last = None;
        for looked in 0.. {
            let some = if looked == 0 { self.query.limit + 1 } else { CHUNK };
            let Some(key) = self.next(some)? else { return Ok(page) };
            if page.tasks.len() >= self.query.limit {
                page.next = last;
                return Ok(page);
            }
            if looked >= BUDGET {
                page.next = last;
                page.complete = false;
                return Ok(page);
            }
            if let Some(task) = self.look(key)? {
                page.tasks.push(task);
            }
            last = Some(key);
        }
        Ok(page)
    }

    /// The task at a key, if it is meant.
    fn look(&self, key: Cursor) -> rusqlite::Result<Option<Task>> {
        let mut one = self.connection.prepare_cached(
            "SELECT id, forgotten, marks, at, state, name, worker, queue, runtime FROM task WHERE n = ?1",
        )?;
        let task = one.query_row([key.n], |row| {
            if self.fits(row)? && self.may_have_text(row)? { super::task(row).map(Some) } else { Ok(None) }
        });
        let task = task.optional()?.flatten();
        Ok(task.filter(|task| {
            self.query.text.as_deref().is_none_or(|text| contains_ignoring_case(&record::text(task), text))
        }))
    }

    fn fits(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let query = self.query;
        let text = |index: usize| row.get_ref(index).map(|value| value.as_str().ok());
        let same = |index: usize, wanted: Option<&String>| {
            Ok::<_, rusqlite::Error>(wanted.is_none() || text(index)? == wanted.map(String::as_str))
        };
        let at: f64 = row.get(3)?;
        let runtime: Option<f64> = row.get(8)?;
        let state = text(4)?;
        let name = text(5)?;
        Ok(query.since.is_none_or(|since| at >= since)
            && query.until.is_none_or(|until| at <= until)
            && (query.states.is_empty() || query.states.iter().any(|wanted| state == Some(wanted)))
            && query
                .name
                .as_deref()
                .is_none_or(|pattern| name.is_some_and(|name| glob::matches(pattern, name)))
            && same(6, query.worker.as_ref())?
            && same(7, query.queue.as_ref())?
            && query.min_runtime.is_none_or(|least| runtime.is_some_and(|runtime| runtime >= least))
            && query.max_runtime.is_none_or(|most| runtime.is_some_and(|runtime| runtime <= most)))
    }

    /// A first look at the JSON as it lies there: quick, and never wrong when it says no.
    fn may_have_text(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let (Some(escaped), Some(text)) = (&self.escaped, &self.query.text) else { return Ok(true) };
        let raw = |index: usize| row.get_ref(index).map(|value| value.as_str().unwrap_or_default());
        Ok(contains_ignoring_case(raw(2)?, escaped)
            || contains_ignoring_case(raw(0)?, text)
            // The fields of an own event are JSON within JSON: there these stand for themselves.
            || text.contains(['\n', '{', ',', ':', '"', '\\']))
    }
}

fn key(row: &Row<'_>) -> rusqlite::Result<Cursor> {
    Ok(Cursor { at: row.get(0)?, n: row.get(1)? })
}

fn limit(count: usize) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// What the index of texts is asked for: every group of three characters that the text has.
fn trigrams(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let groups = chars.windows(MIN_TEXT).map(|group| {
        let group: String = group.iter().collect();
        format!("\"{}\"", group.replace('"', "\"\""))
    });
    groups.take(MAX_TRIGRAMS).collect::<Vec<_>>().join(" AND ")
}
