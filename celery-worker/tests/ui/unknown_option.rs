use celery_worker::prelude::*;

#[task(name = "tasks.add", max_retrys = 5)]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

#[task(name = "tasks.mul", bind = true)]
async fn mul(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x * y)
}

#[task(name = "tasks.sub", colour = "red")]
async fn sub(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x - y)
}

fn main() {}
