//! `celery.map` and `celery.starmap`: one task, run here for one argument after the other.

use celery_protocol::canvas::Signature;
use celery_protocol::{Body, Embed, RawArgs, RawKwargs};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::runtime::Handle;

use super::Others;
use crate::context::{Context, Request};
use crate::task::{ErasedTask, Failure, RawCall, TaskError, TaskResult};

#[derive(Deserialize)]
struct Each<T> {
    task: Signature,
    it: Vec<T>,
}

/// `map(task, it)`: `[task(item) for item in it]`
pub(super) async fn map(ctx: Context, call: RawCall, others: Others) -> TaskResult<Vec<Box<RawValue>>> {
    let Each { task, it } = call.bind::<Each<Box<RawValue>>>().map_err(Failure::type_error)?;
    run(ctx, &task, it.into_iter().map(|item| RawArgs::from(vec![item])), &others).await
}

/// `starmap(task, it)`: `[task(*items) for items in it]`
pub(super) async fn starmap(ctx: Context, call: RawCall, others: Others) -> TaskResult<Vec<Box<RawValue>>> {
    let Each { task, it } = call.bind::<Each<RawArgs>>().map_err(Failure::type_error)?;
    run(ctx, &task, it, &others).await
}

/// Of the signature only the name counts, as in Celery.
async fn run(
    ctx: Context,
    signature: &Signature,
    calls: impl IntoIterator<Item = RawArgs>,
    others: &Others,
) -> TaskResult<Vec<Box<RawValue>>> {
    let task = others.get(&signature.task).ok_or_else(|| Failure::not_registered(signature.task.as_str()))?;
    let mut results = Vec::new();
    for args in calls {
        ctx.stop_if_told()?;
        let inner = ctx.for_call(Arc::new(of(ctx.request(), &task, args)));
        results.push(one(&task, inner).await.map_err(called_directly)?);
    }
    Ok(results)
}

/// The same call, with another task and other arguments: what the body sees of it.
fn of(outer: &Request, task: &ErasedTask, args: RawArgs) -> Request {
    let mut message = outer.message().clone();
    message.headers.task = task.name.clone();
    message.headers.retries = 0;
    message.headers.argsrepr = None;
    message.headers.kwargsrepr = None;
    let body = Body { args, kwargs: RawKwargs::new(), embed: Embed::default() };
    Request::new(message, body, outer.delivery().clone(), outer.hostname().clone())
}

async fn one(task: &Arc<ErasedTask>, ctx: Context) -> TaskResult<Box<RawValue>> {
    if !task.blocking {
        return task.call(ctx).await;
    }
    let (task, runtime) = (task.clone(), Handle::current());
    let thread = tokio::task::spawn_blocking(move || runtime.block_on(task.call(ctx)));
    match thread.await {
        Ok(answer) => answer,
        Err(lost) => match lost.try_into_panic() {
            Ok(panic) => Err(Failure::panicked(&*panic).into()),
            Err(lost) => Err(lost.into()),
        },
    }
}

/// A task that was called, not sent, cannot be sent again: what it wanted to be retried for is its error.
fn called_directly(error: TaskError) -> TaskError {
    let TaskError::Retry(retry) = error else { return error };
    let because = retry.0.because;
    let nothing = || Failure::new("Retry", "Task can be retried").module("celery.exceptions");
    because.unwrap_or_else(nothing).into()
}
