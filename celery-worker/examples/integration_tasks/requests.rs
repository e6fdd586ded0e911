//! Tasks that look at their call, or ask for another run.

use std::sync::atomic::Ordering;

use celery_protocol::TimeLimits;
use celery_worker::prelude::*;

use crate::failing::{expected, unpickleable};
use crate::keys::Redis;
use crate::values::sum;
use crate::{Attempts, Builder};

pub(crate) fn register(worker: Builder) -> Builder {
    worker
        .task::<ids>()
        .task::<collect_ids>()
        .task::<sum_and_record>()
        .task::<redis_echo_group_id>()
        .task::<return_priority>()
        .task::<return_properties>()
        .task::<return_request_eta>()
        .task::<return_request_time_limits>()
        .task::<task_with_declared_time_limits>()
        .task::<retry>()
        .task::<retry_unpickleable>()
        .task::<retry_with_args_after_kwargs>()
        .task::<retry_with_kwargs_after_args>()
        .task::<retry_once>()
        .task::<retry_once_ignore_result>()
        .task::<retry_once_with_result>()
        .task::<retry_once_priority>()
        .task::<retry_once_headers>()
}

#[task(name = "t.integration.tasks.ids")]
async fn ids(#[ctx] ctx: Context, i: Value) -> TaskResult<Value> {
    Ok(json!([ctx.request().root_id(), ctx.request().parent_id(), i]))
}

#[task(name = "t.integration.tasks.collect_ids")]
async fn collect_ids(#[ctx] ctx: Context, res: Value, i: Value) -> TaskResult<Value> {
    Ok(json!([res, ids(ctx, i).await?]))
}

#[task(name = "t.integration.tasks.sum_and_record")]
async fn sum_and_record(
    #[ctx] ctx: Context,
    #[state] redis: Redis,
    values: Vec<Value>,
    redis_key: String,
) -> TaskResult<Value> {
    let total = sum(&values)?;
    redis.push(&redis_key, ctx.request().id().as_str()).await?;
    Ok(total)
}

fn group_ids() -> String {
    "redis-group-ids".to_owned()
}

#[task(name = "t.integration.tasks.redis_echo_group_id")]
async fn redis_echo_group_id(
    #[ctx] ctx: Context,
    #[state] redis: Redis,
    _before: Value,
    #[serde(default = "group_ids")] redis_key: String,
) -> TaskResult<()> {
    match ctx.request().group() {
        Some(group) => redis.push(&redis_key, group.as_str()).await,
        None => raise!("TypeError", "Redis takes texts and numbers, not 'NoneType'"),
    }
}

#[task(name = "t.integration.tasks.return_priority")]
async fn return_priority(#[ctx] ctx: Context, #[args] _args: Vec<Value>) -> TaskResult<String> {
    let priority = ctx.request().delivery().priority.map_or_else(|| "None".to_owned(), |n| n.to_string());
    Ok(format!("Priority: {priority}"))
}

#[task(name = "t.integration.tasks.return_properties")]
async fn return_properties(#[ctx] ctx: Context) -> TaskResult<Value> {
    let all = ctx.request().properties();
    Ok(json!({
        "content_type": all.content_type,
        "content_encoding": all.content_encoding,
        "delivery_mode": all.delivery_mode,
        "priority": all.priority,
        "correlation_id": all.correlation_id,
        "reply_to": all.reply_to,
        "app_id": all.app_id,
        "application_headers": ctx.request().headers().to_map(),
    }))
}

#[task(name = "t.integration.tasks.return_request_eta")]
async fn return_request_eta(#[ctx] ctx: Context) -> TaskResult<Value> {
    Ok(json!(ctx.request().headers().eta))
}

fn shown(limits: TimeLimits) -> Value {
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
    json!({ "time_limit": seconds(limits.hard), "soft_time_limit": seconds(limits.soft) })
}

#[task(name = "t.integration.tasks.return_request_time_limits")]
async fn return_request_time_limits(#[ctx] ctx: Context) -> TaskResult<Value> {
    Ok(shown(ctx.time_limits()))
}

#[task(
    name = "t.integration.tasks.task_with_declared_time_limits",
    time_limit = "60s",
    soft_time_limit = "45s"
)]
async fn task_with_declared_time_limits(#[ctx] ctx: Context) -> TaskResult<Value> {
    Ok(shown(ctx.time_limits()))
}

