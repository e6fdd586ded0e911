//! Queues, exchanges and bindings: what Celery declares, and adopting what exists.
//!
//! A queue that exists is adopted whatever its arguments are (quorum, priorities, dead-letter exchange, …); declaring it
//! again with other arguments would close the channel. Each look and each declaration has a channel of its own, because
//! a refusal closes the channel.

use std::time::Duration;

use celery_protocol::{HeaderMap, QueueName};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use serde_json::Value;

use super::connection::{Session, within};
use super::table::{short, table};
use crate::error::{BrokerError, BrokerErrorKind};

/// How long one answer to a declaration may take.
pub(super) const DECLARE_DEADLINE: Duration = Duration::from_secs(10);

/// A queue to consume from, and what to declare if it does not exist.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Its name.
    pub name: QueueName,
    /// Exchange it is bound to; `None`: none is declared, the default exchange reaches it.
    pub exchange: Option<ExchangeSpec>,
    /// Key of the binding. Default: the queue's name.
    pub routing_key: String,
    /// Arguments, for instance `x-max-priority` or `x-queue-type`.
    pub arguments: HeaderMap,
    /// Survives a restart of the broker. Default: yes.
    pub durable: bool,
    /// Only for this connection. Default: no.
    pub exclusive: bool,
    /// Deleted when its last consumer goes. Default: no.
    pub auto_delete: bool,
    /// What to do when the queue exists.
    pub existing: Existing,
}

/// What to do when a queue exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Use it as it is.
    #[default]
    Adopt,
    /// Insist on our declaration; a difference is an error that names it.
    MustMatch,
    /// Never declare; a missing queue is an error.
    MustExist,
}

/// An exchange to bind to.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: String,
    /// `direct`, `fanout`, `topic`, `headers`, or that of a plugin.
    pub kind: String,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Arguments.
    pub arguments: HeaderMap,
}

impl ExchangeSpec {
    /// A durable exchange.
    pub fn durable(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { name: name.into(), kind: kind.into(), durable: true, arguments: HeaderMap::new() }
    }

    /// An exchange that a restart of the broker removes.
    pub fn transient(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { durable: false, ..Self::durable(name, kind) }
    }
}

