use celery_worker::prelude::*;

struct Page;

#[task(name = "tasks.page")]
async fn page() -> TaskResult<Page> {
    Ok(Page)
}

fn main() {}
