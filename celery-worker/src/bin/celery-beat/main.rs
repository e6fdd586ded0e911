//! `celery-beat`: sends periodic tasks. Command line in, exit code out.

mod config;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use celery_broker::Celery;
use celery_worker::beat::plan::Plan;
use celery_worker::beat::service;
use celery_worker::beat::store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the connection may take to close at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let matches = config::command().get_matches();
    let run = || -> Result<()> {
        let config = config::load(&matches)?;
        config::start_log(&config.settings)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        runtime.block_on(serve(config))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("celery-beat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: config::Config) -> Result<()> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let store = Store::new(config.schedule_file);
    let remembered = store.load()?;
    let plan = Plan::new(config.entries, &remembered, SystemTime::now());
    for (entry, next) in plan.upcoming() {
        let seconds =
            next.and_then(|next| next.duration_since(SystemTime::now()).ok()).unwrap_or_default().as_secs();
        tracing::info!("{}: {} next in {seconds} s", entry.name, entry.signature.task);
    }
    let celery = Celery::builder("celery-beat").settings(&config.settings).start()?;
    tracing::info!("beat: Starting...");
    let mut running = std::pin::pin!(service::run(celery.clone(), plan, store, stop.clone()));
    tokio::select! {
        () = &mut running => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("beat: Shutting down...");
    stop.cancel();
    if tokio::time::timeout(CLOSE_DEADLINE, running).await.is_err() {
        tracing::warn!("the broker did not answer in time");
    }
    let _ = tokio::time::timeout(CLOSE_DEADLINE, celery.close()).await;
    Ok(())
}
