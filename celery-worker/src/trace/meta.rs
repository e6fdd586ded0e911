//! Result metas: the one place that builds what is stored about a call.

use std::time::SystemTime;

use celery_protocol::result::Extended;
use celery_protocol::{Headers, ResultMeta, ResultTuple, TaskState, WireTime, pyjson};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::context::Request;

/// The meta of a call in the state `state`.
pub(crate) fn result_meta(
    request: &Request,
    state: TaskState,
    result: Box<RawValue>,
    traceback: Option<String>,
    children: Vec<ResultTuple>,
    extended: bool,
    now: SystemTime,
) -> ResultMeta {
    let headers = request.headers();
    let date_done = state.is_ready().then(|| WireTime::from(now));
    let mut meta = ResultMeta::new(request.id().clone(), state, result);
    meta.traceback = traceback;
    meta.children = Some(children);
    meta.date_done = date_done;
    meta.group_id = headers.group.clone();
    meta.parent_id = headers.parent_id.clone();
    if extended {
        meta.extended = Some(Extended {
            name: Some(headers.task.to_string()),
            args: Some(request.args().clone()),
            kwargs: Some(request.kwargs().clone()),
            worker: Some(request.hostname().to_string()),
            retries: Some(headers.retries),
            queue: Some(request.delivery().routing_key.clone()),
        });
        add_stamps(&mut meta, headers);
    }
    meta
}

/// The names of the stamps, and each stamp under its own name.
fn add_stamps(meta: &mut ResultMeta, headers: &Headers) {
    let Some(names) = headers.stamped_headers.as_ref().filter(|names| !names.is_empty()) else { return };
    let mut add = |name: &str, value: Value| {
        if let Ok(raw) = pyjson::to_raw(&value) {
            meta.extra.insert_raw(name, raw);
        }
    };
    add("stamped_headers", names.clone().into());
    for name in names {
        add(name, headers.stamps.get(name).cloned().unwrap_or_default());
    }
}
