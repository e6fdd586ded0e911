//! Submitting: record and publish a [`Plan`], and say exactly what became of it.
//!
//! The record is on its way to Redis before the message is on its way to the broker; both are awaited together, so that
//! it costs no time. With an id of the client's choice the record comes first: it decides whether there is anything to
//! publish at all.

use std::time::{Duration, Instant};

use celery_broker::{BrokerError, BrokerErrorKind, PublishOptions, QueueSpec, Route, WhenUnavailable};
use celery_protocol::{QueueName, RawMessage, TaskId};

use crate::dedupe;
use crate::depth;
use crate::dto::task::Warning;
use crate::plan::Plan;
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;
use crate::submission::{Record, Repeat, Stage};

/// For one access to the record.
pub const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether anybody else can know the id of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It was made for this submission.
    Fresh,
    /// The client chose it, or may send it again.
    Chosen,
}

/// What became of a submission: a queue has it.
#[derive(Debug)]
pub struct Done {
    /// The task; another one than was submitted, if that was a duplicate of it.
    pub id: TaskId,
    /// Its record.
    pub record: Record,
    /// A queue had it before; nothing was published.
    pub deduplicated: bool,
    /// Remarks.
    pub warnings: Vec<Warning>,
}

impl Done {
    fn published(id: &TaskId, record: Record, unrecorded: Option<&str>) -> Self {
        let warnings = unrecorded.map(not_recorded).into_iter().collect();
        Done { id: id.clone(), record, deduplicated: false, warnings }
    }

    /// The task was there before.
    pub fn before(id: TaskId, record: Record) -> Self {
        Done { id, record, deduplicated: true, warnings: Vec::new() }
    }

    /// With a remark.
    #[must_use]
    pub fn remarked(mut self, code: &'static str, detail: String) -> Self {
        self.warnings.push(Warning { code, detail });
        self
    }
}

/// Submits a task, under all the conditions that it comes with.
///
/// # Errors
/// Whatever keeps the broker from confirming it, or a condition that does not hold.
pub async fn run(api: &Api, id: &TaskId, identity: Identity, plan: Plan) -> Result<Done, Problem> {
    match plan.unique.clone() {
        Some(unique) => dedupe::run(api, id, plan, &unique).await,
        None => place(api, id, identity, plan).await,
    }
}

/// Submits a task without further conditions.
///
/// # Errors
/// Whatever keeps the broker from confirming it.
pub async fn place(api: &Api, id: &TaskId, identity: Identity, plan: Plan) -> Result<Done, Problem> {
    match identity {
        Identity::Fresh => new_id(api, id, plan).await,
        Identity::Chosen => chosen_id(api, id, plan).await,
    }
}

/// Publishes a task under a new id that nobody knows yet.
async fn new_id(api: &Api, id: &TaskId, plan: Plan) -> Result<Done, Problem> {
    let encoded = plan.record.encode();
    let recording = async {
        match api.celery.submissions() {
            Some(index) => within(index.put(id, &encoded, plan.keep)).await,
            None => Err("the result backend keeps no records".to_owned()),
        }
    };
    // Polled in this order: the record's bytes are written first.
    let (recorded, published) = futures_util::future::join(recording, publish(api, id, &plan)).await;
    match published {
        Ok(()) => Ok(Done::published(id, plan.record, recorded.err().as_deref())),
        Err(problem) => {
            settle_failure(api, id, plan, &problem).await;
            Err(problem)
        }
    }
}

/// Publishes a task under an id of the client's choice, unless the same was done before. What was unknown once stays
/// unknown until the broker confirms it: that a second attempt failed says nothing of the first.
async fn chosen_id(api: &Api, id: &TaskId, mut plan: Plan) -> Result<Done, Problem> {
    let Some(index) = api.celery.submissions() else {
        return unchecked(api, id, plan, "the result backend keeps no records").await;
    };
    plan.record.stage = Stage::Publishing;
    let earlier = match within(index.put_new(id, &plan.record.encode(), plan.keep)).await {
        Ok(earlier) => earlier,
        Err(reason) => return unchecked(api, id, plan, &reason).await,
    };
    let mut unknown = false;
    if let Some(earlier) = earlier.and_then(|bytes| Record::decode(&bytes)) {
        // A request that has been publishing for longer than any may is dead.
        let patience = plan.timeout + RECORD_TIMEOUT;
        match earlier.repeat(&plan.record.fingerprint, plan.record.at, patience) {
            Repeat::Deduplicate => return Ok(Done::before(id.clone(), earlier)),
            Repeat::Conflict => {
                let detail = "a different task was submitted with this id; nothing was published now";
                return Err(Problem::new(Kind::TaskExists, detail).outcome(Outcome::NotPublished).task(id));
            }
            Repeat::InProgress => {
                let detail = "another request is publishing this task at the moment";
                let problem = Problem::new(Kind::SubmissionInProgress, detail);
                return Err(problem.outcome(Outcome::Unknown).task(id).retry_after(1));
            }
            Repeat::Resend => {
                unknown = earlier.stage != Stage::Forgotten;
                // Best effort: without it a third request may resend once more, under the same id.
                let _ = within(index.put(id, &plan.record.encode(), plan.keep)).await;
            }
        }
    }
    match publish(api, id, &plan).await {
        Ok(()) => {
            plan.record.stage = Stage::Accepted;
            let recorded = within(index.put(id, &plan.record.encode(), plan.keep)).await;
            Ok(Done::published(id, plan.record, recorded.err().as_deref()))
        }
        Err(problem) => {
            let problem = if unknown { problem.outcome(Outcome::Unknown) } else { problem };
            settle_failure(api, id, plan, &problem).await;
            Err(problem)
        }
    }
}

