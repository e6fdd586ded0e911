use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(#[ctx] #[state] both: Context, #[ctx] one: Context, #[ctx] two: Context) -> TaskResult<()> {
    drop((both, one, two));
    Ok(())
}

fn main() {}
