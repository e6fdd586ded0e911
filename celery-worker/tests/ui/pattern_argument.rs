use celery_worker::prelude::*;

#[task(name = "tasks.pair")]
async fn pair((x, y): (i64, i64)) -> TaskResult<i64> {
    Ok(x + y)
}

#[task(name = "tasks.ignored")]
async fn ignored(_: i64) -> TaskResult<()> {
    Ok(())
}

fn main() {}
