use celery_worker::prelude::*;

#[task(name = "tasks.number", time_limit = 120)]
async fn number() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.text", soft_time_limit = "120")]
async fn text() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.unit", expires = "2 fortnights")]
async fn unit() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.missing", default_retry_delay)]
async fn missing() -> TaskResult<()> {
    Ok(())
}

fn main() {}
