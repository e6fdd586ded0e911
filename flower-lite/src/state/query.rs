//! Lists of tasks: filters, orders, pages.
//!
//! A page begins after a [`Cursor`], which names the last row of the page before by what it was sorted by, so that rows
//! that come and go meanwhile don't shift the pages. A list by time reads off the smallest index that fits; any other
//! order looks at every matching task and keeps the best.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use celery_protocol::{TaskState, glob};

use super::mark::Kind;
use super::order::{Order, Place};
use super::task::{Serial, Task};
use super::tasks::Tasks;
use super::text::contains_ignoring_case;

/// Which tasks are asked for; an empty filter is all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In one of these states.
    pub states: Vec<TaskState>,
    /// With a name that matches this glob (`*`, `?`).
    pub name: Option<Box<str>>,
    /// Of this worker.
    pub worker: Option<Box<str>>,
    /// With this text in id, name, arguments, result or exception; case doesn't matter.
    pub text: Option<Box<str>>,
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// When it was received.
    Received,
    /// When it was started.
    Started,
    /// How long it ran.
    Runtime,
    /// Its name.
    Name,
    /// Its state.
    State,
    /// Its worker.
    Worker,
}

/// An order of rows. What has no value in the column comes last either way; equals are listed newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Greatest first.
    pub descending: bool,
}

/// The place after which a page begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    key: Key,
    place: Place,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<'a> {
    /// The rows.
    pub tasks: Vec<&'a Task>,
    /// How many tasks match, on all pages.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// How many of the tasks that match have each state, name and worker. Each is counted with the other filters applied
/// but not its own: it says what one would get by choosing it instead.
#[derive(Debug, Default)]
pub struct Facets {
    /// By state.
    pub states: BTreeMap<Box<str>, usize>,
    /// By name.
    pub names: BTreeMap<Arc<str>, usize>,
    /// By worker.
    pub workers: BTreeMap<Arc<str>, usize>,
}

/// The value that a row is sorted by.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    /// By time: the place itself is the key.
    Time,
    Number(Option<f64>),
    Text(Option<Arc<str>>),
}

/// A row of a list, with what it is sorted by.
struct Row<'a> {
    key: Key,
    place: Place,
    sort: Sort,
    task: &'a Task,
}

/// One page of the tasks that match `filter`, in the order of `sort`, after `cursor`.
#[must_use]
pub fn page<'a>(
    tasks: &'a Tasks,
    filter: &Filter,
    sort: Sort,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Page<'a> {
    let search = Search::new(tasks, filter);
    if sort.column == Column::Received {
        by_time(tasks, &search, sort, cursor, limit)
    } else {
        by_key(tasks, &search, sort, cursor, limit)
    }
}

/// The facets of a filter; see [`Facets`].
#[must_use]
pub fn facets(tasks: &Tasks, filter: &Filter) -> Facets {
    let mut facets = Facets::default();
    let names = matching_names(tasks, filter);
    for task in tasks.all().iter().filter_map(|place| tasks.at(place)) {
        let state = matches_state(task, filter);
        let name = matches_name(task, names.as_ref());
        let worker = matches_worker(task, filter);
        // At most one filter may fail, and then only its own facet counts the task.
        if usize::from(state) + usize::from(name) + usize::from(worker) < 2 || !matches_text(task, filter) {
            continue;
        }
        if name && worker {
            *facets.states.entry(task.state().as_str().into()).or_default() += 1;
        }
        if state
            && worker
            && let Some(name) = task.name()
        {
            *facets.names.entry(name.clone()).or_default() += 1;
        }
        if state
            && name
            && let Some(worker) = task.worker()
        {
            *facets.workers.entry(worker.clone()).or_default() += 1;
        }
    }
    facets
}

fn by_time<'a>(
    tasks: &'a Tasks,
    search: &Search<'a, '_>,
    sort: Sort,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Page<'a> {
    let total = search.total(tasks);
    let Some(places) = search.places else { return Page { tasks: Vec::new(), total, next: None } };
    let after = cursor.map(|cursor| cursor.place);
    let rest: Box<dyn Iterator<Item = Place>> =
        if sort.descending { Box::new(places.before(after).rev()) } else { Box::new(places.after(after)) };
    let mut rows: Vec<&Task> = rest
        .filter_map(|place| tasks.at(place))
        .filter(|task| search.matches(task))
        .take(limit + 1)
        .collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|task| Cursor { key: Key::Time, place: place_of(task) });
    Page { tasks: rows, total, next }
}

