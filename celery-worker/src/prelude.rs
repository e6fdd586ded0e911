//! What a file with tasks needs: `use celery_worker::prelude::*;`.

pub use std::time::Duration;

pub use celery_broker::Celery;
pub use celery_protocol::{Group, Sig, Signature, TaskId, TaskOptions, chain, chord, group};
pub use serde::{Deserialize, Serialize};
pub use serde_json::{Map, Value, json};

pub use crate::context::{Context, Interrupt};
pub use crate::raise;
pub use crate::task::{Failure, FromRef, OrRaise, TaskError, TaskResult, task};
pub use crate::{Worker, WorkerBuilder};
