use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(#[kwargs] named: Map<String, Value>, x: i64, #[args] rest: Vec<Value>, #[args] more: Vec<Value>) -> TaskResult<i64> {
    drop((named, rest, more));
    Ok(x)
}

fn main() {}
