//! celery-rs at its best: a worker for `demo.add` with a wide prefetch. It stores no result and acks before it runs.

use celery::prelude::*;

#[celery::task(name = "demo.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = celery::app!(
        broker = AMQPBroker { std::env::var("CELERY_BROKER_URL")? },
        tasks = [add],
        task_routes = ["*" => "celery"],
        prefetch_count = 256,
        heartbeat = Some(10),
    )
    .await?;
    app.consume_from(&["celery"]).await?;
    Ok(())
}