/// Without a value it is retried until it fails; with one, it returns that in its fourth run.
#[task(name = "t.integration.tasks.retry", default_retry_delay = "1s")]
async fn retry(
    #[ctx] ctx: Context,
    #[state] attempts: Attempts,
    return_value: Option<Value>,
) -> TaskResult<Value> {
    if let Some(value) = return_value
        && attempts.0.fetch_add(1, Ordering::SeqCst) >= 3
    {
        attempts.0.store(0, Ordering::SeqCst);
        return Ok(value);
    }
    Err(ctx.retry().because(expected([])).countdown(Duration::from_secs(5)).into())
}

/// What a caller may say about a retry: Python's `**retry_kwargs`.
#[derive(Serialize, Deserialize)]
struct RetryOptions {
    countdown: Option<f64>,
    max_retries: Option<u32>,
}

#[task(name = "t.integration.tasks.retry_unpickleable", default_retry_delay = "1s")]
async fn retry_unpickleable(
    #[ctx] ctx: Context,
    foo: Value,
    bar: Value,
    retry_kwargs: RetryOptions,
) -> TaskResult<()> {
    let mut retry = ctx.retry().because(unpickleable(&foo, &bar));
    if let Some(countdown) = retry_kwargs.countdown {
        retry = retry.countdown(Duration::from_secs_f64(countdown));
    }
    if let Some(max_retries) = retry_kwargs.max_retries {
        retry = retry.max_retries(max_retries);
    }
    Err(retry.into())
}

#[task(name = "t.integration.tasks.retry_with_args_after_kwargs", max_retries = 1)]
async fn retry_with_args_after_kwargs(
    #[ctx] ctx: Context,
    foo: i64,
    bar: i64,
    label: Option<String>,
) -> TaskResult<Value> {
    let retries = ctx.request().retries();
    if retries == 0 {
        return Err(ctx.retry().args((foo + 1, bar + 1)).countdown(Duration::ZERO).into());
    }
    Ok(json!({ "foo": foo, "bar": bar, "label": label, "retries": retries, "is_eager": false }))
}

#[task(name = "t.integration.tasks.retry_with_kwargs_after_args", max_retries = 1)]
async fn retry_with_kwargs_after_args(#[ctx] ctx: Context, foo: i64, bar: i64) -> TaskResult<Value> {
    let retries = ctx.request().retries();
    if retries == 0 {
        return Err(ctx.retry().kwargs(json!({ "foo": foo + 1 })).countdown(Duration::ZERO).into());
    }
    Ok(json!({ "foo": foo, "bar": bar, "retries": retries, "is_eager": false }))
}

fn tenth() -> f64 {
    0.1
}

fn one() -> u32 {
    1
}

/// Retried once; as Python's function takes `*args`, it counts as a new-style errback.
#[task(name = "t.integration.tasks.retry_once", max_retries = 1, expires = "120s", errback)]
async fn retry_once(
    #[ctx] ctx: Context,
    #[args] _args: Vec<Value>,
    expires: Option<f64>,
    #[serde(default = "one")] max_retries: u32,
    #[serde(default = "tenth")] countdown: f64,
) -> TaskResult<u32> {
    let retries = ctx.request().retries();
    if retries > 0 {
        return Ok(retries);
    }
    let mut retry = ctx.retry().countdown(Duration::from_secs_f64(countdown)).max_retries(max_retries);
    if let Some(expires) = expires {
        retry = retry.expires(std::time::SystemTime::now() + Duration::from_secs_f64(expires));
    }
    Err(retry.into())
}

fn at_once(ctx: &Context) -> TaskResult<u32> {
    match ctx.request().retries() {
        0 => Err(ctx.retry().countdown(Duration::ZERO).into()),
        retries => Ok(retries),
    }
}

#[task(name = "t.integration.tasks.retry_once_ignore_result", ignore_result)]
async fn retry_once_ignore_result(#[ctx] ctx: Context) -> TaskResult<u32> {
    at_once(&ctx)
}

#[task(name = "t.integration.tasks.retry_once_with_result", ignore_result = false)]
async fn retry_once_with_result(#[ctx] ctx: Context) -> TaskResult<u32> {
    at_once(&ctx)
}

#[task(name = "t.integration.tasks.retry_once_priority", max_retries = 1)]
async fn retry_once_priority(
    #[ctx] ctx: Context,
    #[args] _args: Vec<Value>,
    #[kwargs] _options: Map<String, Value>,
) -> TaskResult<Option<u8>> {
    at_once(&ctx).map(|_| ctx.request().delivery().priority)
}

#[task(name = "t.integration.tasks.retry_once_headers", max_retries = 1)]
async fn retry_once_headers(
    #[ctx] ctx: Context,
    #[args] _args: Vec<Value>,
    #[kwargs] _options: Map<String, Value>,
) -> TaskResult<Map<String, Value>> {
    at_once(&ctx).map(|_| ctx.request().custom_headers().clone())
}
