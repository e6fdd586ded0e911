use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(ctx: Context, x: i64) -> TaskResult<i64> {
    drop(ctx);
    Ok(x)
}

fn main() {}
