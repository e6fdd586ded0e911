//! One shared connection to Redis: many callers, pipelined, redialled when it breaks.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};
use tokio::time::{Instant, timeout_at};

use super::fault;
use crate::amqp::backoff::{Backoff, Failure, dice};
use crate::config::url::{RedisAddress, RedisUrl, TlsOptions};
use crate::error::{BackendError, BackendErrorKind, BrokerError};
use crate::tasks::Tasks;

/// For TCP, TLS and login of one attempt.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// For a command, connecting included.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// Commands that wait at the connection.
const QUEUED: usize = 1024;

/// Hands out the connection.
#[derive(Clone)]
pub(super) struct Connector {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    /// Without password, for errors.
    address: String,
    deadline: Duration,
    tasks: Tasks,
    current: Mutex<Current>,
    /// Held while dialling, so that one caller dials for all.
    dialling: tokio::sync::Mutex<Backoff>,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure does not discard the next one.
    generation: u64,
}

impl Connector {
    pub(super) fn new(url: &RedisUrl, tasks: &Tasks) -> Result<Self, BrokerError> {
        let shared = Shared {
            client: client(url)?,
            address: url.to_string(),
            deadline: url.timeout.unwrap_or(COMMAND_DEADLINE),
            tasks: tasks.clone(),
            current: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Without password, for errors and logs.
    pub(super) fn address(&self) -> &str {
        &self.shared.address
    }

    /// Where to subscribe; a connection of its own.
    pub(super) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Runs commands on the shared connection, dialling if there is none, all under the deadline of one command.
    pub(super) async fn run<T, F>(
        &self,
        what: &str,
        mut commands: impl FnMut(MultiplexedConnection) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let deadline = Instant::now() + self.shared.deadline;
        let (connection, generation) = self.connection(what, deadline).await?;
        match timeout_at(deadline, commands(connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(err)) => {
                if fault::breaks_connection(&err) {
                    self.discard(generation);
                }
                Err(fault::of(err, what))
            }
            Err(_) => {
                // It may be a black hole: the next caller dials.
                self.discard(generation);
                Err(BackendError::new(BackendErrorKind::Timeout, what))
            }
        }
    }

    async fn connection(
        &self,
        what: &str,
        deadline: Instant,
    ) -> Result<(MultiplexedConnection, u64), BackendError> {
        if let Some(found) = self.current() {
            return Ok(found);
        }
        let dial = async {
            let mut backoff = self.shared.dialling.lock().await;
            loop {
                if let Some(found) = self.current() {
                    return Ok(found);
                }
                match self.dial().await {
                    Ok(connection) => {
                        backoff.reset();
                        return Ok(self.keep(connection));
                    }
                    Err(err) => {
                        let failure = fault::of(err, &self.shared.address);
                        if backoff.failures() < 3 || backoff.failures().is_multiple_of(10) {
                            tracing::warn!(failures = backoff.failures() + 1, "{failure}");
                        }
                        let delay = backoff.next(Failure::Unreachable, dice());
                        // Waiting longer than the caller does would only make the others wait, too.
                        if !failure.is_transient() || Instant::now() + delay >= deadline {
                            return Err(failure);
                        }
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        };
        match timeout_at(deadline, dial).await {
            Ok(result) => result,
            Err(_) => {
                let context = format!("{what}: no connection to {}", self.shared.address);
                Err(BackendError::new(BackendErrorKind::Connect, context))
            }
        }
    }

    /// The client runs a task per connection; it must live on our runtime, whoever calls.
    async fn dial(&self) -> Result<MultiplexedConnection, RedisError> {
        let client = self.shared.client.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUED);
        let dialled = self
            .shared
            .tasks
            .run(async move { client.get_multiplexed_async_connection_with_config(&config).await })
            .await;
        dialled.unwrap_or_else(|| {
            Err(RedisError::from(std::io::Error::new(std::io::ErrorKind::NotConnected, "closed")))
        })
    }

    fn current(&self) -> Option<(MultiplexedConnection, u64)> {
        let current = self.lock();
        current.connection.clone().map(|connection| (connection, current.generation))
    }

    fn keep(&self, connection: MultiplexedConnection) -> (MultiplexedConnection, u64) {
        let mut current = self.lock();
        current.generation += 1;
        current.connection = Some(connection.clone());
        tracing::info!(address = self.shared.address, "connected to the result backend");
        metrics::counter!("celery_backend_connections_total").increment(1);
        (connection, current.generation)
    }

    fn discard(&self, generation: u64) {
        let mut current = self.lock();
        if current.generation == generation {
            current.connection = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(url: &RedisUrl) -> Result<Client, BrokerError> {
    let wrong = |err: RedisError| BrokerError::config(format!("result_backend {url}")).caused_by(err);
    let address = match (&url.address, &url.tls) {
        (RedisAddress::Unix(path), _) => ConnectionAddr::Unix(path.into()),
        (RedisAddress::Tcp(host, port), None) => ConnectionAddr::Tcp(host.clone(), *port),
        (RedisAddress::Tcp(host, port), Some(tls)) => ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: tls.insecure,
            tls_params: None,
        },
    };
    let mut settings =
        RedisConnectionInfo::default().set_db(url.db).set_lib_name("celeriac", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &url.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &url.password {
        settings = settings.set_password(password.reveal());
    }
    let info = address.into_connection_info().map_err(wrong)?.set_redis_settings(settings);
    match &url.tls {
        Some(tls) if tls.insecure => {
            tracing::warn!("result_backend: ssl_cert_reqs=none, the server's certificate is not checked");
            Client::open(info).map_err(wrong)
        }
        Some(tls) => Client::build_with_tls(info, certificates(tls)?).map_err(wrong),
        None => Client::open(info).map_err(wrong),
    }
}

fn certificates(tls: &TlsOptions) -> Result<TlsCertificates, BrokerError> {
    let read = |path: &String| {
        std::fs::read(path)
            .map_err(|err| BrokerError::config(format!("result_backend: cannot read {path}")).caused_by(err))
    };
    let client_tls = match (&tls.certfile, &tls.keyfile) {
        (Some(certificate), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        }
        (None, None) => None,
        _ => return Err(BrokerError::config("result_backend: ssl_certfile and ssl_keyfile belong together")),
    };
    let root_cert = tls.ca_certs.as_ref().map(read).transpose()?;
    Ok(TlsCertificates { client_tls, root_cert })
}
