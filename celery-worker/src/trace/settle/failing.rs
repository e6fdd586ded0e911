//! Calls that will never be made, because of one that failed: they fail too, and their errbacks are called.

use std::collections::HashSet;
use std::time::SystemTime;

use celery_protocol::canvas::Canvas;
use celery_protocol::pyjson::{self, null};
use celery_protocol::{ResultMeta, Signature, TaskId, TaskName, TaskState, WireTime};
use serde_json::value::RawValue;

use super::{Application, ChordReport, FollowUp, Step, exception, group};
use crate::context::FailedCall;
use crate::task::Failure;

/// What follows when a chord cannot call its body, for one call of the body: it is told first, and then fails. That is
/// Celery's order, which lists the errbacks among the children of the failed call.
#[derive(Debug)]
pub(crate) struct BodyFailed {
    /// The call.
    pub(crate) id: TaskId,
    /// Publishes its errbacks.
    pub(crate) errbacks: Vec<Step>,
    /// Stores its failure, and that of all that was to come after it.
    pub(crate) failures: Vec<Step>,
}

/// Decides what follows when a chord cannot call its body: the body, and all that was to come after it, fails, and its
/// errbacks are called as if it had run; in a group each member calls its own and those of the group. `told` were called
/// before, for a chord inside this one.
pub(crate) fn chord_failed(
    body: &Signature,
    root_id: &TaskId,
    failure: &Failure,
    told: &[Signature],
    now: SystemTime,
    new_style: &HashSet<TaskName>,
) -> Vec<BodyFailed> {
    let mut cause = Cause {
        result: exception(failure),
        traceback: None,
        stored: true,
        told: Vec::new(),
        now,
        root_id: root_id.clone(),
    };
    let mut calls = failed_calls(body);
    for call in &mut calls {
        call.errbacks.retain(|errback| !told.iter().any(|told| same_call(told, errback)));
    }
    let mut failed = Vec::with_capacity(calls.len());
    for FailedBody { call, id, errbacks } in calls {
        let arguments = || FailedCall::unsent(&call, &id, root_id, failure);
        let publishes = call_errbacks(&errbacks, &id, root_id, new_style, arguments);
        cause.told = [told, &errbacks].concat();
        let mut failures = Vec::new();
        cause.fail(&call, &mut failures);
        failed.push(BodyFailed { id, errbacks: publishes, failures });
    }
    cause.told = told.to_vec();
    let mut later = Vec::new();
    for call in body.options.chain().ok().flatten().unwrap_or_default() {
        cause.fail(&call, &mut later);
    }
    if let Some(last) = failed.last_mut() {
        last.failures.append(&mut later);
    }
    failed
}

/// A call of a chord's body that will not be made.
struct FailedBody {
    call: Signature,
    id: TaskId,
    errbacks: Vec<Signature>,
}

fn failed_calls(body: &Signature) -> Vec<FailedBody> {
    let own = body.options.link_error().unwrap_or_default();
    if let Ok(Canvas::Group(group)) = Canvas::from_signature(body.clone()) {
        let members = group.members.into_iter().filter_map(|member| {
            let (id, mut errbacks) = result_errbacks(&member)?;
            errbacks.extend(own.iter().cloned());
            let mut different: Vec<Signature> = Vec::with_capacity(errbacks.len());
            for errback in errbacks {
                if !different.contains(&errback) {
                    different.push(errback);
                }
            }
            Some(FailedBody { call: member.to_signature(), id, errbacks: different })
        });
        return members.collect();
    }
    match body.options.task_id() {
        Ok(Some(id)) => vec![FailedBody { call: body.clone(), id, errbacks: own }],
        _ => Vec::new(),
    }
}

