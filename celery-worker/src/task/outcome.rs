//! What the end of a task means under its options: pure, decided here and nowhere else.
//!
//! In goes what the body returned; out comes an [`Outcome`], in which retries are counted, delays computed and
//! exhausted ones turned into failures. What is then published, stored and acked follows in `trace::settle`.

use std::time::{Duration, SystemTime};

use celery_protocol::{
    QueueName, RawArgs, RawKwargs, TaskOptions,
    options::{Execution, MaxRetries},
    repr,
};
use serde_json::value::RawValue;

use super::registry::ErasedTask;
use super::{Failure, TaskError, TaskResult};
use crate::context::{Interrupt, Request, Retry, When, Wishes};

/// How a run ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// With this value.
    Success(Box<RawValue>),
    /// With an exception.
    Failure {
        /// The exception.
        failure: Failure,
        /// The task's `throws` names it: news, not an error.
        expected: bool,
    },
    /// It runs again.
    Retry(Resend),
    /// Nothing is stored or sent.
    Ignore,
    /// Another task, already sent, has taken its place and id.
    Replaced,
    /// The message is refused.
    Reject {
        /// Whether it is delivered again.
        requeue: bool,
        /// Why.
        reason: String,
    },
    /// It stopped because it was told to: `Terminated` or `Shutdown`. A soft time limit is a failure.
    Interrupted(Interrupt),
}

/// The next run of a task: what differs from this one.
#[derive(Debug, Clone)]
pub struct Resend {
    /// When it is due.
    pub due: SystemTime,
    /// How long that is from now.
    pub delay: Duration,
    /// What went wrong, if the body said so: stored with the state RETRY.
    pub failure: Option<Failure>,
    /// `Retry in 5s: ValueError('…')`, for logs and events.
    pub reason: String,
    /// Arguments in place of this run's.
    pub args: Option<RawArgs>,
    /// Keyword arguments in place of this run's.
    pub kwargs: Option<RawKwargs>,
    /// A queue in place of this run's.
    pub queue: Option<QueueName>,
    /// A priority in place of this run's.
    pub priority: Option<u8>,
    /// An expiry in place of this run's.
    pub expires: Option<SystemTime>,
}

impl Outcome {
    /// Decides. `dice` is a random number from 0 to 1, for jitter.
    #[must_use]
    pub fn decide(
        answer: TaskResult<Box<RawValue>>,
        task: &ErasedTask,
        request: &Request,
        now: SystemTime,
        dice: f64,
    ) -> Self {
        let error = match answer {
            Ok(value) => return Self::Success(value),
            Err(error) => error,
        };
        match error {
            TaskError::Failure(failure) => Self::failed(failure, task, request, now, dice),
            TaskError::Interrupted(Interrupt::SoftTimeLimit) => {
                Self::failed(Failure::soft_time_limit(), task, request, now, dice)
            }
            TaskError::Retry(retry) => Self::retried(retry, task, request, now, dice),
            TaskError::Ignore => Self::Ignore,
            TaskError::Replaced => Self::Replaced,
            TaskError::Reject { requeue, reason } => Self::Reject { requeue, reason },
            TaskError::Interrupted(interrupt) => Self::Interrupted(interrupt),
        }
    }

    fn failed(failure: Failure, task: &ErasedTask, request: &Request, now: SystemTime, dice: f64) -> Self {
        if task.rules.retries(&failure) {
            return Self::retried(Retry::new().because(failure), task, request, now, dice);
        }
        let expected = task.rules.expects(&failure);
        Self::Failure { failure, expected }
    }

    fn retried(retry: Retry, task: &ErasedTask, request: &Request, now: SystemTime, dice: f64) -> Self {
        let Wishes { when, because, max_retries, args, kwargs, queue, priority, expires, error } = *retry.0;
        if let Some(error) = error {
            return Self::Failure { failure: Failure::encode_error(error), expected: false };
        }
        let (args, kwargs) = arguments(args, kwargs, task, request);
        let options = task.options.resolve(&TaskOptions::DEFAULT);
        let allowed = max_retries.unwrap_or(options.max_retries);
        if matches!(allowed, MaxRetries::Times(allowed) if request.retries() >= allowed) {
            let failure = because.unwrap_or_else(|| {
                let (args, kwargs) =
                    (args.as_ref().unwrap_or(request.args()), kwargs.as_ref().unwrap_or(request.kwargs()));
                Failure::max_retries_exceeded(format_args!(
                    "Can't retry {}[{}] args:{} kwargs:{}",
                    request.task(),
                    request.id(),
                    repr::argsrepr(args.as_slice()),
                    repr::kwargsrepr(kwargs.as_slice()),
                ))
            });
            let expected = task.rules.expects(&failure);
            return Self::Failure { failure, expected };
        }
        let when = when.unwrap_or_else(|| When::In(delay(&options, request.retries(), dice)));
        let (due, delay) = match when {
            When::In(delay) => (now.checked_add(delay).unwrap_or(now), delay),
            When::At(due) => (due, due.duration_since(now).unwrap_or_default()),
        };
        let mut reason = match when {
            When::In(delay) => format!("Retry in {}s", delay.as_secs_f64()),
            When::At(due) => format!("Retry at {}", celery_protocol::WireTime::from(due)),
        };
        if let Some(failure) = &because {
            reason = format!("{reason}: {}", failure.exception().repr());
        }
        Self::Retry(Resend { due, delay, failure: because, reason, args, kwargs, queue, priority, expires })
    }
}

/// How long to wait before the retry after `retries` others, if the body does not say.
fn delay(options: &Execution, retries: u32, dice: f64) -> Duration {
    let Some(first) = options.retry_backoff else { return options.default_retry_delay };
    // Beyond 2^31 times the first delay the maximum decides anyway.
    let delay = first.saturating_mul(1 << retries.min(31)).min(options.retry_backoff_max);
    if options.retry_jitter { delay.mul_f64(dice.clamp(0.0, 1.0)) } else { delay }
}

/// The arguments of the next run, by Python's rules: what is given replaces what it names, whichever way that came in.
fn arguments(
    args: Option<RawArgs>,
    kwargs: Option<RawKwargs>,
    task: &ErasedTask,
    request: &Request,
) -> (Option<RawArgs>, Option<RawKwargs>) {
    match (args, kwargs) {
        (Some(args), None) if !request.kwargs().is_empty() => {
            // Positional arguments displace keywords of the parameters that they fill.
            let filled = &task.positional()[..args.len().min(task.positional().len())];
            let mut kept = RawKwargs::new();
            for (name, value) in request.kwargs().iter().filter(|(name, _)| !filled.contains(name)) {
                kept.insert_raw(name, value.to_owned());
            }
            (Some(args), Some(kept))
        }
        (None, Some(mut kwargs)) if !request.args().is_empty() => {
            // Keywords displace positional arguments of the same parameters, in place.
            let mut args = RawArgs::new();
            for (index, value) in request.args().iter().enumerate() {
                let new = task.positional().get(index).and_then(|name| kwargs.remove(name));
                args.push_raw(new.unwrap_or_else(|| value.to_owned()));
            }
            (Some(args), Some(kwargs))
        }
        given => given,
    }
}

#[cfg(test)]
mod tests;
