use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(#[serde(flatten)] all: Value, #[serde(alias = "why")] y: i64, #[serde(skip)] z: i64) -> TaskResult<Value> {
    Ok(json!([all, y, z]))
}

fn main() {}
