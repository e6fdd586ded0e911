//! The handle to everything: [`Celery`].

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use celery_protocol::{QueueName, RawMessage, TaskOptions};
use serde_json::{Value, json};

use crate::amqp::connection::{Dial, Link, Purpose, State};
use crate::amqp::delayed::{self, Ladder};
use crate::amqp::{
    ConsumeOptions, Consumer, Publisher, QueueDepth, QueueSpec, Route, Verdict, sift, topology,
};
use crate::backend::ResultBackend;
use crate::builder::CeleryBuilder;
use crate::clock::{Clock, Lamport};
use crate::control::Cluster;
use crate::error::{BrokerError, BrokerErrorKind};
use crate::event::Emitter;
use crate::fenced::Fenced;
use crate::notes::Notes;
use crate::offline::Outbox;
use crate::route::Router;
use crate::send::SendContext;
use crate::submission::SubmissionIndex;
use crate::tasks::Tasks;

/// How long [`Celery::close`] waits for what is under way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// A client of one broker and one result backend; clones share connections.
///
/// It can be used from any thread and any tokio runtime; what runs in the background stays on the runtime that built it.
#[derive(Clone)]
pub struct Celery {
    pub(crate) shared: Arc<Shared>,
    /// What calls inherit when they are sent from inside a task.
    pub(crate) context: Option<Arc<SendContext>>,
    /// The only connection that messages may go over.
    pub(crate) pinned: Option<u64>,
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
    pub(crate) chord_deadline: Option<Duration>,
    /// Set on a client without servers.
    pub(crate) outbox: Option<Outbox>,
    pub(crate) publisher: Publisher,
    pub(crate) ladder: Ladder,
    pub(crate) backend: Arc<dyn ResultBackend>,
    pub(crate) dial: Dial,
    pub(crate) publish: Link,
    pub(crate) consume: OnceLock<Link>,
    pub(crate) control: OnceLock<Link>,
    /// For `task-sent`.
    pub(crate) events: OnceLock<Emitter>,
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

impl Celery {
    /// Starts describing a client; `name` is the application's, for lists of connections and logs.
    pub fn builder(name: impl Into<String>) -> CeleryBuilder {
        CeleryBuilder::new(name.into())
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
        Celery { context: Some(Arc::new(context)), ..self.clone() }
    }

    /// The same client, which publishes over the present connection and never over a later one. For whoever may only send
    /// while a lease is his: the broker drops the connection of a process that is frozen, and with it the lease's fence
    /// holds for what that process sends when it is thawed.
    ///
    /// # Errors
    /// There is no connection now.
    pub fn pinned(&self) -> Result<Celery, BrokerError> {
        let pinned = match self.shared.outbox {
            Some(_) => None,
            None => Some(self.shared.publish.session()?.generation),
        };
        Ok(Celery { pinned, ..self.clone() })
    }

    /// Records that only the holder of a lease may change; `None` without a backend that keeps any.
    pub fn fenced(&self) -> Option<Arc<dyn Fenced>> {
        self.shared.backend.fenced()
    }

    /// The AMQP heartbeat: a broker gives a silent client up after twice this time.
    pub fn heartbeat(&self) -> Duration {
        self.shared.dial.heartbeat
    }

    /// Where results are.
    pub fn backend(&self) -> &Arc<dyn ResultBackend> {
        &self.shared.backend
    }

    /// Where the HTTP interface records submissions; `None` without a backend that can.
    pub fn submissions(&self) -> Option<Arc<dyn SubmissionIndex>> {
        self.shared.backend.submissions()
    }

    /// Where small values with a lifetime are kept; `None` without a backend that can.
    pub fn notes(&self) -> Option<Arc<dyn Notes>> {
        self.shared.backend.notes()
    }

    /// How long nothing may happen in a chord before it ends as FAILURE; `None` is for ever.
    pub fn chord_deadline(&self) -> Option<Duration> {
        self.shared.chord_deadline
    }

    /// What all workers of this result backend know together; `None` without one that keeps it.
    pub fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        self.shared.backend.cluster()
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

    /// As [`consume`](Self::consume), on the connection for events and remote control.
    pub(crate) fn consume_control(&self, options: ConsumeOptions) -> Result<Consumer, BrokerError> {
        self.require_servers()?;
        Consumer::start(self.control_link().clone(), options, &self.shared.tasks)
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

    /// Deletes the messages of a queue that wait for a consumer; how many there were. A queue that does not exist has none.
    ///
    /// # Errors
    /// There is no connection, or the user may not.
    pub async fn purge(&self, queue: &QueueName) -> Result<u32, BrokerError> {
        self.require_servers()?;
        let session = self.control_link().connected(self.shared.publish_timeout).await?;
        topology::purge(&session, queue.as_str()).await
    }

    /// Looks at the messages of a queue one by one, `limit` at the most, and takes out those that `judge` says so of; all
    /// others are back in their places at the end. Whether that were all of them; `None` if there is no such queue. For
    /// dead letters: each message that is kept counts as delivered once more.
    ///
    /// # Errors
    /// There is no connection, the user may not, or a consumer of this queue has it for itself. What was taken by then is
    /// gone.
    pub async fn sift(
        &self,
        queue: &QueueName,
        limit: usize,
        judge: impl AsyncFnMut(&RawMessage) -> Verdict,
    ) -> Result<Option<bool>, BrokerError> {
        self.require_servers()?;
        let session = self.control_link().connected(self.shared.publish_timeout).await?;
        sift::sift(&session, queue, limit, judge).await
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

    /// Makes sure that messages delayed by whoever uses Celery's ladder arrive in this queue, as a Python worker does for
    /// its quorum queues. The queue must exist.
    ///
    /// # Errors
    /// There is no connection, or the broker refuses.
    pub async fn prepare_delayed(&self, queue: &QueueSpec) -> Result<(), BrokerError> {
        self.require_servers()?;
        let session = self.control_link().connected(self.shared.publish_timeout).await?;
        self.shared.ladder.ensure_for(&session, queue).await
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
            "connect_timeout": self.shared.dial.timeout.as_secs(),
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
