//! Tasks of all types side by side, looked up by the name in a message.
//!
//! [`Registry`] is where types end: it pairs each task with the worker's state and leaves an [`ErasedTask`], which takes a
//! [`Context`] and gives raw JSON or an error. [`Tasks`], the finished set, is what a worker holds.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use celery_protocol::{BindError, RawArgs, RawKwargs, TaskName, TaskOptions, args, pyjson};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserializer, Serialize, de};
use serde_json::value::RawValue;
use tracing::Instrument as _;

use super::{ErrbackStyle, Failure, FailureRules, Task, TaskResult};
use crate::builtin::{self, Others};
use crate::context::Context;

type Call = Box<dyn Fn(Context) -> BoxFuture<'static, TaskResult<Box<RawValue>>> + Send + Sync>;

/// A task without its types: what a worker runs.
pub struct ErasedTask {
    /// The name that callers send.
    pub name: TaskName,
    /// Its options, where they differ from the worker's settings.
    pub options: TaskOptions,
    /// What its failures mean.
    pub rules: FailureRules,
    /// Whether it needs a thread of the blocking pool.
    pub blocking: bool,
    /// How it is called as an errback.
    pub errback: ErrbackStyle,
    /// Names of the parameters that may be given by position, in order.
    positional: &'static [&'static str],
    call: Call,
}

impl ErasedTask {
    fn of<T: Task<S>, S: Send + Sync + 'static>(name: TaskName, state: Arc<S>) -> Self {
        let call = move |ctx: Context| -> BoxFuture<'static, TaskResult<Box<RawValue>>> {
            let request = ctx.request();
            match args::bind::<T::Params>(T::NAME, request.args().as_slice(), request.kwargs().as_slice()) {
                Ok(params) => {
                    let future = T::run(&state, ctx, params);
                    Box::pin(async move { encode(&future.await?) })
                }
                Err(error) => Box::pin(async move { Err(Failure::type_error(error).into()) }),
            }
        };
        Self {
            name,
            options: T::OPTIONS,
            rules: T::RULES,
            blocking: T::BLOCKING,
            errback: T::ERRBACK,
            positional: positional::<T::Params>(),
            call: Box::new(call),
        }
    }

    /// A task whose arguments have no fixed form.
    pub(crate) fn raw<F, Fut, R>(name: TaskName, options: TaskOptions, run: F) -> Self
    where
        F: Fn(Context, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = TaskResult<R>> + Send + 'static,
        R: Serialize + Send + 'static,
    {
        Self {
            name,
            options,
            rules: FailureRules::NONE,
            blocking: false,
            errback: ErrbackStyle::Old,
            positional: &[],
            call: Box::new(move |ctx| {
                let request = ctx.request();
                let call = RawCall {
                    name: request.task().clone(),
                    args: request.args().clone(),
                    kwargs: request.kwargs().clone(),
                };
                let future = run(ctx, call);
                Box::pin(async move { encode(&future.await?) })
            }),
        }
    }

    /// Runs the task once: binds the arguments, runs the body in its tracing span, serialises the result. Panics and
    /// time limits are the caller's. For a [`blocking`](Self::blocking) task the body runs inside the future's first poll.
    #[must_use]
    pub fn call(&self, ctx: Context) -> BoxFuture<'static, TaskResult<Box<RawValue>>> {
        let request = ctx.request();
        let span = tracing::info_span!("task", name = %request.task(), id = %request.id(), retries = request.retries());
        let future = span.in_scope(|| (self.call)(ctx));
        if span.is_disabled() { future } else { Box::pin(future.instrument(span)) }
    }

    pub(crate) fn positional(&self) -> &'static [&'static str] {
        self.positional
    }
}

impl fmt::Debug for ErasedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErasedTask")
            .field("name", &self.name)
            .field("blocking", &self.blocking)
            .finish_non_exhaustive()
    }
}

fn encode(value: &impl Serialize) -> TaskResult<Box<RawValue>> {
    pyjson::to_raw(value).map_err(|error| Failure::encode_error(error).into())
}

/// The arguments of a call to a [raw task](Registry::raw_task).
#[derive(Debug, Clone)]
pub struct RawCall {
    /// The name it was called by.
    pub name: TaskName,
    /// Positional arguments.
    pub args: RawArgs,
    /// Keyword arguments.
    pub kwargs: RawKwargs,
}

impl RawCall {
    /// Binds the arguments to a struct's fields, as a task's parameters are bound.
    ///
    /// # Errors
    /// If they don't fit; the text is the one of Python's `TypeError`.
    pub fn bind<T: DeserializeOwned>(&self) -> Result<T, BindError> {
        args::bind(self.name.as_str(), self.args.as_slice(), self.kwargs.as_slice())
    }
}

