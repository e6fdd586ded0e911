//! What clients see: the JSON of `/api/v2`. The only place that makes HTTP's JSON out of the state.
//!
//! Names are in snake_case, times are seconds since the epoch as floats, and every field is always there: `null` means
//! "not known". `flower-lite/web/src/api/types.ts` is the other side of this file.

mod history;

use std::collections::BTreeMap;

use celery_protocol::TaskState;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::live::Link;
use crate::state::ClusterState;
use crate::state::mark::{Kind, Mark, What};
use crate::state::query::{self, Page};
use crate::state::series;
use crate::state::task;
use crate::state::time::UnixTime;
use crate::state::worker;

pub use history::{HistoryPage, Node, Workflow};

/// How what the result backend told is marked.
pub const RESULT_BACKEND: &str = "result_backend";
/// How many of the tasks that a worker runs are listed with it.
const RUNNING_SHOWN: usize = 100;
/// How many names, and how many workers, a facet lists: the commonest.
const FACET_SHOWN: usize = 100;
/// How many children of a task are listed.
const CHILDREN_SHOWN: usize = 1_000;
/// States that are always counted, so that a chart of them doesn't lose a line.
const USUAL_STATES: [TaskState; 8] = [
    TaskState::Pending,
    TaskState::Received,
    TaskState::Started,
    TaskState::Retry,
    TaskState::Success,
    TaskState::Failure,
    TaskState::Revoked,
    TaskState::Rejected,
];

