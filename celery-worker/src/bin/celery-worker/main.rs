//! `celery-worker`: the demo worker. Command line in, exit code out.

mod banner;
mod cli;
mod commands;
mod config;
mod demo;
mod logging;
mod pidfile;

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use celery_broker::Celery;
use celery_broker::config::Layered;
use celery_worker::beat::entry::Entry;
use celery_worker::beat::{self, Beat, BeatError};
use celery_worker::config::is_pool_child;
use celery_worker::health::{self, HealthFile, Question};
use celery_worker::{Settings, Stopped, Worker, WorkerHandle, nodename};
use tokio_util::sync::CancellationToken;

/// How long the connections may take to close at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(code) = commands::run(&args) {
        return code;
    }
    let matches = cli::command(&config::TABLES).get_matches_from(cli::without_subcommand(args));
    let run = || -> Result<Stopped> {
        let notes = cli::notes(&matches).map_err(anyhow::Error::msg)?;
        let (config, entries) = config::load(&matches)?;
        if let Some(question) = matches.get_one::<String>("healthcheck") {
            return answer(config.text("worker_health_file"), question);
        }
        let mut settings = Settings::from_config(&config).map_err(anyhow::Error::msg)?;
        settings.mingle &= !matches.get_flag("without-mingle");
        let node = nodename::nodename(settings.nodename.as_deref(), &nodename::hostname());
        let path = |name: &str| config.text(name).map(|pattern| nodename::path(pattern, &node));
        settings.statedb = path("worker_state_db");
        logging::start(&config, path("worker_logfile").as_deref())?;
        // A child process of this program's pool comes by here too.
        let child = is_pool_child();
        for note in notes.iter().filter(|_| !child) {
            tracing::warn!("{note}");
        }
        let pidfile = path("worker_pidfile").filter(|_| !child);
        let _pidfile = pidfile.map(|path| pidfile::write(&path)).transpose()?;
        // One thread for all IO: two are no faster and cost more; tasks have their own (docs/architecture.md).
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("celery-io")
            .enable_all()
            .build()
            .context("no threads")?;
        let entries = Some(entries).filter(|_| matches.get_flag("beat") && !child);
        let quiet = child || matches.get_flag("quiet");
        let stopped = runtime.block_on(serve(&config, settings, entries, quiet));
        // Whatever still hangs must not keep the process.
        runtime.shutdown_background();
        stopped
    };
    match run() {
        Ok(Stopped::Clean) => ExitCode::SUCCESS,
        Ok(Stopped::CutOff) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("celery-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the health file of another process.
fn answer(path: Option<&str>, question: &str) -> Result<Stopped> {
    let Some(path) = path else {
        bail!("--healthcheck: no health file is named; set --health-file or CELERY_WORKER_HEALTH_FILE");
    };
    let question = if question == "ready" { Question::Ready } else { Question::Live };
    health::check(Path::new(path), question).map_err(anyhow::Error::msg)?;
    Ok(Stopped::Clean)
}

/// Keeps the health file, if there is one.
async fn keep_healthy(file: Option<HealthFile>, celery: &Celery, handle: &WorkerHandle) -> Infallible {
    match file {
        Some(file) => file.keep(celery, handle).await,
        None => std::future::pending().await,
    }
}

/// Sends periodic tasks, if the worker is its own beat.
async fn keep_beating(beat: Option<Beat>, stop: CancellationToken) -> Result<(), BeatError> {
    match beat {
        Some(beat) => beat.run(stop).await,
        None => Ok(()),
    }
}

async fn serve(
    config: &Layered,
    settings: Settings,
    entries: Option<Vec<Entry>>,
    quiet: bool,
) -> Result<Stopped> {
    let health_file = config
        .text("worker_health_file")
        .filter(|_| !is_pool_child())
        .map(|path| HealthFile::create(path).with_context(|| format!("--health-file: cannot write {path}")));
    let health_file = health_file.transpose()?;
    let builder = Celery::builder("celery-worker").settings(config);
    let builder = if entries.is_some() { beat::client(builder, config) } else { builder };
    let celery = builder.start()?;
    let beat =
        entries.map(|entries| Beat::from_config(celery.clone(), config).map(|beat| beat.entries(entries)));
    let beat = beat.transpose()?;
    let worker =
        demo::register(Worker::builder(celery.clone(), ())).configure(|own| *own = settings).build()?;
    if !quiet {
        eprintln!("{}", banner::banner(&worker, config));
    }
    let handle = worker.handle();
    let stop = CancellationToken::new();
    let working = async {
        let stopped = tokio::select! {
            stopped = worker.run_until_signalled() => stopped,
            never = keep_healthy(health_file, &celery, &handle) => match never {},
        };
        stop.cancel();
        stopped
    };
    let beating = async {
        let ended = keep_beating(beat, stop.clone()).await;
        if ended.is_err() {
            handle.stop();
        }
        ended
    };
    let (stopped, beaten) = tokio::join!(working, beating);
    beaten.context("beat")?;
    let _ = tokio::time::timeout(CLOSE_DEADLINE, celery.close()).await;
    Ok(stopped?)
}
