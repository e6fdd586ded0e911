//! The handle to everything: [`Celery`], and how to get one.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use celery_protocol::{QueueName, RawMessage, TaskOptions};
use serde_json::{Value, json};

use crate::amqp::connection::{Dial, Link, Purpose, State};
use crate::amqp::delayed::{self, Ladder};
use crate::amqp::{ConsumeOptions, Consumer, Publisher, QueueDepth, QueueSpec, Route, topology};
use crate::backend::redis::RedisBackend;
use crate::backend::{DisabledBackend, MemoryBackend, ResultBackend};
use crate::clock::{Clock, Lamport};
use crate::config::{BackendUrl, BrokerUrls, Layered, hostname, parse_duration};
use crate::error::{BrokerError, BrokerErrorKind};
use crate::offline::Outbox;
use crate::route::{Router, Target};
use crate::send::SendContext;
use crate::submission::SubmissionIndex;
use crate::tasks::Tasks;

/// How long [`Celery::close`] waits for what is under way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// RabbitMQ 4 takes messages of at most 16 MiB; so do we, whatever the broker's version.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A client of one broker and one result backend; clones share connections.
///
/// It can be used from any thread and any tokio runtime; what runs in the background stays on the runtime that built it.
#[derive(Clone)]
pub struct Celery {
    pub(crate) shared: Arc<Shared>,
    /// What calls inherit when they are sent from inside a task.
    pub(crate) context: Option<Arc<SendContext>>,
}

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) tasks: Tasks,
    pub(crate) router: Router,
    pub(crate) clock: Clock,
    pub(crate) lamport: Lamport,
    pub(crate) publish_timeout: Duration,
    pub(crate) send_sent_events: bool,
    pub(crate) task_defaults: TaskOptions,
    /// Set on a client without servers.
    pub(crate) outbox: Option<Outbox>,
    publisher: Publisher,
    ladder: Ladder,
    backend: Arc<dyn ResultBackend>,
    dial: Dial,
    publish: Link,
    consume: OnceLock<Link>,
    control: OnceLock<Link>,
}

/// How the connections are doing; cheap to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Messages can be sent.
    pub connected: bool,
    /// The broker has blocked publishing.
    pub blocked: bool,
    /// Whether messages can be received; `None` if nothing was consumed yet.
    pub consuming: Option<bool>,
    /// Why there is no connection, if there is none.
    pub reason: Option<String>,
}

impl fmt::Debug for Celery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Celery")
            .field("name", &self.shared.name)
            .field("broker", &self.shared.dial.urls)
            .field("backend", &self.shared.backend)
            .finish_non_exhaustive()
    }
}

/// Collects what a [`Celery`] needs to know.
#[derive(Debug, Clone)]
pub struct CeleryBuilder {
    name: String,
    broker: String,
    backend: String,
    default_queue: String,
    routes: Vec<(String, Target)>,
    problems: Vec<String>,
    connect_timeout: Duration,
    heartbeat: Duration,
    publish_timeout: Duration,
    result_expires: Duration,
    key_prefix: String,
    send_sent_events: bool,
    task_defaults: TaskOptions,
    clock: Clock,
}

impl Celery {
    /// Starts describing a client; `name` is the application's, for lists of connections and logs.
    pub fn builder(name: impl Into<String>) -> CeleryBuilder {
        CeleryBuilder {
            name: name.into(),
            broker: "amqp://".into(),
            backend: String::new(),
            default_queue: "celery".into(),
            routes: Vec::new(),
            problems: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(5),
            result_expires: Duration::from_secs(86_400),
            key_prefix: String::new(),
            send_sent_events: false,
            task_defaults: TaskOptions::DEFAULT,
            clock: Clock::system(),
        }
    }

    /// The application's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// `gen<pid>@<host>`: how this process calls itself in messages and events.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// The queue of tasks that no route names.
    pub fn default_queue(&self) -> &QueueName {
        self.shared.router.default_queue()
    }

    /// Where tasks go.
    pub fn router(&self) -> &Router {
        &self.shared.router
    }

    /// The wall clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The logical clock of this process.
    pub fn lamport(&self) -> &Lamport {
        &self.shared.lamport
    }

    /// The same client, whose calls inherit from the task that sends them.
    pub fn within(&self, context: SendContext) -> Celery {
        Celery { shared: Arc::clone(&self.shared), context: Some(Arc::new(context)) }
    }

