//! Periodic tasks without a second program: a worker and its beat in one process.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use celery_worker::beat::{Beat, entry::Entry};
use celery_worker::prelude::*;
use support::{connect, serve};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Counts runs, and says when there were enough.
#[derive(Clone, Default)]
struct Counter(Arc<(AtomicU32, Notify)>);

#[task(name = "periodic.count", ignore_result)]
async fn count(#[state] counter: Counter, step: u32) -> TaskResult<()> {
    let (runs, enough) = &*counter.0;
    if runs.fetch_add(step, Ordering::SeqCst) + step >= 6 {
        enough.notify_one();
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("periodic").await?;
    let counter = Counter::default();
    let worker = Worker::builder(celery.clone(), counter.clone()).task::<count>().build()?;
    let beat = Beat::new(celery.clone())
        .timezone("Europe/Berlin".parse()?)
        .entry(Entry::every("often", Duration::from_millis(100), count::s(2))?)
        .entry(Entry::crontab("nightly", "30 4 * * *", count::s(100))?);
    serve(&celery, worker, async {
        let stop = CancellationToken::new();
        let (ended, ()) = tokio::join!(beat.run(stop.clone()), async {
            counter.0.1.notified().await;
            stop.cancel();
        });
        ended?;
        println!("counted");
        Ok(())
    })
    .await
}
