//! Putting the server together, and taking it down without losing what is in flight.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use celery_broker::{BrokerError, Celery};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::dashboard::Dashboard;
use crate::extract::parameter_problem;
use crate::middleware;
use crate::routes::{self, Groups};
use crate::state::Api;
use crate::telemetry;

/// For the head of a request to arrive (actix closes with 408).
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// For submissions whose clients have gone, at the end.
const LEFT_BEHIND: Duration = Duration::from_secs(5);

/// A server that is listening.
pub struct Application {
    server: Server,
    address: SocketAddr,
    api: web::Data<Api>,
    dashboard: Dashboard,
    drain_delay: Duration,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A broker or backend setting cannot be used.
    #[error(transparent)]
    Broker(Box<BrokerError>),
    /// The address cannot be listened on.
    #[error(
        "api_bind, api_port: cannot listen on {address}: {source}; choose another port with PRODUCER_API_PORT or --port"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl Application {
    /// Listens. The broker need not be there yet: it is connected to in the background, and until then submissions are
    /// answered with 503.
    ///
    /// # Errors
    /// The address is taken, or a setting makes no sense.
    pub fn build(config: &Config) -> Result<Self, StartError> {
        let metrics = telemetry::recorder();
        let builder = Celery::builder("producer-api").settings(&config.client);
        let celery = builder.start().map_err(|err| StartError::Broker(Box::new(err)))?;
        let dashboard =
            Dashboard::start(&celery, config.dashboard).map_err(|err| StartError::Broker(Box::new(err)))?;
        let api = web::Data::new(Api::new(celery, config, origin(), metrics));
        let groups = Groups { walkthrough: config.walkthrough };
        let (shared, mounted) = (api.clone(), dashboard.clone());
        let read_timeout = config.read_timeout;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = config.http_workers.unwrap_or_else(cores);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(web::QueryConfig::default().error_handler(|err, _| parameter_problem(err)))
                .app_data(web::PathConfig::default().error_handler(|err, _| parameter_problem(err)))
                .wrap(from_fn(middleware::observe))
                .configure(|services| mounted.mount(services))
                .configure(|services| routes::configure(services, groups))
        })
        .on_connect(move |connection, _| {
            if let Some(socket) = connection.downcast_ref::<TcpStream>() {
                give_up_on_slow_readers(socket, read_timeout);
            }
        })
        .max_connections(per_thread(config.max_connections, open_files(), threads))
        .keep_alive(config.keep_alive)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(config.shutdown_timeout.as_secs())
        .disable_signals()
        .workers(threads);
        let listen = |source| StartError::Listen { address: config.listen, source };
        let server = server.bind(config.listen).map_err(listen)?;
        let address = server.addrs().first().copied().unwrap_or(config.listen);
        tracing::info!("listening on http://{address}");
        if !config.listen.ip().is_loopback() && config.tokens.is_empty() {
            tracing::warn!("no token is asked for: everybody who reaches {address} may run any task");
        }
        Ok(Application { server: server.run(), address, api, dashboard, drain_delay: config.drain_delay })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then ends: `/readyz` says 503, open waits are answered, requests in progress
    /// (and with them their confirms) end, the connections are closed.
    ///
    /// # Errors
    /// The server died by itself.
    pub async fn run_until(self, stop: CancellationToken) -> io::Result<()> {
        let Application { server, api, dashboard, drain_delay, .. } = self;
        let serving = async {
            let served = serve(server, &api, &dashboard, drain_delay, &stop).await;
            stop.cancel();
            served
        };
        let hub = api.hub.run(api.celery.clone(), stop.clone());
        let (served, ()) = futures_util::future::join(serving, hub).await;
        // Of clients that have gone meanwhile.
        api.under_way.close();
        if tokio::time::timeout(LEFT_BEHIND, api.under_way.wait()).await.is_err() {
            tracing::warn!(left = api.under_way.len(), "submissions without a client have not ended");
        }
        api.celery.close().await;
        tracing::info!("stopped");
        served
    }
}

/// Serves until `stop`, and then until what is in progress has ended.
async fn serve(
    mut server: Server,
    api: &Api,
    dashboard: &Dashboard,
    drain_delay: Duration,
    stop: &CancellationToken,
) -> io::Result<()> {
    let handle = server.handle();
    let died = tokio::select! {
        served = &mut server => Some(served),
        () = stop.cancelled() => None,
    };
    if let Some(served) = died {
        return served;
    }
    tracing::info!("stopping");
    api.drain.cancel();
    let stopping = async {
        tokio::time::sleep(drain_delay).await;
        dashboard.close();
        handle.stop(true).await;
    };
    futures_util::future::join(server, stopping).await.0
}

/// Files that the process needs for itself: listening, logging, the broker, the result backend.
const OWN_FILES: usize = 100;

/// How many connections each thread may have open: with one file too few the server could not even log that.
fn per_thread(wanted: usize, open_files: Option<usize>, threads: usize) -> usize {
    let possible = open_files.map_or(usize::MAX, |files| files.saturating_sub(OWN_FILES));
    if possible < wanted {
        tracing::warn!(
            "max_connections: {wanted} connections, but only {possible} open files are left for them; raise ulimit -n"
        );
    }
    (wanted.min(possible) / threads).max(1)
}

/// How many files the process may have open.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// actix writes for as long as a client takes to read: the kernel ends a connection on which nothing could be delivered
/// for a while, be the client gone or just not reading.
fn give_up_on_slow_readers(socket: &TcpStream, after: Duration) {
    if let Err(err) = socket2::SockRef::from(socket).set_tcp_user_timeout(Some(after)) {
        tracing::debug!("a connection has no deadline for its reader: {err}");
    }
}

/// This server's name in messages.
fn origin() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("api{}@{}", std::process::id(), if host.is_empty() { "localhost" } else { host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_files() {
        for (wanted, files, threads, expected) in [
            (25_000, Some(1_048_576), 2, 12_500),
            (25_000, Some(1024), 2, 462),
            (25_000, Some(50), 4, 1),
            (25_000, None, 1, 25_000),
            (3, None, 2, 1),
        ] {
            assert_eq!(per_thread(wanted, files, threads), expected, "{wanted} {files:?} {threads}");
        }
        assert!(open_files().is_some_and(|files| files > 0), "this is Linux");
    }
}