    /// Where results are.
    pub fn backend(&self) -> &Arc<dyn ResultBackend> {
        &self.shared.backend
    }

    /// Where the HTTP interface records submissions; `None` without a backend that can.
    pub fn submissions(&self) -> Option<Arc<dyn SubmissionIndex>> {
        self.shared.backend.submissions()
    }

    /// Publishes messages as they are.
    pub fn publisher(&self) -> &Publisher {
        &self.shared.publisher
    }

    /// Consumes from queues until the [`Consumer`] is closed; it survives everything that can be survived.
    ///
    /// # Errors
    /// The options make no sense. That the broker is away is no error: the consumer waits for it.
    pub fn consume(&self, options: ConsumeOptions) -> Result<Consumer, BrokerError> {
        self.require_servers()?;
        Consumer::start(self.consume_link().clone(), options, &self.shared.tasks)
    }

    /// Waits for the first connection.
    ///
    /// # Errors
    /// The broker refused the login, or could not be reached before the deadline.
    pub async fn wait_connected(&self, deadline: Duration) -> Result<(), BrokerError> {
        self.shared.publish.first_connection(deadline).await
    }

    /// A queue as the broker reports it; `None` if it does not exist.
    ///
    /// # Errors
    /// There is no connection, or the user may not look.
    pub async fn queue_depth(&self, queue: &QueueName) -> Result<Option<QueueDepth>, BrokerError> {
        self.require_servers()?;
        let session = self.control_link().connected(self.shared.publish_timeout).await?;
        topology::look(&session, queue.as_str()).await
    }

    /// Makes sure that a queue exists; one that does is adopted as it is.
    ///
    /// # Errors
    /// There is no connection, the broker refuses, or the queue must match and does not.
    pub async fn declare(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        self.require_servers()?;
        let deadline = self.shared.dial.timeout;
        let session = self.control_link().connected(self.shared.publish_timeout).await?;
        let declared = tokio::time::timeout(deadline, topology::ensure(&session, queue)).await;
        declared.unwrap_or_else(|_| Err(BrokerError::new(BrokerErrorKind::Timeout, "declaring a queue")))
    }

    /// Publishes a message that is to arrive in `queue` after `delay`, to the second below. It waits in the broker, on
    /// Celery's own ladder of queues, and survives restarts there.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`BrokerErrorKind::Unroutable`] if the queue does not exist.
    pub async fn delay(
        &self,
        queue: &QueueName,
        message: RawMessage,
        delay: Duration,
    ) -> Result<(), BrokerError> {
        if delay < delayed::SHORTEST || self.shared.outbox.is_some() {
            return self.publish(&Route::queue(queue.as_str()), message).await;
        }
        let session = self.control_link().connected(self.shared.publish_timeout).await?;
        self.shared.ladder.ensure(&session, queue).await?;
        self.publish(&delayed::route(queue.as_str(), delay), message).await
    }

    /// The broker in use, as `celery inspect stats` shows it. No password is in it.
    pub fn broker_info(&self) -> Value {
        let nodes = self.shared.dial.urls.nodes();
        let session = self.shared.publish.session().ok();
        let node = session.as_ref().map(|session| &*session.node).or(nodes.first());
        let others: Vec<String> =
            nodes.iter().filter(|other| Some(*other) != node).map(ToString::to_string).collect();
        json!({
            "hostname": node.map(|node| &node.host),
            "userid": node.map(|node| &node.user),
            "virtual_host": node.map(|node| &node.vhost),
            "port": node.map(|node| node.port),
            "insist": false,
            "ssl": node.is_some_and(|node| node.tls.is_some()),
            "transport": "amqp",
            "connect_timeout": self.shared.dial.timeout.as_secs_f64(),
            "transport_options": {},
            "login_method": "PLAIN",
            "uri_prefix": null,
            "heartbeat": self.shared.dial.heartbeat.as_secs_f64(),
            "failover_strategy": "round-robin",
            "alternates": others,
            "credential_provider": null,
        })
    }

    /// How the connections are doing.
    pub fn health(&self) -> Health {
        if self.shared.outbox.is_some() {
            return Health { connected: true, blocked: false, consuming: None, reason: None };
        }
        let (connected, blocked, reason) = match self.shared.publish.state() {
            State::Up(session) => (true, session.blocked, None),
            State::Down(down) => (false, false, Some(down.reason.clone())),
            State::Closed => (false, false, Some("closed".to_owned())),
        };
        let consuming = self.shared.consume.get().map(|link| matches!(link.state(), State::Up(_)));
        Health { connected, blocked, consuming, reason }
    }

