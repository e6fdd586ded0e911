//! The connection supervisor: dials, watches, redials for ever.
//!
//! A [`Link`] is one supervised connection for one purpose. lapin's own recovery stays off: it gives up after a number of
//! attempts, does not cover channel errors, and aborts when one declaration fails. Users of a link watch its state, open
//! their channels on each new [`Session`], and report nothing back: a lost connection shows in the state.
//!
//! Publishing, consuming and everything else (events, remote control, look-ups) use separate links, because the broker
//! blocks a whole connection when memory is short, and lapin then writes nothing on it any more, not even acks.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::tcp::{AMQPUriTcpExt, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Event};
use tokio::sync::watch;

use super::backoff::{Backoff, Failure, dice};
use super::fault;
use crate::config::BrokerUrls;
use crate::config::url::{BrokerUrl, TlsOptions};
use crate::error::{BrokerError, BrokerErrorKind};
use crate::tasks::Tasks;

/// How long a polite goodbye may take before the socket is cut.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// lapin tells of a lost connection by an event; this is the net under it.
const STATUS_CHECK: Duration = Duration::from_secs(1);

/// What a link is for; also its name in metrics, logs and RabbitMQ's list of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Publish,
    Consume,
    Control,
}

impl Purpose {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Control => "control",
        }
    }
}

/// Where to connect and how.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) urls: BrokerUrls,
    /// Shown in RabbitMQ's list of connections.
    pub(crate) name: String,
    /// For TCP, TLS and AMQP handshake together.
    pub(crate) timeout: Duration,
    pub(crate) heartbeat: Duration,
}

/// A supervised connection; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    state: watch::Receiver<State>,
}

/// What a link is doing.
#[derive(Clone)]
pub(crate) enum State {
    /// No connection; the supervisor is trying.
    Down(Arc<Down>),
    /// Connected.
    Up(Session),
    /// The handle was closed.
    Closed,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Down {
    pub(crate) reason: String,
    pub(crate) kind: Option<BrokerErrorKind>,
    pub(crate) since: Instant,
}

/// One connection for as long as it lives.
#[derive(Clone)]
pub(crate) struct Session {
    /// Counts connections of this link, from 1.
    pub(crate) generation: u64,
    pub(crate) blocked: bool,
    /// The node of the list that it is with.
    pub(crate) node: Arc<BrokerUrl>,
    connection: Arc<Connection>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a channel under a deadline.
    pub(crate) async fn channel(&self, deadline: Duration) -> Result<lapin::Channel, BrokerError> {
        within(deadline, "channel.open", self.connection.create_channel()).await
    }
}

/// Awaits an answer of the broker under a deadline and translates errors.
pub(crate) async fn within<T>(
    deadline: Duration,
    what: &str,
    operation: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(deadline, operation).await {
        Ok(result) => result.map_err(|err| fault::on_channel(err, what)),
        Err(_) => Err(BrokerError::new(BrokerErrorKind::Timeout, what)),
    }
}

impl Link {
    /// Starts the supervisor. It connects at once and for ever, until `tasks` stop.
    pub(crate) fn start(purpose: Purpose, dial: Dial, tasks: &Tasks) -> Self {
        let down = Down { reason: "connecting".into(), kind: None, since: Instant::now() };
        let (sender, state) = watch::channel(State::Down(Arc::new(down)));
        let supervisor = Supervisor { purpose, dial, state: sender, generation: 0 };
        tasks.spawn_connection(purpose.name(), |stop| supervisor.run(stop));
        Self { state }
    }

    /// A link that never connects.
    pub(crate) fn closed() -> Self {
        Self { state: watch::channel(State::Closed).1 }
    }

    /// The state now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the state.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The session now, or why there is none.
    pub(crate) fn session(&self) -> Result<Session, BrokerError> {
        match &*self.state.borrow() {
            State::Up(session) => Ok(session.clone()),
            State::Down(down) => Err(BrokerError::new(BrokerErrorKind::NotConnected, down.reason.clone())),
            State::Closed => Err(BrokerError::new(BrokerErrorKind::Closed, "")),
        }
    }

