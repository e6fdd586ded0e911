//! Unit tests for tasks, without servers: [`TestWorker`].
//!
//! A call is sent through an offline client, decoded, bound, run and settled by the same code as in a worker. What it
//! published and stored, while it ran and because it ended, is kept for the test to look at.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use celery_broker::{Celery, Outbox, Route, Runnable};
use celery_protocol::content::Accept;
use celery_protocol::{
    Event, Limits, Message, Nodename, QueueName, RawMessage, ResultMeta, TaskId, TaskOptions, TaskState,
    pyjson,
};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::de::DeserializeOwned;

use crate::context::{Context, ContextEnv, DeliveryInfo, Interrupts, Request};
use crate::task::{Outcome, Registry, Task};
use crate::trace::settle::{self, Ended, Step, Wants};
use crate::trace::{carry_out, execute};
use crate::worker::catalog::{Catalog, Rules};

pub use crate::trace::settle::Disposition;

/// Every serializer that a call can be sent with.
const LIMITS: Limits = Limits { accept: Accept::ALL, ..Limits::DEFAULT };

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs tasks for a test. Needs a tokio runtime: `#[tokio::test]`.
///
/// ```
/// use celery_worker::prelude::*;
/// use celery_worker::testing::TestWorker;
/// use celery_protocol::TaskState;
///
/// #[task(name = "docs.halve", max_retries = 2)]
/// async fn halve(#[ctx] ctx: Context, n: i64) -> TaskResult<i64> {
///     if n % 2 == 1 {
///         return Err(ctx.retry().args((n - 1,)).into());
///     }
///     Ok(n / 2)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let worker = TestWorker::new(()).task::<halve>();
/// let run = worker.run(halve::s(7)).await?;
/// assert!(run.retry().is_some());
/// assert_eq!(run.settled_states(), [&TaskState::Retry]);
///
/// let done = worker.run_until_done(halve::s(7)).await?;
/// assert_eq!((done.value::<i64>(), done.retries()), (Some(3), 1));
///
/// let wrong = worker.run(halve::bare()).await?;
/// assert_eq!(wrong.exception().unwrap(), r#"TypeError("halve() missing 1 required positional argument: 'n'")"#);
/// # Ok(()) }
/// ```
pub struct TestWorker<S> {
    registry: Registry<S>,
    defaults: TaskOptions,
    extended: bool,
}

/// One run of a task, and what it left behind.
#[derive(Debug)]
pub struct Run {
    /// What its end means under the task's options.
    pub outcome: Outcome,
    /// The call as the task saw it.
    pub request: Arc<Request>,
    /// What it sent while it ran, in order.
    pub messages: Vec<Message>,
    /// States that it stored itself, such as PROGRESS.
    pub states: Vec<ResultMeta>,
    /// Events that it emitted itself.
    pub events: Vec<Event>,
    /// What was sent because it ended: callbacks, the next step of its chain, errbacks, its own next run.
    pub follow_ups: Vec<Message>,
    /// What was stored because it ended: its result first, then that of what will never run.
    pub settled: Vec<ResultMeta>,
    /// What becomes of its message.
    pub disposition: Disposition,
    /// The next run, and the way it went.
    resent: Option<(Route, RawMessage)>,
}

