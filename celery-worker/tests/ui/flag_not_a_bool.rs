use celery_worker::prelude::*;

#[task(name = "tasks.a", acks_late = "yes")]
async fn a() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.b", retry_jitter(true))]
async fn b() -> TaskResult<()> {
    Ok(())
}

fn main() {}
