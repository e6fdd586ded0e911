//! Puts a monitor together. The only place in this crate that starts tasks.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
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

use crate::access::gate::{self, Places};
use crate::access::{Access, login};
use crate::actions::{self, bulk};
use crate::alerts;
use crate::audit::Audit;
use crate::collector::{self, Input};
use crate::config::Config;
use crate::guard::{self, Hosts};
use crate::history::{History, HistoryOptions};
use crate::live::Link;
use crate::monitor::{Monitor, MonitorOptions, Shared};
use crate::recording::{Recorder, Replay};
use crate::state::time::UnixTime;
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
        let webhook = options.alerts.webhook.clone();
        let (monitor, inputs, stop) = collecting(options, Some(celery.clone()));
        spawn(source::run(receiver, celery.clone(), inputs, stop.clone()));
        if enable_events {
            spawn(source::keep_events_on(celery.clone(), stop.clone()));
        }
        spawn(source::keep_asking(monitor.shared_arc(), celery.clone(), stop.clone()));
        spawn(source::keep_completing(monitor.shared_arc(), celery.clone(), stop.clone()));
        spawn(source::keep_looking_at_queues(monitor.shared_arc(), celery.clone(), stop.clone()));
        spawn(actions::queues::keep_holding(monitor.shared_arc(), celery.clone(), stop.clone()));
        if let Some(webhook) = webhook {
            spawn(alerts::keep_telling(webhook, stop.clone()));
        }
        spawn(alerts::keep_judging(monitor.shared_arc(), celery.clone(), stop));
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

/// What the program `flower-lite` runs: for each broker a client as its settings say, and its monitor.
#[derive(Debug)]
pub struct Running {
    /// Each monitor, and where under the prefix of all it is served.
    pub monitors: Vec<(String, Monitor)>,
    clients: Vec<Celery>,
}

impl Running {
    /// Starts what the settings ask for; a replay has no client.
    ///
    /// To be called within a Tokio runtime.
    ///
    /// # Errors
    /// Says which setting can't be used.
    pub fn start(config: &Config) -> Result<Running, String> {
        let mut running = Running { monitors: Vec::new(), clients: Vec::new() };
        if let Some(path) = &config.replay {
            let replay = Replay::open(path, config.replay_speed)?;
            let (monitor, feed) = Monitor::fed_by_hand(options(config, "")?);
            spawn(replay.play(feed, monitor.ended()));
            running.monitors.push((String::new(), monitor));
            return Ok(running);
        }
        running.add(config, "", None)?;
        for (name, url) in &config.brokers {
            running.add(config, name, Some(url))?;
        }
        Ok(running)
    }

    fn add(&mut self, config: &Config, name: &str, url: Option<&str>) -> Result<(), String> {
        let mut client = Celery::builder("flower-lite").settings(&config.values);
        if let Some(url) = url {
            client = client.broker(url);
        }
        let celery = client.start().map_err(|error| error.to_string())?;
        let monitor = Monitor::start(&celery, options(config, name)?).map_err(|error| error.to_string())?;
        let path = if name.is_empty() { String::new() } else { format!("/brokers/{name}") };
        self.monitors.push((path, monitor));
        self.clients.push(celery);
        Ok(())
    }

    /// Ends all of it, in order: what is known is written to disk first.
    pub async fn finish(&self) {
        for (_, monitor) in &self.monitors {
            monitor.finish().await;
        }
        for client in &self.clients {
            client.close().await;
        }
    }
}

/// What a monitor of the broker `name` does. Each has a history and a recording of its own, in files beside those that the
/// settings name.
fn options(config: &Config, name: &str) -> Result<MonitorOptions, String> {
    let beside = |path: &Path| {
        if name.is_empty() { path.to_owned() } else { PathBuf::from(format!("{}.{name}", path.display())) }
    };
    let mut options = config.monitor.clone();
    if let Some(history) = &config.history {
        let own = HistoryOptions { path: beside(&history.path), ..history.clone() };
        options.history = Some(History::open(&own)?);
    }
    let path = config.history.as_ref().map(|history| beside(&history.path));
    options.audit = Some(Audit::open(path.as_deref(), config.audit_retain)?);
    options.recorder = config.record.as_deref().map(|path| Recorder::create(&beside(path))).transpose()?;
    Ok(options)
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

/// Begins something that is done with many tasks; it ends with the monitor.
pub(crate) fn begin(work: bulk::Work) {
    spawn(work.run());
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
        let _ = self.inputs.send(Input::Events { events, undecodable: 0, received: None }).await;
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
        let _ = self.inputs.send(Input::Events { events, undecodable, received: None }).await;
    }

    /// Hands events over that were received at `received`.
    pub(crate) async fn events_of(&self, events: Vec<Event>, received: UnixTime) -> bool {
        let input = Input::Events { events, undecodable: 0, received: Some(received) };
        self.inputs.send(input).await.is_ok()
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
    pub access: Access,
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
        Application::build_all(vec![(String::new(), monitor)], options)
    }

    /// The same for several monitors, each under a path of its own below the prefix; the empty path is for one of them.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn build_all(mut monitors: Vec<(String, Monitor)>, options: ServeOptions) -> io::Result<Application> {
        // The one at the root would answer for all others.
        monitors.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let ServeOptions { address, prefix, hosts, access } = options;
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        for (path, _) in &mut monitors {
            *path = routes::normal_prefix(&format!("{}{path}", prefix.trim_end_matches('/')));
        }
        let root = routes::normal_prefix(&prefix);
        let others = monitors.iter().map(|(path, _)| path.clone()).filter(|path| *path != root);
        let places = Places(std::iter::once(root.clone()).chain(others).collect());
        let server = HttpServer::new(move || {
            let mut app = App::new()
                .app_data(Data::new(hosts.clone()))
                .app_data(Data::new(access.clone()))
                .app_data(Data::new(places.clone()))
                // The last one is asked first: whoever calls for another host is not even asked who they are.
                .wrap(from_fn(gate::gate))
                .wrap(from_fn(guard::only_own_hosts))
                .wrap(routes::headers(access.public_url()));
            for place in &places.0 {
                app = login::services(place).into_iter().fold(app, App::service);
            }
            for (path, monitor) in &monitors {
                app = app.service(routes::scope(monitor.clone(), path));
            }
            app
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
