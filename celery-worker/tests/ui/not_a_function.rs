use celery_worker::prelude::*;

#[task(name = "tasks.a")]
struct A;

fn main() {}
