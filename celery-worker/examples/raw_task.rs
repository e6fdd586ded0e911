//! Tasks whose names are only known at run time, and whose arguments have no fixed form.

mod support;

use anyhow::Result;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("raw_task").await?;
    let mut worker = Worker::builder(celery.clone(), ());
    // As read from a configuration file, or from plug-ins.
    for (name, factor) in [("raw.double", 2), ("raw.triple", 3)] {
        worker = worker.raw_task(name, TaskOptions::DEFAULT, move |_ctx, call| async move {
            let (number,): (i64,) = call.bind()?;
            Ok(number * factor)
        });
    }
    // Whatever comes, it is said what it was.
    worker = worker.raw_task("raw.echo", TaskOptions::DEFAULT, |ctx, call| async move {
        Ok(json!({ "args": call.args, "kwargs": call.kwargs, "retries": ctx.request().retries() }))
    });
    serve(&celery, worker.build()?, async {
        for name in ["raw.double", "raw.triple"] {
            let call = Sig::<i64>::new(name).arg(7);
            println!("{name}(7) = {}", celery.send(call).await?.get(PATIENCE).await?);
        }
        let call = Sig::<Value>::new("raw.echo").arg("x").kwarg("deep", [[1]]);
        println!("{}", celery.send(call).await?.get(PATIENCE).await?);
        Ok(())
    })
    .await
}
