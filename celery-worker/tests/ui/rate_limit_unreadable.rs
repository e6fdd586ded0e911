use celery_worker::prelude::*;

#[task(name = "tasks.a", rate_limit = "ten a minute")]
async fn a() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.b", rate_limit = "10/d")]
async fn b() -> TaskResult<()> {
    Ok(())
}

fn main() {}
