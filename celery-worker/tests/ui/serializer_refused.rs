use celery_worker::prelude::*;

#[task(name = "tasks.a", serializer = "pickle")]
async fn a() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.b", serializer = "xml", compression = "rar", queue = "")]
async fn b() -> TaskResult<()> {
    Ok(())
}

fn main() {}
