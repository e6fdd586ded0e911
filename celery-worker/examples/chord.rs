//! Many at once, then one with all their results.

mod support;

use anyhow::Result;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

#[task(name = "chord.count")]
async fn count(text: String) -> TaskResult<u64> {
    Ok(text.split_whitespace().count().try_into()?)
}

/// The body of a chord takes the header's results as one list.
#[task(name = "chord.total")]
async fn total(parts: Vec<u64>) -> TaskResult<u64> {
    Ok(parts.iter().sum())
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("chord").await?;
    let worker = Worker::builder(celery.clone(), ()).task::<count>().task::<total>().build()?;
    serve(&celery, worker, async {
        let texts = ["to be", "or not to be", "that is the question"];
        let each = celery.send(group(texts.map(count::s))).await?.get(PATIENCE).await?;
        println!("each: {each:?}");
        let all = celery.send(chord(group(texts.map(count::s)), total::partial())).await?;
        println!("all: {}", all.get(PATIENCE).await?);
        Ok(())
    })
    .await
}
