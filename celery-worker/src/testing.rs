//! Unit tests for tasks, without servers: [`TestWorker`].
//!
//! A call is sent through an offline client, decoded, bound and run as a worker does it, and what its end means is decided
//! by the same code. What the body sends, stores and emits is kept for the test to look at. Nothing is acked or stored on
//! the task's behalf: a test sees the [`Outcome`], which is what a worker settles.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use celery_broker::{BrokerError, Celery, Outbox};
use celery_protocol::{
    Body, Event, Limits, Message, Nodename, QueueName, RawMessage, ResultMeta, Sig, TaskId, TaskState,
    TimeLimits, pyjson,
};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::context::{Context, ContextEnv, DeliveryInfo, Interrupts, Request};
use crate::task::{Failure, Outcome, Registry, Task};

/// Runs tasks for a test. Needs a tokio runtime: `#[tokio::test]`.
///
/// ```
/// use celery_worker::prelude::*;
/// use celery_worker::testing::TestWorker;
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
}

/// One run of a task, and what it left behind.
#[derive(Debug)]
pub struct Run {
    /// What its end means under the task's options.
    pub outcome: Outcome,
    /// The call as the task saw it.
    pub request: Arc<Request>,
    /// What it sent, in order.
    pub messages: Vec<Message>,
    /// States that it stored itself, such as PROGRESS.
    pub states: Vec<ResultMeta>,
    /// Events that it emitted.
    pub events: Vec<Event>,
}

impl<S: Send + Sync + 'static> TestWorker<S> {
    /// A worker without tasks; `state` is what `#[state]` parameters are taken from.
    #[must_use]
    pub fn new(state: S) -> Self {
        Self { registry: Registry::new(state) }
    }

    /// Serves a task.
    #[must_use]
    pub fn task<T: Task<S>>(mut self) -> Self {
        self.registry.task::<T>();
        self
    }

    /// Runs a call once.
    ///
    /// # Errors
    /// The call can't be sent, or a worker would refuse it: its task is not registered here.
    pub async fn run<O>(&self, call: Sig<O>) -> Result<Run, Box<dyn std::error::Error + Send + Sync>> {
        let (celery, outbox) = offline()?;
        let id = TaskId::from(Uuid::new_v4());
        celery.send(call.task_id(&id)).await?;
        let (_, message) = outbox.take().into_iter().next().ok_or("nothing was sent")?;
        self.deliver(&celery, &outbox, message).await
    }

    /// Runs a call, and every retry that it asks for, without waiting for their time.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until_done<O>(
        &self,
        call: Sig<O>,
    ) -> Result<Run, Box<dyn std::error::Error + Send + Sync>> {
        let mut run = self.run(call).await?;
        while let Outcome::Retry(resend) = &run.outcome {
            let (celery, outbox) = offline()?;
            let mut headers = run.request.headers().clone();
            headers.retries += 1;
            headers.parent_id = Some(headers.id.clone());
            let body = Body {
                args: resend.args.clone().unwrap_or_else(|| run.request.args().clone()),
                kwargs: resend.kwargs.clone().unwrap_or_else(|| run.request.kwargs().clone()),
                embed: run.request.embed().clone(),
            };
            run = self.deliver(&celery, &outbox, Message::new(headers, &body).into_raw()).await?;
        }
        Ok(run)
    }

    async fn deliver(
        &self,
        celery: &Celery,
        outbox: &Outbox,
        message: RawMessage,
    ) -> Result<Run, Box<dyn std::error::Error + Send + Sync>> {
        let told = |malformed: celery_protocol::Malformed| malformed.detail;
        let message = Message::decode(message, &Limits::DEFAULT).map_err(told)?;
        let body = message.body(&Limits::DEFAULT).map_err(told)?;
        let tasks = self.registry.build()?;
        let name = &message.headers.task;
        let task = tasks
            .get(name)
            .ok_or_else(|| format!("no task is called {name:?}: register it with `task::<…>()`"))?;
        let delivery = DeliveryInfo {
            exchange: String::new(),
            routing_key: celery.default_queue().to_string(),
            priority: message.properties.priority,
            redelivered: false,
            queue: QueueName::clone(celery.default_queue()),
        };
        let request = Arc::new(Request::new(message, body, delivery, Nodename::parse("test@localhost")?));
        let own = request.headers().time_limits;
        let env = ContextEnv {
            celery: celery.clone(),
            interrupts: Interrupts::new(),
            emitter: Some(celery.event_emitter("test@localhost")),
            limits: TimeLimits {
                hard: own.hard.or(task.options.time_limit),
                soft: own.soft.or(task.options.soft_time_limit),
            },
            extended: false,
        };
        let mut states = celery.backend().watch(request.id()).await?;
        let context = Context::new(Arc::clone(&request), env);
        // Making the future is user code too.
        let answer = AssertUnwindSafe(async { task.call(context).await }).catch_unwind().await;
        let outcome = match answer {
            Ok(answer) => Outcome::decide(answer, task, &request, SystemTime::now(), 0.5),
            Err(panic) => Outcome::Failure { failure: Failure::panicked(&*panic), expected: false },
        };
        let mut stored = Vec::new();
        while let Some(Some(meta)) = states.next().now_or_never() {
            stored.push(meta);
        }
        let sent =
            outbox.take().into_iter().map(|(_, raw)| Message::decode(raw, &Limits::DEFAULT).map_err(told));
        let messages = sent.collect::<Result<_, _>>()?;
        Ok(Run { outcome, request, messages, states: stored, events: outbox.take_events() })
    }
}

fn offline() -> Result<(Celery, Outbox), BrokerError> {
    Celery::builder("test").backend("memory://").offline()
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

    /// Names of the tasks that it sent, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<&str> {
        self.messages.iter().map(|message| message.headers.task.as_str()).collect()
    }

    /// The states that it stored itself.
    #[must_use]
    pub fn stored(&self) -> Vec<&TaskState> {
        self.states.iter().map(|meta| &meta.status).collect()
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
}
