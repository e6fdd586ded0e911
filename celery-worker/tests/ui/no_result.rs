use celery_worker::prelude::*;

#[task(name = "tasks.nothing")]
async fn nothing(x: i64) {
    drop(x);
}

#[task(name = "tasks.implicit")]
async fn implicit(x: i64) -> impl Into<i64> {
    x
}

fn main() {}
