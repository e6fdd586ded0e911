//! What can go wrong towards the broker and towards the result store.
//!
//! Both errors are opaque structs with a `kind()`; no type of the AMQP or Redis client appears in them, and neither
//! `Display` nor `Debug` ever contains a password.

use std::error::Error as StdError;
use std::fmt;

/// A cause that is kept for the log but is no part of the interface.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// An operation on the broker failed.
///
/// For a publish, [`outcome`](Self::outcome) says whether the message can have been queued all the same.
#[derive(Debug)]
pub struct BrokerError {
    kind: BrokerErrorKind,
    context: String,
    outcome: Outcome,
    source: Option<BoxError>,
}

/// What kind of failure a [`BrokerError`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// A setting or URL cannot be used; retrying is pointless.
    Config,
    /// No connection could be made to any broker of the list.
    Connect,
    /// The broker refused the credentials or the virtual host.
    Auth,
    /// There is no connection right now; the supervisor is trying to get one.
    NotConnected,
    /// The broker did not answer within the deadline.
    Timeout,
    /// The broker has blocked publishing (memory or disk alarm).
    Blocked,
    /// The broker answered with `basic.nack`, for instance because a queue is full.
    NotConfirmed,
    /// The message matched no queue and was returned.
    Unroutable,
    /// The exchange named in the route does not exist.
    ExchangeNotFound,
    /// The message or its headers exceed a limit.
    MessageTooLarge,
    /// The message cannot be expressed in AMQP.
    Encode,
    /// The channel died while the operation was under way.
    ChannelClosed,
    /// The connection died while the operation was under way.
    ConnectionLost,
    /// An existing queue or exchange was declared differently.
    PreconditionFailed(Box<Mismatch>),
    /// The user lacks a permission (403).
    AccessRefused,
    /// Another connection holds the queue exclusively (405).
    ResourceLocked,
    /// A queue or exchange does not exist (404).
    NotFound,
    /// The result backend did not take what a workflow needs there.
    Backend,
    /// The handle was closed.
    Closed,
}

/// Whether a failed publish can have reached a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The broker does not have the message.
    NotPublished,
    /// Nobody knows; sending it again with the same task id is the safe answer.
    Unknown,
}

/// The difference between a declaration and what exists, as the broker reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// `queue` or `exchange`.
    pub entity: String,
    /// Its name.
    pub name: String,
    /// The argument or property that differs, for instance `x-max-priority` or `durable`.
    pub argument: String,
    /// The value of our declaration.
    pub ours: String,
    /// The value that exists at the broker.
    pub theirs: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} '{}' exists with {} = {}, but is declared here with {}; make the declarations equal or delete it",
            self.entity, self.name, self.argument, self.theirs, self.ours
        )
    }
}

impl BrokerError {
    pub(crate) fn new(kind: BrokerErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), outcome: Outcome::NotPublished, source: None }
    }

    pub(crate) fn config(context: impl Into<String>) -> Self {
        Self::new(BrokerErrorKind::Config, context)
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn unknown(mut self) -> Self {
        self.outcome = Outcome::Unknown;
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> &BrokerErrorKind {
        &self.kind
    }

    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    /// Whether the message of a failed publish can have been queued all the same.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the same call can succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            BrokerErrorKind::Connect
                | BrokerErrorKind::NotConnected
                | BrokerErrorKind::Timeout
                | BrokerErrorKind::Blocked
                | BrokerErrorKind::NotConfirmed
                | BrokerErrorKind::ChannelClosed
                | BrokerErrorKind::ConnectionLost
                | BrokerErrorKind::ResourceLocked
                | BrokerErrorKind::Backend
        )
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            BrokerErrorKind::PreconditionFailed(mismatch) => return write!(f, "{mismatch}"),
            kind => f.write_str(kind.text())?,
        }
        if !self.context.is_empty() {
            write!(f, ": {}", self.context)?;
        }
        if self.outcome == Outcome::Unknown {
            f.write_str(" (the message may have been queued)")?;
        }
        Ok(())
    }
}