/// Publishes without the protection that a record gives, and says so.
async fn unchecked(api: &Api, id: &TaskId, plan: Plan, reason: &str) -> Result<Done, Problem> {
    publish(api, id, &plan).await?;
    let detail = format!("whether this id was used before could not be checked: {reason}");
    let mut done = Done::published(id, plan.record, Some(reason));
    done.warnings.insert(0, Warning { code: "id-not-checked", detail });
    Ok(done)
}

/// After a failure the record must not say that the task is pending: it is removed if nothing was published, and marked
/// if nobody knows.
async fn settle_failure(api: &Api, id: &TaskId, mut plan: Plan, problem: &Problem) {
    let Some(index) = api.celery.submissions() else { return };
    let settled = if problem.known_outcome() == Some(Outcome::Unknown) {
        plan.record.stage = Stage::Unknown;
        within(index.put(id, &plan.record.encode(), plan.keep)).await
    } else {
        within(index.remove(id)).await
    };
    if let Err(reason) = settled {
        tracing::warn!(task_id = %id, reason, "the record of a failed submission could not be corrected");
    }
}

/// Hands the message to the broker, if its queue is not too long, and waits for its word.
async fn publish(api: &Api, id: &TaskId, plan: &Plan) -> Result<(), Problem> {
    depth::check(api, plan).await?;
    send(api, id, &plan.route, &plan.message, plan.timeout).await
}

/// Hands a message to the broker and waits for its word; a queue of the server's own that is missing is declared.
///
/// # Errors
/// Whatever keeps the broker from confirming it.
pub async fn send(
    api: &Api,
    id: &TaskId,
    route: &Route,
    message: &RawMessage,
    deadline: Duration,
) -> Result<(), Problem> {
    let options =
        PublishOptions { deadline, unavailable: WhenUnavailable::Fail, ..PublishOptions::default() };
    let publish = || api.celery.publisher().publish(route, message.clone(), options);
    let started = Instant::now();
    let mut published = publish().await;
    let unroutable = published.as_ref().is_err_and(|err| *err.kind() == BrokerErrorKind::Unroutable);
    if unroutable && route.exchange.is_empty() && declare_own(api, &route.routing_key).await {
        published = publish().await;
    }
    metrics::histogram!("producer_api_confirm_seconds").record(started.elapsed().as_secs_f64());
    let outcome = match &published {
        Ok(()) => "confirmed",
        Err(err) => outcome_label(err),
    };
    metrics::counter!("producer_api_publish_outcomes_total", "outcome" => outcome).increment(1);
    published.map_err(|err| {
        tracing::warn!(task_id = %id, outcome, error = %err, "not published");
        Problem::from_broker(&err).task(id)
    })
}

/// Declares a queue of the server's own that turned out to be missing; says whether it exists now.
async fn declare_own(api: &Api, queue: &str) -> bool {
    let Ok(name) = QueueName::parse(queue) else { return false };
    if !api.own_queues.contains(queue) {
        return false;
    }
    match api.celery.declare(&QueueSpec::new(name.clone())).await {
        Ok(()) => {
            tracing::info!(queue = %name, "declared a queue that was missing");
            true
        }
        // A user that may only publish cannot declare: then it is for the workers to do.
        Err(err) => {
            tracing::warn!(queue = %name, error = %err, "a queue is missing and cannot be declared");
            false
        }
    }
}

fn outcome_label(err: &BrokerError) -> &'static str {
    match (err.kind(), err.outcome()) {
        (_, celery_broker::Outcome::Unknown) => "unknown",
        (BrokerErrorKind::Unroutable, _) => "returned",
        (BrokerErrorKind::NotConfirmed, _) => "nacked",
        _ => "refused",
    }
}

/// Bounds an access to the record, so that a frozen Redis cannot hold up what the broker has confirmed.
///
/// # Errors
/// The reason in words.
pub async fn within<T>(
    access: impl Future<Output = Result<T, celery_broker::BackendError>>,
) -> Result<T, String> {
    match tokio::time::timeout(RECORD_TIMEOUT, access).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => Err("the result backend did not answer in time".to_owned()),
    }
}

/// The remark that a submission has no record.
pub fn not_recorded(reason: &str) -> Warning {
    Warning {
        code: "submission-not-recorded",
        detail: format!("the task is queued, but until it has a state `GET` will not know it: {reason}"),
    }
}
