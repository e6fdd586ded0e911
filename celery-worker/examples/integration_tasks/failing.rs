//! Tasks that do not succeed.

use celery_worker::context::FailedCall;
use celery_worker::prelude::*;

use crate::Builder;
use crate::keys::Redis;

/// The module in which the suite defines its exceptions.
const MODULE: &str = "t.integration.tasks";

pub(crate) fn register(worker: Builder) -> Builder {
    worker
        .task::<fail>()
        .task::<fail_unpickleable>()
        .task::<raise_error>()
        .task::<auto_retry_class_task>()
        .task::<reject_then_succeed>()
        .task::<reject_without_requeue>()
        .task::<store_success_then_reject>()
        .task::<errback_old_style>()
        .task::<errback_new_style>()
        .task::<errback_old_style_with_args>()
        .task::<errback_new_style_with_args>()
}

/// `ExpectedException(*args)`
pub(crate) fn expected(args: impl IntoIterator<Item = Value>) -> Failure {
    args.into_iter().fold(Failure::named("ExpectedException").module(MODULE), Failure::arg)
}

/// An exception that Python can't pickle travels in a wrapper.
pub(crate) fn unpickleable(foo: &Value, bar: &Value) -> Failure {
    let _ = bar; // only foo is among the exception's arguments
    Failure::named("UnpickleableExceptionWrapper")
        .module("celery.utils.serialization")
        .arg(MODULE)
        .arg("UnpickleableException")
        .arg([foo])
        .arg(format!(
            "UnpickleableException({})",
            foo.as_str().map_or_else(|| foo.to_string(), |text| format!("'{text}'"))
        ))
}

#[task(name = "t.integration.tasks.fail")]
pub(crate) async fn fail(#[args] args: Vec<Value>) -> TaskResult<()> {
    Err(expected([json!("Task expected to fail")].into_iter().chain(args)).into())
}

#[task(name = "t.integration.tasks.fail_unpickleable")]
async fn fail_unpickleable(foo: Value, bar: Value) -> TaskResult<()> {
    Err(unpickleable(&foo, &bar).into())
}

#[task(name = "t.integration.tasks.raise_error")]
pub(crate) async fn raise_error(#[args] _args: Vec<Value>) -> TaskResult<()> {
    raise!("ValueError", "deliberate error")
}

#[task(name = "auto_retry_class_task", autoretry_for("ValueError"), max_retries = 1, retry_backoff)]
async fn auto_retry_class_task(#[ctx] ctx: Context) -> TaskResult<u32> {
    match ctx.request().retries() {
        0 => raise!("ValueError"),
        retries => Ok(retries),
    }
}

#[task(name = "t.integration.tasks.reject_then_succeed", acks_late)]
async fn reject_then_succeed(#[ctx] ctx: Context) -> TaskResult<String> {
    if !ctx.request().delivery().redelivered {
        return Err(TaskError::requeue("first pass"));
    }
    Ok("second-pass".to_owned())
}

#[task(name = "t.integration.tasks.reject_without_requeue")]
async fn reject_without_requeue() -> TaskResult<()> {
    Err(TaskError::reject("rejected"))
}

#[task(name = "t.integration.tasks.store_success_then_reject", acks_late)]
async fn store_success_then_reject(#[ctx] ctx: Context) -> TaskResult<String> {
    if !ctx.request().delivery().redelivered {
        ctx.update_state("SUCCESS", "first-pass").await?;
        return Err(TaskError::requeue("first pass"));
    }
    Ok("dedup-pass".to_owned())
}

/// Called by a message of its own, with the failed task's id.
#[task(name = "t.integration.tasks.errback_old_style")]
async fn errback_old_style(#[state] redis: Redis, request_id: TaskId) -> TaskResult<TaskId> {
    redis.increment(request_id.as_str()).await?;
    Ok(request_id)
}

#[task(name = "t.integration.tasks.errback_old_style_with_args")]
async fn errback_old_style_with_args(
    #[state] redis: Redis,
    request_id: TaskId,
    label: String,
) -> TaskResult<()> {
    redis.push(request_id.as_str(), &label).await
}

/// Called where the task failed, with its request, exception and traceback.
#[task(name = "t.integration.tasks.errback_new_style", errback)]
async fn errback_new_style(
    #[state] redis: Redis,
    request: FailedCall,
    exc: Value,
    tb: Option<String>,
) -> TaskResult<TaskId> {
    drop((exc, tb));
    redis.increment(request.id.as_str()).await?;
    Ok(request.id)
}

#[task(name = "t.integration.tasks.errback_new_style_with_args", errback)]
async fn errback_new_style_with_args(
    #[state] redis: Redis,
    request: FailedCall,
    exc: Value,
    tb: Option<String>,
    label: String,
) -> TaskResult<()> {
    drop((exc, tb));
    redis.push(request.id.as_str(), &label).await
}
