//! Sending calls: from a signature to a confirmed message.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use celery_protocol::canvas::{self, Call, IdSource, Plan, Step};
use celery_protocol::event::{TaskEvent, TaskEventKind, TaskFields};
use celery_protocol::message::{Headers, NewCall};
use celery_protocol::options::{SendOptions, resolve};
use celery_protocol::{
    Canvas, GroupId, Message, RawMessage, ResultTuple, Signature, SignatureError, SignatureOptions, TaskId,
    TaskName, TaskOptions, WireTime,
};
use futures_util::StreamExt;
use uuid::Uuid;

use crate::amqp::{PublishOptions, Route};
use crate::celery::Celery;
use crate::chord_watch::WatchedChord;
use crate::error::{BrokerError, BrokerErrorKind, Outcome};
use crate::outcome::Runnable;
use crate::route::{Destination, Target};

/// Messages of one workflow that wait for their confirmation at a time.
const WINDOW: usize = 256;

/// What calls inherit from the task that sends them.
#[derive(Debug, Clone, Default)]
pub struct SendContext {
    /// The first task of the workflow.
    pub root_id: Option<TaskId>,
    /// The task that sends.
    pub parent_id: Option<TaskId>,
    /// Priority of calls that do not say.
    pub priority: Option<u8>,
    /// Where sent calls are noted, for the result of the task that sends.
    pub children: Option<Children>,
}

/// What a running task has sent; clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<Vec<ResultTuple>>>);

