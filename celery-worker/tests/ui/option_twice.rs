use celery_worker::prelude::*;

#[task(name = "tasks.add", acks_late, acks_late = false)]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

fn main() {}