    /// Ends everything: what is in flight gets a moment to finish, then connections are closed.
    pub async fn close(&self) {
        self.shared.tasks.stop(CLOSE_DEADLINE).await;
    }

    /// Offline clients have no broker to ask.
    pub(crate) fn require_servers(&self) -> Result<(), BrokerError> {
        match self.shared.outbox {
            None => Ok(()),
            Some(_) => Err(BrokerError::new(BrokerErrorKind::Connect, "this client is offline")),
        }
    }

    pub(crate) fn consume_link(&self) -> &Link {
        self.shared.consume.get_or_init(|| self.link(Purpose::Consume))
    }

    /// For events, remote control and look-ups.
    pub(crate) fn control_link(&self) -> &Link {
        self.shared.control.get_or_init(|| self.link(Purpose::Control))
    }

    fn link(&self, purpose: Purpose) -> Link {
        if self.shared.outbox.is_some() {
            return Link::closed();
        }
        Link::start(purpose, self.shared.dial.clone(), &self.shared.tasks)
    }
}

impl CeleryBuilder {
    /// RabbitMQ's URL, or several separated by `;`. Default: `amqp://guest:guest@localhost:5672//`.
    #[must_use]
    pub fn broker(mut self, url: impl Into<String>) -> Self {
        self.broker = url.into();
        self
    }

    /// The result backend's URL. Default: none, results are disabled.
    #[must_use]
    pub fn backend(mut self, url: impl Into<String>) -> Self {
        self.backend = url.into();
        self
    }

    /// Queue of tasks that no route names. Default: `celery`.
    #[must_use]
    pub fn default_queue(mut self, queue: impl Into<String>) -> Self {
        self.default_queue = queue.into();
        self
    }

    /// Tasks whose name matches `pattern` (`*` stands for anything) go to `queue`.
    #[must_use]
    pub fn route(mut self, pattern: impl Into<String>, queue: impl Into<String>) -> Self {
        let pattern = pattern.into();
        match QueueName::parse(queue) {
            Ok(queue) => self.routes.push((pattern, queue.into())),
            Err(err) => self.problems.push(format!("route `{pattern}`: {err}")),
        }
        self
    }

    /// As [`route`](Self::route), to an exchange or with a priority.
    #[must_use]
    pub fn route_to(mut self, pattern: impl Into<String>, target: Target) -> Self {
        self.routes.push((pattern.into(), target));
        self
    }

    /// Time for TCP, TLS and AMQP handshake of one attempt. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// AMQP heartbeat. Default: 10 s.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Time for the broker to confirm a task. Default: 5 s.
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// How long results are kept; zero is for ever. Default: a day.
    #[must_use]
    pub fn result_expires(mut self, after: Duration) -> Self {
        self.result_expires = after;
        self
    }

    /// Prefix of all keys in Redis. Default: none.
    #[must_use]
    pub fn result_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Send a `task-sent` event with each task. Default: no.
    #[must_use]
    pub fn send_sent_events(mut self, send: bool) -> Self {
        self.send_sent_events = send;
        self
    }

    /// Options of tasks that neither the call nor its signature sets. Default: none.
    #[must_use]
    pub fn task_defaults(mut self, defaults: TaskOptions) -> Self {
        self.task_defaults = defaults;
        self
    }

    /// Another wall clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes over what [`CLIENT_SETTINGS`](crate::config::CLIENT_SETTINGS) hold.
    #[must_use]
    pub fn settings(mut self, settings: &Layered) -> Self {
        let text = |name: &str| settings.text(name).map(str::to_owned);
        let duration =
            |name: &str, default: Duration| settings.text(name).and_then(parse_duration).unwrap_or(default);
        self.broker = text("broker_url").unwrap_or(self.broker);
        self.backend = text("result_backend").unwrap_or(self.backend);
        self.default_queue = text("task_default_queue").unwrap_or(self.default_queue);
        self.key_prefix = text("result_global_keyprefix").unwrap_or(self.key_prefix);
        self.result_expires = duration("result_expires", self.result_expires);
        self.connect_timeout = duration("broker_connection_timeout", self.connect_timeout);
        self.heartbeat = duration("broker_heartbeat", self.heartbeat);
        self.publish_timeout = duration("publish_timeout", self.publish_timeout);
        self.send_sent_events = settings.boolean("task_send_sent_event");
        self
    }

