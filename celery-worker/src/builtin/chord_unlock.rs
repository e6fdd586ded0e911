//! `celery.chord_unlock`: the end of a chord whose sender's result backend cannot count. It looks again and again whether
//! the members are ready, and sends the body.

use std::collections::HashMap;
use std::time::Duration;

use celery_protocol::canvas::{Call, Signature};
use celery_protocol::{GroupId, ResultTuple, TaskId, TaskState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Others, canvas};
use crate::context::Context;
use crate::task::{Failure, RawCall, TaskError, TaskResult};
use crate::trace;

#[derive(Deserialize)]
struct Unlock {
    group_id: GroupId,
    callback: Signature,
    interval: Option<f64>,
    max_retries: Option<u32>,
    result: Option<Vec<ResultTuple>>,
    #[serde(rename = "**kwargs", default)]
    _kwargs: serde::de::IgnoredAny,
}

/// `chord_unlock(group_id, callback, interval=None, max_retries=None, result=None, **kwargs)`
pub(super) async fn chord_unlock(ctx: Context, call: RawCall, others: Others) -> TaskResult<()> {
    let unlock: Unlock = call.bind().map_err(Failure::type_error)?;
    let group = ResultTuple::group(unlock.group_id.clone(), unlock.result.clone().unwrap_or_default());
    let mut ids = Vec::new();
    trace::leaves(&group, &mut ids);
    let metas = ctx.celery().backend().get_many(&ids).await;
    let metas = match metas {
        Ok(metas) => metas,
        Err(error) => {
            let failure = TaskError::from(error);
            return Err(again(&ctx, &unlock, &others, failure).await);
        }
    };
    let mut found = HashMap::with_capacity(ids.len());
    let mut failed = None;
    for (id, meta) in ids.into_iter().zip(metas) {
        let Some(meta) = meta.filter(|meta| meta.status.is_ready()) else {
            return Err(again(&ctx, &unlock, &others, exhausted(&ctx)).await);
        };
        if meta.status != TaskState::Success && failed.is_none() {
            failed = Some((id.clone(), trace::shown(&meta.result)));
        }
        found.insert(id, meta.result);
    }
    if let Some((id, exception)) = failed {
        return fail(&ctx, &unlock, &others, &format!("Dependency {id} raised {exception}")).await;
    }
    let results = trace::nested(&group, &found);
    match send_body(&ctx, unlock.callback.clone(), results).await {
        Ok(()) => Ok(()),
        Err(TaskError::Failure(failure)) => {
            let text = format!("Callback error: {}", failure.exception().repr());
            fail(&ctx, &unlock, &others, &text).await
        }
        Err(other) => Err(other),
    }
}

async fn send_body(ctx: &Context, callback: Signature, results: Box<RawValue>) -> TaskResult<()> {
    let call = Call { args: vec![results], ..Call::default() };
    canvas::send(ctx, canvas::tree(callback)?, call).await?;
    Ok(())
}

/// Looks again later; or, when that was the last time, ends the chord, so that nobody waits for ever.
async fn again(ctx: &Context, unlock: &Unlock, others: &Others, last: TaskError) -> TaskError {
    let retry = match (unlock.max_retries, unlock.interval) {
        (Some(most), _) if ctx.request().retries() >= most => {
            let TaskError::Failure(failure) = last else { return last };
            let why = format!("chord_unlock could not be retried: {}", failure.exception().repr());
            return match fail(ctx, unlock, others, &why).await {
                Ok(()) => failure.into(),
                Err(trouble) => trouble,
            };
        }
        (Some(most), _) => ctx.retry().max_retries(most),
        (None, _) => ctx.retry().unlimited(),
    };
    let interval = unlock.interval.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match interval {
        Some(interval) => retry.countdown(interval).into(),
        None => retry.into(),
    }
}

fn exhausted(ctx: &Context) -> TaskError {
    let id: &TaskId = ctx.request().id();
    Failure::max_retries_exceeded(format!("Can't retry celery.chord_unlock[{id}]")).into()
}

/// Ends the chord without its body: the body's state is FAILURE, and its errbacks run.
async fn fail(ctx: &Context, unlock: &Unlock, others: &Others, why: &str) -> TaskResult<()> {
    tracing::error!(group = %unlock.group_id, "Chord {} raised: {why}", unlock.group_id);
    let root_id = ctx.request().headers().root();
    let failure = Failure::chord_error(why);
    let new_style = others.new_style();
    if trace::fail_chord(ctx.celery(), &unlock.callback, root_id, &failure, &new_style).await {
        return Ok(());
    }
    Err(TaskError::requeue("the end of a chord could not be stored or published"))
}