    /// Waits for a connection.
    pub(crate) async fn connected(&self, deadline: Duration) -> Result<Session, BrokerError> {
        let mut state = self.state.clone();
        let up = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(session) => return Ok(session.clone()),
                    State::Closed => return Err(BrokerError::new(BrokerErrorKind::Closed, "")),
                    State::Down(_) => {}
                }
                if state.changed().await.is_err() {
                    return Err(BrokerError::new(BrokerErrorKind::Closed, ""));
                }
            }
        };
        match tokio::time::timeout(deadline, up).await {
            Ok(result) => result,
            Err(_) => self.session(),
        }
    }

    /// Waits for the first connection; a refused login ends the wait at once.
    pub(crate) async fn first_connection(&self, deadline: Duration) -> Result<(), BrokerError> {
        let mut state = self.state.clone();
        let wait = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(_) => return Ok(()),
                    State::Down(down) => {
                        if let Some(kind @ (BrokerErrorKind::Auth | BrokerErrorKind::Config)) = &down.kind {
                            return Err(BrokerError::new(kind.clone(), down.reason.clone()));
                        }
                    }
                    State::Closed => return Err(BrokerError::new(BrokerErrorKind::Closed, "")),
                }
                if state.changed().await.is_err() {
                    return Err(BrokerError::new(BrokerErrorKind::Closed, ""));
                }
            }
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(result) => result,
            Err(_) => match &*self.state.borrow() {
                State::Down(down) => Err(BrokerError::new(BrokerErrorKind::Connect, down.reason.clone())),
                _ => Ok(()),
            },
        }
    }
}

struct Supervisor {
    purpose: Purpose,
    dial: Dial,
    state: watch::Sender<State>,
    generation: u64,
}

impl Supervisor {
    async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut backoff = Backoff::default();
        let nodes = self.dial.urls.nodes().to_vec().into_iter().cycle();
        let count = self.dial.urls.nodes().len();
        let mut in_turn = 0;
        for node in nodes {
            let dialled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                dialled = dial(&node, &self.dial, self.purpose) => dialled,
            };
            match dialled {
                Ok((connection, socket)) => {
                    backoff.reset();
                    in_turn = 0;
                    if self.serve(node, connection, &socket, &stop).await {
                        break;
                    }
                    metrics::counter!("celery_broker_reconnects_total", "link" => self.purpose.name())
                        .increment(1);
                }
                Err((err, failure)) => {
                    in_turn += 1;
                    self.failed(&err, &backoff);
                    // The other nodes of the list get their chance before anyone waits.
                    if in_turn % count != 0 {
                        continue;
                    }
                    let delay = backoff.next(failure, dice());
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        self.state.send_replace(State::Closed);
    }

    fn failed(&self, err: &BrokerError, backoff: &Backoff) {
        let attempts = backoff.failures() + 1;
        // The first failures, then every tenth: an outage of an hour must not fill the log.
        if attempts <= 3 || attempts.is_multiple_of(10) {
            tracing::warn!(link = self.purpose.name(), attempts, "{err}");
        }
        self.state.send_modify(|state| {
            let since = match state {
                State::Down(down) => down.since,
                _ => Instant::now(),
            };
            *state = State::Down(Arc::new(Down {
                reason: err.context().to_owned(),
                kind: Some(err.kind().clone()),
                since,
            }));
        });
    }

    /// Follows one connection until it is lost (`false`) or the handle is closed (`true`).
    async fn serve(
        &mut self,
        node: BrokerUrl,
        connection: Connection,
        socket: &Socket,
        stop: &tokio_util::sync::CancellationToken,
    ) -> bool {
        let name = self.purpose.name();
        self.generation += 1;
        let mut events = pin!(connection.events_listener());
        let connection = Arc::new(connection);
        let session =
            Session { generation: self.generation, blocked: false, node: Arc::new(node), connection };
        let status = session.connection.status().clone();
        let gauge = metrics::gauge!("celery_broker_connected", "link" => name);
        let blocked = metrics::gauge!("celery_broker_blocked", "link" => name);
        tracing::info!(link = name, generation = self.generation, "connected to the broker");
        gauge.set(1.0);
        self.state.send_replace(State::Up(session.clone()));
        let mut reason = "the broker closed the connection".to_owned();
        let closing = loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break true,
                event = events.next() => event,
                () = tokio::time::sleep(STATUS_CHECK) => None,
            };
            match event {
                Some(Event::ConnectionBlocked(why)) => {
                    tracing::warn!(link = name, why, "the broker has blocked publishing");
                    blocked.set(1.0);
                    self.state.send_replace(State::Up(Session { blocked: true, ..session.clone() }));
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!(link = name, "the broker takes messages again");
                    blocked.set(0.0);
                    self.state.send_replace(State::Up(Session { blocked: false, ..session.clone() }));
                }
                // Also sent for channel errors, which are not the connection's.
                Some(Event::Error(err)) => reason = err.to_string(),
                _ => {}
            }
            if !status.connected() {
                break false;
            }
        };
        gauge.set(0.0);
        blocked.set(0.0);
        if closing {
            self.state.send_replace(State::Closed);
            let goodbye = session.connection.close(200, "OK".into());
            let _ = tokio::time::timeout(CLOSE_DEADLINE, goodbye).await;
        } else {
            tracing::warn!(link = name, reason, "lost the connection to the broker");
            self.state.send_replace(State::Down(Arc::new(Down {
                reason: format!("lost the connection: {reason}"),
                kind: None,
                since: Instant::now(),
            })));
        }
        socket.cut();
        closing
    }
}

