use celery_worker::prelude::*;

#[task(name = "tasks.generic")]
async fn generic<T: Into<i64>>(x: T) -> TaskResult<i64> {
    Ok(x.into())
}

#[task(name = "tasks.implicit")]
async fn implicit(x: impl Into<i64>) -> TaskResult<i64> {
    Ok(x.into())
}

fn main() {}
