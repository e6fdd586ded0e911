//! The program: reads its settings, starts the monitor, serves it until it is told to stop.

use std::process::ExitCode;

use flower_lite::access::secret;
use flower_lite::config::{self, Asked, Config};
use flower_lite::startup::{Application, Running};
use flower_lite::telemetry;
use tokio::signal::unix::{SignalKind, signal};

#[actix_web::main]
async fn main() -> ExitCode {
    let result = match config::read() {
        Ok(Asked::Run(config)) => run(*config).await,
        Ok(Asked::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Ok(Asked::HashPassword) => {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line).map_err(|error| error.to_string());
            read.and_then(|_| config::hash_line(&line)).map(|hash| println!("{hash}"))
        }
        Ok(Asked::NewToken) => secret::new_token().map(|token| {
            let digest = secret::hex(&secret::digest(&token));
            println!("{token}");
            eprintln!("This is shown once. Its digest, for FLOWER_TOKENS as name:role:digest:");
            eprintln!("{digest}");
        }),
        Err(message) => Err(message),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("flower-lite: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), String> {
    telemetry::start(&config)?;
    let running = Running::start(&config)?;
    let address = config.serve.address;
    let application = Application::build_all(running.monitors.clone(), config.serve).map_err(|error| {
        format!("address and port (FLOWER_ADDRESS, FLOWER_PORT): can't listen on {address}: {error}")
    })?;
    tracing::info!("listening on http://{}", application.address());

    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    let served = application.run_until(told_to_stop).await.map_err(|error| error.to_string());
    running.finish().await;
    served
}