impl QueueSpec {
    /// What Celery declares for a queue that only its name is known of: a durable classic queue, bound to a durable direct
    /// exchange of the same name with the same key.
    pub fn new(name: QueueName) -> Self {
        Self {
            exchange: Some(ExchangeSpec::durable(name.as_str(), "direct")),
            routing_key: name.as_str().to_owned(),
            name,
            arguments: HeaderMap::new(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            existing: Existing::Adopt,
        }
    }

    /// A queue of one connection that vanishes with it or after `expires` without a consumer; its messages vanish after
    /// `message_ttl`. What Celery uses for events, remote control and its replies.
    pub fn private(name: QueueName, expires: Duration, message_ttl: Duration) -> Self {
        let millis =
            |duration: Duration| Value::from(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        let arguments = HeaderMap::from_iter([
            ("x-expires".to_owned(), millis(expires)),
            ("x-message-ttl".to_owned(), millis(message_ttl)),
        ]);
        Self {
            exchange: None,
            arguments,
            durable: false,
            exclusive: true,
            auto_delete: true,
            existing: Existing::MustMatch,
            ..Self::new(name)
        }
    }

    /// One worker's queue on a fanout exchange, Celery's `Broadcast(name)`: every worker that has one gets each message.
    /// `unique` tells this worker's queue from the others'; the queue goes with the worker.
    ///
    /// # Errors
    /// The names are too long.
    pub fn broadcast(exchange: &str, unique: &str) -> Result<Self, celery_protocol::IdError> {
        let name = QueueName::parse(format!("bcast.{unique}"))?;
        let spec = Self::new(name).bound_to(ExchangeSpec::durable(exchange, "fanout"), exchange);
        Ok(Self { auto_delete: true, ..spec })
    }

    /// Whether it is declared as a quorum queue.
    pub fn is_quorum(&self) -> bool {
        self.arguments.get("x-queue-type").and_then(Value::as_str) == Some("quorum")
    }

    /// Bound to this exchange with this key.
    #[must_use]
    pub fn bound_to(mut self, exchange: ExchangeSpec, routing_key: impl Into<String>) -> Self {
        self.exchange = Some(exchange);
        self.routing_key = routing_key.into();
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }
}

/// A queue as the broker reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages ready for delivery.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Makes sure that a queue and its binding exist.
pub(crate) async fn ensure(session: &Session, spec: &QueueSpec) -> Result<(), BrokerError> {
    match spec.existing {
        Existing::MustMatch => declare(session, spec).await,
        Existing::MustExist => match look(session, spec.name.as_str()).await? {
            Some(_) => Ok(()),
            None => Err(BrokerError::new(BrokerErrorKind::NotFound, format!("queue '{}'", spec.name))),
        },
        Existing::Adopt => match look(session, spec.name.as_str()).await? {
            Some(_) => bind(session, spec).await,
            None => declare(session, spec).await,
        },
    }
}

/// Deletes the messages of a queue that are ready.
pub(crate) async fn purge(session: &Session, queue: &str) -> Result<u32, BrokerError> {
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let purged = channel.queue_purge(short("the name of a queue", queue)?, QueuePurgeOptions::default());
    match within(DECLARE_DEADLINE, &format!("queue '{queue}'"), purged).await {
        Ok(count) => {
            close(&channel).await;
            Ok(count)
        }
        Err(err) if *err.kind() == BrokerErrorKind::NotFound => Ok(0),
        Err(err) => Err(err),
    }
}

/// Looks at a queue without changing anything.
pub(crate) async fn look(session: &Session, queue: &str) -> Result<Option<QueueDepth>, BrokerError> {
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared =
        channel.queue_declare(short("the name of a queue", queue)?, options, FieldTable::default());
    match within(DECLARE_DEADLINE, &format!("queue '{queue}'"), declared).await {
        Ok(found) => {
            close(&channel).await;
            Ok(Some(QueueDepth { ready: found.message_count(), consumers: found.consumer_count() }))
        }
        Err(err) if *err.kind() == BrokerErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Looks whether an exchange exists.
pub(super) async fn exchange_exists(session: &Session, exchange: &str) -> Result<bool, BrokerError> {
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let name = short("the name of an exchange", exchange)?;
    let declared = channel.exchange_declare(name, ExchangeKind::Direct, options, FieldTable::default());
    match within(DECLARE_DEADLINE, &format!("exchange '{exchange}'"), declared).await {
        Ok(()) => {
            close(&channel).await;
            Ok(true)
        }
        Err(err) if *err.kind() == BrokerErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

/// Declares an exchange unless one of this name exists, of whatever kind.
pub(super) async fn ensure_exchange(session: &Session, spec: &ExchangeSpec) -> Result<(), BrokerError> {
    if spec.name.is_empty() || spec.name.starts_with("amq.") || exchange_exists(session, &spec.name).await? {
        return Ok(());
    }
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let options = ExchangeDeclareOptions { durable: spec.durable, ..ExchangeDeclareOptions::default() };
    let name = short("the name of an exchange", &spec.name)?;
    let declared = channel.exchange_declare(name, kind(&spec.kind), options, table(&spec.arguments)?);
    within(DECLARE_DEADLINE, &format!("exchange '{}'", spec.name), declared).await?;
    close(&channel).await;
    Ok(())
}

async fn declare(session: &Session, spec: &QueueSpec) -> Result<(), BrokerError> {
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let options = QueueDeclareOptions {
        passive: false,
        durable: spec.durable,
        exclusive: spec.exclusive,
        auto_delete: spec.auto_delete,
        nowait: false,
    };
    let name = short("the name of a queue", spec.name.as_str())?;
    let declared = channel.queue_declare(name, options, table(&spec.arguments)?);
    within(DECLARE_DEADLINE, &format!("queue '{}'", spec.name), declared).await?;
    close(&channel).await;
    bind(session, spec).await
}

async fn bind(session: &Session, spec: &QueueSpec) -> Result<(), BrokerError> {
    let Some(exchange) = spec.exchange.as_ref().filter(|exchange| !exchange.name.is_empty()) else {
        return Ok(());
    };
    ensure_exchange(session, exchange).await?;
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let bound = channel.queue_bind(
        short("the name of a queue", spec.name.as_str())?,
        short("the name of an exchange", &exchange.name)?,
        short("the routing key", &spec.routing_key)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    let what = format!("binding of queue '{}' to exchange '{}'", spec.name, exchange.name);
    within(DECLARE_DEADLINE, &what, bound).await?;
    close(&channel).await;
    Ok(())
}

fn kind(name: &str) -> ExchangeKind {
    match name {
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "topic" => ExchangeKind::Topic,
        "headers" => ExchangeKind::Headers,
        other => ExchangeKind::Custom(other.to_owned()),
    }
}

/// Frees the number of a channel; what the broker answers does not matter.
pub(super) async fn close(channel: &lapin::Channel) {
    let _ = tokio::time::timeout(Duration::from_secs(1), channel.close(200, "OK".into())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_queues_are_never_adopted() {
        let spec = QueueSpec::private(
            QueueName::parse("celeryev.x").unwrap(),
            Duration::from_secs(60),
            Duration::from_secs(5),
        );
        assert_eq!(spec.existing, Existing::MustMatch);
        assert!(spec.exclusive && spec.auto_delete && !spec.durable);
        assert_eq!(spec.arguments["x-expires"], 60_000);
        assert_eq!(spec.arguments["x-message-ttl"], 5_000);
    }
}