async fn dial(
    node: &BrokerUrl,
    dial: &Dial,
    purpose: Purpose,
) -> Result<(Connection, Socket), (BrokerError, Failure)> {
    let tls = match &node.tls {
        Some(options) => tls_config(options).map_err(|err| (err, Failure::Refused))?,
        None => OwnedTLSConfig::default(),
    };
    let runtime = lapin::runtime::default_runtime().map_err(|err| fault::on_connect(err, "no runtime"))?;
    let properties = ConnectionProperties::default()
        .with_client_property("product".into(), "celeriac".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
        .with_connection_name(format!("{} {}", dial.name, purpose.name()).into());
    let socket = Socket::default();
    let (seen, deadline) = (socket.clone(), dial.timeout);
    let connect = Connection::connector(
        uri(node, dial.heartbeat),
        runtime,
        async move |uri: AMQPUri, runtime| {
            let reached = tokio::time::timeout(
                deadline,
                AMQPUriTcpExt::connect_with_config_async(&uri, tls.as_ref(), &runtime),
            );
            let stream = reached.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?;
            match &stream {
                AsyncTcpStream::Plain(tcp) => seen.remember(tcp.get_ref().as_fd()),
                AsyncTcpStream::Rustls(tls) => seen.remember(tls.get_ref().0.get_ref().as_fd()),
                _ => {}
            }
            Ok(stream)
        },
        properties,
    );
    match tokio::time::timeout(dial.timeout, connect).await {
        Ok(Ok(connection)) => Ok((connection, socket)),
        Ok(Err(err)) => {
            socket.cut();
            Err(fault::on_connect(err, &node.to_string()))
        }
        Err(_) => {
            // A frozen broker accepts and then says nothing; without this, lapin's thread would wait with it.
            socket.cut();
            let text = format!("{node}: no answer within {:?}", dial.timeout);
            Err((BrokerError::new(BrokerErrorKind::Connect, text), Failure::Unreachable))
        }
    }
}

/// A second handle of a connection's socket, to end it when lapin does not.
#[derive(Debug, Clone, Default)]
struct Socket(Arc<Mutex<Option<std::net::TcpStream>>>);

impl Socket {
    fn remember(&self, fd: BorrowedFd<'_>) {
        let Ok(fd) = fd.try_clone_to_owned() else { return };
        let stream = std::net::TcpStream::from(fd);
        // Acks are small and nothing answers them: they must not wait for the peer's delayed TCP ack.
        let _ = stream.set_nodelay(true);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    fn cut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The largest frame, as Celery's client asks for it. Told before the connection is made, because lapin then allocates
/// its buffers (32 frames each way) once and untouched; buffers that grow when the broker names the figure are written
/// over, and 24 MB of an idle worker would be resident.
const FRAME_MAX: u32 = 131_072;

fn uri(node: &BrokerUrl, heartbeat: Duration) -> AMQPUri {
    let heartbeat = node.heartbeat.unwrap_or_else(|| u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
    AMQPUri {
        scheme: if node.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: node.user.clone(),
                password: node.password.reveal().to_owned(),
            },
            host: node.host.clone(),
            port: node.port,
        },
        vhost: node.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(heartbeat),
            frame_max: Some(FRAME_MAX),
            ..AMQPQueryString::default()
        },
    }
}

fn tls_config(options: &TlsOptions) -> Result<OwnedTLSConfig, BrokerError> {
    let read = |path: &str| {
        std::fs::read(path)
            .map_err(|err| BrokerError::config(format!("broker_url: cannot read {path}")).caused_by(err))
    };
    let cert_chain = match &options.ca_certs {
        Some(path) => Some(String::from_utf8(read(path)?).map_err(|err| {
            BrokerError::config(format!("broker_url: {path} is not a PEM file")).caused_by(err)
        })?),
        None => None,
    };
    let identity = match (&options.certfile, &options.keyfile) {
        (Some(pem), Some(key)) => Some(OwnedIdentity::PKCS8 { pem: read(pem)?, key: read(key)? }),
        (None, None) => None,
        _ => {
            return Err(BrokerError::config("broker_url: ssl_certfile and ssl_keyfile belong together"));
        }
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}
