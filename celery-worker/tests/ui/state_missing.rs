use celery_worker::prelude::*;

#[derive(Clone)]
struct Pool;

#[task(name = "users.count")]
async fn count(#[state] pool: Pool) -> TaskResult<u64> {
    drop(pool);
    Ok(0)
}

fn register(registry: &mut celery_worker::task::registry::Registry<()>) {
    registry.task::<count>();
}

fn main() {}
