//! `celery.chunks`, `celery.group`, `celery.chain` and `celery.chord`: workflows as tasks. Clients of our days send the
//! parts themselves; these are for the others.

use celery_protocol::canvas::{Call, Canvas, ChordNode, GroupNode, Signature};
use celery_protocol::{GroupId, RawArgs, ResultTuple, SignatureOptions, pyjson};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::task::{Failure, OrRaise as _, RawCall, TaskResult};

/// `chunks(task, it, n)`: a group of starmaps over `n` items each.
pub(super) async fn chunks(ctx: Context, call: RawCall) -> TaskResult<ResultTuple> {
    #[derive(Deserialize)]
    struct Chunks {
        task: Box<RawValue>,
        it: Box<RawValue>,
        n: Box<RawValue>,
    }
    let Chunks { task, it, n } = call.bind().map_err(Failure::type_error)?;
    let mut signature = Signature::new(call.name);
    signature.kwargs.insert_raw("task", task);
    signature.kwargs.insert_raw("it", it);
    signature.kwargs.insert_raw("n", n);
    sent(send(&ctx, Canvas::Task(signature), Call::default()).await?)
}

/// `group(tasks, result, group_id, partial_args, add_to_parent=True)`
pub(super) async fn group(ctx: Context, call: RawCall) -> TaskResult<ResultTuple> {
    #[derive(Deserialize)]
    struct Group {
        tasks: Vec<Signature>,
        result: ResultTuple,
        group_id: GroupId,
        partial_args: RawArgs,
        add_to_parent: Option<bool>,
    }
    let Group { tasks, result, group_id, partial_args, add_to_parent } =
        call.bind().map_err(Failure::type_error)?;
    for task in tasks {
        let mut options = SignatureOptions::new();
        options.set("group_id", &group_id);
        options.set("add_to_parent", &false);
        let args = partial_args.as_slice().to_vec();
        send(&ctx, tree(task)?, Call { args, options, ..Call::default() }).await?;
    }
    if add_to_parent.unwrap_or(true) {
        ctx.add_child(result.clone());
    }
    Ok(result)
}

/// Celery keeps the name, and nothing behind it.
pub(super) fn chain() -> TaskResult<()> {
    Err(Failure::new("NotImplementedError", "chain is not a real task").into())
}

/// `chord(header, body, partial_args=(), interval=None, countdown=1, max_retries=None, eager=False, **kwargs)`: what comes
/// after `partial_args` is about polling, which a store that counts does not need.
pub(super) async fn chord(ctx: Context, call: RawCall) -> TaskResult<ResultTuple> {
    #[derive(Deserialize)]
    struct Chord {
        header: Box<RawValue>,
        body: Signature,
        partial_args: Option<RawArgs>,
        #[serde(rename = "interval")]
        _interval: Option<Box<RawValue>>,
        #[serde(rename = "countdown")]
        _countdown: Option<Box<RawValue>>,
        #[serde(rename = "max_retries")]
        _max_retries: Option<Box<RawValue>>,
        #[serde(rename = "eager")]
        _eager: Option<Box<RawValue>>,
        #[serde(rename = "**kwargs", default)]
        _kwargs: serde::de::IgnoredAny,
    }
    let Chord { header, body, partial_args, .. } = call.bind().map_err(Failure::type_error)?;
    // A group, or the list of its members.
    let header = if header.get().starts_with('[') {
        let members: Vec<Signature> = pyjson::from_str(header.get()).or_raise("TypeError")?;
        let members: TaskResult<Vec<_>> = members.into_iter().map(tree).collect();
        Canvas::from(GroupNode::of(members?))
    } else {
        tree(pyjson::from_str(header.get()).or_raise("TypeError")?)?
    };
    let args = partial_args.unwrap_or_default().as_slice().to_vec();
    let chord = Canvas::from(ChordNode::of(header, tree(body)?));
    sent(send(&ctx, chord, Call { args, ..Call::default() }).await?)
}

/// The workflow that a signature stands for.
pub(super) fn tree(signature: Signature) -> TaskResult<Canvas> {
    Canvas::from_signature(signature).map_err(|err| Failure::new("ValueError", err).into())
}

/// Sends a workflow as a child of the running task.
pub(super) async fn send(ctx: &Context, canvas: Canvas, call: Call) -> TaskResult<Option<ResultTuple>> {
    let plan = ctx.celery().plan(canvas, call)?;
    ctx.celery().run(&plan).await?;
    Ok(plan.result)
}

fn sent(result: Option<ResultTuple>) -> TaskResult<ResultTuple> {
    result.ok_or_else(|| Failure::new("ValueError", "the workflow is empty").into())
}
