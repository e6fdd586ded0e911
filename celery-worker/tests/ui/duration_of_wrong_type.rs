use celery_worker::prelude::*;

const LIMIT: u64 = 5;

#[task(name = "tasks.typed", time_limit = LIMIT)]
async fn typed() -> TaskResult<()> {
    Ok(())
}

fn main() {}
