//! Tasks and workers in the shape that Flower's API has them: the fields of Celery's own `Task` and `Worker`.

use celery_protocol::{TaskState, WireTime};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::state::ClusterState;
use crate::state::mark::Kind;
use crate::state::task;
use crate::state::time::UnixTime;
use crate::state::worker::Worker;

/// A task.
#[derive(Debug, Serialize)]
pub(super) struct Task {
    uuid: String,
    name: Option<String>,
    state: String,
    received: Option<f64>,
    sent: Option<f64>,
    started: Option<f64>,
    rejected: Option<f64>,
    succeeded: Option<f64>,
    failed: Option<f64>,
    retried: Option<f64>,
    revoked: Option<f64>,
    args: Option<String>,
    kwargs: Option<String>,
    eta: Option<String>,
    expires: Option<String>,
    retries: Option<u32>,
    worker: Option<String>,
    result: Option<String>,
    exception: Option<String>,
    timestamp: f64,
    runtime: Option<f64>,
    traceback: Option<String>,
    exchange: Option<String>,
    routing_key: Option<String>,
    clock: u64,
    client: Option<String>,
    root: Option<String>,
    root_id: Option<String>,
    parent: Option<String>,
    parent_id: Option<String>,
    children: Vec<String>,
}

impl Task {
    /// `task` as Celery has it: unlike our own API, with the exception of an attempt that was retried.
    pub(super) fn of(state: &ClusterState, task: &task::Task) -> Task {
        let call = task.call();
        let sent = task.sent();
        let trouble = task.trouble();
        let at = |kind: Kind| task.when(kind).map(UnixTime::seconds);
        let text = |text: Option<&str>| text.map(str::to_owned);
        let root = call.and_then(|call| text(call.root));
        let parent = task.parent().map(ToString::to_string);
        Task {
            uuid: task.id().to_string(),
            name: task.name().map(ToString::to_string),
            state: task.state().as_str().to_owned(),
            received: at(Kind::Received),
            sent: at(Kind::Sent),
            started: at(Kind::Started),
            rejected: at(Kind::Rejected),
            succeeded: at(Kind::Succeeded),
            failed: at(Kind::Failed),
            retried: at(Kind::Retried),
            revoked: at(Kind::Revoked),
            args: call.and_then(|call| text(call.args)),
            kwargs: call.and_then(|call| text(call.kwargs)),
            eta: call.and_then(|call| call.eta).and_then(iso),
            expires: call.and_then(|call| call.expires).and_then(iso),
            retries: call.map(|call| call.retries),
            worker: task.worker().map(ToString::to_string),
            result: text(task.result()),
            exception: trouble.and_then(|trouble| text(trouble.exception)),
            timestamp: task.timestamp().seconds(),
            runtime: task.measured(),
            traceback: trouble.and_then(|trouble| text(trouble.traceback)),
            exchange: sent.and_then(|sent| sent.exchange).map(ToString::to_string),
            routing_key: sent.and_then(|sent| sent.routing_key).map(ToString::to_string),
            clock: task.clock(),
            client: sent.and_then(|sent| sent.client).map(ToString::to_string),
            root: root.clone(),
            root_id: root,
            parent: parent.clone(),
            parent_id: parent,
            children: state.tasks().children(task.id()).map(|child| child.id().to_string()).collect(),
        }
    }
}

fn iso(at: UnixTime) -> Option<String> {
    WireTime::from_unix_seconds(at.seconds()).map(|time| time.to_string())
}

/// Tasks by id, in their order: JSON's objects have none, but Flower's clients rely on it.
#[derive(Debug)]
pub(super) struct Listed(pub(super) Vec<Task>);

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|task| (&task.uuid, task)))
    }
}

/// A worker's row of `/workers?json=1`.
pub(super) fn worker(worker: &Worker) -> Value {
    let facts = worker.facts();
    let mut row = json!({
        "hostname": &**worker.name(),
        "pid": facts.pid,
        "freq": worker.freq(),
        "heartbeats": [worker.last_heartbeat().seconds()],
        "clock": worker.clock(),
        "active": facts.active,
        "processed": facts.processed,
        "loadavg": facts.loadavg,
        "sw_ident": facts.sw_ident.as_deref(),
        "sw_ver": facts.sw_ver.as_deref(),
        "sw_sys": facts.sw_sys.as_deref(),
        "status": worker.is_online(),
    });
    for kind in [
        Kind::Received,
        Kind::Started,
        Kind::Succeeded,
        Kind::Failed,
        Kind::Retried,
        Kind::Revoked,
        Kind::Rejected,
    ] {
        let count = worker.counted(kind);
        if count > 0 {
            row[format!("task-{}", kind.name())] = count.into();
        }
    }
    row["worker-heartbeat"] = worker.heartbeats().into();
    row
}

/// What a filter for a state may say: Celery's names, in any case.
pub(super) fn state(text: &str) -> TaskState {
    TaskState::from(&*text.to_uppercase())
}
