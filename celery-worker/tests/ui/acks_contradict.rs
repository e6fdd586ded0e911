use celery_worker::prelude::*;

#[task(name = "tasks.a", acks_late, acks_early)]
async fn a() -> TaskResult<()> {
    Ok(())
}

fn main() {}
