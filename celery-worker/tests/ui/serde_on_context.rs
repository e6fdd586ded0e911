use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(#[ctx] #[serde(default)] ctx: Context) -> TaskResult<u32> {
    Ok(ctx.request().retries())
}

fn main() {}
