//! What the result backend knows of a task where events are cut short or missing.

use std::time::Duration;

use celery_broker::Celery;
use celery_protocol::{ResultMeta, TaskId, TaskState, repr};

use crate::redact::Redactor;
use crate::state::Limits;
use crate::state::mark::{Success, Trouble, What};
use crate::state::task::Task;
use crate::state::text::{bounded, looks_cut};
use crate::view::{RESULT_BACKEND, Stored};

/// How long a page waits for the backend.
const DEADLINE: Duration = Duration::from_millis(500);
/// The most that is shown of a stored result or traceback, in bytes.
const MAX_TEXT: usize = 256 << 10;

/// Whether the backend may know more than the events of `task` tell.
#[must_use]
pub(crate) fn is_worth_a_look(task: &Task) -> bool {
    let result = task.result();
    let traceback = task.trouble().and_then(|trouble| trouble.traceback);
    !task.state().is_ready() || result.is_some_and(looks_cut) || traceback.is_some_and(looks_cut)
}

/// How a task ended, if the backend says that it has: as an event would have told it.
pub(crate) fn ending(meta: &ResultMeta, limits: &Limits, redactor: &Redactor) -> Option<What> {
    let trouble = || {
        let exception = meta.exception().map(|exception| bounded(&exception.repr(), limits.max_text));
        let traceback = meta.traceback.as_deref().map(|text| bounded(text, limits.max_traceback));
        Box::new(Trouble { exception, traceback })
    };
    match meta.status {
        TaskState::Success => {
            let mut result = repr::repr(meta.result.get(), limits.max_text);
            if let Some(changed) = redactor.text(&result) {
                result = changed;
            }
            let result = bounded(&result, limits.max_text);
            Some(What::Succeeded(Box::new(Success { result: Some(result), runtime: None })))
        }
        TaskState::Failure => Some(What::Failed(trouble())),
        TaskState::Revoked => Some(What::Revoked(Box::default())),
        _ => None,
    }
}

/// Asks the backend; no answer in time, or no backend, is no answer.
pub(crate) async fn look_up(celery: Option<&Celery>, id: &str, redactor: &Redactor) -> Option<Stored> {
    let id = TaskId::parse(id).ok()?;
    let asked = tokio::time::timeout(DEADLINE, celery?.backend().get(&id)).await.ok()?;
    match asked {
        Ok(meta) => meta.map(|meta| shown(&meta, redactor)),
        Err(error) => {
            tracing::debug!(%error, "the result backend could not be asked");
            None
        }
    }
}

fn shown(meta: &ResultMeta, redactor: &Redactor) -> Stored {
    let result = meta.result.get();
    let cleaned = redactor.text(result);
    Stored {
        source: RESULT_BACKEND,
        status: meta.status.as_str().to_owned(),
        result: Some(bounded(cleaned.as_deref().unwrap_or(result), MAX_TEXT).into()),
        traceback: meta.traceback.as_deref().map(|text| bounded(text, MAX_TEXT).into()),
        date_done: meta.date_done.map(|date| date.unix_seconds()),
    }
}
