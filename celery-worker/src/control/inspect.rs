//! Commands that only look: each answers from a snapshot and changes nothing.

use std::sync::Arc;

use celery_protocol::control::{error_value, ok_value};
use serde_json::{Map, Value, json};

use super::conf;
use super::info::{self, Arguments};
use crate::consumer::{HeldJob, Order};
use crate::pool::Job;
use crate::stats;
use crate::worker::catalog::Entry;
use crate::worker::engine::Engine;

pub(super) fn ping() -> Value {
    ok_value("pong")
}

pub(super) fn clock(engine: &Engine) -> Value {
    json!({ "clock": engine.celery.lamport().value() })
}

pub(super) fn active(engine: &Engine, arguments: Arguments) -> Value {
    jobs(&engine.pool.running(), arguments)
}

pub(super) fn reserved(engine: &Engine) -> Value {
    jobs(&engine.pool.waiting(), Arguments::Values)
}

fn jobs(jobs: &[Arc<Job>], arguments: Arguments) -> Value {
    jobs.iter().map(|job| info::task(job, arguments)).collect()
}

pub(super) async fn scheduled(engine: &Engine) -> Value {
    let held = held(engine).await;
    let waiting = held.iter().filter(|held| !held.rate_limited);
    let entry = |held: &HeldJob| {
        json!({
            "eta": celery_protocol::WireTime::from(held.due).isoformat(),
            "priority": 6,
            "request": info::task(&held.job, Arguments::Values),
        })
    };
    waiting.map(entry).collect()
}

async fn held(engine: &Engine) -> Vec<HeldJob> {
    engine.order(Order::Scheduled).await.unwrap_or_default()
}

pub(super) fn revoked(engine: &Engine) -> Value {
    engine.revoked().ids().map(|id| json!(id.as_str())).collect()
}

/// `name`, or `name [rate_limit=2/s max_retries=3]` with the attributes asked for that are set.
pub(super) fn registered(engine: &Engine, wanted: &[String], builtins: bool) -> Value {
    let wanted: Vec<&str> = match wanted {
        [] => vec!["exchange", "routing_key", "rate_limit"],
        some => some.iter().map(String::as_str).filter(|name| !name.starts_with('_')).collect(),
    };
    let shown = |entry: &Arc<Entry>| {
        let name = entry.task.name.as_str();
        let attribute = |attribute: &&str| Some(format!("{attribute}={}", entry.attribute(attribute)?));
        let attributes: Vec<_> = wanted.iter().filter_map(attribute).collect();
        if attributes.is_empty() { json!(name) } else { json!(format!("{name} [{}]", attributes.join(" "))) }
    };
    let entries = engine.catalog.sorted();
    entries
        .into_iter()
        .filter(|entry| builtins || !entry.task.name.as_str().starts_with("celery."))
        .map(shown)
        .collect()
}

pub(super) async fn query_task(engine: &Engine, ids: &[String]) -> Value {
    let (running, waiting, held) = (engine.pool.running(), engine.pool.waiting(), held(engine).await);
    let held: Vec<_> = held.into_iter().map(|held| held.job).collect();
    let mut found = Map::new();
    for (state, jobs) in [("active", running), ("reserved", waiting), ("scheduled", held)] {
        for job in jobs {
            let id = job.request.id().as_str();
            if ids.iter().any(|wanted| wanted == id) && !found.contains_key(id) {
                found.insert(id.to_owned(), json!([state, info::task(&job, Arguments::Values)]));
            }
        }
    }
    Value::Object(found)
}

pub(super) async fn active_queues(engine: &Engine) -> Value {
    let queues = engine.order(Order::Queues).await.unwrap_or_default();
    queues.iter().map(info::queue).collect()
}

pub(super) async fn stats(engine: &Engine) -> Value {
    let total: Map<String, Value> = engine
        .catalog
        .sorted()
        .into_iter()
        .filter(|entry| entry.accepted() > 0)
        .map(|entry| (entry.task.name.to_string(), json!(entry.accepted())))
        .collect();
    let slots = engine.pool.size();
    let (implementation, processes) = match &engine.processes {
        Some(processes) => ("celeriac:ProcessPool", processes.pids()),
        None => ("celeriac:TaskPool", vec![std::process::id()]),
    };
    let per_child = match (&engine.processes, engine.settings.max_tasks_per_child) {
        (Some(_), Some(max)) => json!(max),
        _ => json!("N/A"),
    };
    let abandoned = engine.abandoned.load(std::sync::atomic::Ordering::Relaxed);
    let mut stats = json!({
        "total": total,
        "pid": std::process::id(),
        "clock": engine.celery.lamport().value().to_string(),
        "uptime": engine.stats.uptime().as_secs(),
        "pool": {
            "implementation": implementation,
            "max-concurrency": slots,
            "processes": processes,
            "max-tasks-per-child": per_child,
            "put-guarded-by-semaphore": true,
            "timeouts": [seconds(engine.settings.tasks.soft_time_limit), seconds(engine.settings.tasks.time_limit)],
            "threads": engine.settings.threads(),
            "abandoned": abandoned,
        },
        "broker": engine.celery.broker_info(),
        "prefetch_count": engine.order(Order::Prefetch).await.unwrap_or_default(),
        "rusage": stats::resource_usage(),
    });
    if let (Some(range), Some(stats)) = (engine.autoscale.range(), stats.as_object_mut()) {
        let wanted = engine.pool.running().len() + engine.pool.waiting().len();
        let autoscaler = json!({ "max": range.max, "min": range.min, "current": slots, "qty": wanted });
        stats.insert("autoscaler".to_owned(), autoscaler);
    }
    stats
}

fn seconds(limit: Option<std::time::Duration>) -> f64 {
    limit.unwrap_or_default().as_secs_f64()
}

pub(super) fn report(engine: &Engine) -> Value {
    let settings: String =
        conf::shown(engine).into_iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    ok_value(format!(
        "\nsoftware -> celeriac:{} rust:{}\nplatform -> system:Linux arch:{} pid:{}\nloader   -> compiled\nsettings -> transport:amqp results:{}\n\n{settings}",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_RUST_VERSION"),
        std::env::consts::ARCH,
        std::process::id(),
        engine.celery.backend().name(),
    ))
}

pub(super) fn conf(engine: &Engine) -> Value {
    Value::Object(conf::shown(engine).into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(super) fn memory() -> Value {
    stats::memory().map_or(Value::Null, Value::String)
}

pub(super) fn unsupported(what: &str) -> Value {
    error_value(format!("NotImplementedError('{what}')"))
}
