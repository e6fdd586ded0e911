//! Child processes: a task may crash or hang, and only its child goes. With the argument `serve` the worker runs until it
//! is signalled; a second argument is the number of tasks after which a child is replaced, a third the KiB of memory.

mod support;

use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, bail};
use celery_broker::GetError;
use celery_worker::config::is_pool_child;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

/// Takes its process with it, as a fault in a C library would.
#[task(name = "proc.abort")]
async fn abort() -> TaskResult<()> {
    std::process::abort()
}

/// The same, but its message is to be delivered again.
#[task(name = "proc.again", reject_on_worker_lost = true)]
async fn again() -> TaskResult<()> {
    std::process::abort()
}

/// Does not listen to anybody.
#[task(name = "proc.stuck")]
fn stuck(milliseconds: u64) -> TaskResult<u64> {
    std::thread::sleep(Duration::from_millis(milliseconds));
    Ok(milliseconds)
}

/// The same with an end to it.
#[task(name = "proc.limited", time_limit = "1s")]
fn limited(milliseconds: u64) -> TaskResult<u64> {
    std::thread::sleep(Duration::from_millis(milliseconds));
    Ok(milliseconds)
}

/// The process that it runs in.
#[task(name = "proc.pid")]
async fn pid() -> TaskResult<u32> {
    Ok(std::process::id())
}

/// The same, for a message that is acked as soon as it comes.
#[task(name = "proc.early", acks_late = false)]
async fn early() -> TaskResult<u32> {
    Ok(std::process::id())
}

/// What a leak keeps for good.
static LEAK: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Loses memory; the process that lost it.
#[task(name = "proc.leak")]
async fn leak(mebibytes: usize) -> TaskResult<u32> {
    if let Ok(mut leak) = LEAK.lock() {
        leak.push(vec![1; mebibytes << 20]);
    }
    Ok(std::process::id())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let celery = connect("prefork").await?;
    let worker = Worker::builder(celery.clone(), ())
        .task::<abort>()
        .task::<again>()
        .task::<stuck>()
        .task::<limited>()
        .task::<pid>()
        .task::<early>()
        .task::<leak>()
        .concurrency(1)
        .nodename("prefork@%h")
        .configure(|own| {
            own.prefork = true;
            own.max_tasks_per_child = args.get(1).and_then(|number| number.parse().ok());
            own.max_memory_per_child = args.get(2).and_then(|number| number.parse().ok());
        })
        .build()?;
    // The children run this program too, and come by here.
    if is_pool_child() {
        worker.run_until(pending()).await?;
        return Ok(());
    }
    if args.first().is_some_and(|word| word == "serve") {
        worker.run_until_signalled().await?;
        return Ok(());
    }
    serve(&celery, worker, async {
        let child = celery.send(pid::s()).await?.get(PATIENCE).await?;
        println!("another process: {}", child != std::process::id());
        for (what, call) in
            [("crashed", celery.send(abort::s()).await?), ("crashed again", celery.send(again::s()).await?)]
        {
            match call.get(PATIENCE).await {
                Err(GetError::Failed(failure)) => println!("{what}: {}", failure.exception.exc_type),
                other => bail!("expected a failure, got {other:?}"),
            }
        }
        match celery.send(limited::s(60_000)).await?.get(PATIENCE).await {
            Err(GetError::Failed(failure)) => println!("hung: {}", failure.exception.exc_type),
            other => bail!("expected a failure, got {other:?}"),
        }
        println!("still working: {}", celery.send(stuck::s(1)).await?.get(PATIENCE).await?);
        Ok(())
    })
    .await
}
