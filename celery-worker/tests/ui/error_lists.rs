use celery_worker::prelude::*;

#[task(name = "tasks.empty", autoretry_for())]
async fn empty() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.assigned", throws = "KeyError")]
async fn assigned() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.exceptions", dont_autoretry_for("KeyError"))]
async fn exceptions() -> TaskResult<()> {
    Ok(())
}

fn main() {}
