//! The program `producer-api`: configuration, log, server, signals.

use std::process::ExitCode;

use producer_api::config::Invocation;
use producer_api::startup::Application;
use producer_api::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[actix_web::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("producer-api: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let config = match Invocation::read()? {
        Invocation::Serve(config) => config,
        Invocation::Print(text) => {
            print!("{text}");
            return Ok(());
        }
    };
    telemetry::init_log(&config)?;
    let application = Application::build(&config).map_err(|err| err.to_string())?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(|err| err.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|err| err.to_string())?;
    let serving = application.run_until(stop.clone());
    tokio::pin!(serving);
    loop {
        let asked_before = stop.is_cancelled();
        tokio::select! {
            ended = &mut serving => return ended.map_err(|err| err.to_string()),
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
        }
        if asked_before {
            return Err("asked twice to stop: leaving at once".to_owned());
        }
    }
}
