//! `return Err(ctx.retry().countdown(…).because(err).into())`: asking for another run.
//!
//! Only what the body asks for is kept here. Whether there is another run, and when, is decided in
//! [`crate::task::outcome`] by the task's options.

use std::time::{Duration, SystemTime};

use celery_protocol::{QueueName, RawArgs, RawKwargs, options::MaxRetries, pyjson};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::task::Failure;

/// A request to run the task again, with the same id and, unless said otherwise, the same arguments.
///
/// ```
/// use celery_worker::prelude::*;
///
/// #[task(name = "docs.poll", max_retries = 10, default_retry_delay = "30s")]
/// async fn poll(#[ctx] ctx: Context, ready: bool) -> TaskResult<()> {
///     if !ready {
///         return Err(ctx.retry().countdown(Duration::from_secs(5)).into());
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "a retry happens when it is returned: `return Err(ctx.retry().into())`"]
pub struct Retry(pub(crate) Box<Wishes>);

/// What a retry asks for; `None` leaves it to the task's options or to the first run.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) when: Option<When>,
    pub(crate) because: Option<Failure>,
    pub(crate) max_retries: Option<MaxRetries>,
    pub(crate) args: Option<RawArgs>,
    pub(crate) kwargs: Option<RawKwargs>,
    pub(crate) queue: Option<QueueName>,
    pub(crate) priority: Option<u8>,
    pub(crate) expires: Option<SystemTime>,
    /// Arguments that don't serialise: reported instead of the retry.
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum When {
    In(Duration),
    At(SystemTime),
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self(Box::default())
    }

    /// Runs again after this time. Default: `retry_backoff` if the task has it, else `default_retry_delay` (180 s).
    pub fn countdown(mut self, delay: Duration) -> Self {
        self.0.when = Some(When::In(delay));
        self
    }

    /// Runs again at this time.
    pub fn eta(mut self, at: SystemTime) -> Self {
        self.0.when = Some(When::At(at));
        self
    }

    /// What went wrong: shown while the task waits, and its failure when no retries are left. Default: then it fails with
    /// `MaxRetriesExceededError`.
    #[track_caller]
    pub fn because(mut self, error: impl Into<Failure>) -> Self {
        self.0.because = Some(error.into());
        self
    }

    /// At most this many retries, for this run. Default: the task's `max_retries` (3).
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.0.max_retries = Some(MaxRetries::Times(retries));
        self
    }

    /// Any number of retries.
    pub fn unlimited(mut self) -> Self {
        self.0.max_retries = Some(MaxRetries::Unlimited);
        self
    }

    /// Other positional arguments, as a tuple: `ctx.retry().args((x + 1, y))`. Arguments that came by keyword stay,
    /// except for those that these replace.
    pub fn args(mut self, args: impl Serialize) -> Self {
        match convert(&args) {
            Ok(args) => self.0.args = Some(args),
            Err(error) => self.0.error = Some(error),
        }
        self
    }

    /// Other keyword arguments, as a struct or map. Arguments that came by position stay, except for those that these
    /// replace.
    pub fn kwargs(mut self, kwargs: impl Serialize) -> Self {
        match convert(&kwargs) {
            Ok(kwargs) => self.0.kwargs = Some(kwargs),
            Err(error) => self.0.error = Some(error),
        }
        self
    }

    /// Another queue. Default: the one that this run came from.
    pub fn queue(mut self, queue: QueueName) -> Self {
        self.0.queue = Some(queue);
        self
    }

    /// Another priority. Default: that of this run.
    pub fn priority(mut self, priority: u8) -> Self {
        self.0.priority = Some(priority);
        self
    }

    /// Not run any more after this time. Default: as the caller said.
    pub fn expires(mut self, at: SystemTime) -> Self {
        self.0.expires = Some(at);
        self
    }
}

fn convert<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, String> {
    let text = pyjson::to_string(value).map_err(|error| error.to_string())?;
    pyjson::from_str(&text).map_err(|error| error.to_string())
}
