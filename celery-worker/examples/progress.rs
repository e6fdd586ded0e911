//! How far is it? A task reports while it runs, and somebody watches.

mod support;

use anyhow::Result;
use celery_worker::prelude::*;
use futures_util::StreamExt as _;
use support::{PATIENCE, connect, serve};

#[task(name = "progress.import")]
async fn import(#[ctx] ctx: Context, rows: u64) -> TaskResult<u64> {
    for row in 1..=rows {
        tokio::task::yield_now().await; // the work itself
        ctx.progress(row, rows).await;
    }
    Ok(rows)
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("progress").await?;
    let worker = Worker::builder(celery.clone(), ()).task::<import>().build()?;
    serve(&celery, worker, async {
        let id = TaskId::parse(format!("import-{}", std::process::id()))?;
        // Watching starts before sending, so that nothing is missed. It ends with the task.
        let mut states = celery.backend().watch(&id).await?;
        let result = celery.send(import::s(4).task_id(&id)).await?;
        while let Some(meta) = states.next().await {
            println!("{} {}", meta.status, meta.result);
        }
        println!("imported {} rows", result.get(PATIENCE).await?);
        Ok(())
    })
    .await
}
