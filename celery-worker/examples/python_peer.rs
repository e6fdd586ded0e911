//! Tasks that run in Python, called from Rust as if they were here; and one workflow through both languages.
//!
//! Needs a Celery worker in Python with the tasks below, on the queue `python`:
//!
//! ```python
//! @shared_task(name="demo.mul")
//! def mul(x, y): return x * y
//!
//! @shared_task(name="demo.fail")
//! def fail(message): raise RuntimeError(message)
//! ```

mod support;

use anyhow::{Result, bail};
use celery_broker::GetError;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

celery_protocol::remote_task! {
    /// Multiplies, in Python.
    pub fn mul("demo.mul")(x: i64, y: i64) -> i64;
}
celery_protocol::remote_task! {
    /// Raises `RuntimeError`, in Python.
    pub fn fail("demo.fail")(message: String) -> ();
}

/// Runs here.
#[task(name = "rust.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("python_peer").await?;
    // Python's queue is `python`, that of this worker is `rust`.
    let worker = Worker::builder(celery.clone(), ()).task::<add>().queues(["rust"]).build()?;
    serve(&celery, worker, async {
        let product = celery.send(mul::s(6, 7).queue("python")).await?.get(PATIENCE).await?;
        println!("Python says 6 * 7 = {product}");

        let through_both = chain(add::s(1, 2).queue("rust"))
            .then(Sig::<i64>::new("demo.mul").arg(10).queue("python"))
            .then(add::partial(5).queue("rust"));
        println!("(1 + 2) * 10 + 5 = {}", celery.send(through_both).await?.get(PATIENCE).await?);

        match celery.send(fail::s("not today".to_owned()).queue("python")).await?.get(PATIENCE).await {
            Err(GetError::Failed(failure)) => println!("Python raised {}", failure.exception.repr()),
            other => bail!("expected a failure, got {other:?}"),
        }
        Ok(())
    })
    .await
}