impl<S: Send + Sync + 'static> TestWorker<S> {
    /// A worker without tasks; `state` is what `#[state]` parameters are taken from.
    #[must_use]
    pub fn new(state: S) -> Self {
        Self { registry: Registry::new(state), defaults: TaskOptions::DEFAULT, extended: false }
    }

    /// Serves a task.
    #[must_use]
    pub fn task<T: Task<S>>(mut self) -> Self {
        self.registry.task::<T>();
        self
    }

    /// What tasks do that say nothing themselves, as a worker's settings give it.
    #[must_use]
    pub fn defaults(mut self, options: TaskOptions) -> Self {
        self.defaults = options;
        self
    }

    /// Stores name, arguments and worker with each state, as a worker does that has `result_extended`.
    #[must_use]
    pub fn extended(mut self) -> Self {
        self.extended = true;
        self
    }

    /// Runs a call once, or the first task of a workflow. It starts at once: its `eta` is not waited for, its `expires`
    /// not looked at. Time limits hold.
    ///
    /// # Errors
    /// The call can't be sent, or a worker would refuse it: its task is not registered here.
    pub async fn run(&self, call: impl Runnable) -> Result<Run, Error> {
        let (celery, outbox) = offline()?;
        celery.send(call).await?;
        let (route, message) = outbox.take().into_iter().next().ok_or("nothing was sent")?;
        self.deliver(&celery, &outbox, route, message).await
    }

    /// Runs a call, and every retry that it asks for, without waiting for their time.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until_done(&self, call: impl Runnable) -> Result<Run, Error> {
        let mut run = self.run(call).await?;
        while let Some((route, message)) = run.resent.take() {
            let (celery, outbox) = offline()?;
            run = self.deliver(&celery, &outbox, route, message).await?;
        }
        Ok(run)
    }

    async fn deliver(
        &self,
        celery: &Celery,
        outbox: &Outbox,
        route: Route,
        message: RawMessage,
    ) -> Result<Run, Error> {
        let tasks = self.registry.build()?;
        let catalog = Catalog::new(&tasks, &self.defaults);
        let request = Arc::new(request(celery, route, message)?);
        let name = request.task();
        let entry = catalog
            .get(name)
            .ok_or_else(|| format!("no task is called {name:?}: register it with `task::<…>()`"))?;
        let rules = Rules::new(&entry.options, request.headers());
        let limits = entry.time_limits(request.headers());
        let interrupts = Interrupts::new();
        let env = ContextEnv {
            celery: celery.clone(),
            interrupts: interrupts.clone(),
            emitter: Some(celery.event_emitter(request.hostname().as_str())),
            limits,
            extended: self.extended,
        };
        let mut watch = celery.backend().watch(request.id()).await?;
        let context = Context::new(Arc::clone(&request), env);
        let clock = Instant::now();
        let ending =
            execute(&entry.task, &request, context.clone(), &interrupts, limits, &Arc::default()).await;
        let mut states = Vec::new();
        while let Some(Some(meta)) = watch.next().now_or_never() {
            states.push(meta);
        }
        let messages = messages(&outbox.take())?;
        let settlement = settle::settle(Ended {
            request: &request,
            rules,
            outcome: ending.outcome.clone(),
            timed_out: ending.timed_out,
            children: context.children(),
            runtime: clock.elapsed(),
            now: SystemTime::now(),
            new_style: catalog.new_style(),
            wants: Wants { extended: self.extended, events: false },
        });
        let stored: Vec<TaskId> = settlement.steps.iter().filter_map(stored_id).cloned().collect();
        if !carry_out(celery, request.id(), settlement.steps, catalog.new_style()).await {
            return Err("what follows from the task's end can't be published or stored".into());
        }
        let settled = celery.backend().get_many(&stored).await?.into_iter().flatten().collect();
        let published = outbox.take();
        Ok(Run {
            follow_ups: self::messages(&published)?,
            resent: published.into_iter().last().filter(|_| matches!(ending.outcome, Outcome::Retry(_))),
            outcome: ending.outcome,
            request,
            messages,
            states,
            events: outbox.take_events(),
            settled,
            disposition: settlement.disposition,
        })
    }
}

fn offline() -> Result<(Celery, Outbox), Error> {
    Ok(Celery::builder("test").backend("memory://").offline()?)
}

/// The message as a worker's request.
fn request(celery: &Celery, route: Route, message: RawMessage) -> Result<Request, Error> {
    let message = decode(message)?;
    let body = message.body(&LIMITS).map_err(|malformed| malformed.detail)?;
    let queue = QueueName::parse(route.routing_key.as_str());
    let delivery = DeliveryInfo {
        exchange: route.exchange,
        routing_key: route.routing_key,
        priority: message.properties.priority,
        redelivered: false,
        queue: queue.unwrap_or_else(|_| QueueName::clone(celery.default_queue())),
    };
    Ok(Request::new(message, body, delivery, Nodename::parse("test@localhost")?))
}

fn decode(raw: RawMessage) -> Result<Message, Error> {
    Message::decode(raw, &LIMITS).map_err(|malformed| malformed.detail.into())
}

fn messages(published: &[(Route, RawMessage)]) -> Result<Vec<Message>, Error> {
    published.iter().map(|(_, raw)| decode(raw.clone())).collect()
}

fn stored_id(step: &Step) -> Option<&TaskId> {
    match step {
        Step::Store(meta) => Some(&meta.task_id),
        _ => None,
    }
}

fn names(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.headers.task.as_str()).collect()
}

impl Run {
    /// What the task returned, if it succeeded with a value of this type.
    #[must_use]
    pub fn value<T: DeserializeOwned>(&self) -> Option<T> {
        match &self.outcome {
            Outcome::Success(value) => pyjson::from_str(value.get()).ok(),
            _ => None,
        }
    }

