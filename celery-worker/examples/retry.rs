//! Trouble that passes: retried by itself, retried when the body says so, and given up.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};
use celery_broker::GetError;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

/// A service that fails a few times before it works.
#[derive(Clone)]
struct Flaky(Arc<AtomicU32>);

impl Flaky {
    fn call(&self) -> io::Result<u32> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            calls @ 0..2 => Err(io::Error::other(format!("connection {calls} was reset"))),
            calls => Ok(calls),
        }
    }
}

/// An `io::Error` is retried by itself, after 10 ms, 20 ms, …
#[task(name = "retry.fetch", max_retries = 5, retry_backoff = "10ms", autoretry_for(io::Error))]
async fn fetch(#[state] service: Flaky) -> TaskResult<u32> {
    Ok(service.call()?)
}

/// The body decides: here, for how long and how often.
#[task(name = "retry.wait_for")]
async fn wait_for(#[ctx] ctx: Context, tries: u32) -> TaskResult<String> {
    if ctx.request().retries() < tries {
        return Err(ctx.retry().countdown(Duration::from_millis(10)).max_retries(tries).into());
    }
    Ok(format!("ready after {tries} retries"))
}

/// Never succeeds: what it was retried for becomes its failure.
#[task(name = "retry.hopeless", max_retries = 2, default_retry_delay = "10ms")]
async fn hopeless(#[ctx] ctx: Context) -> TaskResult<()> {
    Err(ctx.retry().because(Failure::new("ConnectionError", "nobody listens")).into())
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("retry").await?;
    let service = Flaky(Arc::default());
    let worker = Worker::builder(celery.clone(), service)
        .task::<fetch>()
        .task::<wait_for>()
        .task::<hopeless>()
        .build()?;
    serve(&celery, worker, async {
        println!("fetched at call {}", celery.send(fetch::s()).await?.get(PATIENCE).await?);
        println!("{}", celery.send(wait_for::s(4)).await?.get(PATIENCE).await?);
        match celery.send(hopeless::s()).await?.get(PATIENCE).await {
            Err(GetError::Failed(failure)) => println!("gave up: {}", failure.exception.repr()),
            other => bail!("expected a failure, got {other:?}"),
        }
        Ok(())
    })
    .await
}
