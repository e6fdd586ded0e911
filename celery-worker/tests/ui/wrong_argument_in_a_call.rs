use celery_worker::prelude::*;

#[task(name = "tasks.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

fn call() {
    let _ = add::s(2);
    let _ = add::s(2, "3");
}

fn main() {}