impl StdError for BrokerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl BrokerErrorKind {
    fn text(&self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::Connect => "cannot connect to the broker",
            Self::Auth => "the broker refused the login",
            Self::NotConnected => "not connected to the broker",
            Self::Timeout => "the broker did not answer in time",
            Self::Blocked => "the broker has blocked publishing",
            Self::NotConfirmed => "the broker refused the message",
            Self::Unroutable => "no queue takes this message",
            Self::ExchangeNotFound => "the exchange does not exist",
            Self::MessageTooLarge => "the message is too large",
            Self::Encode => "the message cannot be encoded",
            Self::ChannelClosed => "the channel was closed",
            Self::ConnectionLost => "the connection to the broker was lost",
            Self::PreconditionFailed(_) => "declared differently",
            Self::AccessRefused => "access refused",
            Self::ResourceLocked => "held exclusively by another connection",
            Self::NotFound => "not found",
            Self::Backend => "the result backend failed",
            Self::Closed => "closed",
        }
    }

    /// A short stable word for metrics and logs.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Connect => "connect",
            Self::Auth => "auth",
            Self::NotConnected => "not_connected",
            Self::Timeout => "timeout",
            Self::Blocked => "blocked",
            Self::NotConfirmed => "nack",
            Self::Unroutable => "unroutable",
            Self::ExchangeNotFound => "exchange_not_found",
            Self::MessageTooLarge => "too_large",
            Self::Encode => "encode",
            Self::ChannelClosed => "channel_closed",
            Self::ConnectionLost => "connection_lost",
            Self::PreconditionFailed(_) => "precondition_failed",
            Self::AccessRefused => "access_refused",
            Self::ResourceLocked => "resource_locked",
            Self::NotFound => "not_found",
            Self::Backend => "backend",
            Self::Closed => "closed",
        }
    }
}

/// An operation on the result store failed.
#[derive(Debug)]
pub struct BackendError {
    kind: BackendErrorKind,
    context: String,
    source: Option<BoxError>,
}

/// What kind of failure a [`BackendError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// The URL or a setting cannot be used.
    Config,
    /// No connection, or it was lost.
    Connect,
    /// The server refused the credentials.
    Auth,
    /// No answer within the deadline.
    Timeout,
    /// The server is a replica and refuses writes (a failover is under way).
    ReadOnly,
    /// The server is still loading its data.
    Loading,
    /// The server has no memory left.
    OutOfMemory,
    /// A result exceeds what the server can hold.
    TooLarge,
    /// A stored value is not what Celery writes.
    Decode,
    /// Results are disabled, or this backend has no such operation.
    Unsupported,
    /// Any other answer that the server gave.
    Server,
}

impl BackendError {
    pub(crate) fn new(kind: BackendErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> BackendErrorKind {
        self.kind
    }

    /// Whether the same call can succeed later without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            BackendErrorKind::Connect
                | BackendErrorKind::Timeout
                | BackendErrorKind::ReadOnly
                | BackendErrorKind::Loading
                | BackendErrorKind::OutOfMemory
        )
    }
}

impl BackendErrorKind {
    /// A short stable word for metrics and logs.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Connect => "connect",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::OutOfMemory => "out_of_memory",
            Self::TooLarge => "too_large",
            Self::Decode => "decode",
            Self::Unsupported => "unsupported",
            Self::Server => "server",
        }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BackendErrorKind::Config => "result backend configuration",
            BackendErrorKind::Connect => "cannot reach the result backend",
            BackendErrorKind::Auth => "the result backend refused the login",
            BackendErrorKind::Timeout => "the result backend did not answer in time",
            BackendErrorKind::ReadOnly => "the result backend is read-only",
            BackendErrorKind::Loading => "the result backend is loading its data",
            BackendErrorKind::OutOfMemory => "the result backend is out of memory",
            BackendErrorKind::TooLarge => "the result is too large",
            BackendErrorKind::Decode => "a stored result cannot be read",
            BackendErrorKind::Unsupported => "not supported by this result backend",
            BackendErrorKind::Server => "the result backend answered with an error",
        })?;
        if self.context.is_empty() { Ok(()) } else { write!(f, ": {}", self.context) }
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
