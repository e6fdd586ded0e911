//! Commands that change something: each goes to the owner of what it changes and answers with Celery's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use celery_broker::ExchangeSpec;
use celery_broker::control::Revocation;
use celery_protocol::control::{NewQueue, error_value, ok_value};
use celery_protocol::{QueueName, TaskId, TaskName, TimeLimits, repr};
use serde_json::{Map, Value, json};

use super::revocations;
use crate::consumer::Order;
use crate::consumer::rate_limit;
use crate::context::Interrupt;
use crate::pool::Job;
use crate::worker::engine::Engine;

/// The most slots a pool grows to.
const MAX_SLOTS: usize = 10_000;
/// The most queues one worker consumes from.
const MAX_QUEUES: usize = 100;

/// How a running task is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// It is told, and a child process is killed that does not end it.
    Told,
    /// Its child process is killed at once.
    Killed,
}

/// Reads the name or number of a signal. No signal reaches a process but SIGKILL: what a task is told is one and the same.
///
/// # Errors
/// What a Python worker answers.
pub(super) fn signal(name: Option<&str>) -> Result<Signal, String> {
    const KNOWN: &[&str] = &["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "ALRM", "ABRT", "STOP", "CONT"];
    let name = name.unwrap_or("TERM");
    if let Ok(number) = name.parse::<u8>() {
        return match number {
            9 => Ok(Signal::Killed),
            1..=64 => Ok(Signal::Told),
            _ => Err("ValueError('signal number out of range')".to_owned()),
        };
    }
    let upper = name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase);
    if !upper {
        return Err("TypeError('signal name must be uppercase string.')".to_owned());
    }
    match name.strip_prefix("SIG").unwrap_or(name) {
        "KILL" => Ok(Signal::Killed),
        known if KNOWN.contains(&known) => Ok(Signal::Told),
        other => {
            let shown: String = other.chars().take(64).collect();
            Err(format!("AttributeError(\"module 'signal' has no attribute 'SIG{shown}'\")"))
        }
    }
}

fn end(job: &Job, signal: Signal) {
    job.kill.store(signal == Signal::Killed, Ordering::SeqCst);
    job.interrupts.raise(Interrupt::Terminated);
}

/// Revokes by id: what waits here is dropped and stored as REVOKED, what runs is ended if `terminate` says so. Of what is
/// neither here this worker can't know whether another one runs it: whoever takes its message drops and stores it.
pub(super) async fn revoke(engine: &Engine, ids: &[String], terminate: Option<Signal>) -> Value {
    let now = SystemTime::now();
    let parsed: Vec<TaskId> = ids.iter().filter_map(|id| TaskId::parse(id.as_str()).ok()).collect();
    {
        let mut revoked = engine.revoked();
        for id in &parsed {
            revoked.add(id.clone(), now);
        }
    }
    let kept: Vec<_> = parsed.iter().cloned().map(Revocation::Task).collect();
    revocations::keep(engine, &kept).await;
    tracing::info!(ids = ?parsed, ?terminate, "tasks revoked by remote control");
    let running = engine.pool.running();
    let mut terminated = Vec::new();
    for job in running.iter().filter(|job| parsed.contains(job.request.id())) {
        if let Some(signal) = terminate {
            end(job, signal);
            terminated.push(job.request.id().to_string());
        }
    }
    engine.order(Order::Sweep).await;
    if terminate.is_some() {
        return match terminated.is_empty() {
            true => ok_value("terminate: tasks unknown"),
            false => ok_value(format!("terminate: {}", terminated.join(", "))),
        };
    }
    let shown: Vec<String> = ids.iter().map(|id| repr::quoted(id, 256)).collect();
    ok_value(format!("tasks {} flagged as revoked", python_set(&shown)))
}

/// Revokes whatever carries one of the stamps.
pub(super) async fn revoke_by_stamps(
    engine: &Engine,
    headers: &Map<String, Value>,
    terminate: Option<Signal>,
) -> Value {
    let shown = repr::exact(&Value::from(headers.clone()).to_string());
    let wanted: Vec<(&str, &[Value])> =
        headers.iter().map(|(name, value)| (name.as_str(), stamps(value))).collect();
    let accepted = {
        let mut revoked = engine.revoked();
        wanted.iter().all(|(name, values)| revoked.add_stamp(name, values.iter().cloned()))
    };
    if !accepted {
        return error_value("ValueError('too many revoked stamps')");
    }
    let kept = wanted.iter().flat_map(|(name, values)| {
        values.iter().map(|value| Revocation::Stamp((*name).to_owned(), value.clone()))
    });
    revocations::keep(engine, &kept.collect::<Vec<_>>()).await;
    engine.order(Order::Sweep).await;
    let Some(signal) = terminate else {
        return ok_value(format!("headers {shown} flagged as revoked, but not terminated"));
    };
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for job in engine.pool.running() {
        let mut any = false;
        for (name, values) in &wanted {
            let own = job.request.headers().stamps.get(*name).map(stamps).unwrap_or_default();
            for value in own.iter().filter(|value| values.contains(value)) {
                found.entry(name).or_default().insert(repr::exact(&value.to_string()));
                any = true;
            }
        }
        if any {
            end(&job, signal);
        }
    }
    ok_value(if found.is_empty() {
        format!("headers {shown} were not terminated")
    } else {
        let pairs: Vec<String> = found
            .iter()
            .map(|(name, values)| {
                let values: Vec<_> = values.iter().cloned().collect();
                format!("{}: {}", repr::quoted(name, 256), python_set(&values))
            })
            .collect();
        format!("headers defaultdict(<class 'set'>, {{{}}}) revoked", pairs.join(", "))
    })
}

