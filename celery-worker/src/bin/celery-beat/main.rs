//! `celery-beat`: sends periodic tasks. Command line in, exit code out.

mod config;

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use celery_broker::Celery;
use celery_worker::health::{self, HealthFile};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long the connection may take to close at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let matches = config::command().get_matches();
    let run = || -> Result<()> {
        if let Some((question, settings)) = config::question(&matches)? {
            let Some(path) = settings.text("beat_health_file") else {
                bail!("--healthcheck: no health file is named; set --health-file or CELERY_BEAT_HEALTH_FILE");
            };
            return health::check(Path::new(path), question).map_err(anyhow::Error::msg);
        }
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

/// Keeps the health file, if there is one.
async fn keep_healthy(file: Option<HealthFile>, celery: &Celery) -> Infallible {
    match file {
        Some(file) => file.keep_sending(celery).await,
        None => std::future::pending().await,
    }
}

async fn serve(config: config::Config) -> Result<()> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let health_file = config
        .settings
        .text("beat_health_file")
        .map(|path| HealthFile::create(path).with_context(|| format!("--health-file: cannot write {path}")));
    let health_file = health_file.transpose()?;
    let (celery, beat) = config.beat()?;
    tracing::info!("beat: Starting...");
    let mut running = std::pin::pin!(beat.run(stop.clone()));
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        _ = term.recv() => {}
        _ = int.recv() => {}
        never = keep_healthy(health_file, &celery) => match never {},
    }
    tracing::info!("beat: Shutting down...");
    stop.cancel();
    if tokio::time::timeout(CLOSE_DEADLINE, running).await.is_err() {
        tracing::warn!("the broker did not answer in time");
    }
    let _ = tokio::time::timeout(CLOSE_DEADLINE, celery.close()).await;
    Ok(())
}
