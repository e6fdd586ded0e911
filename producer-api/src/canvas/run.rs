//! Publishing the first messages of a workflow, and saying exactly what became of them.

use std::time::Duration;

use celery_broker::control::Destination;
use celery_protocol::TaskId;
use celery_protocol::control::Command;
use futures_util::StreamExt;

use super::plan::{Act, Planned};
use crate::dto::task::Warning;
use crate::problem::{Outcome, Problem};
use crate::registry::{Set, Writer};
use crate::state::Api;
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
/// Whatever kept a message from being confirmed. What was published before is called back, and named in the problem.
pub async fn run(api: &Api, planned: &Planned) -> Result<Vec<Warning>, Problem> {
    let recorded = record(api, planned).await;
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
        if let Some(index) = api.celery.submissions() {
            let gone = planned.records.iter().map(|(id, _)| within(index.remove(id)));
            futures_util::future::join_all(gone).await;
        }
        return problem;
    }
    let ids: Vec<String> = published.iter().map(ToString::to_string).collect();
    let command = Command::Revoke { ids: ids.clone(), terminate: false, signal: None };
    let client = api.celery.control();
    let revoking = client.cast(&command, Destination::All);
    match tokio::time::timeout(REVOKE_TIMEOUT, revoking).await {
        Ok(Ok(())) => {}
        _ => tracing::warn!(?ids, "a workflow was published in part, and could not be called back"),
    }
    problem.outcome(Outcome::Unknown).published(ids)
}

/// Writes down every task and group of the workflow.
async fn record(api: &Api, planned: &Planned) -> Result<(), String> {
    let Some(index) = api.celery.submissions() else {
        return Err("the result backend keeps no records".to_owned());
    };
    let keep = api.limits.submission;
    for piece in planned.records.chunks(WINDOW) {
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