fn by_key<'a>(
    tasks: &'a Tasks,
    search: &Search<'a, '_>,
    sort: Sort,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Page<'a> {
    let mut total = 0;
    // The best rows so far; the worst of them on top.
    let mut best: BinaryHeap<Row> = BinaryHeap::with_capacity(limit + 2);
    let places = search.places.into_iter().flat_map(Order::iter);
    for task in places.filter_map(|place| tasks.at(place)).filter(|task| search.matches(task)) {
        total += 1;
        let row = Row { key: Key::of(task, sort.column), place: place_of(task), sort, task };
        if cursor.is_some_and(|cursor| sort.order((&row.key, row.place), (&cursor.key, cursor.place)).is_le())
        {
            continue;
        }
        if best.len() <= limit {
            best.push(row);
        } else if let Some(mut worst) = best.peek_mut()
            && row < *worst
        {
            *worst = row;
        }
    }
    let mut rows = best.into_sorted_vec();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| Cursor { key: row.key.clone(), place: row.place });
    Page { tasks: rows.into_iter().map(|row| row.task).collect(), total, next }
}

/// A filter, prepared: which index to walk, and what is still to be checked on the way.
struct Search<'t, 'f> {
    filter: &'f Filter,
    /// `None`: nothing can match.
    places: Option<&'t Order>,
    /// The names that match the glob.
    names: Option<HashSet<&'f str>>,
    /// The index answers the whole filter.
    exact: bool,
}

impl<'t: 'f, 'f> Search<'t, 'f> {
    fn new(tasks: &'t Tasks, filter: &'f Filter) -> Search<'t, 'f> {
        let names = matching_names(tasks, filter);
        let mut candidates: Vec<Option<&Order>> = Vec::new();
        if let [state] = &filter.states[..] {
            candidates.push(tasks.in_state(state));
        }
        if let Some(names) = &names
            && names.len() <= 1
        {
            candidates.push(names.iter().next().and_then(|name| tasks.named(name)));
        }
        if let Some(worker) = &filter.worker {
            candidates.push(tasks.on_worker(worker));
        }
        let filters = usize::from(!filter.states.is_empty())
            + usize::from(filter.name.is_some())
            + usize::from(filter.worker.is_some())
            + usize::from(filter.text.is_some());
        let exact = filters == candidates.len() && filters <= 1;
        // `None` is less than any set: a filter that nothing can match decides.
        let smallest = candidates.into_iter().min_by_key(|places| places.map(Order::len));
        Search { filter, places: smallest.unwrap_or(Some(tasks.all())), names, exact }
    }

    fn matches(&self, task: &Task) -> bool {
        self.exact
            || matches_state(task, self.filter)
                && matches_worker(task, self.filter)
                && matches_name(task, self.names.as_ref())
                && matches_text(task, self.filter)
    }

    fn total(&self, tasks: &Tasks) -> usize {
        let Some(places) = self.places else { return 0 };
        if self.exact {
            return places.len();
        }
        places.iter().filter_map(|place| tasks.at(place)).filter(|task| self.matches(task)).count()
    }
}

fn matching_names<'a>(tasks: &'a Tasks, filter: &'a Filter) -> Option<HashSet<&'a str>> {
    let pattern = filter.name.as_deref()?;
    if !glob::is_pattern(pattern) {
        return Some(HashSet::from([pattern]));
    }
    Some(tasks.count_by_name().map(|(name, _)| &**name).filter(|name| glob::matches(pattern, name)).collect())
}

fn matches_state(task: &Task, filter: &Filter) -> bool {
    filter.states.is_empty() || filter.states.contains(task.state())
}

fn matches_worker(task: &Task, filter: &Filter) -> bool {
    filter.worker.as_deref().is_none_or(|worker| task.worker().is_some_and(|own| **own == *worker))
}

fn matches_name(task: &Task, names: Option<&HashSet<&str>>) -> bool {
    names.is_none_or(|names| task.name().is_some_and(|name| names.contains(&**name)))
}

