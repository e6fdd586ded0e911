use celery_worker::prelude::*;

#[task(name = "tasks.plain")]
async fn plain(x: i64) -> i64 {
    x
}

fn main() {}
