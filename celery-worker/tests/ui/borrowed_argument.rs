use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async fn a(text: &str, many: &[i64]) -> TaskResult<usize> {
    Ok(text.len() + many.len())
}

fn main() {}