    /// The exception of a failed run, as Python shows it.
    #[must_use]
    pub fn exception(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Failure { failure, .. } => Some(failure.exception().repr()),
            _ => None,
        }
    }

    /// The retry that the run ended with.
    #[must_use]
    pub fn retry(&self) -> Option<&crate::task::Resend> {
        match &self.outcome {
            Outcome::Retry(resend) => Some(resend),
            _ => None,
        }
    }

    /// How often the call had been retried before.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.request.retries()
    }

    /// Names of the tasks that it sent while it ran, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<&str> {
        names(&self.messages)
    }

    /// Names of the tasks that were sent because it ended, in order.
    #[must_use]
    pub fn followed_by(&self) -> Vec<&str> {
        names(&self.follow_ups)
    }

    /// The states that it stored itself.
    #[must_use]
    pub fn stored(&self) -> Vec<&TaskState> {
        self.states.iter().map(|meta| &meta.status).collect()
    }

    /// The states that were stored because it ended.
    #[must_use]
    pub fn settled_states(&self) -> Vec<&TaskState> {
        self.settled.iter().map(|meta| &meta.status).collect()
    }
}

impl<S> std::fmt::Debug for TestWorker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestWorker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    #[derive(Clone)]
    struct Greeting(String);

    #[task(name = "t.busy", max_retries = 3)]
    async fn busy(#[ctx] ctx: Context, #[state] greeting: Greeting, times: u32) -> TaskResult<String> {
        ctx.progress(1, 4).await;
        ctx.emit("task-halfway", json!({ "n": 1 }));
        ctx.celery().send(end::s(vec![json!(1)])).await?;
        if ctx.request().retries() < times {
            return Err(ctx.retry().because(Failure::new("ValueError", "busy")).into());
        }
        Ok(greeting.0)
    }

    #[task(name = "t.end")]
    async fn end(#[args] rest: Vec<Value>) -> TaskResult<usize> {
        assert!(rest.len() < 2, "too many");
        Ok(rest.len())
    }

    #[task(name = "t.swap")]
    async fn swap(#[ctx] ctx: Context) -> TaskResult<usize> {
        Err(ctx.replace(end::bare()).await)
    }

    fn worker() -> TestWorker<Greeting> {
        TestWorker::new(Greeting("hello".into())).task::<busy>().task::<end>().task::<swap>()
    }

    #[tokio::test]
    async fn a_run_shows_what_it_left_behind() {
        let run = worker().run(busy::s(1)).await.unwrap();
        assert_eq!(run.retry().unwrap().reason, "Retry in 180s: ValueError('busy')");
        assert_eq!(run.stored(), [&TaskState::from("PROGRESS")]);
        assert_eq!(run.states[0].result.get(), r#"{"current": 1, "percent": 25, "total": 4}"#);
        assert_eq!(run.sent(), ["t.end"]);
        let sent = &run.messages[0].headers;
        assert_eq!(
            (sent.parent_id.as_ref(), sent.root_id.as_ref()),
            (Some(run.request.id()), Some(run.request.id()))
        );
        assert_eq!(run.events.len(), 1);
    }

    #[tokio::test]
    async fn extended_results_name_the_task_in_every_state() {
        let run = worker().extended().run(busy::s(0)).await.unwrap();
        for meta in run.states.iter().chain(&run.settled) {
            let extended = meta.extended.as_ref().unwrap();
            assert_eq!((extended.name.as_deref(), extended.retries), (Some("t.busy"), Some(0)), "{meta:?}");
        }
        assert_eq!((run.states.len(), run.settled.len()), (1, 1));
    }

    #[tokio::test]
    async fn retries_are_run_to_their_end() {
        let done = worker().run_until_done(busy::s(2)).await.unwrap();
        assert_eq!((done.value::<String>().as_deref(), done.retries()), (Some("hello"), 2));
        let failed = worker().run_until_done(busy::s(9)).await.unwrap();
        assert_eq!((failed.exception().as_deref(), failed.retries()), (Some("ValueError('busy')"), 3));
    }

    #[tokio::test]
    async fn a_panic_and_a_wrong_call_are_failures() {
        let run = worker().run(end::s(vec![json!(1), json!(2)])).await.unwrap();
        assert_eq!(run.exception().unwrap(), "Panic('too many')");
        let run = worker().run(busy::bare()).await.unwrap();
        assert!(run.exception().unwrap().contains("missing 1 required positional argument: 'times'"));
        assert!(TestWorker::new(()).run(end::bare()).await.is_err());
    }

    #[tokio::test]
    async fn a_replacement_takes_over_the_id() {
        let run = worker().run(swap::s()).await.unwrap();
        assert!(matches!(run.outcome, Outcome::Replaced), "{:?}", run.outcome);
        assert_eq!(run.sent(), ["t.end"]);
        let header = &run.messages[0].headers;
        assert_eq!((&header.id, header.replaced_task_nesting), (run.request.id(), 1));
    }

    #[task(name = "t.nap", soft_time_limit = "20ms", time_limit = "10s")]
    async fn nap() -> TaskResult<()> {
        std::future::pending().await
    }

    #[task(name = "t.spin")]
    fn spin(#[ctx] ctx: &Context) -> TaskResult<()> {
        loop {
            ctx.checkpoint()?;
        }
    }

    #[task(name = "t.packed", serializer = "msgpack", compression = "zstd")]
    async fn packed(n: f64) -> TaskResult<f64> {
        Ok(n)
    }

    #[tokio::test]
    async fn a_task_says_how_its_calls_are_written() {
        let worker = TestWorker::new(()).task::<packed>();
        let run = worker.run(packed::s(0.5)).await.unwrap();
        assert_eq!(run.value::<f64>(), Some(0.5));
        let properties = run.request.properties();
        assert_eq!(properties.content_type.as_deref(), Some("application/x-msgpack"));
        assert_eq!(properties.content_encoding.as_deref(), Some("binary"));
        let run = worker.run(packed::s(0.5).option("serializer", "yaml")).await.unwrap();
        assert_eq!(run.request.properties().content_type.as_deref(), Some("application/x-yaml"));
        assert_eq!(run.value::<f64>(), Some(0.5));
    }

    #[task(name = "t.refuse")]
    async fn refuse() -> TaskResult<()> {
        Err(TaskError::reject("not mine"))
    }

    #[tokio::test]
    async fn a_success_calls_its_callbacks_and_goes_on_with_its_chain() {
        let call = end::s(vec![json!(1)]).link(end::s(vec![json!("linked")]));
        let run = worker().run(call).await.unwrap();
        assert_eq!((run.followed_by(), run.settled_states()), (vec!["t.end"], vec![&TaskState::Success]));
        let callback = &run.follow_ups[0];
        let body = callback.body(&Limits::DEFAULT).unwrap();
        assert_eq!(body.args.to_raw().get(), r#"[1, "linked"]"#);
        assert_eq!(callback.headers.parent_id.as_ref(), Some(run.request.id()));
        let children = run.settled[0].children.as_ref().unwrap();
        assert_eq!(children[0].id, callback.headers.id);
        assert_eq!(run.disposition, Disposition::Ack);
    }

    #[tokio::test]
    async fn a_step_of_a_chain_is_followed_by_the_next_or_by_their_common_failure() {
        let steps = chain(end::s(vec![json!(1)])).then(swap::s());
        let run = worker().run(steps).await.unwrap();
        assert_eq!((run.followed_by(), run.settled_states()), (vec!["t.swap"], vec![&TaskState::Success]));
        let steps = chain(end::s(vec![json!(1), json!(2)])).then(swap::s());
        let run = worker().run(steps).await.unwrap();
        assert_eq!(run.settled_states(), [&TaskState::Failure, &TaskState::Failure]);
        assert!(run.follow_ups.is_empty());
    }

    #[tokio::test]
    async fn a_failure_is_stored_and_its_errback_called() {
        let call = end::s(vec![json!(1), json!(2)]).link_error(end::bare());
        let run = worker().run(call).await.unwrap();
        assert_eq!((run.followed_by(), run.settled_states()), (vec!["t.end"], vec![&TaskState::Failure]));
        assert_eq!(run.settled[0].exception().unwrap().repr(), "Panic('too many')");
        let body = run.follow_ups[0].body(&Limits::DEFAULT).unwrap();
        assert_eq!(body.args.to_raw().get(), format!("[\"{}\"]", run.request.id()));
    }

    #[tokio::test]
    async fn a_retry_goes_the_way_a_worker_sends_it() {
        let run = worker().run(busy::s(1).priority(7)).await.unwrap();
        assert_eq!(run.settled_states(), [&TaskState::Retry]);
        let again = &run.follow_ups[0];
        assert_eq!((&again.headers.id, again.headers.retries), (run.request.id(), 1));
        assert_eq!(again.properties.priority, Some(7));
        assert!(again.headers.eta.is_some());
    }

    #[tokio::test]
    async fn time_limits_hold() {
        let worker = TestWorker::new(()).task::<nap>().task::<spin>();
        let run = worker.run(nap::s()).await.unwrap();
        assert_eq!(run.exception().unwrap(), "SoftTimeLimitExceeded()");
        let call = spin::s().soft_time_limit(Duration::from_millis(20));
        let run = worker.run(call).await.unwrap();
        assert_eq!(run.exception().unwrap(), "SoftTimeLimitExceeded()");
        assert_eq!(run.settled[0].status, TaskState::Failure);
    }

    #[tokio::test]
    async fn a_rejected_message_is_discarded() {
        let run = TestWorker::new(()).task::<refuse>().run(refuse::s()).await.unwrap();
        assert_eq!(run.disposition, Disposition::Discard);
    }
}
