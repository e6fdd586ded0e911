//! The log lines about tasks, worded as Celery words them.

use std::time::Duration;

use celery_protocol::repr;
use tracing::{error, info};

use crate::consumer::admit::Revocation;
use crate::context::Request;
use crate::task::Outcome;

/// A call has arrived.
pub(crate) fn received(request: &Request) {
    info!("Task {}[{}] received", request.headers().display_name(), request.id());
}

/// A call is not run.
pub(crate) fn discarding(request: &Request, why: Revocation) {
    let why = why.reason();
    info!("Discarding revoked task: {}[{}] ({why})", request.headers().display_name(), request.id());
}

/// A call has ended.
pub(crate) fn ended(request: &Request, outcome: &Outcome, runtime: Duration) {
    let (name, id) = (request.headers().display_name(), request.id());
    match outcome {
        Outcome::Success(value) if tracing::enabled!(tracing::Level::INFO) => {
            let shown = repr::repr(value.get(), repr::DEFAULT_BUDGET);
            info!("Task {name}[{id}] succeeded in {}s: {shown}", runtime.as_secs_f64());
        }
        Outcome::Success(_) => {}
        Outcome::Failure { failure, expected: true } => {
            info!("Task {name}[{id}] raised expected: {}", failure.exception().repr());
        }
        Outcome::Failure { failure, expected: false } => {
            let traceback = failure.traceback(request.task()).unwrap_or_default();
            error!("Task {name}[{id}] raised unexpected: {}\n{traceback}", failure.exception().repr());
        }
        Outcome::Retry(resend) => info!("Task {name}[{id}] retry: {}", resend.reason),
        Outcome::Ignore | Outcome::Replaced => info!("Task {name}[{id}] ignored"),
        Outcome::Reject { requeue, reason } => {
            error!("Task {name}[{id}] rejected (requeue={requeue}): {reason}");
        }
        Outcome::Interrupted(interrupt) => info!("Task {name}[{id}] interrupted: {interrupt}"),
    }
}
