use celery_worker::prelude::*;

#[task(name = "tasks.a")]
async unsafe fn a() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.b")]
extern "C" fn b() -> TaskResult<()> {
    Ok(())
}

fn main() {}