/// Collects tasks for one worker, whose state is an `S`.
pub struct Registry<S> {
    state: Arc<S>,
    tasks: Vec<Result<Arc<ErasedTask>, RegistryError>>,
}

impl<S: Send + Sync + 'static> Registry<S> {
    /// An empty registry.
    #[must_use]
    pub fn new(state: S) -> Self {
        Self { state: Arc::new(state), tasks: Vec::new() }
    }

    /// Adds a task. What is wrong with it is reported by [`build`](Self::build).
    pub fn task<T: Task<S>>(&mut self) -> &mut Self {
        let task = parse(T::NAME).map(|name| Arc::new(ErasedTask::of::<T, S>(name, Arc::clone(&self.state))));
        self.tasks.push(task);
        self
    }

    /// Adds a task whose name is only known at run time, or whose arguments have no fixed form.
    pub fn raw_task<F, Fut, R>(&mut self, name: impl Into<String>, options: TaskOptions, run: F) -> &mut Self
    where
        F: Fn(Context, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = TaskResult<R>> + Send + 'static,
        R: Serialize + Send + 'static,
    {
        let task = parse(&name.into()).map(|name| ErasedTask::raw(name, options, run));
        self.tasks.push(task.map(Arc::new));
        self
    }

    /// The finished set, with the tasks that Celery has built in; a task of the same name takes their place.
    ///
    /// # Errors
    /// If two tasks have one name, a name can't be sent, or a soft time limit is not below the hard one.
    pub fn build(&self) -> Result<Tasks, RegistryError> {
        let mut tasks = HashMap::with_capacity(self.tasks.len());
        for task in &self.tasks {
            let task = Arc::clone(task.as_ref().map_err(Clone::clone)?);
            if let (Some(soft), Some(hard)) = (task.options.soft_time_limit, task.options.time_limit)
                && soft >= hard
            {
                return Err(RegistryError::new(
                    RegistryErrorKind::TimeLimits { soft, hard },
                    task.name.as_str(),
                ));
            }
            if let Some(task) = tasks.insert(task.name.clone(), task) {
                return Err(RegistryError::new(RegistryErrorKind::Duplicate, task.name.as_str()));
            }
        }
        Ok(Tasks(Arc::new_cyclic(|all| {
            for task in builtin::tasks(&Others::new(all)) {
                tasks.entry(task.name.clone()).or_insert_with(|| Arc::new(task));
            }
            tasks
        })))
    }
}

fn parse(name: &str) -> Result<TaskName, RegistryError> {
    TaskName::parse(name)
        .map_err(|error| RegistryError::new(RegistryErrorKind::Name(error.to_string()), name))
}

/// The tasks of a worker, by name.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<HashMap<TaskName, Arc<ErasedTask>>>);

impl Tasks {
    /// The task of this name.
    #[must_use]
    pub fn get(&self, name: &TaskName) -> Option<&Arc<ErasedTask>> {
        self.0.get(name)
    }

    /// All tasks, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ErasedTask>> {
        self.0.values()
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<TaskName> {
        let mut names: Vec<_> = self.0.keys().cloned().collect();
        names.sort();
        names
    }
}

/// A set of tasks that can't be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryError {
    kind: RegistryErrorKind,
    task: String,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryErrorKind {
    /// Two tasks have this name.
    Duplicate,
    /// No message can carry this name.
    Name(String),
    /// The soft limit is not below the hard one.
    TimeLimits {
        /// `soft_time_limit`
        soft: Duration,
        /// `time_limit`
        hard: Duration,
    },
}

impl RegistryError {
    fn new(kind: RegistryErrorKind, task: &str) -> Self {
        Self { kind, task: task.to_owned() }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &RegistryErrorKind {
        &self.kind
    }

    /// The task's name.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = &self.task;
        match &self.kind {
            RegistryErrorKind::Duplicate => {
                write!(f, "two tasks are called {task:?}: give one of them another name")
            }
            RegistryErrorKind::Name(reason) => write!(f, "{task:?} can't be a task's name: {reason}"),
            RegistryErrorKind::TimeLimits { soft, hard } => {
                write!(
                    f,
                    "task {task:?}: soft_time_limit ({soft:?}) must be shorter than time_limit ({hard:?})"
                )
            }
        }
    }
}

impl std::error::Error for RegistryError {}

/// The field names of a parameter struct, up to `*args`: serde hands them to whoever deserialises a struct.
fn positional<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut probe = Probe { fields: &[] };
    // Always fails: it is the question that counts.
    let _ = T::deserialize(&mut probe);
    let end = probe.fields.iter().position(|name| name.starts_with('*')).unwrap_or(probe.fields.len());
    &probe.fields[..end]
}

struct Probe {
    fields: &'static [&'static str],
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = de::value::Error;

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only asked for its fields"))
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.fields = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
