//! What live clients are told: numbered changes, four times a second, and "start over" to those who missed too much.
//!
//! No queue is kept for a client. It has a cursor, the version that it was last told; a delta is made of the rows whose
//! last change is newer. So a client that reads slowly gets fewer and fuller deltas, one that comes back with
//! `Last-Event-ID` goes on where it was, and neither costs memory. What doesn't fit into a delta ends in `resync`: fetch
//! the lists again.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::monitor::{Monitor, StreamPlace};
use crate::state::ClusterState;
use crate::state::key::TaskKey;
use crate::state::time::UnixTime;
use crate::view;

/// How many changed tasks a delta carries.
pub const MAX_ROWS: usize = 200;
/// A comment is sent when nothing else was for so long, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client whose deltas don't hold all changes is told to start over, but not more often than this.
const RESYNC_PAUSE: f64 = 2.0;
/// The overview is sent at least this often: its chart moves on even when nothing happens.
const OVERVIEW_PAUSE: f64 = 1.0;
/// How many whole seconds of the series a delta repeats: the second that ran then has got more since.
const SERIES_OVERLAP: i64 = 2;

/// Whether events can come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The broker is there.
    Connected,
    /// It is not.
    Lost,
}

/// What a client wants to be told of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topics {
    overview: bool,
    workers: bool,
    tasks: bool,
    task: Option<TaskKey>,
}

/// A text is not a list of topics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topics must be of overview, workers, tasks and one task:<id>")]
pub struct NotATopic;

impl Topics {
    /// The overview alone.
    #[must_use]
    pub fn overview() -> Topics {
        Topics { overview: true, ..Topics::default() }
    }
}

impl FromStr for Topics {
    type Err = NotATopic;

    fn from_str(text: &str) -> Result<Topics, NotATopic> {
        let mut topics = Topics::default();
        for topic in text.split(',').filter(|topic| !topic.is_empty()) {
            match topic {
                "overview" => topics.overview = true,
                "workers" => topics.workers = true,
                "tasks" => topics.tasks = true,
                _ => {
                    let id = topic.strip_prefix("task:").ok_or(NotATopic)?;
                    if topics.task.replace(TaskKey::from(id)).is_some() {
                        return Err(NotATopic);
                    }
                }
            }
        }
        Ok(topics)
    }
}

/// How far one client is.
#[derive(Debug)]
pub struct Follower {
    topics: Topics,
    /// The version that it was told last.
    cursor: u64,
    overview_sent: UnixTime,
    resync_sent: UnixTime,
    /// It was told less than there was.
    behind: bool,
}

/// What a client is told next.
#[derive(Debug)]
pub enum News {
    /// Rows that changed.
    Delta(Box<view::Delta>),
    /// Fetch the lists again; they are at least at this version.
    Resync(u64),
}

impl Follower {
    /// A client that knows the state as it is at `version`.
    #[must_use]
    pub fn at(topics: Topics, version: u64) -> Follower {
        Follower {
            topics,
            cursor: version,
            overview_sent: UnixTime::EPOCH,
            resync_sent: UnixTime::EPOCH,
            behind: false,
        }
    }

    /// What to tell now, oldest first; nothing, when nothing has changed.
    pub fn catch_up(&mut self, state: &ClusterState, link: Link, now: UnixTime) -> Vec<News> {
        let version = state.version();
        if self.cursor > version || self.cursor < state.oldest_version() {
            // It knows another process, or something that has been forgotten since.
            self.cursor = version;
            self.behind = false;
            self.resync_sent = now;
            return vec![News::Resync(version)];
        }
        let mut news = Vec::new();
        if let Some(delta) = self.delta(state, link, now) {
            self.behind |= delta.tasks_omitted.is_some();
            news.push(News::Delta(Box::new(delta)));
        }
        self.cursor = version;
        if self.behind && now.since(self.resync_sent) >= RESYNC_PAUSE {
            self.behind = false;
            self.resync_sent = now;
            news.push(News::Resync(version));
        }
        news
    }

