//! Remote control: `celery inspect`, `celery control`, Flower.
//!
//! Requests are answered one after the other on a service of their own, so that a flood of them delays nothing but
//! itself. What a request means is read by [`celery_protocol::control::Command`]; [`inspect`] looks, [`mutate`] changes.

mod conf;
mod info;
mod inspect;
pub(crate) mod mingle;
mod mutate;
pub(crate) mod revocations;
mod statedb;

use std::sync::Arc;
use std::time::Duration;

use celery_broker::control::Node;
use celery_protocol::control::{Command, Request, error_value};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::heartbeat;
use crate::worker::engine::Engine;
use info::Arguments;

/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// Answers requests until `stop`.
pub(crate) async fn run(engine: Arc<Engine>, mut node: Node, stop: CancellationToken) {
    loop {
        let request = tokio::select! {
            () = stop.cancelled() => return,
            request = node.recv() => request,
        };
        let Some(request) = request else {
            // The handle to the broker was closed; so will the worker be.
            return stop.cancelled().await;
        };
        let value = match tokio::time::timeout(DEADLINE, answer(&engine, &request)).await {
            Ok(value) => value,
            Err(_) => Some(error_value("TimeoutError('the command took too long')")),
        };
        if let Some(value) = value {
            node.reply(&request, value).await;
        }
    }
}

/// The value to answer with; `None` is no answer.
async fn answer(engine: &Engine, request: &Request) -> Option<Value> {
    let command = match Command::parse(request) {
        Ok(command) => command,
        Err(error) => {
            tracing::error!(%error, "remote control: a request that cannot be carried out");
            return Some(error_value(error.to_string()));
        }
    };
    Some(match command {
        Command::Ping => inspect::ping(),
        Command::Clock => inspect::clock(engine),
        Command::Report => inspect::report(engine),
        Command::Conf { .. } => inspect::conf(engine),
        Command::Stats => inspect::stats(engine).await,
        Command::Active { safe: false } => inspect::active(engine, Arguments::Values),
        Command::Active { safe: true } => inspect::active(engine, Arguments::Shown),
        Command::Reserved => inspect::reserved(engine),
        Command::Scheduled => inspect::scheduled(engine).await,
        Command::Revoked => inspect::revoked(engine),
        Command::Registered { taskinfoitems, builtins } => {
            inspect::registered(engine, &taskinfoitems, builtins)
        }
        Command::QueryTask { ids } => inspect::query_task(engine, &ids).await,
        Command::ActiveQueues => inspect::active_queues(engine).await,
        Command::Revoke { ids, terminate: false, .. } => mutate::revoke(engine, &ids, None).await,
        Command::Revoke { ids, terminate: true, signal } => match mutate::signal(signal.as_deref()) {
            Ok(signal) => mutate::revoke(engine, &ids, Some(signal)).await,
            Err(error) => error_value(error),
        },
        Command::Terminate { ids, signal } => match mutate::signal(Some(&signal)) {
            Ok(signal) => mutate::revoke(engine, &ids, Some(signal)).await,
            Err(error) => error_value(error),
        },
        Command::RevokeByStampedHeaders { headers, terminate, signal } => {
            match mutate::signal(signal.as_deref()) {
                Ok(signal) => mutate::revoke_by_stamps(engine, &headers, terminate.then_some(signal)).await,
                Err(error) => error_value(error),
            }
        }
        Command::RateLimit { task_name, rate_limit } => {
            mutate::set_rate_limit(engine, &task_name, rate_limit.as_deref()).await
        }
        Command::TimeLimit { task_name, hard, soft } => {
            mutate::set_time_limit(engine, &task_name, hard, soft)
        }
        Command::EnableEvents => mutate::enable_events(engine),
        Command::DisableEvents => mutate::disable_events(engine),
        Command::Heartbeat => {
            heartbeat::beat(engine);
            Value::Null
        }
        Command::Election(_) => Value::Null,
        Command::Hello { from_node, revoked } => mutate::hello(engine, &from_node, &revoked),
        Command::PoolGrow { n } => mutate::pool_grow(engine, n).await,
        Command::PoolShrink { n } => mutate::pool_shrink(engine, n),
        Command::PoolRestart => error_value("ValueError('Pool restarts not enabled')"),
        Command::Autoscale { max, min } => mutate::autoscale(engine, max, min),
        Command::AddConsumer(new) => mutate::add_consumer(engine, &new).await,
        Command::CancelConsumer { queue } => mutate::cancel_consumer(engine, &queue).await,
        Command::Shutdown => {
            tracing::warn!("remote control: shutdown");
            engine.lines.shutdown.cancel();
            return None;
        }
        Command::Memsample => inspect::memory(),
        Command::Memdump { .. } => inspect::unsupported("memdump"),
        Command::Objgraph => inspect::unsupported("objgraph"),
        other => error_value(format!("NotImplementedError({:?})", format!("{other:?}"))),
    })
}
