//! One step after the other: each gets the result of the one before as its first argument.

mod support;

use anyhow::Result;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

#[task(name = "chain.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

#[task(name = "chain.mul")]
async fn mul(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x * y)
}

#[task(name = "chain.show")]
async fn show(number: i64, unit: String) -> TaskResult<String> {
    Ok(format!("{number} {unit}"))
}

/// A task may put a workflow in its own place: the caller gets that one's result.
#[task(name = "chain.area")]
async fn area(#[ctx] ctx: Context, width: i64, height: i64) -> TaskResult<String> {
    Err(ctx.replace(chain(mul::s(width, height)).then(show::partial("m²"))).await)
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("chain").await?;
    let worker = Worker::builder(celery.clone(), ())
        .task::<add>()
        .task::<mul>()
        .task::<show>()
        .task::<area>()
        .build()?;
    serve(&celery, worker, async {
        // ((2 + 3) * 4) apples
        let steps = chain(add::s(2, 3)).then(mul::partial(4)).then(show::partial("apples"));
        println!("{}", celery.send(steps).await?.get(PATIENCE).await?);
        println!("{}", celery.send(area::s(6, 7)).await?.get(PATIENCE).await?);
        Ok(())
    })
    .await
}