    /// Connects; returns when the broker has answered.
    ///
    /// # Errors
    /// A setting is wrong, the login was refused, or the broker could not be reached within twice the connect timeout.
    pub async fn connect(self) -> Result<Celery, BrokerError> {
        let deadline = self.connect_timeout * 2;
        let celery = self.start()?;
        match celery.wait_connected(deadline).await {
            Ok(()) => Ok(celery),
            Err(err) => {
                celery.close().await;
                Err(err)
            }
        }
    }

    /// Starts connecting in the background and returns at once, for programs that must run before their broker does.
    ///
    /// # Errors
    /// A setting is wrong, or this is not called inside a tokio runtime.
    pub fn start(self) -> Result<Celery, BrokerError> {
        let (router, tasks) = (self.router()?, Tasks::on_current_runtime()?);
        let dial = self.dial()?;
        let backend: Arc<dyn ResultBackend> = match BackendUrl::parse(&self.backend)? {
            BackendUrl::Disabled => Arc::new(DisabledBackend),
            BackendUrl::Memory => Arc::new(MemoryBackend::new()),
            BackendUrl::Redis(url) => {
                Arc::new(RedisBackend::start(&url, &self.key_prefix, self.result_expires, &tasks)?)
            }
        };
        let publish = Link::start(Purpose::Publish, dial.clone(), &tasks);
        let publisher = Publisher::start(publish.clone(), MAX_BODY, &tasks);
        Ok(self.assemble(Parts { router, tasks, dial, backend, publish, publisher, outbox: None }))
    }

    /// A client without servers, for tests of one's own tasks and calls: results are kept in memory, and what would be
    /// published is confirmed at once and ends in the [`Outbox`]. Nothing can be consumed.
    ///
    /// # Errors
    /// A setting is wrong, or this is not called inside a tokio runtime.
    pub fn offline(self) -> Result<(Celery, Outbox), BrokerError> {
        let (router, tasks) = (self.router()?, Tasks::on_current_runtime()?);
        let (dial, outbox) = (self.dial()?, Outbox::default());
        let publisher = Publisher::offline(outbox.clone(), MAX_BODY);
        let celery = self.assemble(Parts {
            router,
            tasks,
            dial,
            backend: Arc::new(MemoryBackend::new()),
            publish: Link::closed(),
            publisher,
            outbox: Some(outbox.clone()),
        });
        Ok((celery, outbox))
    }

    fn router(&self) -> Result<Router, BrokerError> {
        if let Some(problem) = self.problems.first() {
            return Err(BrokerError::config(problem.clone()));
        }
        let default_queue = QueueName::parse(self.default_queue.as_str())
            .map_err(|err| BrokerError::config(format!("task_default_queue: {err}")))?;
        let mut router = Router::new(default_queue);
        for (pattern, target) in &self.routes {
            router.add(pattern, target.clone());
        }
        Ok(router)
    }

    fn dial(&self) -> Result<Dial, BrokerError> {
        Ok(Dial {
            urls: BrokerUrls::parse(&self.broker)?,
            name: format!("{} {}", self.name, origin()),
            timeout: self.connect_timeout,
            heartbeat: self.heartbeat,
        })
    }

    fn assemble(self, parts: Parts) -> Celery {
        let Parts { router, tasks, dial, backend, publish, publisher, outbox } = parts;
        let shared = Shared {
            name: self.name,
            origin: origin(),
            tasks,
            router,
            clock: self.clock,
            lamport: Lamport::default(),
            publish_timeout: self.publish_timeout,
            send_sent_events: self.send_sent_events,
            task_defaults: self.task_defaults,
            outbox,
            publisher,
            ladder: Ladder::default(),
            backend,
            dial,
            publish,
            consume: OnceLock::new(),
            control: OnceLock::new(),
        };
        Celery { shared: Arc::new(shared), context: None }
    }
}

/// What a handle is put together from.
struct Parts {
    router: Router,
    tasks: Tasks,
    dial: Dial,
    backend: Arc<dyn ResultBackend>,
    publish: Link,
    publisher: Publisher,
    outbox: Option<Outbox>,
}

/// How this process calls itself, as Celery's producers do.
fn origin() -> String {
    format!("gen{}@{}", std::process::id(), hostname())
}
