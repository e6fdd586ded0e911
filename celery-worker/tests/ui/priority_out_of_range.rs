use celery_worker::prelude::*;

#[task(name = "tasks.a", priority = 256)]
async fn a() -> TaskResult<()> {
    Ok(())
}

fn main() {}
