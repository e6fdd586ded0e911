use celery_worker::prelude::*;

struct NotAnError;

#[task(name = "tasks.a", autoretry_for(NotAnError))]
async fn a() -> TaskResult<()> {
    Ok(())
}

fn main() {}
