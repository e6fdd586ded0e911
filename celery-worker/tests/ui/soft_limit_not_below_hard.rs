use celery_worker::prelude::*;

#[task(name = "tasks.a", soft_time_limit = "2m", time_limit = "90s")]
async fn a() -> TaskResult<()> {
    Ok(())
}

fn main() {}