impl Children {
    /// Notes a workflow.
    pub fn push(&self, child: ResultTuple) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }

    /// What was sent so far.
    pub fn snapshot(&self) -> Vec<ResultTuple> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Celery {
    /// Sends a call or workflow and waits until the broker has all of its first messages.
    ///
    /// `Ok` means that each of them is in a queue, on disk. On an error with an unknown outcome some may be.
    ///
    /// # Errors
    /// The workflow cannot be built, or the broker did not take a message; [`BrokerError::outcome`] says what that means.
    pub async fn send<R: Runnable>(&self, workflow: R) -> Result<R::Handle, BrokerError> {
        let canvas = workflow.into_canvas().map_err(|err| wrong(&err))?;
        let plan = self.plan(canvas, Call::default())?;
        self.run(&plan).await?;
        let Some(result) = plan.result else {
            return Err(BrokerError::new(BrokerErrorKind::Encode, "the workflow is empty"));
        };
        Ok(R::handle(self, result))
    }

    /// Says what has to be published to run a workflow, with ids, and sends nothing.
    ///
    /// # Errors
    /// The workflow cannot be built.
    pub fn plan(&self, canvas: Canvas, mut call: Call) -> Result<Plan, BrokerError> {
        if let Some(context) = &self.context {
            let options = &mut call.options;
            let missing = |name: &str, options: &SignatureOptions| options.get(name).is_none();
            if let Some(root_id) = context.root_id.as_ref().filter(|_| missing("root_id", options)) {
                options.set("root_id", root_id);
            }
            if let Some(parent_id) = context.parent_id.as_ref().filter(|_| missing("parent_id", options)) {
                options.set("parent_id", parent_id);
            }
        }
        let mut next = || TaskId::from(Uuid::new_v4());
        canvas::plan(canvas, call, &mut IdSource::new(&mut next)).map_err(|err| wrong(&err))
    }

    /// Carries a plan out: every message confirmed, in the order of the plan. It may be carried out again after a failure;
    /// ids stay, so whoever has run a message already knows it.
    ///
    /// # Errors
    /// The broker did not take a message, or the backend did not take a chord's size. An unknown outcome of one message
    /// is reported before the refusal of another.
    pub async fn run(&self, plan: &Plan) -> Result<(), BrokerError> {
        let mut steps = plan.steps.as_slice();
        while let Some((first, rest)) = steps.split_first() {
            let publishes = steps.iter().take_while(|step| matches!(step, Step::Publish(_))).count();
            if publishes > 0 {
                let (batch, rest) = steps.split_at(publishes);
                self.publish_all(batch).await?;
                steps = rest;
                continue;
            }
            match first {
                Step::ChordSize { group, size } => {
                    let started = self.backend().chord_start(group, *size as u64).await;
                    started.map_err(|err| backend("the chord's size", err))?;
                    if let Some(Step::Publish(last)) = rest.first() {
                        self.watch_chord(group, &last.options).await?;
                    }
                }
                Step::SaveGroup { result, .. } => {
                    let stored = self.backend().store_group(result).await;
                    stored.map_err(|err| backend("the chord's header", err))?;
                }
                Step::Publish(_) => {}
            }
            steps = rest;
        }
        if let (Some(children), Some(result)) = (self.children(), &plan.result)
            && adds_to_parent(plan)
        {
            children.push(result.clone());
        }
        Ok(())
    }

    /// Puts a chord under watch; `options` are those of one of its members.
    async fn watch_chord(&self, group: &GroupId, options: &SignatureOptions) -> Result<(), BrokerError> {
        let (Some(patience), Some(watch), Some(body)) =
            (self.shared.chord_deadline, self.backend().chord_watch(), options.get("chord"))
        else {
            return Ok(());
        };
        let root_id = options.root_id()?;
        let chord = WatchedChord { group: group.clone(), body: body.to_owned(), root_id, patience };
        watch.watch(&chord).await.map_err(|err| backend("the chord's deadline", err))
    }

    /// The message of one call and where it goes, and nothing is sent.
    ///
    /// # Errors
    /// An option is not what it must be.
    pub fn message(&self, call: &Signature) -> Result<(Route, Message), BrokerError> {
        self.prepare(call).map(|(destination, message)| (destination.route, message))
    }

    /// Where calls of a task go that do not say so themselves.
    pub fn route(&self, task: &TaskName) -> Route {
        self.shared.router.route(task, &Target::default()).route
    }

    /// Publishes one message, confirmed within [`publish_timeout`](crate::CeleryBuilder::publish_timeout).
    ///
    /// # Errors
    /// As [`Publisher::publish`](crate::Publisher::publish).
    pub async fn publish(&self, route: &Route, message: RawMessage) -> Result<(), BrokerError> {
        let deadline = self.shared.publish_timeout;
        let options = PublishOptions { deadline, over: self.pinned, ..PublishOptions::default() };
        self.publisher().publish(route, message, options).await
    }

    fn children(&self) -> Option<&Children> {
        self.context.as_ref()?.children.as_ref()
    }

    fn prepare(&self, call: &Signature) -> Result<(Destination, Message), BrokerError> {
        let own = SendOptions::from_signature(&call.options).map_err(|err| wrong(&err))?;
        let now = WireTime::from(self.shared.clock.now());
        let defaults = &self.shared.task_defaults;
        let task = routed_as(call);
        let writing = self.shared.router.writing(&task);
        let mut options = resolve(own, writing, &TaskOptions::DEFAULT, defaults, now);
        let target = Target {
            queue: options.queue.clone(),
            exchange: options.exchange.clone(),
            routing_key: options.routing_key.clone(),
            exchange_type: call.options.read("exchange_type").map_err(|err| wrong(&err))?,
            priority: options.priority,
            ..Target::default()
        };
        let destination = self.shared.router.route(&task, &target);
        options.priority =
            destination.priority.or_else(|| self.context.as_ref().and_then(|context| context.priority));
        let id = match options.rest.task_id.clone() {
            Some(id) => id,
            None => TaskId::from(Uuid::new_v4()),
        };
        let new = NewCall {
            task: call.task.clone(),
            id,
            args: call.args.clone(),
            kwargs: call.kwargs.clone(),
            options,
            origin: self.shared.origin.clone(),
        };
        let message = new
            .into_message()
            .map_err(|err| BrokerError::new(BrokerErrorKind::Encode, call.task.to_string()).caused_by(err))?;
        Ok((destination, message))
    }

    /// Publishes the calls of `steps`, pipelined, handed to the broker in order.
    async fn publish_all(&self, steps: &[Step]) -> Result<(), BrokerError> {
        let calls = steps.iter().filter_map(|step| match step {
            Step::Publish(call) => Some(self.publish_call(call)),
            _ => None,
        });
        let calls: Vec<_> = calls.collect();
        let mut confirmed = futures_util::stream::iter(calls).buffered(WINDOW);
        let mut failed: Option<BrokerError> = None;
        while let Some(result) = confirmed.next().await {
            let Err(err) = result else { continue };
            // The rest of the workflow is not begun, what is in flight is waited for.
            let worse = failed.as_ref().is_none_or(|first| {
                first.outcome() == Outcome::NotPublished && err.outcome() == Outcome::Unknown
            });
            if worse {
                failed = Some(err);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn publish_call(&self, call: &Signature) -> Result<(), BrokerError> {
        let (destination, message) = self.prepare(call)?;
        let sent = self.shared.send_sent_events.then(|| sent_event(&destination, &message.headers));
        self.publish(&destination.route, message.into_raw()).await?;
        if let Some(event) = sent {
            self.producer_events().emit(event);
        }
        Ok(())
    }
}

/// What `task_send_sent_event` tells monitors.
fn sent_event(destination: &Destination, headers: &Headers) -> TaskEvent {
    let mut event = TaskEvent::new(TaskEventKind::Sent, headers.id.as_str());
    event.fields = TaskFields {
        name: Some(headers.task.to_string()),
        args: headers.argsrepr.clone(),
        kwargs: headers.kwargsrepr.clone(),
        root_id: headers.root_id.as_ref().map(ToString::to_string),
        parent_id: headers.parent_id.as_ref().map(ToString::to_string),
        retries: Some(u64::from(headers.retries)),
        eta: headers.eta.map(|eta| eta.isoformat()),
        expires: headers.expires.map(|expires| expires.isoformat()),
        queue: destination.queue.as_ref().map(ToString::to_string),
        exchange: Some(destination.route.exchange.clone()),
        routing_key: Some(destination.route.routing_key.clone()),
        ..TaskFields::default()
    };
    event
}

/// Python's `add_to_parent=False`.
fn adds_to_parent(plan: &Plan) -> bool {
    let group = plan.result.as_ref().is_some_and(|result| result.members.is_some());
    let first = plan.steps.iter().find_map(|step| match step {
        Step::Publish(call) => Some(call),
        _ => None,
    });
    // Members of a group are never added, the group is.
    group
        || first.is_none_or(|call| {
            let in_group = call.options.get("group_id").is_some();
            in_group || call.options.get("add_to_parent").is_none_or(|value| value.get() != "false")
        })
}

fn wrong(err: &(dyn std::error::Error + Send + Sync)) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Encode, err.to_string())
}

fn backend(what: &str, err: crate::BackendError) -> BrokerError {
    let context = format!("{what} could not be stored");
    BrokerError::new(BrokerErrorKind::Backend, context).caused_by(err)
}

impl From<SignatureError> for BrokerError {
    fn from(err: SignatureError) -> Self {
        Self::new(BrokerErrorKind::Encode, err.to_string())
    }
}

/// The task whose routes a call follows: `celery.map` and `celery.starmap` go where the task goes that they run, as in
/// Celery (`_basemap.apply_async`).
fn routed_as(call: &Signature) -> Cow<'_, TaskName> {
    #[derive(serde::Deserialize)]
    struct Named {
        task: TaskName,
    }
    let inner = match call.task.as_str() {
        "celery.map" | "celery.starmap" => call.kwargs.get("task"),
        _ => None,
    };
    let named = inner.and_then(|task| serde_json::from_str::<Named>(task.get()).ok());
    named.map_or(Cow::Borrowed(&call.task), |named| Cow::Owned(named.task))
}
