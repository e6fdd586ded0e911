//! From how a task ended to what follows from it, in order. Pure: the whole policy of retries, results, chains, chords,
//! callbacks, events and acks is in here and is tested as tables.
//!
//! A success sends its follow-ups *before* its result is stored, because a redelivered message whose result is SUCCESS
//! is skipped. A failure or retry stores its state first: it is run again when its message is redelivered, and whoever
//! gets the follow-up (an errback, the next run) must not be overtaken by what is stored about this run. The ack is
//! always last.

mod failing;

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use celery_broker::Route;
use celery_protocol::canvas::{Canvas, GroupNode};
use celery_protocol::event::TaskEvent;
use celery_protocol::pyjson::null;
use celery_protocol::{
    GroupId, Message, ResultMeta, ResultTuple, Signature, TaskId, TaskName, TaskState, WireTime, repr,
};
use serde_json::value::RawValue;

pub(crate) use failing::{BodyFailed, chord_failed};
use failing::{Cause, call_errbacks};

use super::events;
use super::meta::result_meta;
use crate::consumer::admit::Revocation;
use crate::context::{FailedCall, Interrupt, Request};
use crate::task::{Failure, Outcome, Resend};
use crate::worker::catalog::Rules;

/// How a task ended, and what was known of it.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    /// The call.
    pub(crate) request: &'a Request,
    /// The task's rules for this call.
    pub(crate) rules: Rules,
    /// What its answer means.
    pub(crate) outcome: Outcome,
    /// It was ended by its hard time limit.
    pub(crate) timed_out: bool,
    /// What it sent while it ran.
    pub(crate) children: Vec<ResultTuple>,
    /// How long it ran.
    pub(crate) runtime: Duration,
    /// When it ended.
    pub(crate) now: SystemTime,
    /// The tasks here that are errbacks of the new style.
    pub(crate) new_style: &'a HashSet<TaskName>,
    /// What the worker wants told.
    pub(crate) wants: Wants,
}

/// What a worker wants told about its tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Store name, arguments, worker, retries and queue with each result (`result_extended`).
    pub(crate) extended: bool,
    /// Send task events.
    pub(crate) events: bool,
}

/// What follows: the steps in order, then the message.
#[derive(Debug)]
pub(crate) struct Settlement {
    /// The call that this is about.
    pub(crate) task_id: Option<TaskId>,
    /// To be done in order.
    pub(crate) steps: Vec<Step>,
    /// What becomes of the message after the last step.
    pub(crate) disposition: Disposition,
}

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Publish a message and have it confirmed; its result is a child of the call.
    Publish(FollowUp),
    /// Store a result.
    Store(Box<ResultMeta>),
    /// Report the end of a chord's header member.
    ChordPart(Box<ChordReport>),
    /// Send an event.
    Emit(Box<TaskEvent>),
}

/// A message that a task leaves behind.
#[derive(Debug)]
pub(crate) enum FollowUp {
    /// The same call again.
    Resend {
        /// Where to.
        route: Route,
        /// The message.
        message: Box<Message>,
        /// How long until it is due.
        delay: Duration,
    },
    /// A callback, an errback or the next step of a chain.
    Apply(Box<Application>),
}

/// A signature and what it is applied to.
#[derive(Debug)]
pub(crate) struct Application {
    /// What to call.
    pub(crate) signature: Signature,
    /// Go before its own arguments, unless it is immutable.
    pub(crate) arguments: Vec<Box<RawValue>>,
    /// As a step of a chain: the steps that come after it, in reverse order.
    pub(crate) chain: Option<Vec<Signature>>,
    /// The call that ended.
    pub(crate) parent_id: TaskId,
    /// The root of the workflow.
    pub(crate) root_id: TaskId,
}

