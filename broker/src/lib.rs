//! RabbitMQ and Redis for the Celery protocol.
//!
//! [`Celery`] is the handle: it publishes tasks (confirmed, or a typed error that says whether the broker may have it),
//! consumes queues, reads and writes results, sends and receives events, and talks remote control. What it does in the
//! background is supervised and survives the loss of either server.
//!
//! # Layout
//!
//! * [`celery`](Celery): the handle and its builder; [`config`]: settings and URLs.
//! * `send`: from a signature to confirmed messages; `outcome`: from an id to a value.
//! * [`event`]: events, both ways; [`control`]: remote control, both ways.
//! * `amqp`: the only code that knows the AMQP client: supervised connections, the publisher, the consumer.
//! * `backend`: [`ResultBackend`] and its implementations.
//! * [`route`]: which queue a task goes to; [`clock`]: time.

mod celery;
pub use celery::{Celery, Health};

mod builder;
pub use builder::CeleryBuilder;

mod error;
pub use error::{BackendError, BackendErrorKind, BrokerError, BrokerErrorKind, Mismatch, Outcome};

mod amqp;
pub use amqp::LOG_DIRECTIVES;
pub use amqp::{
    ConsumeOptions, Consumer, ConsumerEvent, Delivery, ExchangeSpec, Existing, PublishOptions, Publisher,
    QueueDepth, QueueSpec, Requeue, Route, Token, Verdict, WhenUnavailable, undelayed,
};

mod backend;
pub use backend::{
    Called, ChordClaim, ChordMember, ChordPart, ChordProgress, DisabledBackend, MemoryBackend, ResultBackend,
};

mod send;
pub use send::{Children, SendContext};

mod outcome;
pub use outcome::{AsyncResult, GetError, GroupResult, RemoteFailure, Runnable};

mod offline;
pub use offline::Outbox;

pub mod event;

pub mod control;

pub mod chord_watch;
pub mod clock;
pub mod config;
pub mod fenced;
pub mod notes;
pub mod route;
pub mod submission;
mod tasks;
