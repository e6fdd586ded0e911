use celery_worker::prelude::*;

const NAME: &str = "tasks.add";

#[task(name = NAME)]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

#[task(name)]
async fn mul(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x * y)
}

fn main() {}