/// The whole at a glance.
#[derive(Debug, Serialize)]
pub struct Overview {
    version: u64,
    server_time: f64,
    connected: bool,
    started_at: f64,
    program: &'static str,
    events: Events,
    tasks: TaskTotals,
    workers: WorkerTotals,
    rates: Rates,
    series: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Events {
    received: u64,
    dropped: u64,
    undecodable: u64,
    duplicates: u64,
    /// Events that must have been lost on the way, at the least.
    lost: u64,
    /// Seconds without the broker.
    disconnected: f64,
    /// Seconds in which nothing was taken in.
    stalled: f64,
    lag: Option<f64>,
}

#[derive(Debug, Serialize)]
struct TaskTotals {
    total: usize,
    by_state: BTreeMap<String, usize>,
    /// Tasks whose worker fell silent while it ran them.
    orphaned: usize,
    evicted: u64,
}

#[derive(Debug, Serialize)]
struct WorkerTotals {
    online: usize,
    offline: usize,
}

#[derive(Debug, Serialize)]
struct Rates {
    per_second: f64,
    failures_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Point {
    t: i64,
    received: u64,
    succeeded: u64,
    failed: u64,
    retried: u64,
}

/// A worker.
#[derive(Debug, Serialize)]
pub struct Worker {
    name: String,
    online: bool,
    last_heartbeat: f64,
    freq: f64,
    pid: Option<i64>,
    sw_ident: Option<String>,
    sw_ver: Option<String>,
    sw_sys: Option<String>,
    loadavg: Option<[f64; 3]>,
    active: Option<u64>,
    processed: Option<u64>,
    clock: u64,
    drift: f64,
    counts: Counts,
    first_seen: f64,
    running: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Counts {
    received: u64,
    started: u64,
    succeeded: u64,
    failed: u64,
    retried: u64,
    revoked: u64,
    rejected: u64,
}

/// Every worker.
#[derive(Debug, Serialize)]
pub struct WorkerPage {
    version: u64,
    items: Vec<Worker>,
}

/// A worker and its newest tasks.
#[derive(Debug, Serialize)]
pub struct WorkerDetail {
    version: u64,
    #[serde(flatten)]
    worker: Worker,
    tasks: Vec<Task>,
}

/// A task as lists show it.
#[derive(Debug, Serialize)]
pub struct Task {
    id: String,
    name: Option<String>,
    state: String,
    worker: Option<String>,
    queue: Option<String>,
    args: Option<String>,
    kwargs: Option<String>,
    result: Option<String>,
    exception: Option<String>,
    runtime: Option<f64>,
    retries: Option<u32>,
    eta: Option<f64>,
    expires: Option<f64>,
    root_id: Option<String>,
    parent_id: Option<String>,
    sent: Option<f64>,
    received: Option<f64>,
    started: Option<f64>,
    succeeded: Option<f64>,
    failed: Option<f64>,
    retried: Option<f64>,
    revoked: Option<f64>,
    rejected: Option<f64>,
    timestamp: f64,
    clock: u64,
    ready: bool,
    /// Its worker fell silent while it ran.
    orphaned: bool,
    /// `result_backend` where no event told how it ended, but that did.
    completed_by: Option<&'static str>,
}

/// A task with its whole story.
#[derive(Debug, Serialize)]
pub struct TaskDetail {
    version: u64,
    #[serde(flatten)]
    task: Task,
    traceback: Option<String>,
    timeline: Vec<Entry>,
    /// Events that were dropped from the timeline because there were too many.
    timeline_dropped: u32,
    children: Vec<String>,
    parent: Option<String>,
    root: Option<String>,
    exchange: Option<String>,
    routing_key: Option<String>,
    client: Option<String>,
    /// What the result backend has of it: whole where events were cut. `null`: not asked, or it has nothing.
    stored: Option<Stored>,
}

/// What the result backend has of a task.
#[derive(Debug, Serialize)]
pub struct Stored {
    /// Where this is from.
    pub source: &'static str,
    /// The state.
    pub status: String,
    /// The result, or the exception as the backend writes it; JSON text, since numbers beyond 2^53 must survive.
    pub result: Option<String>,
    /// The traceback.
    pub traceback: Option<String>,
    /// When it was stored.
    pub date_done: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Entry {
    state: String,
    #[serde(rename = "type")]
    kind: String,
    timestamp: f64,
    worker: String,
    clock: u64,
    /// `event`, or `result_backend`.
    source: &'static str,
    detail: Map<String, Value>,
}

/// A page of tasks.
#[derive(Debug, Serialize)]
pub struct TaskPage {
    version: u64,
    total: usize,
    items: Vec<Task>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facets: Option<Facets>,
}

/// How many tasks have each state, name and worker.
#[derive(Debug, Serialize)]
pub struct Facets {
    state: BTreeMap<String, usize>,
    name: BTreeMap<String, usize>,
    worker: BTreeMap<String, usize>,
}

/// What changed: rows that replace those that a client has.
#[derive(Debug, Serialize)]
pub struct Delta {
    /// The version that the client is at with this.
    pub version: u64,
    /// The overview, with the newest points of its series only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overview: Option<Overview>,
    /// The workers that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Vec<Worker>>,
    /// The tasks that changed, oldest change first; the newest only, when there are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
    /// How many changed tasks were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_omitted: Option<usize>,
    /// The task that is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskDetail>,
}

impl Overview {
    /// The overview, with the points of its series from the second `since` on.
    #[must_use]
    pub fn of(state: &ClusterState, link: Link, now: UnixTime, since: i64) -> Overview {
        let totals = state.totals();
        let rates = state.series().rates(now);
        let workers = state.count_workers();
        let mut by_state: BTreeMap<String, usize> =
            USUAL_STATES.iter().map(|state| (state.as_str().to_owned(), 0)).collect();
        by_state
            .extend(state.tasks().count_by_state().map(|(state, count)| (state.as_str().to_owned(), count)));
        Overview {
            version: state.version(),
            server_time: now.seconds(),
            connected: link == Link::Connected,
            started_at: state.started_at().seconds(),
            program: concat!("flower-lite ", env!("CARGO_PKG_VERSION")),
            events: Events {
                received: totals.received,
                dropped: totals.dropped,
                undecodable: totals.undecodable,
                duplicates: totals.duplicates,
                lost: state.missed(),
                disconnected: totals.disconnected,
                stalled: totals.stalled,
                lag: totals.lag,
            },
            tasks: TaskTotals {
                total: state.tasks().len(),
                by_state,
                orphaned: state.tasks().orphaned(),
                evicted: state.tasks().evicted(),
            },
            workers: WorkerTotals { online: workers.online, offline: workers.offline },
            rates: Rates { per_second: rates.ended, failures_per_second: rates.failed },
            series: state.series().since(since, now).map(Point::of).collect(),
        }
    }
}

impl Point {
    fn of(point: series::Point) -> Point {
        let series::Point { second, received, succeeded, failed, retried } = point;
        Point { t: second, received, succeeded, failed, retried }
    }
}

impl Worker {
    /// A worker as lists show it.
    #[must_use]
    pub fn of(worker: &worker::Worker) -> Worker {
        let facts = worker.facts();
        Worker {
            name: worker.name().to_string(),
            online: worker.is_online(),
            last_heartbeat: worker.last_heartbeat().seconds(),
            freq: worker.freq(),
            pid: facts.pid,
            sw_ident: owned(facts.sw_ident.as_ref()),
            sw_ver: owned(facts.sw_ver.as_ref()),
            sw_sys: owned(facts.sw_sys.as_ref()),
            loadavg: facts.loadavg,
            active: facts.active,
            processed: facts.processed,
            clock: worker.clock(),
            drift: worker.drift(),
            counts: Counts {
                received: worker.counted(Kind::Received),
                started: worker.counted(Kind::Started),
                succeeded: worker.counted(Kind::Succeeded),
                failed: worker.counted(Kind::Failed),
                retried: worker.counted(Kind::Retried),
                revoked: worker.counted(Kind::Revoked),
                rejected: worker.counted(Kind::Rejected),
            },
            first_seen: worker.first_seen().seconds(),
            running: worker.running().iter().take(RUNNING_SHOWN).map(ToString::to_string).collect(),
        }
    }
}

impl WorkerPage {
    /// Every worker, by name.
    #[must_use]
    pub fn of(state: &ClusterState) -> WorkerPage {
        WorkerPage { version: state.version(), items: state.workers().into_iter().map(Worker::of).collect() }
    }
}

impl WorkerDetail {
    /// A worker and its newest tasks.
    #[must_use]
    pub fn of(state: &ClusterState, worker: &worker::Worker, tasks: &[&task::Task]) -> WorkerDetail {
        WorkerDetail {
            version: state.version(),
            worker: Worker::of(worker),
            tasks: tasks.iter().map(|task| Task::of(task)).collect(),
        }
    }
}

impl Task {
    /// A task as lists show it.
    ///
    /// Celery keeps the exception of an attempt that was retried when a later one succeeds. Here it stays in the
    /// timeline: a task that succeeded shows none.
    #[must_use]
    pub fn of(task: &task::Task) -> Task {
        let call = task.call();
        let state = task.state();
        let trouble = task.trouble().filter(|_| *state != TaskState::Success);
        let at = |kind: Kind| task.when(kind).map(UnixTime::seconds);
        Task {
            id: task.id().to_string(),
            name: owned(task.name()),
            state: state.as_str().to_owned(),
            worker: owned(task.worker()),
            queue: owned(task.queue()),
            args: call.and_then(|call| text(call.args)),
            kwargs: call.and_then(|call| text(call.kwargs)),
            result: text(task.result()),
            exception: trouble.and_then(|trouble| text(trouble.exception)),
            runtime: task.runtime(),
            retries: call.map(|call| call.retries),
            eta: call.and_then(|call| call.eta).map(UnixTime::seconds),
            expires: call.and_then(|call| call.expires).map(UnixTime::seconds),
            root_id: call.and_then(|call| text(call.root)),
            parent_id: task.parent().map(ToString::to_string),
            sent: at(Kind::Sent),
            received: at(Kind::Received),
            started: at(Kind::Started),
            succeeded: at(Kind::Succeeded),
            failed: at(Kind::Failed),
            retried: at(Kind::Retried),
            revoked: at(Kind::Revoked),
            rejected: at(Kind::Rejected),
            timestamp: task.timestamp().seconds(),
            clock: task.clock(),
            ready: state.is_ready(),
            orphaned: task.is_orphaned(),
            completed_by: task.is_completed().then_some(RESULT_BACKEND),
        }
    }
}

impl TaskDetail {
    /// A task with its whole story.
    #[must_use]
    pub fn of(state: &ClusterState, task: &task::Task, stored: Option<Stored>) -> TaskDetail {
        let row = Task::of(task);
        let sent = task.sent();
        let trouble = task.trouble().filter(|_| row.exception.is_some());
        TaskDetail {
            version: state.version(),
            traceback: trouble.and_then(|trouble| text(trouble.traceback)),
            timeline: task.marks().iter().map(Entry::of).collect(),
            timeline_dropped: task.forgotten(),
            children: state
                .tasks()
                .children(task.id())
                .take(CHILDREN_SHOWN)
                .map(|child| child.id().to_string())
                .collect(),
            parent: row.parent_id.clone(),
            root: row.root_id.clone(),
            exchange: sent.and_then(|sent| owned(sent.exchange)),
            routing_key: sent.and_then(|sent| owned(sent.routing_key)),
            client: sent.and_then(|sent| owned(sent.client)),
            task: row,
            stored,
        }
    }
}

impl Entry {
    fn of(mark: &Mark) -> Entry {
        Entry {
            state: mark.what.state().as_str().to_owned(),
            kind: format!("task-{}", mark.what.name()),
            timestamp: mark.at.seconds(),
            worker: mark.origin.to_string(),
            clock: mark.clock,
            source: if mark.stored { RESULT_BACKEND } else { "event" },
            detail: detail(&mark.what),
        }
    }
}

/// What an event tells beyond its kind, and beyond what the task's own fields show of its call.
fn detail(what: &What) -> Map<String, Value> {
    let detail = match what {
        What::Sent(sent) => json!({
            "queue": sent.queue.as_deref(),
            "exchange": sent.exchange.as_deref(),
            "routing_key": sent.routing_key.as_deref(),
            "retries": sent.call.retries,
        }),
        What::Received(call) => {
            json!({ "retries": call.retries, "eta": call.eta.map(UnixTime::seconds) })
        }
        What::Started => json!({}),
        What::Succeeded(success) => json!({ "runtime": success.runtime, "result": success.result }),
        What::Failed(trouble) | What::Retried(trouble) => {
            json!({ "exception": trouble.exception, "traceback": trouble.traceback })
        }
        What::Revoked(revocation) => json!({
            "terminated": revocation.terminated,
            "signum": revocation.signal,
            "expired": revocation.expired,
        }),
        What::Rejected { requeue } => json!({ "requeue": requeue }),
        What::Custom(custom) => Value::Object(custom.fields.clone()),
    };
    match detail {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

impl TaskPage {
    /// A page of tasks, with facets if they were asked for.
    #[must_use]
    pub fn of(state: &ClusterState, page: &Page, facets: Option<query::Facets>) -> TaskPage {
        TaskPage {
            version: state.version(),
            total: page.total,
            items: page.tasks.iter().map(|task| Task::of(task)).collect(),
            next_cursor: page.next.as_ref().map(ToString::to_string),
            facets: facets.map(Facets::of),
        }
    }
}

impl Facets {
    fn of(facets: query::Facets) -> Facets {
        Facets {
            state: commonest(facets.states),
            name: commonest(facets.names),
            worker: commonest(facets.workers),
        }
    }
}

fn commonest<K: AsRef<str>>(counts: BTreeMap<K, usize>) -> BTreeMap<String, usize> {
    let mut counts: Vec<(K, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(FACET_SHOWN).map(|(name, count)| (name.as_ref().to_owned(), count)).collect()
}

fn owned(name: Option<&std::sync::Arc<str>>) -> Option<String> {
    name.map(ToString::to_string)
}

fn text(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}