fn matches_text(task: &Task, filter: &Filter) -> bool {
    let Some(text) = filter.text.as_deref() else { return true };
    let contains = |hay: Option<&str>| hay.is_some_and(|hay| contains_ignoring_case(hay, text));
    let call = task.call();
    contains(Some(task.id()))
        || contains(call.and_then(|call| call.name.map(|name| &**name)))
        || contains(call.and_then(|call| call.args))
        || contains(call.and_then(|call| call.kwargs))
        || contains(task.result())
        || contains(task.trouble().and_then(|trouble| trouble.exception))
}

fn place_of(task: &Task) -> Place {
    Place::new(task.listed_at(), task.serial())
}

impl Key {
    fn of(task: &Task, column: Column) -> Key {
        match column {
            Column::Received => Key::Time,
            Column::Started => Key::Number(task.when(Kind::Started).map(|at| at.seconds())),
            Column::Runtime => Key::Number(task.runtime()),
            Column::Name => Key::Text(task.name().cloned()),
            Column::State => Key::Text(Some(task.state().as_str().into())),
            Column::Worker => Key::Text(task.worker().cloned()),
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self, Key::Number(None) | Key::Text(None))
    }

    fn cmp(&self, other: &Key) -> Ordering {
        match (self, other) {
            (Key::Number(a), Key::Number(b)) => a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0)),
            (Key::Text(a), Key::Text(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

impl Sort {
    /// The order of two rows on the page.
    fn order(self, a: (&Key, Place), b: (&Key, Place)) -> Ordering {
        let turn = |order: Ordering| if self.descending { order.reverse() } else { order };
        a.0.is_missing().cmp(&b.0.is_missing()).then_with(|| turn(a.0.cmp(b.0))).then_with(|| b.1.cmp(&a.1))
    }
}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row<'_> {}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort.order((&self.key, self.place), (&other.key, other.place))
    }
}

/// A text is not a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be one of name, received, runtime, started, state, worker, with a leading `-` for descending order"
)]
pub struct NotASort;

impl Sort {
    /// Newest first.
    pub const NEWEST: Sort = Sort { column: Column::Received, descending: true };
}

impl FromStr for Sort {
    type Err = NotASort;

    fn from_str(text: &str) -> Result<Sort, NotASort> {
        let (descending, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let column = match name {
            "received" => Column::Received,
            "started" => Column::Started,
            "runtime" => Column::Runtime,
            "name" => Column::Name,
            "state" => Column::State,
            "worker" => Column::Worker,
            _ => return Err(NotASort),
        };
        Ok(Sort { column, descending })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.", self.place.at().seconds().to_bits(), self.place.serial())?;
        match &self.key {
            Key::Time => f.write_str("t"),
            Key::Number(None) => f.write_str("n"),
            Key::Number(Some(number)) => write!(f, "n{:x}", number.to_bits()),
            Key::Text(None) => f.write_str("s"),
            Key::Text(Some(text)) => write!(f, "s.{text}"),
        }
    }
}

/// A text is not a cursor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a next_cursor of an earlier answer to the same question")]
pub struct NotACursor;

impl Cursor {
    /// Reads a cursor that an earlier page of the same `sort` gave.
    ///
    /// # Errors
    /// When it is none, or of another sort.
    pub fn parse(text: &str, sort: Sort) -> Result<Cursor, NotACursor> {
        let mut parts = text.splitn(3, '.');
        let (Some(time), Some(serial), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NotACursor);
        };
        let time = super::time::UnixTime::new(bits(time)?).ok_or(NotACursor)?;
        let serial = Serial::from_str_radix(serial, 16).map_err(|_| NotACursor)?;
        let key = match (key.split_at_checked(1).ok_or(NotACursor)?, sort.column) {
            (("t", ""), Column::Received) => Key::Time,
            (("n", ""), Column::Started | Column::Runtime) => Key::Number(None),
            (("n", number), Column::Started | Column::Runtime) => Key::Number(Some(bits(number)?)),
            (("s", ""), Column::Name | Column::State | Column::Worker) => Key::Text(None),
            (("s", text), Column::Name | Column::State | Column::Worker) => {
                Key::Text(Some(text.strip_prefix('.').ok_or(NotACursor)?.into()))
            }
            _ => return Err(NotACursor),
        };
        Ok(Cursor { key, place: Place::new(time, serial) })
    }
}

fn bits(hex: &str) -> Result<f64, NotACursor> {
    u64::from_str_radix(hex, 16).map(f64::from_bits).map_err(|_| NotACursor)
}
