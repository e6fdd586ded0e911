//! Private RabbitMQ and Redis for `make servers` and `make demo`: prints their addresses as shell
//! assignments and keeps them up until SIGINT, SIGTERM, or the end of its parent's interest.
//!
//! `servers [broker] [backend]` starts only what is named.

use celery_testkit::{Rabbit, Redis};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let start = async {
        let rabbit = if wants("broker") { Some(Rabbit::start_with("", "").await) } else { None };
        let redis = if wants("backend") { Some(Redis::start().await) } else { None };
        if let Some(rabbit) = &rabbit {
            println!("CELERY_BROKER_URL={}", rabbit.url());
            println!("RABBITMQCTL={}", rabbit.ctl_program().display());
        }
        if let Some(redis) = &redis {
            println!("CELERY_RESULT_BACKEND={}", redis.url(0));
        }
        println!("READY=yes");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = start => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(()) // dropping `start` has ended the servers
}
