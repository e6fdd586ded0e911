//! The tasks that every Celery worker serves, without anybody registering them (`celery/app/builtins.py`).

mod canvas;
mod chord_unlock;
mod each;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use celery_protocol::options::MaxRetries;
use celery_protocol::{TaskName, TaskOptions, pyjson};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::task::{ErasedTask, ErrbackStyle, Failure, RawCall, TaskResult};

/// The tasks of the worker that a built-in one belongs to. It is one of them, so it must not keep them alive.
#[derive(Debug, Clone)]
pub(crate) struct Others(Weak<HashMap<TaskName, Arc<ErasedTask>>>);

impl Others {
    pub(crate) fn new(tasks: &Weak<HashMap<TaskName, Arc<ErasedTask>>>) -> Others {
        Others(tasks.clone())
    }

    fn get(&self, name: &TaskName) -> Option<Arc<ErasedTask>> {
        self.0.upgrade()?.get(name).cloned()
    }

    /// The tasks that are errbacks of the new style.
    fn new_style(&self) -> HashSet<TaskName> {
        let tasks = self.0.upgrade().unwrap_or_default();
        tasks
            .values()
            .filter(|task| task.errback == ErrbackStyle::New)
            .map(|task| task.name.clone())
            .collect()
    }
}

/// What `celery.chord_unlock` waits between two looks; Celery's `result_chord_retry_interval`.
const CHORD_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// All of them.
pub(crate) fn tasks(others: &Others) -> Vec<ErasedTask> {
    let unlock = TaskOptions {
        max_retries: Some(MaxRetries::Unlimited),
        default_retry_delay: Some(CHORD_RETRY_INTERVAL),
        ignore_result: Some(true),
        ..TaskOptions::DEFAULT
    };
    let (mapping, starring, unlocking) = (others.clone(), others.clone(), others.clone());
    vec![
        ErasedTask::raw(name("accumulate"), TaskOptions::DEFAULT, |_, call| async move { accumulate(&call) }),
        ErasedTask::raw(name("backend_cleanup"), TaskOptions::DEFAULT, |_, _| async { backend_cleanup() }),
        ErasedTask::raw(name("map"), TaskOptions::DEFAULT, move |ctx, call| {
            each::map(ctx, call, mapping.clone())
        }),
        ErasedTask::raw(name("starmap"), TaskOptions::DEFAULT, move |ctx, call| {
            each::starmap(ctx, call, starring.clone())
        }),
        ErasedTask::raw(name("chunks"), TaskOptions::DEFAULT, canvas::chunks),
        ErasedTask::raw(name("group"), TaskOptions::DEFAULT, canvas::group),
        ErasedTask::raw(name("chain"), TaskOptions::DEFAULT, |_, _| async { canvas::chain() }),
        ErasedTask::raw(name("chord"), TaskOptions::DEFAULT, canvas::chord),
        ErasedTask::raw(name("chord_unlock"), unlock, move |ctx, call| {
            chord_unlock::chord_unlock(ctx, call, unlocking.clone())
        }),
    ]
}

fn name(last: &'static str) -> TaskName {
    TaskName::builtin(last)
}

/// `accumulate(*args, index=None)`: its arguments, or one of them. Where a task was replaced by a group, it gathers what the
/// members return.
fn accumulate(call: &RawCall) -> TaskResult<Box<RawValue>> {
    let index = call.kwargs.get_some("index").map(i64::deserialize);
    let Some(index) = index else { return Ok(call.args.to_raw()) };
    let index = index.map_err(|_| Failure::new("TypeError", "tuple indices must be integers or slices"))?;
    let len = i64::try_from(call.args.len()).unwrap_or(i64::MAX);
    let from_start = if index < 0 { index.saturating_add(len) } else { index };
    let found = usize::try_from(from_start).ok().and_then(|index| call.args.get(index));
    found.map(ToOwned::to_owned).ok_or_else(|| Failure::new("IndexError", "tuple index out of range").into())
}

/// Redis deletes what has expired by itself: there is nothing to clean.
fn backend_cleanup() -> TaskResult<Box<RawValue>> {
    Ok(pyjson::null())
}

#[cfg(test)]
mod tests;
