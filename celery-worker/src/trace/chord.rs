//! The end of a chord's header member, and of the whole chord when it was the last one, or when one is lost.
//!
//! The result store counts; whoever it gives the claim sends the body, exactly one of all workers, of either language. A
//! claim that cannot be used is given back, and a chord with a failed member ends in its body's errbacks.

use std::time::{Duration, SystemTime};

use celery_broker::chord_watch::{OverdueChord, WatchedChord};
use celery_broker::{BackendError, ChordClaim, ChordPart, ChordProgress, ResultBackend};
use celery_protocol::pyjson::{self, null};
use celery_protocol::{GroupId, RawArgs, RemoteException, ResultTuple, Signature, TaskId, TaskState};
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::apply::{self, Publishing};
use super::settle::{self, Application, ChordReport, FollowUp};
use super::settler::{self, Ground, Trouble};
use crate::task::Failure;

/// How long a claim holds at first; Celery's value for its default `result_chord_join_timeout`.
const CLAIM_SECONDS: u64 = 6;
/// How long it holds while the body is being published; Celery's value.
const PUBLISH_SECONDS: u64 = 21;
/// Longer than any claim holds that its holder does not keep: by then it has run out, or the chord is over.
const LONGEST_CLAIM: Duration = Duration::from_secs(90);
/// How often a chord is asked for that somebody else ends.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long it is noted which errbacks were called.
const TOLD_FOR: Duration = Duration::from_secs(86_400);

/// Tells the store that a member has ended, and sends the body if it was the last.
pub(super) async fn report(ground: &Ground<'_>, report: ChordReport) -> Result<(), Trouble> {
    let part = ChordPart {
        group: report.group_id.clone(),
        task: report.task_id.clone(),
        state: report.state.clone(),
        result: report.result.clone(),
        index: report.group_index,
        claim_seconds: CLAIM_SECONDS,
        token: Uuid::new_v4().simple().to_string(),
    };
    note_told(ground, &report.group_id, &report.told).await;
    match count(ground, &part).await? {
        ChordProgress::Claimed(claim) => {
            watch(ground, &report).await;
            let (body, told) = (&report.body, report.told.as_slice());
            let ending = Ending { body, told, root_id: &report.root_id, last: &report.task_id };
            finish(ground, ending, &claim).await
        }
        ChordProgress::Waiting { .. } => {
            watch(ground, &report).await;
            Ok(())
        }
        ChordProgress::Taken | ChordProgress::Late => Ok(()),
    }
}

