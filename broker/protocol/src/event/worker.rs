//! Events about a worker.

use serde_json::{Map, Value};

/// An event about a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEvent {
    /// What happened.
    pub kind: WorkerEventKind,
    /// How it is doing.
    pub status: WorkerStatus,
}

/// What happened to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerEventKind {
    /// It is connected and about to consume.
    Online,
    /// It lives.
    Heartbeat,
    /// It stops.
    Offline,
    /// Any other `worker-…` type, as written (gossip's `worker-elect`).
    Other(String),
}

/// The fields of `worker-online`, `-heartbeat` and `-offline`; `None` is absent or null.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerStatus {
    /// Seconds between heartbeats.
    pub freq: Option<f64>,
    /// Tasks running now.
    pub active: Option<u64>,
    /// Tasks run since the start.
    pub processed: Option<u64>,
    /// Load average of the machine over 1, 5 and 15 minutes.
    pub loadavg: Option<[f64; 3]>,
    /// Software: `py-celery`.
    pub sw_ident: Option<String>,
    /// Its version.
    pub sw_ver: Option<String>,
    /// Its operating system: `Linux`.
    pub sw_sys: Option<String>,
    /// Fields that Celery does not define for these types.
    pub extra: Map<String, Value>,
}

impl WorkerEventKind {
    /// The type on the wire: `worker-heartbeat`.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Online => "worker-online",
            Self::Heartbeat => "worker-heartbeat",
            Self::Offline => "worker-offline",
            Self::Other(name) => name,
        }
    }

    pub(super) fn from_type(name: &str) -> Self {
        match name {
            "worker-online" => Self::Online,
            "worker-heartbeat" => Self::Heartbeat,
            "worker-offline" => Self::Offline,
            other => Self::Other(other.to_owned()),
        }
    }
}
