//! One task, served and called. A Python program could call it just as well: `app.send_task("hello.add", (2, 3))`.

mod support;

use anyhow::Result;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

/// Adds two numbers.
#[task(name = "hello.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("hello").await?;
    let worker = Worker::builder(celery.clone(), ()).task::<add>().build()?;
    serve(&celery, worker, async {
        let sum: i64 = celery.send(add::s(2, 3)).await?.get(PATIENCE).await?;
        println!("2 + 3 = {sum}");
        Ok(())
    })
    .await
}