    fn delta(&mut self, state: &ClusterState, link: Link, now: UnixTime) -> Option<view::Delta> {
        let changed = state.version() > self.cursor;
        let mut delta = view::Delta {
            version: state.version(),
            overview: None,
            workers: None,
            tasks: None,
            tasks_omitted: None,
            task: None,
        };
        if self.topics.overview && (changed || now.since(self.overview_sent) >= OVERVIEW_PAUSE) {
            let since = self.overview_sent.whole_second() - SERIES_OVERLAP;
            delta.overview = Some(view::Overview::of(state, link, now, since));
            self.overview_sent = now;
        }
        if changed && self.topics.workers {
            let workers = state.workers().into_iter().filter(|worker| worker.version() > self.cursor);
            let workers: Vec<view::Worker> = workers.map(view::Worker::of).collect();
            delta.workers = (!workers.is_empty()).then_some(workers);
        }
        if changed && self.topics.tasks {
            let mut newest = VecDeque::new();
            let mut omitted = 0;
            for task in state.tasks().changed_since(self.cursor) {
                if newest.len() < MAX_ROWS {
                    newest.push_front(view::Task::of(task));
                } else {
                    omitted += 1;
                }
            }
            delta.tasks = (!newest.is_empty()).then(|| newest.into());
            delta.tasks_omitted = (omitted > 0).then_some(omitted);
        }
        if changed && let Some(id) = &self.topics.task {
            let task = state.tasks().get(id.as_str()).filter(|task| task.version() > self.cursor);
            delta.task = task.map(|task| view::TaskDetail::of(state, task, None));
        }
        let nothing = delta.overview.is_none()
            && delta.workers.is_none()
            && delta.tasks.is_none()
            && delta.task.is_none();
        (!nothing).then_some(delta)
    }
}

/// The stream that one client reads: `hello`, then deltas to the beat until the client or the monitor goes.
pub(crate) fn follow(
    monitor: Monitor,
    topics: Topics,
    resume_at: Option<u64>,
    place: StreamPlace,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let version = monitor.state().version();
    let client = Client {
        beat: monitor.beat(),
        ended: monitor.ended(),
        follower: Follower::at(topics, resume_at.unwrap_or(version)),
        monitor,
        sent: Instant::now(),
        begun: false,
        _place: place,
    };
    stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        client.sent = Instant::now();
        Some((Ok(bytes), client))
    })
}

struct Client {
    monitor: Monitor,
    follower: Follower,
    beat: watch::Receiver<u64>,
    ended: CancellationToken,
    sent: Instant,
    begun: bool,
    _place: StreamPlace,
}

impl Client {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            let version = self.monitor.state().version();
            let hello = json!({ "version": version, "server_time": clock::now().seconds() });
            return Some(encode("hello", None, &hello).into());
        }
        loop {
            let keep_alive = tokio::time::sleep_until(self.sent + KEEP_ALIVE);
            tokio::select! {
                changed = self.beat.changed() => changed.ok()?,
                () = self.ended.cancelled() => return None,
                () = keep_alive => return Some(Bytes::from_static(b": alive\n\n")),
            }
            let link = self.monitor.link();
            let news = self.follower.catch_up(&self.monitor.state(), link, clock::now());
            let text: String = news.iter().map(News::encode).collect();
            if !text.is_empty() {
                return Some(text.into());
            }
        }
    }
}

impl News {
    fn encode(&self) -> String {
        match self {
            News::Delta(delta) => encode("delta", Some(delta.version), delta),
            News::Resync(version) => encode("resync", Some(*version), &json!({ "version": version })),
        }
    }
}

/// One event of a stream. JSON has no line breaks outside of strings and escapes those inside, so it is one line.
fn encode(event: &str, id: Option<u64>, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_else(|error| {
        tracing::error!(%error, event, "a change could not be written as JSON");
        String::from("{}")
    });
    match id {
        Some(id) => format!("id: {id}\nevent: {event}\ndata: {data}\n\n"),
        None => format!("event: {event}\ndata: {data}\n\n"),
    }
}