/// The end of a chord's header member.
#[derive(Debug)]
pub(crate) struct ChordReport {
    /// The member.
    pub(crate) task_id: TaskId,
    /// The chord, which is the member's group.
    pub(crate) group_id: GroupId,
    /// The member's place in the header.
    pub(crate) group_index: Option<u32>,
    /// How it ended.
    pub(crate) state: TaskState,
    /// Its value, or its exception.
    pub(crate) result: Box<RawValue>,
    /// What to call when all have ended.
    pub(crate) body: Signature,
    /// Errbacks that were called for the member's failure already, because it is a chord itself.
    pub(crate) told: Vec<Signature>,
    /// The root of the workflow.
    pub(crate) root_id: TaskId,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It is done.
    Ack,
    /// It is refused; a dead-letter exchange may keep it.
    Discard,
    /// It is delivered again.
    Requeue,
}

/// Decides what follows from the end of a task.
pub(crate) fn settle(ended: Ended<'_>) -> Settlement {
    let Ended { request, rules, outcome, timed_out, children, runtime, now, new_style, wants } = ended;
    let mut plan = Plan { request, rules, children, now, new_style, wants, steps: Vec::with_capacity(2) };
    let disposition = match outcome {
        Outcome::Success(value) => plan.success(value, runtime),
        Outcome::Failure { failure, .. } => plan.failure(&failure, timed_out),
        Outcome::Retry(resend) => plan.retry(&resend),
        Outcome::Ignore | Outcome::Replaced => Disposition::Ack,
        Outcome::Reject { requeue: false, reason } => plan.discard(&reason),
        Outcome::Reject { requeue: true, .. } => plan.requeue(),
        Outcome::Interrupted(Interrupt::Terminated) => plan.revoked(Revocation::Terminated),
        Outcome::Interrupted(_) => Disposition::Requeue,
    };
    Settlement { task_id: Some(request.id().clone()), steps: plan.steps, disposition }
}

/// Decides what follows when a call is not run because it was revoked or has expired.
pub(crate) fn revoked(
    request: &Request,
    rules: Rules,
    why: Revocation,
    now: SystemTime,
    wants: Wants,
) -> Settlement {
    let new_style = &HashSet::new();
    let mut plan =
        Plan { request, rules, children: Vec::new(), now, new_style, wants, steps: Vec::with_capacity(2) };
    let disposition = plan.revoked(why);
    Settlement { task_id: Some(request.id().clone()), steps: plan.steps, disposition }
}

/// Decides what follows when a message is no call that can be run here. A FAILURE is stored where an id can be read,
/// so that whoever waits is told.
pub(crate) fn refused(task_id: Option<TaskId>, failure: &Failure, now: SystemTime) -> Settlement {
    let mut steps = Vec::new();
    if let Some(id) = &task_id {
        let mut meta = ResultMeta::new(id.clone(), TaskState::Failure, exception(failure));
        meta.date_done = Some(WireTime::from(now));
        meta.children = Some(Vec::new());
        steps.push(Step::Store(Box::new(meta)));
        steps.push(Step::Emit(Box::new(events::failed(id, failure.exception().repr(), None))));
    }
    Settlement { task_id, steps, disposition: Disposition::Discard }
}

/// Decides what follows when what a task was to leave behind is refused by the broker for good: the task fails, and
/// with it all that was to come after.
pub(crate) fn unpublishable(
    request: &Request,
    rules: Rules,
    problem: &str,
    now: SystemTime,
    wants: Wants,
) -> Settlement {
    let new_style = &HashSet::new();
    let mut plan = Plan { request, rules, children: Vec::new(), now, new_style, wants, steps: Vec::new() };
    let disposition = plan.failure(&operational_error(problem), false);
    Settlement { task_id: Some(request.id().clone()), steps: plan.steps, disposition }
}

/// Decides what follows when a redelivered call has been completed before. What it leaves behind was confirmed before its
/// result was stored; only its chord, which is told afterwards, may not know yet.
pub(crate) fn completed_before(request: &Request, value: Box<RawValue>) -> Settlement {
    let part = chord_report(request, TaskState::Success, value);
    let steps = part.into_iter().map(|part| Step::ChordPart(Box::new(part))).collect();
    Settlement { task_id: Some(request.id().clone()), steps, disposition: Disposition::Ack }
}

