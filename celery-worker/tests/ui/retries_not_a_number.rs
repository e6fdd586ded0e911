use celery_worker::prelude::*;

#[task(name = "tasks.negative", max_retries = -1)]
async fn negative() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.text", max_retries = "3")]
async fn text() -> TaskResult<()> {
    Ok(())
}

fn main() {}
