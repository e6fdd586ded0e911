//! `dedupe`: a task that is unique while it is pending or running.
//!
//! A note in the result backend says which task holds a key. Whoever comes while the holder is pending or running gets
//! the holder, a refusal, or takes its place; when the holder has ended, the key goes to the next in one atomic step.

use std::time::Duration;

use celery_broker::control::Destination;
use celery_protocol::TaskId;
use celery_protocol::control::Command;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dto::submit::{OnConflict, hex};
use crate::plan::{Plan, Unique};
use crate::problem::{Kind, Outcome, Problem};
use crate::routes::results;
use crate::state::Api;
use crate::submission::{Record, Stage};
use crate::submit::{Done, Identity, place, within};

/// How often a key is tried for when others are after it too.
const ATTEMPTS: usize = 4;
/// A holder without a record is taken for one that is just being submitted for this long.
const STARTING: Duration = Duration::from_secs(40);

/// Who holds a key.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    id: TaskId,
    /// Since when, in seconds since 1970.
    at: f64,
}

/// What a holder means for the next submission.
enum Holding {
    /// It has ended, or is forgotten.
    Over,
    /// It is pending or running.
    Busy(Box<Record>),
    /// It is being published.
    Starting,
    /// Nobody knows whether it was published.
    Unknown,
}

/// Publishes a task if its key is free, and else does what the submission says.
///
/// # Errors
/// `dedupe-rejected`, `submission-in-progress`, or whatever keeps the broker from confirming it.
pub async fn run(api: &Api, id: &TaskId, plan: Plan, unique: &Unique) -> Result<Done, Problem> {
    let Some(notes) = api.celery.notes() else {
        return unprotected(api, id, plan, "the result backend keeps no notes").await;
    };
    let key = format!("dedupe:{}", hex(&Sha256::digest(unique.key.as_bytes())));
    let mine = Holder { id: id.clone(), at: plan.record.at };
    let mine = serde_json::to_vec(&mine).unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let held = match within(notes.put_new(&key, &mine, unique.ttl)).await {
            Ok(None) => return hold(api, id, plan, &key, &mine).await,
            Ok(Some(held)) => held,
            Err(reason) => return unprotected(api, id, plan, &reason).await,
        };
        if let Ok(holder) = serde_json::from_slice::<Holder>(&held) {
            if holder.id == *id {
                return hold(api, id, plan, &key, &held).await;
            }
            match look(api, &holder, plan.record.at).await? {
                Holding::Over => {}
                Holding::Starting => {
                    let detail = "a task with the same dedupe key is being published at the moment";
                    let problem = Problem::new(Kind::SubmissionInProgress, detail).task(&holder.id);
                    return Err(problem.outcome(Outcome::NotPublished).retry_after(1));
                }
                Holding::Unknown => {
                    let detail = "whether the task that holds the dedupe key was published is unknown; send it again \
                                  with PUT /v1/tasks/{task_id}";
                    let problem = Problem::new(Kind::PublishUnconfirmed, detail).task(&holder.id);
                    return Err(problem.outcome(Outcome::Unknown).retry_after(1));
                }
                Holding::Busy(record) => match unique.on_conflict {
                    OnConflict::ReturnExisting => return Ok(Done::before(holder.id, *record)),
                    OnConflict::Reject => {
                        let detail = "a task with the same dedupe key is pending or running";
                        let problem = Problem::new(Kind::DedupeRejected, detail).task(&holder.id);
                        return Err(problem.outcome(Outcome::NotPublished).retry_after(1));
                    }
                    OnConflict::Replace => revoke(api, &holder.id).await?,
                },
            }
        }
        if within(notes.replace(&key, &held, &mine, unique.ttl)).await == Ok(true) {
            return hold(api, id, plan, &key, &mine).await;
        }
    }
    let problem = Problem::new(Kind::SubmissionInProgress, "others are submitting with the same dedupe key");
    Err(problem.outcome(Outcome::NotPublished).retry_after(1))
}

/// Publishes as the holder of the key, which is given back if nothing was published.
async fn hold(api: &Api, id: &TaskId, plan: Plan, key: &str, mine: &[u8]) -> Result<Done, Problem> {
    let placed = place(api, id, Identity::Chosen, plan).await;
    if let Err(problem) = &placed
        && problem.known_outcome() != Some(Outcome::Unknown)
        && let Some(notes) = api.celery.notes()
        && let Err(reason) = within(notes.remove(key, mine)).await
    {
        tracing::warn!(task_id = %id, reason, "a dedupe key could not be given back");
    }
    placed
}

async fn unprotected(api: &Api, id: &TaskId, plan: Plan, reason: &str) -> Result<Done, Problem> {
    let done = place(api, id, Identity::Chosen, plan).await?;
    let detail = format!("whether a task with this dedupe key is pending could not be checked: {reason}");
    Ok(done.remarked("dedupe-not-enforced", detail))
}

async fn look(api: &Api, holder: &Holder, now: f64) -> Result<Holding, Problem> {
    let refuse = |problem: Problem| problem.outcome(Outcome::NotPublished);
    let (record, meta) = results::both(api, &holder.id).await.map_err(refuse)?;
    if meta.as_ref().is_some_and(|meta| meta.status.is_ready()) {
        return Ok(Holding::Over);
    }
    let young = now - holder.at < STARTING.as_secs_f64();
    Ok(match record {
        None if young => Holding::Starting,
        None => Holding::Over,
        Some(record) => match record.stage {
            Stage::Forgotten => Holding::Over,
            Stage::Accepted => Holding::Busy(Box::new(record)),
            Stage::Publishing if young => Holding::Starting,
            Stage::Publishing | Stage::Unknown => Holding::Unknown,
        },
    })
}

async fn revoke(api: &Api, id: &TaskId) -> Result<(), Problem> {
    let command = Command::Revoke { ids: vec![id.to_string()], terminate: false, signal: None };
    let told = api.celery.control().cast(&command, Destination::All).await;
    told.map_err(|err| Problem::from_broker(&err).outcome(Outcome::NotPublished).task(id))
}
