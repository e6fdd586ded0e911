//! The shapes in which jobs and queues appear in replies.

use std::time::{SystemTime, UNIX_EPOCH};

use celery_broker::QueueSpec;
use celery_protocol::pyjson;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::pool::Job;

/// How arguments are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// As values.
    Values,
    /// As Python would print them: `inspect active --safe`.
    Shown,
}

/// Celery's TASK_INFO.
pub(super) fn task(job: &Job, arguments: Arguments) -> Value {
    let request = &job.request;
    let delivery = request.delivery();
    let (args, kwargs) = match arguments {
        Arguments::Values => (value(&request.args().to_raw()), value(&request.kwargs().to_raw())),
        Arguments::Shown => (json!(request.argsrepr()), json!(request.kwargsrepr())),
    };
    let started = job.started();
    json!({
        "id": request.id().as_str(),
        "name": request.headers().display_name(),
        "args": args,
        "kwargs": kwargs,
        "type": request.task().as_str(),
        "hostname": request.hostname().as_str(),
        "time_start": started.map(unix),
        "acknowledged": job.is_settled(),
        "delivery_info": {
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "priority": delivery.priority,
            "redelivered": delivery.redelivered,
        },
        "worker_pid": started.map(|_| job.pid()),
    })
}

/// One element of `active_queues`.
pub(super) fn queue(spec: &QueueSpec) -> Value {
    let (exchange, kind) = match &spec.exchange {
        Some(exchange) => (exchange.name.as_str(), exchange.kind.as_str()),
        None => ("", "direct"),
    };
    let arguments = (!spec.arguments.is_empty()).then(|| spec.arguments.clone());
    json!({
        "name": spec.name.as_str(),
        "exchange": {
            "name": exchange,
            "type": kind,
            "arguments": null,
            "durable": spec.exchange.as_ref().is_none_or(|exchange| exchange.durable),
            "passive": false,
            "auto_delete": false,
            "delivery_mode": null,
            "no_declare": false,
        },
        "routing_key": spec.routing_key,
        "queue_arguments": arguments,
        "binding_arguments": null,
        "consumer_arguments": null,
        "durable": spec.durable,
        "exclusive": spec.exclusive,
        "auto_delete": spec.auto_delete,
        "no_ack": false,
        "alias": null,
        "bindings": [],
        "no_declare": null,
        "expires": null,
        "message_ttl": null,
        "max_length": null,
        "max_length_bytes": null,
        "max_priority": spec.arguments.get("x-max-priority").cloned().unwrap_or_default(),
    })
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A raw value in a reply. What JSON values of this program cannot hold (a huge integer) is shown as text.
fn value(raw: &RawValue) -> Value {
    pyjson::from_str(raw.get()).unwrap_or_else(|_| Value::String(raw.get().to_owned()))
}
