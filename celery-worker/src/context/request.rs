//! The call that is being run: ids, arguments, headers, and how the message got here.

use std::borrow::Cow;
use std::time::SystemTime;

use celery_protocol::{
    Body, Embed, GroupId, Headers, Message, Nodename, Properties, QueueName, RawArgs, RawKwargs, TaskId,
    TaskName, TaskOptions, TimeLimits, repr,
};
use serde_json::{Map, Value};

/// One delivery of a call. Shared by the task's body and by the code that settles it; never changed.
#[derive(Debug)]
pub struct Request {
    message: Message,
    body: Body,
    delivery: DeliveryInfo,
    hostname: Nodename,
}

/// Where a message came from.
#[derive(Debug, Clone)]
pub struct DeliveryInfo {
    /// The exchange it was published to; empty for the default one.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Its priority, if it has one.
    pub priority: Option<u8>,
    /// Whether the broker has delivered it before, to somebody who did not settle it.
    pub redelivered: bool,
    /// The queue it was taken from.
    pub queue: QueueName,
}

impl Request {
    /// A decoded message, as the worker received it.
    #[must_use]
    pub fn new(message: Message, body: Body, delivery: DeliveryInfo, hostname: Nodename) -> Self {
        Self { message, body, delivery, hostname }
    }

    /// The task's id: the same over all retries.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.headers().id
    }

    /// The name under which it was called.
    #[must_use]
    pub fn task(&self) -> &TaskName {
        &self.headers().task
    }

    /// How often it has been retried: 0 on the first run.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.headers().retries
    }

    /// The first task of the workflow that this one belongs to.
    #[must_use]
    pub fn root_id(&self) -> Option<&TaskId> {
        self.headers().root_id.as_ref()
    }

    /// The task that sent this one.
    #[must_use]
    pub fn parent_id(&self) -> Option<&TaskId> {
        self.headers().parent_id.as_ref()
    }

    /// The group that it is a member of.
    #[must_use]
    pub fn group(&self) -> Option<&GroupId> {
        self.headers().group.as_ref()
    }

    /// Its place in the group.
    #[must_use]
    pub fn group_index(&self) -> Option<u32> {
        self.headers().group_index
    }

    /// When it was to run, if the caller asked for a time.
    #[must_use]
    pub fn eta(&self) -> Option<SystemTime> {
        self.headers().eta.as_ref().map(|at| (*at).into())
    }

    /// When it must not be started any more.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.headers().expires.as_ref().map(|at| (*at).into())
    }

    /// The positional arguments, as they came.
    #[must_use]
    pub fn args(&self) -> &RawArgs {
        &self.body.args
    }

    /// The keyword arguments, as they came.
    #[must_use]
    pub fn kwargs(&self) -> &RawKwargs {
        &self.body.kwargs
    }

    /// Callbacks, errbacks, and the rest of a chain or chord.
    #[must_use]
    pub fn embed(&self) -> &Embed {
        &self.body.embed
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// Headers that the caller added, and that Celery does not know.
    #[must_use]
    pub fn custom_headers(&self) -> &Map<String, Value> {
        &self.headers().extra
    }

    /// The message's AMQP properties.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.message.properties
    }

    /// The message itself, as a retry sends it again.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The decoded body.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// How the message got here.
    #[must_use]
    pub fn delivery(&self) -> &DeliveryInfo {
        &self.delivery
    }

    /// The name of the worker that runs it.
    #[must_use]
    pub fn hostname(&self) -> &Nodename {
        &self.hostname
    }

    /// The limits for this run: the message's own, or the task's.
    #[must_use]
    pub fn time_limits(&self, options: &TaskOptions) -> TimeLimits {
        let own = self.headers().time_limits;
        TimeLimits { hard: own.hard.or(options.time_limit), soft: own.soft.or(options.soft_time_limit) }
    }

    /// Whether its result is to be thrown away: as the caller said, or else as the task says.
    #[must_use]
    pub fn effective_ignore_result(&self, options: &TaskOptions) -> bool {
        self.headers().ignore_result.unwrap_or(options.ignore_result.unwrap_or(false))
    }

    /// The positional arguments as Python would print them, shortened: for events and logs.
    #[must_use]
    pub fn argsrepr(&self) -> Cow<'_, str> {
        match &self.headers().argsrepr {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(repr::argsrepr(self.args().as_slice())),
        }
    }

    /// The keyword arguments as Python would print them, shortened.
    #[must_use]
    pub fn kwargsrepr(&self) -> Cow<'_, str> {
        match &self.headers().kwargsrepr {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(repr::kwargsrepr(self.kwargs().as_slice())),
        }
    }
}
