use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(#[context] ctx: Context, #[state(db)] db: String) -> TaskResult<u32> {
    drop(db);
    Ok(ctx.request().retries())
}

fn main() {}
