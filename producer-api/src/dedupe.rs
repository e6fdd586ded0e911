//! `dedupe`: a task that is unique while it is pending or running.
//!
//! A note in the result backend says which task holds a key. Whoever comes while the holder is pending or running gets
//! the holder, a refusal, or takes its place; when the holder has ended, the key goes to the next in one atomic step.

use std::time::Duration;

use celery_protocol::TaskId;
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

/// For telling workers that a task was replaced.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who holds a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holder {
    id: TaskId,
    /// Since when, in seconds since 1970.
    at: f64,
    /// For how many seconds from then on.
    #[serde(default)]
    ttl: f64,
    /// Who held it before, and is revoked once this one is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<Box<Holder>>,
}

impl Holder {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
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
    let (at, ttl) = (plan.record.at, unique.ttl.as_secs_f64());
    let mut mine = Holder { id: id.clone(), at, ttl, replaces: None };
    for _ in 0..ATTEMPTS {
        mine.replaces = None;
        let bytes = mine.encode();
        let held = match within(notes.put_new(&key, &bytes, unique.ttl)).await {
            Ok(None) => return hold(api, plan, &key, Held { by: mine, bytes, since: Since::Now }).await,
            Ok(Some(held)) => held,
            Err(reason) => return unprotected(api, id, plan, &reason).await,
        };
        if let Ok(holder) = serde_json::from_slice::<Holder>(&held) {
            if holder.id == *id {
                let held = Held { by: holder, bytes: held, since: Since::Before };
                return hold(api, plan, &key, held).await;
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
                    OnConflict::Replace => {
                        mine.replaces = Some(Box::new(Holder { replaces: None, ..holder }));
                    }
                },
            }
        }
        let bytes = mine.encode();
        if within(notes.replace(&key, &held, &bytes, unique.ttl)).await == Ok(true) {
            return hold(api, plan, &key, Held { by: mine, bytes, since: Since::Now }).await;
        }
    }
    let problem = Problem::new(Kind::SubmissionInProgress, "others are submitting with the same dedupe key");
    Err(problem.outcome(Outcome::NotPublished).retry_after(1))
}

/// Since when a submission holds its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// It took it just now.
    Now,
    /// An earlier submission of the same id took it.
    Before,
}

/// A key that a submission holds.
struct Held {
    by: Holder,
    /// The note, as it is stored.
    bytes: Vec<u8>,
    since: Since,
}

/// Publishes as the holder of the key. If nothing was published the key is given back, to whom it was taken from if it
/// was; a task that is replaced is revoked when its successor is in a queue, not before.
async fn hold(api: &Api, plan: Plan, key: &str, held: Held) -> Result<Done, Problem> {
    let now = plan.record.at;
    match place(api, &held.by.id, Identity::Chosen, plan).await {
        Ok(done) => match &held.by.replaces {
            Some(earlier) => Ok(revoke(api, &earlier.id, done).await),
            None => Ok(done),
        },
        Err(problem) => {
            let unknown = problem.known_outcome() == Some(Outcome::Unknown);
            // Another body under the id of the holder: it goes on to hold.
            let of_another = held.since == Since::Before && problem.kind() == Kind::TaskExists;
            if !unknown && !of_another {
                give_back(api, key, &held, now).await;
            }
            Err(problem)
        }
    }
}

async fn give_back(api: &Api, key: &str, held: &Held, now: f64) {
    let Some(notes) = api.celery.notes() else { return };
    let Held { by, bytes, .. } = held;
    let left = |earlier: &Holder| Duration::try_from_secs_f64(earlier.at + earlier.ttl - now).ok();
    let back = match by.replaces.as_ref().and_then(|earlier| Some((earlier, left(earlier)?))) {
        Some((earlier, left)) => within(notes.replace(key, bytes, &earlier.encode(), left)).await,
        None => within(notes.remove(key, bytes)).await,
    };
    if let Err(reason) = back {
        tracing::warn!(task_id = %by.id, reason, "a dedupe key could not be given back");
    }
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

/// Revokes the task that was replaced.
async fn revoke(api: &Api, id: &TaskId, done: Done) -> Done {
    let client = api.celery.control();
    let ids = [id.clone()];
    let reason = match tokio::time::timeout(REVOKE_TIMEOUT, client.revoke(&ids, false)).await {
        Ok(Ok(())) => return done,
        Ok(Err(err)) => err.to_string(),
        Err(_) => "the broker did not answer in time".to_owned(),
    };
    done.remarked("replaced-not-revoked", format!("{id} may run too: {reason}"))
}
