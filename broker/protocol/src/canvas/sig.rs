//! A signature that knows what its task returns.

use std::{
    fmt,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::value::RawValue;

use super::Signature;
use crate::{QueueName, RawArgs, TaskId, TaskName, WireTime, ids::IdError, pyjson::EncodeError};

/// One call, typed by what it returns.
///
/// Building never fails; what went wrong on the way (an argument without JSON form, an impossible queue name) is
/// reported by [`into_signature`](Self::into_signature), which every way of sending calls.
#[must_use = "a signature does nothing until it is sent"]
pub struct Sig<O> {
    signature: Result<Signature, SigError>,
    output: PhantomData<fn() -> O>,
}

/// What was wrong with a call while it was built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task}: {problem}")]
pub struct SigError {
    task: String,
    problem: String,
}

impl SigError {
    pub(super) fn new(task: &str, problem: &str) -> Self {
        Self { task: task.to_owned(), problem: problem.to_owned() }
    }
}

impl<O> Sig<O> {
    /// A call of the task `name` without arguments.
    pub fn new(name: &str) -> Self {
        let signature = TaskName::parse(name)
            .map(Signature::new)
            .map_err(|err| SigError { task: name.chars().take(255).collect(), problem: err.to_string() });
        Self { signature, output: PhantomData }
    }

    /// The signature.
    ///
    /// # Errors
    /// The first thing that went wrong while building.
    pub fn into_signature(self) -> Result<Signature, SigError> {
        self.signature
    }

    /// With one more positional argument.
    pub fn arg(self, value: impl Serialize) -> Self {
        self.attempt(|signature| Ok(signature.args.push(&value)?))
    }

    /// With one more positional argument that is JSON already.
    pub fn arg_raw(self, value: Box<RawValue>) -> Self {
        self.change(|signature| signature.args.push_raw(value))
    }

    /// With one more keyword argument.
    pub fn kwarg(self, name: &str, value: impl Serialize) -> Self {
        self.attempt(|signature| Ok(signature.kwargs.insert(name, &value)?))
    }

    /// With raw positional arguments in place of the present ones.
    pub fn raw_args(self, args: RawArgs) -> Self {
        self.change(|signature| signature.args = args)
    }

    /// To this queue. Default: as routes say.
    pub fn queue<Q: TryInto<QueueName>>(self, queue: Q) -> Self
    where
        Q::Error: fmt::Display,
    {
        self.attempt(|signature| {
            let queue = queue.try_into().map_err(|err| Problem(err.to_string()))?;
            signature.options.set("queue", &queue);
            Ok(())
        })
    }

    /// Not before this long from the moment of sending. Default: at once.
    pub fn countdown(self, delay: Duration) -> Self {
        self.option("countdown", delay.as_secs_f64())
    }

    /// Not before this moment. Default: at once.
    pub fn eta(self, at: SystemTime) -> Self {
        self.option("eta", WireTime::from(at))
    }

    /// Not after this long from the moment of sending. Default: whenever.
    pub fn expires_in(self, after: Duration) -> Self {
        self.option("expires", after.as_secs_f64())
    }

    /// Not after this moment. Default: whenever.
    pub fn expires(self, at: SystemTime) -> Self {
        self.option("expires", WireTime::from(at))
    }

    /// Priority, higher is more urgent. Default: none.
    pub fn priority(self, priority: u8) -> Self {
        self.option("priority", priority)
    }

    /// With this id. Default: a random one.
    pub fn task_id(self, id: &TaskId) -> Self {
        self.option("task_id", id)
    }

    /// Whether the result is thrown away. Default: as the task says.
    pub fn ignore_result(self, ignore: bool) -> Self {
        self.option("ignore_result", ignore)
    }

    /// With a limit after which the run is ended. Default: as the task says.
    pub fn time_limit(self, limit: Duration) -> Self {
        self.option("time_limit", limit.as_secs_f64())
    }

    /// With a limit after which the run is asked to end. Default: as the task says.
    pub fn soft_time_limit(self, limit: Duration) -> Self {
        self.option("soft_time_limit", limit.as_secs_f64())
    }

    /// Takes no arguments from the call before it: Python's `.si(…)`.
    pub fn immutable(self) -> Self {
        self.change(|signature| signature.immutable = true)
    }

    /// Any option, by Celery's name.
    pub fn option(self, name: &str, value: impl Serialize) -> Self {
        self.attempt(|signature| Ok(signature.options.as_map_mut().insert(name, &value)?))
    }

    /// One message that runs the task for one item after the other, each as its only argument, and returns the list of what
    /// they return: Python's `task.map(items)`. The worker must serve the task itself.
    ///
    /// ```
    /// # use celery_protocol::Sig;
    /// let squares: Sig<Vec<i64>> = Sig::<i64>::new("t.square").map([1, 2, 3]);
    /// assert_eq!(squares.into_signature()?.task.as_str(), "celery.map");
    /// # Ok::<_, celery_protocol::SigError>(())
    /// ```
    pub fn map<T: Serialize>(self, items: impl IntoIterator<Item = T>) -> Sig<Vec<O>> {
        self.each("map", &items.into_iter().collect::<Vec<_>>())
    }

    /// As [`map`](Self::map), with each item as the list of the arguments: Python's `task.starmap(items)`.
    pub fn starmap<T: Serialize>(self, items: impl IntoIterator<Item = T>) -> Sig<Vec<O>> {
        self.each("starmap", &items.into_iter().collect::<Vec<_>>())
    }

    fn each<T: Serialize>(self, kind: &'static str, items: &[T]) -> Sig<Vec<O>> {
        match self.signature {
            Ok(task) => {
                let each: Sig<Vec<O>> = Signature::new(TaskName::builtin(kind)).immutable().into();
                each.kwarg("task", task).kwarg("it", items)
            }
            Err(err) => err.into(),
        }
    }

    /// The same call, with another idea of what it returns.
    pub fn returning<P>(self) -> Sig<P> {
        Sig { signature: self.signature, output: PhantomData }
    }

    fn change(mut self, change: impl FnOnce(&mut Signature)) -> Self {
        if let Ok(signature) = &mut self.signature {
            change(signature);
        }
        self
    }

    fn attempt(mut self, change: impl FnOnce(&mut Signature) -> Result<(), Problem>) -> Self {
        if let Ok(signature) = &mut self.signature
            && let Err(Problem(problem)) = change(signature)
        {
            self.signature = Err(SigError { task: signature.task.to_string(), problem });
        }
        self
    }
}

/// A problem in words.
struct Problem(String);

impl From<EncodeError> for Problem {
    fn from(err: EncodeError) -> Self {
        Self(err.to_string())
    }
}

impl From<IdError> for Problem {
    fn from(err: IdError) -> Self {
        Self(err.to_string())
    }
}

impl<O> From<Signature> for Sig<O> {
    fn from(signature: Signature) -> Self {
        Self { signature: Ok(signature), output: PhantomData }
    }
}

impl<O> From<SigError> for Sig<O> {
    /// A call that can only report the error.
    fn from(err: SigError) -> Self {
        Self { signature: Err(err), output: PhantomData }
    }
}

impl<O> Clone for Sig<O> {
    fn clone(&self) -> Self {
        Self { signature: self.signature.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for Sig<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.signature, f)
    }
}
