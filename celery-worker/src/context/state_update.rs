//! Telling the outside how far a task is, while it runs.

use std::time::SystemTime;

use celery_protocol::event::EventBody;
use celery_protocol::{TaskState, pyjson};
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use crate::task::{Failure, TaskResult};
use crate::trace::result_meta;

impl Context {
    /// Stores a state of your own, such as `"PROGRESS"`, with whatever belongs to it. Callers see it as `result.state` and
    /// `result.info`, until the task ends or sets the next one.
    ///
    /// ```
    /// use celery_worker::prelude::*;
    ///
    /// #[task(name = "docs.upload")]
    /// async fn upload(#[ctx] ctx: Context, files: Vec<String>) -> TaskResult<usize> {
    ///     for file in &files {
    ///         ctx.update_state("UPLOADING", json!({ "file": file })).await?;
    ///     }
    ///     Ok(files.len())
    /// }
    /// ```
    ///
    /// # Errors
    /// `meta` can't be written as JSON, or the result backend did not take it.
    pub async fn update_state(&self, state: &str, meta: impl Serialize) -> TaskResult<()> {
        let raw = pyjson::to_raw(&meta).map_err(Failure::encode_error)?;
        let request = self.request();
        let (state, children, extended) = (TaskState::from(state), self.children(), self.0.env.extended);
        let record = result_meta(request, state, raw, None, children, extended, SystemTime::now());
        Ok(self.0.env.celery.backend().store(&record).await?)
    }

    /// Sends an event of your own, such as `"task-halfway"`, with the task's id and these fields (a struct or map). Monitors
    /// that know it can show it. Events are never worth failing for: what can't be written is logged and left out.
    pub fn emit(&self, event: &str, fields: impl Serialize) {
        let Some(emitter) = &self.0.env.emitter else { return };
        match serde_json::to_value(fields) {
            Ok(Value::Object(mut fields)) => {
                fields.insert("uuid".to_owned(), self.request().id().as_str().into());
                emitter.emit(EventBody::Other { kind: event.to_owned(), fields });
            }
            other => tracing::warn!(event, ?other, "the fields of an event must be a struct or a map"),
        }
    }

    /// Stores the state `PROGRESS` with `{"current", "total", "percent"}`, which progress bars for Celery read.
    ///
    /// Progress is a courtesy: if it can't be stored, that is logged and the task goes on.
    pub async fn progress(&self, current: u64, total: u64) {
        let percent = if total == 0 { 100 } else { u128::from(current.min(total)) * 100 / u128::from(total) };
        let meta =
            json!({ "current": current, "total": total, "percent": u8::try_from(percent).unwrap_or(100) });
        if let Err(error) = self.update_state("PROGRESS", meta).await {
            tracing::warn!(?error, "progress could not be stored");
        }
    }
}
