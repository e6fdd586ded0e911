//! What the examples share: where the servers are, and running a worker for as long as an example takes.

#![allow(dead_code, reason = "not every example needs all of it")]

use std::future::{Future, pending};
use std::time::Duration;

use anyhow::Result;
use celery_protocol::QueueName;
use celery_worker::prelude::*;

/// How long an example waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the servers in `CELERY_BROKER_URL` and `CELERY_RESULT_BACKEND`. Default: those on this machine.
pub(crate) async fn connect(name: &str) -> Result<Celery> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let celery = Celery::builder(name)
        .broker(env("CELERY_BROKER_URL", "amqp://localhost"))
        .backend(env("CELERY_RESULT_BACKEND", "redis://localhost"));
    Ok(celery.connect().await?)
}

/// Runs the worker until the example has ended. The example begins when the worker has made its queues: what is sent
/// before that, to a new broker, has nowhere to go.
pub(crate) async fn serve<T>(
    celery: &Celery,
    worker: Worker,
    example: impl Future<Output = Result<T>>,
) -> Result<T> {
    let handle = worker.handle();
    let queues = worker.queues().map(QueueName::parse).collect::<Result<Vec<_>, _>>()?;
    let (stopped, answer) = tokio::join!(worker.run_until(pending()), async {
        for queue in &queues {
            while celery.queue_depth(queue).await?.is_none() {
                tokio::task::yield_now().await;
            }
        }
        let answer = example.await;
        handle.stop();
        answer
    });
    stopped?;
    answer
}

#[expect(clippy::disallowed_methods, reason = "this is the examples' config.rs")]
pub(crate) fn env(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