/// The id under which a workflow's result is, and the errbacks that are linked to it: those of a chord are those of its
/// body too, those of a group those of its members (`_result_errbacks`, celery/backends/base.py).
fn result_errbacks(canvas: &Canvas) -> Option<(TaskId, Vec<Signature>)> {
    let mut errbacks = Vec::new();
    let mut of = canvas;
    while let Canvas::Chord(chord) = of {
        errbacks.extend(of.options().link_error().unwrap_or_default());
        of = chord.body.as_deref()?;
    }
    errbacks.extend(of.options().link_error().unwrap_or_default());
    if let Canvas::Group(group) = of {
        errbacks.extend(group.members.iter().filter_map(result_errbacks).flat_map(|(_, errbacks)| errbacks));
    }
    let id = match of {
        Canvas::Chain(chain) => {
            of.options().task_id().ok()?.or_else(|| Some(result_errbacks(chain.steps.last()?)?.0))
        }
        _ => of.options().task_id().ok()?,
    };
    Some((id?, errbacks))
}

/// Whether two signatures call the same task with the same arguments.
fn same_call(one: &Signature, other: &Signature) -> bool {
    (&one.task, &one.args, &one.kwargs) == (&other.task, &other.args, &other.kwargs)
}

/// How errbacks are told. Those of the old style go as one group, as Celery sends them, and get the id of what failed;
/// those of the new style, which only a worker that has them can tell, get the call, its exception and its traceback.
pub(super) fn call_errbacks(
    errbacks: &[Signature],
    failed: &TaskId,
    root_id: &TaskId,
    new_style: &HashSet<TaskName>,
    told: impl Fn() -> [Box<RawValue>; 3],
) -> Vec<Step> {
    let apply = |signature, arguments| {
        let (parent_id, root_id) = (failed.clone(), root_id.clone());
        let application = Application { signature, arguments, chain: None, parent_id, root_id };
        Step::Publish(FollowUp::Apply(Box::new(application)))
    };
    let (new, old): (Vec<_>, Vec<_>) = errbacks.iter().partition(|errback| new_style.contains(&errback.task));
    let mut steps: Vec<Step> =
        new.into_iter().map(|errback| apply(errback.clone(), told().to_vec())).collect();
    if !old.is_empty() {
        let id = pyjson::to_raw(failed).unwrap_or_else(|_| null());
        let old: Vec<Signature> = old.into_iter().cloned().collect();
        steps.push(apply(group(&old), vec![id]));
    }
    steps
}

/// Why calls that have not been sent will never be.
pub(super) struct Cause {
    pub(super) result: Box<RawValue>,
    pub(super) traceback: Option<String>,
    /// Whether their failure is stored.
    pub(super) stored: bool,
    /// Errbacks that were called for it.
    pub(super) told: Vec<Signature>,
    pub(super) now: SystemTime,
    pub(super) root_id: TaskId,
}

impl Cause {
    /// A call that will not be sent ends with this cause, else whoever waits for it waits for ever. A chord stands for its
    /// body, a group for its members.
    pub(super) fn fail(&self, call: &Signature, steps: &mut Vec<Step>) {
        let canvas = Canvas::from_signature(call.clone());
        match canvas {
            Ok(Canvas::Chord(chord)) => {
                if let Some(body) = chord.body {
                    self.fail(&body.to_signature(), steps);
                }
                return;
            }
            Ok(Canvas::Group(group)) => {
                for member in &group.members {
                    self.fail(&member.to_signature(), steps);
                }
                return;
            }
            Ok(Canvas::Chain(chain)) if !call.options.as_map().contains("task_id") => {
                if let Some(last) = chain.steps.last() {
                    self.fail(&last.to_signature(), steps);
                }
                return;
            }
            _ => {}
        }
        let options = &call.options;
        let (Ok(Some(id)), Ok(group)) = (options.task_id(), options.group_id()) else { return };
        if self.stored {
            let mut meta = ResultMeta::new(id.clone(), TaskState::Failure, self.result.clone());
            meta.traceback = self.traceback.clone();
            meta.date_done = Some(WireTime::from(self.now));
            meta.children = Some(Vec::new());
            meta.group_id = group.clone();
            steps.push(Step::Store(Box::new(meta)));
        }
        if let (Ok(Some(body)), Some(group_id)) = (options.chord(), group) {
            steps.push(Step::ChordPart(Box::new(ChordReport {
                task_id: id,
                group_id,
                group_index: options.group_index().ok().flatten(),
                state: TaskState::Failure,
                result: self.result.clone(),
                body,
                told: self.told.clone(),
                root_id: self.root_id.clone(),
            })));
        }
    }
}
