//! Publishing the first messages of a workflow, and saying exactly what became of them.

use std::time::Duration;

use celery_protocol::TaskId;
use futures_util::StreamExt;

use super::plan::{Act, Planned};
use crate::dto::task::Warning;
use crate::problem::{Kind, Outcome, Problem};
use crate::registry::{Set, Writer};
use crate::state::Api;
use crate::submission::{Record, Stage};
use crate::submit::{not_recorded, send, within};

/// Messages that wait for the broker at once.
const WINDOW: usize = 64;
/// For calling back what was published of a workflow that failed.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes a workflow; answers with remarks.
///
/// Its records are written first: a worker may be faster than this server.
///
/// # Errors
/// `task-exists` if an id that the client chose was used before; or whatever kept a message from being confirmed. What
/// was published before is called back, and named in the problem.
pub async fn run(api: &Api, planned: &Planned) -> Result<Vec<Warning>, Problem> {
    let recorded = match record(api, planned).await {
        Ok(()) => Ok(()),
        Err(NotRecorded::Taken(problem)) => return Err(problem),
        Err(NotRecorded::Backend(reason)) => Err(reason),
    };
    let mut published = Vec::new();
    let mut acts = planned.acts.as_slice();
    while !acts.is_empty() {
        let batch = acts.iter().take_while(|act| matches!(act, Act::Publish { .. })).count();
        let (now, rest) = acts.split_at(batch.max(1));
        let failed = match now {
            [Act::ChordSize(group, size)] => {
                backend(api.celery.backend().chord_start(group, *size).await).err()
            }
            [Act::SaveGroup(result)] => backend(api.celery.backend().store_group(result).await).err(),
            messages => publish(api, messages, planned.timeout, &mut published).await.err(),
        };
        if let Some(problem) = failed {
            return Err(call_back(api, planned, published, problem).await);
        }
        acts = rest;
    }
    Ok(recorded.err().as_deref().map(not_recorded).into_iter().collect())
}

fn backend(result: Result<(), celery_broker::BackendError>) -> Result<(), Problem> {
    result.map_err(|err| Problem::from_backend(&err).outcome(Outcome::NotPublished))
}

/// Publishes messages in order; the ids of those that may be queued go to `published`.
async fn publish(
    api: &Api,
    messages: &[Act],
    timeout: Duration,
    published: &mut Vec<TaskId>,
) -> Result<(), Problem> {
    let sending = messages.iter().filter_map(|act| match act {
        Act::Publish { id, route, message } => {
            Some(async move { (id, send(api, id, route, message, timeout).await) })
        }
        _ => None,
    });
    let sending: Vec<_> = sending.collect();
    let mut sent = futures_util::stream::iter(sending).buffered(WINDOW);
    let mut worst: Option<Problem> = None;
    while let Some((id, result)) = sent.next().await {
        let unknown = |problem: &Problem| problem.known_outcome() == Some(Outcome::Unknown);
        match result {
            Ok(()) => published.push(id.clone()),
            Err(problem) => {
                if unknown(&problem) {
                    published.push(id.clone());
                }
                if worst.as_ref().is_none_or(|worst| !unknown(worst) && unknown(&problem)) {
                    worst = Some(problem);
                }
            }
        }
    }
    worst.map_or(Ok(()), Err)
}

/// After a failure: revokes what may be queued, and says what that is.
async fn call_back(api: &Api, planned: &Planned, published: Vec<TaskId>, problem: Problem) -> Problem {
    if published.is_empty() {
        remove(api, planned.records.iter().map(|(id, _)| id)).await;
        return problem;
    }
    let client = api.celery.control();
    match tokio::time::timeout(REVOKE_TIMEOUT, client.revoke(&published, false)).await {
        Ok(Ok(())) => {}
        _ => tracing::warn!(?published, "a workflow was published in part, and could not be called back"),
    }
    problem.outcome(Outcome::Unknown).published(published.iter().map(ToString::to_string).collect())
}

async fn remove(api: &Api, ids: impl Iterator<Item = &TaskId>) {
    if let Some(index) = api.celery.submissions() {
        futures_util::future::join_all(ids.map(|id| within(index.remove(id)))).await;
    }
}

/// Why a workflow is not written down.
enum NotRecorded {
    /// One of its ids is that of another task.
    Taken(Problem),
    /// It cannot be, at the moment.
    Backend(String),
}

impl From<String> for NotRecorded {
    fn from(reason: String) -> Self {
        NotRecorded::Backend(reason)
    }
}

/// Writes down every task and group of the workflow. Ids that the client chose come first: nothing of others is
/// overwritten, and what was written for them goes again when one of them is taken.
async fn record(api: &Api, planned: &Planned) -> Result<(), NotRecorded> {
    let Some(index) = api.celery.submissions() else {
        return Err("the result backend keeps no records".to_owned().into());
    };
    let keep = api.limits.submission;
    let is_chosen = |id: &TaskId| planned.chosen.contains(id);
    let mut claimed = Vec::new();
    for (id, record) in planned.records.iter().filter(|(id, _)| is_chosen(id)) {
        let bytes = record.encode();
        let earlier = within(index.put_new(id, &bytes, keep)).await?;
        let earlier = earlier.and_then(|bytes| Record::decode(&bytes));
        if earlier.as_ref().is_some_and(|earlier| earlier.stage == Stage::Forgotten) {
            within(index.put(id, &bytes, keep)).await?;
        } else if earlier.is_some() {
            remove(api, claimed.into_iter()).await;
            let detail = "a task was submitted with this id before; nothing was published now";
            let problem = Problem::new(Kind::TaskExists, detail).outcome(Outcome::NotPublished);
            return Err(NotRecorded::Taken(problem.task(id)));
        }
        claimed.push(id);
    }
    let made: Vec<_> = planned.records.iter().filter(|(id, _)| !is_chosen(id)).collect();
    for piece in made.chunks(WINDOW) {
        let encoded: Vec<_> = piece.iter().map(|(id, record)| (id, record.encode())).collect();
        let writing = encoded.iter().map(|(id, bytes)| within(index.put(id, bytes, keep)));
        futures_util::future::try_join_all(writing).await?;
    }
    for (id, members, body) in &planned.groups {
        let mut writer = Writer::new(api, Set::Group, id.as_str());
        members.iter().cloned().for_each(|member| writer.push(member));
        writer.head.total = members.len();
        writer.head.accepted = members.len();
        writer.head.complete = true;
        writer.head.body_id.clone_from(body);
        writer.flush(api).await?;
    }
    Ok(())
}
