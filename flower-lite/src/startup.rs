//! Puts a monitor together. The only place in this crate that starts tasks.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use celery_broker::{BrokerError, Celery};
use celery_protocol::event::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::{self, Users};
use crate::collector::{self, Input};
use crate::config::Config;
use crate::guard::{self, Hosts};
use crate::history::History;
use crate::live::Link;
use crate::monitor::{Monitor, MonitorOptions, Shared};
use crate::{routes, source};

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How many batches of events may wait for the collector.
const WAITING: usize = 64;

impl Monitor {
    /// A monitor of the workers that `celery`'s broker connects. It listens at once, or as soon as the broker is there.
    ///
    /// To be called within a Tokio runtime; the monitor runs until it is closed or its last clone is dropped.
    ///
    /// # Errors
    /// When this client can't listen to events: it is one without servers.
    pub fn start(celery: &Celery, options: MonitorOptions) -> Result<Monitor, BrokerError> {
        let receiver = source::listen(celery)?;
        let enable_events = options.enable_events;
        let (monitor, inputs, stop) = collecting(options, Some(celery.clone()));
        spawn(source::run(receiver, celery.clone(), inputs, stop.clone()));
        if enable_events {
            spawn(source::keep_events_on(celery.clone(), stop.clone()));
        }
        spawn(source::keep_asking(monitor.shared_arc(), celery.clone(), stop.clone()));
        spawn(source::keep_looking_at_queues(monitor.shared_arc(), celery.clone(), stop));
        Ok(monitor)
    }

    /// A monitor that is fed by hand instead of by a broker: for demonstrations, replays and tests.
    ///
    /// To be called within a Tokio runtime.
    #[must_use]
    pub fn fed_by_hand(options: MonitorOptions) -> (Monitor, Feed) {
        let (monitor, inputs, _) = collecting(options, None);
        monitor.shared().set_link(Link::Connected);
        (monitor, Feed { inputs })
    }
}

/// What the program `flower-lite` runs: a client as its settings say, and its monitor.
///
/// # Errors
/// Says which setting can't be used.
pub fn monitor(config: &Config) -> Result<(Monitor, Celery), String> {
    let celery =
        Celery::builder("flower-lite").settings(&config.values).start().map_err(|error| error.to_string())?;
    let mut options = config.monitor.clone();
    options.history = config.history.as_ref().map(History::open).transpose()?;
    let monitor = Monitor::start(&celery, options).map_err(|error| error.to_string())?;
    Ok((monitor, celery))
}

/// A monitor whose collector runs, and the way into it.
fn collecting(
    options: MonitorOptions,
    celery: Option<Celery>,
) -> (Monitor, mpsc::Sender<Input>, CancellationToken) {
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared::new(options, celery, stop.clone()));
    let (inputs, received) = mpsc::channel(WAITING);
    spawn(collector::run(shared.clone(), received, stop.clone()));
    (Monitor::new(shared, stop.clone().drop_guard()), inputs, stop)
}

/// Starts a task that ends by itself when the monitor's token is cancelled.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "I6: tasks are started here; each ends with the monitor")]
    tokio::spawn(task);
}

/// The hand that feeds a monitor.
#[derive(Clone, Debug)]
pub struct Feed {
    inputs: mpsc::Sender<Input>,
}

impl Feed {
    /// Hands events over, in their order; waits while the monitor is busy. Does nothing once the monitor has ended.
    pub async fn events(&self, events: Vec<Event>) {
        let _ = self.inputs.send(Input::Events { events, undecodable: 0 }).await;
    }

    /// Hands over the body of a message as it came off the wire.
    pub async fn body(&self, body: &[u8]) {
        let mut undecodable = 0;
        let events = match celery_protocol::event::decode(body) {
            Ok(events) => {
                events.into_iter().filter_map(|event| event.inspect_err(|_| undecodable += 1).ok()).collect()
            }
            Err(_) => {
                undecodable += 1;
                Vec::new()
            }
        };
        let _ = self.inputs.send(Input::Events { events, undecodable }).await;
    }

    /// Says that the connection to the broker was made or lost.
    pub async fn link(&self, link: Link) {
        let _ = self.inputs.send(Input::Link(link)).await;
    }
}

/// How a monitor is served by a program of its own.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes any that is free.
    pub address: SocketAddr,
    /// Under which path; empty for the root.
    pub prefix: String,
    /// Which hosts to answer for.
    pub hosts: Hosts,
    /// Who may come in.
    pub users: Users,
}

/// A monitor that is served.
pub struct Application {
    server: Server,
    address: SocketAddr,
}

impl Application {
    /// Listens; serves once it is run.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn build(monitor: Monitor, options: ServeOptions) -> io::Result<Application> {
        let ServeOptions { address, prefix, hosts, users } = options;
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(hosts.clone()))
                .app_data(Data::new(users.clone()))
                // The last one is asked first: whoever calls for another host is not even asked who they are.
                .wrap(from_fn(access::only_users))
                .wrap(from_fn(guard::only_own_hosts))
                .service(routes::scope(monitor.clone(), &prefix))
        })
        .listen(listener)?
        .client_request_timeout(HEAD_TIMEOUT)
        // Live streams never end by themselves; those who read them come back.
        .shutdown_timeout(1)
        .disable_signals()
        .run();
        Ok(Application { server, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let handle = self.server.handle();
        let mut server = std::pin::pin!(self.server);
        tokio::select! {
            result = &mut server => return result,
            () = shutdown => {}
        }
        let (_, result) = tokio::join!(handle.stop(true), server);
        result
    }
}
