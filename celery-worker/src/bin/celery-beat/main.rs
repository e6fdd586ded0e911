//! `celery-beat`: sends periodic tasks. Command line in, exit code out.

mod config;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
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
    let (celery, beat) = config.beat()?;
    tracing::info!("beat: Starting...");
    let mut running = std::pin::pin!(beat.run(stop.clone()));
    tokio::select! {
        ended = &mut running => return Ok(ended?),
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
