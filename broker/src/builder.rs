//! Describing a client: [`CeleryBuilder`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use celery_protocol::{QueueName, TaskOptions};

use crate::amqp::Publisher;
use crate::amqp::connection::{Dial, Link, Purpose};
use crate::amqp::delayed::Ladder;
use crate::backend::redis::{Expires, RedisBackend};
use crate::backend::rpc::RpcBackend;
use crate::backend::{DisabledBackend, MemoryBackend, ResultBackend};
use crate::celery::{Celery, Shared};
use crate::clock::{Clock, Lamport};
use crate::config::routes::{self, Routes};
use crate::config::{BackendUrl, BrokerUrls, Layered, hostname, parse_duration};
use crate::error::BrokerError;
use crate::offline::Outbox;
use crate::route::{Router, Target};
use crate::tasks::Tasks;

/// RabbitMQ 4 takes messages of at most 16 MiB; so do we, whatever the broker's version.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Chords in which nothing happens for so long have lost a member.
const CHORD_DEADLINE: Duration = Duration::from_secs(12 * 3600);

/// Collects what a [`Celery`] needs to know.
#[derive(Debug, Clone)]
pub struct CeleryBuilder {
    name: String,
    broker: String,
    backend: String,
    default_queue: String,
    routes: Vec<(String, Target)>,
    routers: Vec<Routes>,
    problems: Vec<String>,
    connect_timeout: Duration,
    heartbeat: Duration,
    publish_timeout: Duration,
    result_expires: Duration,
    result_failure_expires: Option<Duration>,
    chord_deadline: Option<Duration>,
    key_prefix: String,
    send_sent_events: bool,
    task_defaults: TaskOptions,
    clock: Clock,
}

impl CeleryBuilder {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            broker: "amqp://".into(),
            backend: String::new(),
            default_queue: "celery".into(),
            routes: Vec::new(),
            routers: Vec::new(),
            problems: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(5),
            result_expires: Duration::from_secs(86_400),
            result_failure_expires: None,
            chord_deadline: Some(CHORD_DEADLINE),
            key_prefix: String::new(),
            send_sent_events: false,
            task_defaults: TaskOptions::DEFAULT,
            clock: Clock::system(),
        }
    }

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

    /// Tasks whose name matches `pattern` go to `queue`: `*` stands for anything, and a pattern that begins with `^` is a
    /// regular expression from the start of the name.
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

    /// Celery's `task_routes`, as [`config::routes`](crate::config::routes) reads them: what no [`route`](Self::route) names
    /// is looked up there.
    ///
    /// ```
    /// # use celery_broker::Celery;
    /// let celery = Celery::builder("shop").task_routes(
    ///     r#"{"mail.*": "mail", "^(video|image)\\.": {"queue": "media", "priority": 3}}"#,
    /// );
    /// ```
    #[must_use]
    pub fn task_routes(mut self, routes: &str) -> Self {
        match routes::parse(routes) {
            Ok(routers) => self.routers.extend(routers),
            Err(problem) => self.problems.push(format!("task_routes: {problem}")),
        }
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

    /// How long failures are kept; zero is for ever. Default: as [`result_expires`](Self::result_expires).
    #[must_use]
    pub fn result_failure_expires(mut self, after: Duration) -> Self {
        self.result_failure_expires = Some(after);
        self
    }

    /// How long nothing may happen in a chord before it ends as FAILURE, because a member was lost; `None` waits for ever,
    /// as Celery does. Must be shorter than [`result_expires`](Self::result_expires). Default: 12 hours.
    #[must_use]
    pub fn chord_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.chord_deadline = deadline;
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
        let failures = settings.text("result_failure_expires").and_then(parse_duration);
        self.result_failure_expires = failures.or(self.result_failure_expires);
        let deadline = duration("chord_deadline", CHORD_DEADLINE);
        self.chord_deadline = Some(deadline).filter(|deadline| !deadline.is_zero());
        self.connect_timeout = duration("broker_connection_timeout", self.connect_timeout);
        self.heartbeat = duration("broker_heartbeat", self.heartbeat);
        self.publish_timeout = duration("publish_timeout", self.publish_timeout);
        self.send_sent_events = settings.boolean("task_send_sent_event");
        match settings.text("task_routes") {
            Some(routes) => self.task_routes(routes),
            None => self,
        }
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
        let publish = Link::start(Purpose::Publish, dial.clone(), &tasks);
        let publisher = Publisher::start(publish.clone(), MAX_BODY, &tasks);
        let backend: Arc<dyn ResultBackend> = match BackendUrl::parse(&self.backend)? {
            BackendUrl::Disabled => Arc::new(DisabledBackend),
            BackendUrl::Rpc => Arc::new(RpcBackend::new(publisher.clone())),
            BackendUrl::Memory => Arc::new(MemoryBackend::new()),
            BackendUrl::Redis(url) => {
                let results = self.result_expires;
                let failures = self.result_failure_expires.unwrap_or(results);
                let expires = Expires { results, failures };
                Arc::new(RedisBackend::start(&url, &self.key_prefix, expires, &tasks)?)
            }
        };
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
            router.add(pattern, target.clone()).map_err(|err| BrokerError::config(format!("route {err}")))?;
        }
        for routes in &self.routers {
            let added = router.add_map(routes.clone());
            added.map_err(|err| BrokerError::config(format!("task_routes: {err}")))?;
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
            chord_deadline: self.chord_deadline,
            outbox,
            publisher,
            ladder: Ladder::default(),
            backend,
            dial,
            publish,
            consume: OnceLock::new(),
            control: OnceLock::new(),
            events: OnceLock::new(),
        };
        Celery { shared: Arc::new(shared), context: None, pinned: None }
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
