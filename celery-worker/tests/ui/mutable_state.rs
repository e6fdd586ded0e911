use celery_worker::prelude::*;

#[task(name = "tasks.count")]
async fn count(#[state] counter: &mut u64) -> TaskResult<u64> {
    *counter += 1;
    Ok(*counter)
}

fn main() {}
