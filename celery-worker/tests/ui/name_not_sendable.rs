use celery_worker::prelude::*;

#[task(name = "")]
async fn empty() -> TaskResult<()> {
    Ok(())
}

#[task(name = "two\nlines")]
async fn control() -> TaskResult<()> {
    Ok(())
}

fn main() {}
