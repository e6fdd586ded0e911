//! The tasks of Celery's own integration suite (`t/integration/tasks.py`), for its tests to run against this worker:
//! `make conformance`. It takes no arguments; the environment is the one that the harness describes
//! (`broker/testkit/conformance/README.md`).
//!
//! By topic: [`values`] compute, [`failing`] fail, [`requests`] look at their call and retry, [`canvas`] send or become
//! other tasks, [`smoke`] are those of `t/smoke/tasks.py`.

#[path = "integration_tasks/canvas.rs"]
mod canvas;
#[path = "integration_tasks/config.rs"]
mod config;
#[path = "integration_tasks/failing.rs"]
mod failing;
#[path = "integration_tasks/keys.rs"]
mod keys;
#[path = "integration_tasks/requests.rs"]
mod requests;
#[path = "integration_tasks/smoke.rs"]
mod smoke;
#[path = "integration_tasks/values.rs"]
mod values;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use anyhow::Result;
use celery_worker::{Worker, WorkerBuilder};

/// What the tasks share.
struct App {
    redis: keys::Redis,
    attempts: Attempts,
}
celery_worker::from_ref!(App { redis: keys::Redis, attempts: Attempts });

/// Runs of one task, counted over all its calls: in Python an attribute of the task object.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicU32>);

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    let config = config::Config::from_env()?;
    let celery = config.celery().start()?;
    let app = App { redis: keys::Redis::parse(&config.redis)?, attempts: Attempts::default() };

    let mut worker = Worker::builder(celery.clone(), app);
    for register in [values::register, failing::register, requests::register, canvas::register] {
        worker = register(worker);
    }
    if config.smoke {
        worker = smoke::register(worker);
    }
    let worker = config.apply(worker).build()?;

    worker.run_until_signalled().await?;
    celery.close().await;
    Ok(())
}

type Builder = WorkerBuilder<App>;