/// The failure that is stored in place of a result which the store refuses for good.
pub(crate) fn unstorable(meta: &ResultMeta, problem: &str) -> ResultMeta {
    let failure = Failure::encode_error(problem.to_owned());
    ResultMeta { status: TaskState::Failure, result: exception(&failure), extended: None, ..meta.clone() }
}

impl Settlement {
    /// Only results to store and events to send: nothing that takes a message of its own.
    pub(crate) fn is_plain(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Store(_) | Step::Emit(_)))
    }
}

struct Plan<'a> {
    request: &'a Request,
    rules: Rules,
    children: Vec<ResultTuple>,
    now: SystemTime,
    new_style: &'a HashSet<TaskName>,
    wants: Wants,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn success(&mut self, value: Box<RawValue>, runtime: Duration) -> Disposition {
        let request = self.request;
        let embed = request.embed();
        if !embed.callbacks.is_empty() {
            self.apply_all(&embed.callbacks, &value);
        }
        if let Some((next, rest)) = embed.chain.split_last() {
            self.apply(next.clone(), value.clone(), Some(rest.to_vec()));
        }
        let event = self.wants.events.then(|| {
            let shown = repr::repr(value.get(), repr::DEFAULT_BUDGET);
            Box::new(events::succeeded(request.id(), shown, runtime))
        });
        self.store_and_report(TaskState::Success, value, None, !self.rules.ignore_result);
        self.steps.extend(event.map(Step::Emit));
        Disposition::Ack
    }

    fn failure(&mut self, failure: &Failure, timed_out: bool) -> Disposition {
        self.fail(failure);
        let disposition = match (self.rules.acks_late, timed_out) {
            (true, true) if !self.rules.acks_on_timeout => Disposition::Requeue,
            (true, false) if !self.rules.acks_on_failure => Disposition::Discard,
            _ => Disposition::Ack,
        };
        self.announce_rejection(disposition);
        self.announce_failure(failure);
        disposition
    }

    fn discard(&mut self, reason: &str) -> Disposition {
        let failure = Failure::rejected(reason, false);
        self.fail(&failure);
        self.announce_failure(&failure);
        self.announce_rejection(Disposition::Discard);
        Disposition::Discard
    }

    fn requeue(&mut self) -> Disposition {
        self.announce_rejection(Disposition::Requeue);
        Disposition::Requeue
    }

    /// RETRY is stored before the message goes out: the next run may be over, and its result stored, before anything that
    /// comes after the publish.
    fn retry(&mut self, resend: &Resend) -> Disposition {
        let (route, message) = super::resend::message(self.request, resend, self.now);
        let failure = resend.failure.as_ref();
        let traceback = failure.and_then(|failure| failure.traceback(self.request.task()));
        let traceback = traceback.unwrap_or_else(|| resend.reason.clone());
        if !self.rules.ignore_result || self.rules.store_errors {
            self.children.push(ResultTuple::task(self.request.id().clone()));
            let result = failure.map_or_else(null, exception);
            self.store(TaskState::Retry, result, Some(traceback.clone()));
        }
        if self.wants.events {
            let exception = failure.map_or_else(|| "None".to_owned(), |failure| failure.exception().repr());
            self.emit(events::retried(self.request.id(), exception, traceback));
        }
        self.steps.push(Step::Publish(FollowUp::Resend {
            route,
            message: Box::new(message),
            delay: resend.delay,
        }));
        Disposition::Ack
    }

    fn revoked(&mut self, why: Revocation) -> Disposition {
        let failure = Failure::revoked(why.reason());
        let stored = !self.rules.ignore_result || self.rules.store_errors;
        self.store_and_report(TaskState::Revoked, exception(&failure), None, stored);
        if self.wants.events {
            self.emit(events::revoked(self.request.id(), why));
        }
        Disposition::Ack
    }

    /// Stores FAILURE here and under all that will now never run, and calls the errbacks.
    fn fail(&mut self, failure: &Failure) {
        let request = self.request;
        let stored = !self.rules.ignore_result || self.rules.store_errors;
        let (result, traceback) = (exception(failure), failure.traceback(request.task()));
        self.store_and_report(TaskState::Failure, result.clone(), traceback.clone(), stored);
        let cause =
            Cause { result, traceback, stored, told: Vec::new(), now: self.now, root_id: self.root_id() };
        for step in request.embed().chain.iter() {
            cause.fail(step, &mut self.steps);
        }
        let told = || FailedCall::arguments(request, failure);
        let errbacks = &request.embed().errbacks;
        self.steps.extend(call_errbacks(errbacks, request.id(), &self.root_id(), self.new_style, told));
    }

    fn store_and_report(
        &mut self,
        state: TaskState,
        result: Box<RawValue>,
        traceback: Option<String>,
        stored: bool,
    ) {
        let part = chord_report(self.request, state.clone(), result.clone());
        if stored {
            self.store(state, result, traceback);
        }
        self.steps.extend(part.map(|part| Step::ChordPart(Box::new(part))));
    }

    fn store(&mut self, state: TaskState, result: Box<RawValue>, traceback: Option<String>) {
        let children = std::mem::take(&mut self.children);
        let meta =
            result_meta(self.request, state, result, traceback, children, self.wants.extended, self.now);
        self.steps.push(Step::Store(Box::new(meta)));
    }

    /// One callback is applied by itself; of several, the plain ones go as one group, as Celery sends them.
    fn apply_all(&mut self, callbacks: &[Signature], argument: &RawValue) {
        if let [only] = callbacks {
            return self.apply(only.clone(), argument.to_owned(), None);
        }
        let (groups, plain): (Vec<_>, Vec<_>) =
            callbacks.iter().cloned().partition(|callback| callback.subtask_type.as_deref() == Some("group"));
        for group in groups {
            self.apply(group, argument.to_owned(), None);
        }
        if !plain.is_empty() {
            self.apply(group(&plain), argument.to_owned(), None);
        }
    }

    fn apply(&mut self, signature: Signature, argument: Box<RawValue>, chain: Option<Vec<Signature>>) {
        let parent_id = self.request.id().clone();
        let application =
            Application { signature, arguments: vec![argument], chain, parent_id, root_id: self.root_id() };
        self.steps.push(Step::Publish(FollowUp::Apply(Box::new(application))));
    }

    fn announce_failure(&mut self, failure: &Failure) {
        if self.wants.events {
            let (exception, traceback) = (failure.exception().repr(), failure.traceback(self.request.task()));
            self.emit(events::failed(self.request.id(), exception, traceback));
        }
    }

    /// Only a message that is still there can be rejected: one that was acked when the task started cannot.
    fn announce_rejection(&mut self, disposition: Disposition) {
        if self.wants.events && self.rules.acks_late && disposition != Disposition::Ack {
            let requeue = disposition == Disposition::Requeue;
            self.emit(events::rejected(self.request.id(), requeue));
        }
    }

    fn emit(&mut self, event: TaskEvent) {
        self.steps.push(Step::Emit(Box::new(event)));
    }

    fn root_id(&self) -> TaskId {
        self.request.headers().root().clone()
    }
}

/// What its chord is told of the end of a call, if it is a member of one.
fn chord_report(request: &Request, state: TaskState, result: Box<RawValue>) -> Option<ChordReport> {
    let (body, group_id) = (request.embed().chord.as_ref()?, request.group()?);
    Some(ChordReport {
        task_id: request.id().clone(),
        group_id: group_id.clone(),
        group_index: request.group_index(),
        state,
        result,
        body: (**body).clone(),
        told: Vec::new(),
        root_id: request.headers().root().clone(),
    })
}

fn exception(failure: &Failure) -> Box<RawValue> {
    failure.exception().to_raw()
}

/// What Celery raises when a follow-up cannot be published.
fn operational_error(problem: &str) -> Failure {
    Failure::named("OperationalError").module("kombu.exceptions").arg(problem)
}

fn group(members: &[Signature]) -> Signature {
    Canvas::from(GroupNode::of(members.iter().cloned().map(Canvas::Task).collect())).to_signature()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