/// Counts a member. Where somebody else holds the claim, that one may have died with it, and this be the message that it
/// leaves behind: then the claim runs out and is ours.
async fn count(ground: &Ground<'_>, part: &ChordPart) -> Result<ChordProgress, Trouble> {
    let backend = ground.celery.backend().as_ref();
    let until = Instant::now() + LONGEST_CLAIM;
    loop {
        let progress = settler::persist_store(ground, || backend.chord_part(part)).await?;
        if progress != ChordProgress::Taken {
            return Ok(progress);
        }
        if Instant::now() > until {
            tracing::error!(group = %part.group, "somebody else is ending this chord, and does not come to an end");
            return Err(Trouble::GiveUp);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Puts a chord under watch that is not yet: the members before may have ended where nobody watches. That it is watched is
/// no condition for anything else.
async fn watch(ground: &Ground<'_>, report: &ChordReport) {
    let (Some(patience), Some(watch)) =
        (ground.celery.chord_deadline(), ground.celery.backend().chord_watch())
    else {
        return;
    };
    let (group, root_id) = (report.group_id.clone(), Some(report.root_id.clone()));
    let chord = WatchedChord { group, body: report.body.to_raw(), root_id, patience };
    if let Err(error) = watch.watch(&chord).await {
        tracing::warn!(group = %chord.group, %error, "a chord is not watched");
    }
}

/// Ends a chord in which nothing has happened for too long, and which is ours to end.
pub(super) async fn end_overdue(ground: &Ground<'_>, overdue: OverdueChord) -> Result<(), Trouble> {
    let complete = overdue.is_complete();
    let OverdueChord { chord, claim, done, total } = overdue;
    let backend = ground.celery.backend().as_ref();
    let Ok(body) = pyjson::from_str::<Signature>(chord.body.get()) else {
        return settler::persist_store(ground, || backend.chord_abort(&chord.group)).await;
    };
    let Ok(Some(body_id)) = body.options.task_id() else {
        return settler::persist_store(ground, || backend.chord_abort(&chord.group)).await;
    };
    let members = settler::persist_store(ground, || backend.chord_results(&chord.group)).await?;
    let last = members.last().map_or_else(|| body_id.clone(), |member| member.task.clone());
    let root_id = chord.root_id.unwrap_or_else(|| last.clone());
    let ending = Ending { body: &body, told: &[], root_id: &root_id, last: &last };
    if complete {
        tracing::warn!(group = %chord.group, "nobody has sent the body of a chord: it is sent now");
        return finish(ground, ending, &claim).await;
    }
    // Where the size is gone, a worker may have ended it already, as one of Celery does whose chord has failed.
    let ended = settler::persist_store(ground, || backend.get(&body_id)).await?;
    if ended.is_some_and(|meta| meta.status.is_ready()) {
        return settler::persist_store(ground, || backend.chord_abort(&chord.group)).await;
    }
    let of = total.map_or_else(String::new, |total| format!(" of {total}"));
    let text = format!(
        "{done}{of} members of the chord have ended, and no other one for {} s: one is lost",
        chord.patience.as_secs_f64()
    );
    fail(ground, ending, &claim, &Failure::chord_error(&text)).await?;
    settler::persist_store(ground, || backend.chord_done(&claim)).await
}

/// What is needed to end a chord.
#[derive(Clone, Copy)]
struct Ending<'a> {
    /// What to call.
    body: &'a Signature,
    /// Errbacks that need not be called any more.
    told: &'a [Signature],
    /// The root of the workflow.
    root_id: &'a TaskId,
    /// The member that ended last.
    last: &'a TaskId,
}

async fn finish(ground: &Ground<'_>, ending: Ending<'_>, claim: &ChordClaim) -> Result<(), Trouble> {
    let backend = ground.celery.backend().as_ref();
    let joined = match join(backend, claim).await {
        Ok(joined) => joined,
        Err(error) => {
            tracing::error!(group = %claim.group, %error, "the results of a chord's header could not be read");
            give_back(backend, claim).await;
            return Err(Trouble::GiveUp);
        }
    };
    let results = match joined {
        Joined::Results(results) => results,
        Joined::Failed { task, exception } => {
            let text = format!("Dependency {task} raised {exception}");
            return fail(ground, ending, claim, &Failure::chord_error(&text)).await;
        }
    };
    if !settler::persist_store(ground, || backend.chord_extend(claim, PUBLISH_SECONDS)).await? {
        return Ok(());
    }
    let application = Application {
        signature: ending.body.clone(),
        arguments: vec![results],
        chain: None,
        parent_id: ending.last.clone(),
        root_id: ending.root_id.clone(),
    };
    match apply::publish(ground, FollowUp::Apply(Box::new(application))).await {
        Publishing::Confirmed(_) => settler::persist_store(ground, || backend.chord_done(claim)).await,
        Publishing::Refused(problem) => {
            let text = format!("Callback error: {problem}");
            fail(ground, ending, claim, &Failure::chord_error(&text)).await
        }
        Publishing::GaveUp(error) => {
            tracing::error!(group = %claim.group, %error, "the body of a chord could not be published");
            give_back(backend, claim).await;
            Err(Trouble::GiveUp)
        }
    }
}

/// The chord ends without its body.
async fn fail(
    ground: &Ground<'_>,
    ending: Ending<'_>,
    claim: &ChordClaim,
    failure: &Failure,
) -> Result<(), Trouble> {
    tracing::error!(group = %claim.group, "Chord {} failed: {}", claim.group, failure.exception().repr());
    let told = [ending.told, &told_before(ground, &claim.group).await].concat();
    if let Err(trouble) = fail_body(ground, ending.body, ending.root_id, failure, &told).await {
        give_back(ground.celery.backend().as_ref(), claim).await;
        return Err(trouble);
    }
    let backend = ground.celery.backend().as_ref();
    settler::persist_store(ground, || backend.chord_abort(&claim.group)).await
}

/// Calls the errbacks of a chord's body, and stores its failure even where they cannot be called.
pub(super) async fn fail_body(
    ground: &Ground<'_>,
    body: &Signature,
    root_id: &TaskId,
    failure: &Failure,
    told: &[Signature],
) -> Result<(), Trouble> {
    let now = SystemTime::now();
    for part in settle::chord_failed(body, root_id, failure, told, now, ground.new_style) {
        let settle::BodyFailed { id, errbacks, failures } = part;
        let mut children = Vec::new();
        match settler::perform_with(*ground, Some(&id), errbacks, &mut children).await {
            Err(Trouble::Refused(problem)) => {
                tracing::error!(%id, problem, "the errbacks of a chord's body cannot be published");
            }
            other => other?,
        }
        settler::perform_with(*ground, Some(&id), failures, &mut children).await?;
    }
    Ok(())
}

/// Where it is noted which errbacks a chord inside this one has called: `Chord.link_error` links them to both, and they are
/// called once.
fn told_key(group: &GroupId) -> String {
    format!("chord-told:{group}")
}

async fn told_before(ground: &Ground<'_>, group: &GroupId) -> Vec<Signature> {
    let Some(notes) = ground.celery.backend().notes() else { return Vec::new() };
    match notes.get(&told_key(group)).await {
        Ok(Some(noted)) => {
            std::str::from_utf8(&noted).ok().and_then(|text| pyjson::from_str(text).ok()).unwrap_or_default()
        }
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::warn!(%group, %error, "what errbacks were called could not be read");
            Vec::new()
        }
    }
}

async fn note_told(ground: &Ground<'_>, group: &GroupId, told: &[Signature]) {
    let Some(notes) = ground.celery.backend().notes().filter(|_| !told.is_empty()) else { return };
    let all = [told, &told_before(ground, group).await].concat();
    let Ok(text) = pyjson::to_string(&all) else { return };
    if let Err(error) = notes.put(&told_key(group), text.as_bytes(), TOLD_FOR).await {
        tracing::warn!(%group, %error, "what errbacks were called could not be noted");
    }
}

/// Gives the claim up at once, so that the redelivered message, here or elsewhere, gets it.
async fn give_back(backend: &dyn ResultBackend, claim: &ChordClaim) {
    if let Err(error) = backend.chord_release(claim).await {
        tracing::debug!(%error, "a claim runs out by itself");
    }
}

enum Joined {
    /// The JSON list of the results, nested as the header is.
    Results(Box<RawValue>),
    /// A member that failed.
    Failed { task: TaskId, exception: String },
}

async fn join(backend: &dyn ResultBackend, claim: &ChordClaim) -> Result<Joined, BackendError> {
    if let Some(group) = backend.get_group(&claim.group).await? {
        return join_nested(backend, group).await;
    }
    let mut results = RawArgs::new();
    for member in backend.chord_results(&claim.group).await? {
        if member.state != TaskState::Success {
            return Ok(Joined::Failed { task: member.task, exception: shown(&member.result) });
        }
        results.push_raw(member.result);
    }
    Ok(Joined::Results(results.to_raw()))
}

/// A header with groups among its members: their results are lists, read one by one.
async fn join_nested(backend: &dyn ResultBackend, group: ResultTuple) -> Result<Joined, BackendError> {
    let mut ids = Vec::new();
    leaves(&group, &mut ids);
    let metas = backend.get_many(&ids).await?;
    let mut found = std::collections::HashMap::new();
    for (id, meta) in ids.into_iter().zip(metas) {
        let Some(meta) = meta else { continue };
        if meta.status != TaskState::Success {
            return Ok(Joined::Failed { task: id, exception: shown(&meta.result) });
        }
        found.insert(id, meta.result);
    }
    Ok(Joined::Results(nested(&group, &found)))
}

/// The tasks of a group, in order, those of inner groups among them.
pub(crate) fn leaves(tuple: &ResultTuple, ids: &mut Vec<TaskId>) {
    match &tuple.members {
        Some(members) => members.iter().for_each(|member| leaves(member, ids)),
        None => ids.push(tuple.id.clone()),
    }
}

/// What the members of a group have returned, as a list; an inner group is a list in it.
pub(crate) fn nested(
    tuple: &ResultTuple,
    found: &std::collections::HashMap<TaskId, Box<RawValue>>,
) -> Box<RawValue> {
    match &tuple.members {
        None => found.get(&tuple.id).cloned().unwrap_or_else(null),
        Some(members) => {
            let mut list = RawArgs::new();
            for member in members {
                list.push_raw(nested(member, found));
            }
            list.to_raw()
        }
    }
}

/// An exception as Python prints it.
pub(crate) fn shown(exception: &RawValue) -> String {
    match RemoteException::from_raw(exception) {
        Ok(exception) => exception.repr(),
        Err(_) => celery_protocol::repr::repr(exception.get(), celery_protocol::repr::DEFAULT_BUDGET),
    }
}