/// A stamp's values: a list of them, or one.
fn stamps(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        one => std::slice::from_ref(one),
    }
}

pub(super) async fn set_rate_limit(engine: &Engine, task: &str, rate: Option<&str>) -> Value {
    let rate = match rate.map_or(Ok(None), rate_limit::parse) {
        Ok(rate) => rate,
        Err(text) => return error_value(text),
    };
    let Some(entry) = TaskName::parse(task).ok().and_then(|name| engine.catalog.get(&name).cloned()) else {
        return error_value("unknown task");
    };
    entry.set_rate_limit(rate);
    let answer = match &rate {
        Some(_) => "new rate limit set successfully",
        None => "rate limit disabled successfully",
    };
    engine.order(|reply| Order::RateLimit(entry.task.name.clone(), rate, reply)).await;
    ok_value(answer)
}

pub(super) fn set_time_limit(engine: &Engine, task: &str, hard: Option<f64>, soft: Option<f64>) -> Value {
    let Some(entry) = TaskName::parse(task).ok().and_then(|name| engine.catalog.get(&name).cloned()) else {
        return error_value("unknown task");
    };
    let limit = |seconds: Option<f64>| {
        seconds.filter(|seconds| *seconds > 0.0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    entry.set_time_limits(TimeLimits { hard: limit(hard), soft: limit(soft) });
    ok_value("time limits set successfully")
}

pub(super) fn enable_events(engine: &Engine) -> Value {
    ok_value(if engine.switch_events(true) { "task events already enabled" } else { "task events enabled" })
}

pub(super) fn disable_events(engine: &Engine) -> Value {
    ok_value(if engine.switch_events(false) {
        "task events disabled"
    } else {
        "task events already disabled"
    })
}

/// Takes over what another node knows to be revoked and tells what this one knows.
pub(super) fn hello(engine: &Engine, from_node: &str, ids: &[String]) -> Value {
    if from_node == engine.nodename.as_str() {
        return Value::Null;
    }
    engine.take_over_revoked(ids);
    let known: Vec<String> = engine.revoked().ids().map(ToString::to_string).collect();
    json!({ "revoked": known, "clock": engine.celery.lamport().forward() })
}

pub(super) async fn pool_grow(engine: &Engine, n: u32) -> Value {
    if engine.autoscale.range().is_some() {
        return error_value("pool_grow is not supported with autoscale. Adjust autoscale range instead.");
    }
    let room = MAX_SLOTS.saturating_sub(engine.pool.size());
    let count = usize::try_from(n).unwrap_or(MAX_SLOTS);
    if count > room {
        return error_value(format!("ValueError('a pool has at most {MAX_SLOTS} slots')"));
    }
    match engine.lines.grow.send(count).await {
        Ok(()) => ok_value("pool will grow"),
        Err(_) => error_value("RuntimeError('the worker is shutting down')"),
    }
}

pub(super) fn pool_shrink(engine: &Engine, n: u32) -> Value {
    if engine.autoscale.range().is_some() {
        return error_value("pool_shrink is not supported with autoscale. Adjust autoscale range instead.");
    }
    let count = usize::try_from(n).unwrap_or(MAX_SLOTS);
    if count >= engine.pool.size() {
        return error_value("ValueError(\"Can't shrink pool. All processes busy!\")");
    }
    engine.pool.remove_lanes(count);
    ok_value("pool will shrink")
}

pub(super) fn autoscale(engine: &Engine, max: Option<u32>, min: Option<u32>) -> Value {
    let slots = |n: Option<u32>| n.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    match engine.autoscale.update(slots(max), slots(min), MAX_SLOTS) {
        Ok(range) => ok_value(format!("autoscale now max={} min={}", range.max, range.min)),
        Err(problem) => error_value(problem),
    }
}

pub(super) async fn add_consumer(engine: &Engine, new: &NewQueue) -> Value {
    let name = match QueueName::parse(new.queue.as_str()) {
        Ok(name) => name,
        Err(err) => return error_value(format!("ValueError({:?})", err.to_string())),
    };
    if engine.order(Order::Queues).await.unwrap_or_default().len() >= MAX_QUEUES {
        return error_value(format!("ValueError('a worker consumes from at most {MAX_QUEUES} queues')"));
    }
    let new_queues = &engine.settings.new_queues;
    let mut spec = match name == *engine.celery.default_queue() {
        true => new_queues.default_queue(name),
        false => new_queues.named(name),
    };
    if new.exchange.is_some() || new.exchange_type != "direct" || new.routing_key.is_some() {
        let exchange = new.exchange.clone().unwrap_or_else(|| new.queue.clone());
        let key = new.routing_key.clone().unwrap_or_else(|| new.queue.clone());
        spec = spec.bound_to(ExchangeSpec::durable(exchange, new.exchange_type.clone()), key);
    }
    match engine.order(|reply| Order::AddQueue(spec, reply)).await {
        Some(Ok(())) => ok_value(format!("add consumer {}", new.queue)),
        Some(Err(err)) => error_value(err.to_string()),
        None => error_value("TimeoutError('the worker is busy or shutting down')"),
    }
}

pub(super) async fn cancel_consumer(engine: &Engine, queue: &str) -> Value {
    let answer = ok_value(format!("no longer consuming from {queue}"));
    let Ok(name) = QueueName::parse(queue) else { return answer };
    match engine.order(|reply| Order::CancelQueue(name, reply)).await {
        Some(Ok(())) => answer,
        Some(Err(err)) => error_value(err.to_string()),
        None => error_value("TimeoutError('the worker is busy or shutting down')"),
    }
}

fn python_set(shown: &[String]) -> String {
    if shown.is_empty() { "set()".to_owned() } else { format!("{{{}}}", shown.join(", ")) }
}
