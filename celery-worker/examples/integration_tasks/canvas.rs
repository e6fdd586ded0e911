//! Tasks that send others, or put others in their own place.

use std::sync::LazyLock;

use celery_protocol::canvas::{ChainNode, ChordNode, GroupNode};
use celery_protocol::{Canvas, IntoCanvas as _, ResultTuple};
use celery_worker::prelude::*;

use crate::Builder;
use crate::failing::{fail, raise_error};
use crate::keys::Redis;
use crate::values::{add, identity, redis_echo, replaced_with_me, tsum};

pub(crate) fn register(worker: Builder) -> Builder {
    let mut worker = worker
        .task::<chain_add>()
        .task::<chord_add>()
        .task::<build_chain_inside_task>()
        .task::<add_replaced>()
        .task::<add_replaced_with_chain>()
        .task::<fail_replaced>()
        .task::<record_replaced_task_nesting>()
        .task::<replace_with_chain>()
        .task::<replace_with_chain_which_raises>()
        .task::<replace_with_empty_chain>()
        .task::<replace_with_chain_which_contains_a_group>()
        .task::<replace_with_stamped_task>()
        .task::<add_to_all>()
        .task::<add_to_all_to_chord>()
        .task::<add_chord_to_chord>()
        .task::<second_order_replace1>()
        .task::<second_order_replace2>()
        .task::<rebuild_signature>();
    for outer in KINDS {
        for inner in KINDS {
            let name = format!("t.integration.tasks.return_nested_signature_{outer}_{inner}");
            worker = worker.raw_task(name, TaskOptions::DEFAULT, move |_, _| async move {
                Ok(around(outer, around(inner, bare_add())))
            });
        }
    }
    worker
}

/// `add.s(x, y)`
fn plus(x: impl Into<Value>, y: impl Into<Value>) -> Sig<Value> {
    add::s(x.into(), y.into(), None)
}

/// `add.s(y)`
fn plus_partial(y: impl Into<Value>) -> Sig<Value> {
    add::partial(y.into(), None)
}

/// `identity.s(*args)`
fn identity_of(args: Vec<Value>) -> Sig<Value> {
    args.into_iter().fold(identity::bare(), Sig::arg).returning()
}

#[task(name = "t.integration.tasks.chain_add")]
async fn chain_add(#[ctx] ctx: Context, x: Value, y: Value) -> TaskResult<()> {
    ctx.celery().send(chain(plus(x.clone(), x)).then(plus_partial(y))).await?;
    Ok(())
}

#[task(name = "t.integration.tasks.chord_add")]
async fn chord_add(#[ctx] ctx: Context, x: Value, y: Value) -> TaskResult<()> {
    ctx.celery().send(chord(group([plus(x.clone(), x)]), plus_partial(y))).await?;
    Ok(())
}

/// Returns the result that it does not wait for.
#[task(name = "t.integration.tasks.build_chain_inside_task")]
async fn build_chain_inside_task(#[ctx] ctx: Context) -> TaskResult<ResultTuple> {
    let steps = chain(plus(1, 1))
        .then(plus_partial(2))
        .then_canvas::<Value>(group([plus_partial(3), plus_partial(4)]))
        .then(plus_partial(5));
    Ok(ctx.celery().send(steps).await?.tuple().clone())
}

#[task(name = "t.integration.tasks.add_replaced")]
async fn add_replaced(#[ctx] ctx: Context, x: Value, y: Value) -> TaskResult<Value> {
    Err(ctx.replace(plus(x, y)).await)
}

#[task(name = "t.integration.tasks.add_replaced_with_chain")]
async fn add_replaced_with_chain(#[ctx] ctx: Context, x: Value, y: Value) -> TaskResult<Value> {
    Err(ctx.replace(chain(plus(x, y)).then(identity_of(vec![]))).await)
}

#[task(name = "t.integration.tasks.fail_replaced")]
async fn fail_replaced(#[ctx] ctx: Context, #[args] args: Vec<Value>) -> TaskResult<()> {
    Err(ctx.replace(fail::s(args).immutable()).await)
}

#[task(name = "t.integration.tasks.record_replaced_task_nesting")]
async fn record_replaced_task_nesting(
    #[ctx] ctx: Context,
    replacements: u32,
    nesting: Option<Vec<u32>>,
) -> TaskResult<Vec<u32>> {
    let mut nesting = nesting.unwrap_or_default();
    nesting.push(ctx.request().headers().replaced_task_nesting);
    match replacements {
        0 => Ok(nesting),
        more => {
            let again = record_replaced_task_nesting::s(more - 1, Some(nesting));
            // With results over RPC, the answer goes to whoever asked first.
            Err(ctx.replace(again.option("reply_to", &ctx.request().properties().reply_to)).await)
        }
    }
}

/// `redis_echo.s()`, or with a message of its own and immutable.
fn echo(message: Option<Value>) -> Sig<()> {
    match message {
        Some(message) => redis_echo::bare().arg(message).immutable(),
        None => redis_echo::bare(),
    }
}

#[task(name = "t.integration.tasks.replace_with_chain")]
async fn replace_with_chain(
    #[ctx] ctx: Context,
    #[args] args: Vec<Value>,
    link_msg: Option<Value>,
) -> TaskResult<Value> {
    let steps = chain(identity_of(args)).then(identity_of(vec![])).link(echo(link_msg));
    Err(ctx.replace(steps).await)
}

#[task(name = "t.integration.tasks.replace_with_chain_which_raises")]
async fn replace_with_chain_which_raises(
    #[ctx] ctx: Context,
    #[args] args: Vec<Value>,
    link_msg: Option<Value>,
) -> TaskResult<Value> {
    let steps = chain(identity_of(args)).then(raise_error::s(vec![])).link_error(echo(link_msg));
    Err(ctx.replace(steps).await)
}

#[task(name = "t.integration.tasks.replace_with_empty_chain")]
async fn replace_with_empty_chain(#[ctx] ctx: Context, #[args] _args: Vec<Value>) -> TaskResult<Value> {
    Err(ctx.replace(Canvas::from(ChainNode::of(vec![]))).await)
}

#[task(name = "t.integration.tasks.replace_with_chain_which_contains_a_group")]
async fn replace_with_chain_which_contains_a_group(#[ctx] ctx: Context) -> TaskResult<Value> {
    let steps = chain(plus(1, 2)).then_canvas::<Value>(group([plus_partial(1), plus_partial(1)]));
    Err(ctx.replace(steps).await)
}

/// In Python a hook of the task's class stamps what it is replaced with.
#[task(name = "t.integration.tasks.replace_with_stamped_task")]
async fn replace_with_stamped_task(#[ctx] ctx: Context, replace_with: Option<Canvas>) -> TaskResult<Value> {
    let mut with = replace_with.map_or_else(|| replaced_with_me::s().into_canvas(), Ok)?;
    let stamp = json!({ "StampOnReplace": "This is the replaced task" });
    with.stamp(stamp.as_object().unwrap_or(&Map::new()))?;
    Err(ctx.replace(with).await)
}

#[task(name = "t.integration.tasks.add_to_all")]
async fn add_to_all(#[ctx] ctx: Context, nums: Vec<Value>, val: Value) -> TaskResult<Value> {
    Err(ctx.replace(group(nums.into_iter().map(|num| plus(num, val.clone())))).await)
}

#[task(name = "t.integration.tasks.add_to_all_to_chord")]
async fn add_to_all_to_chord(#[ctx] ctx: Context, nums: Vec<Value>, val: Value) -> TaskResult<i64> {
    for num in nums {
        ctx.add_to_chord(plus(num, val.clone())).await?;
    }
    Ok(0)
}

#[task(name = "t.integration.tasks.add_chord_to_chord")]
async fn add_chord_to_chord(#[ctx] ctx: Context, nums: Vec<Value>, val: Value) -> TaskResult<i64> {
    let header = group(nums.into_iter().map(|num| plus(num, val.clone())));
    ctx.add_to_chord(chord(header, tsum::partial())).await?;
    Ok(0)
}

#[task(name = "t.integration.tasks.second_order_replace1")]
async fn second_order_replace1(
    #[ctx] ctx: Context,
    #[state] redis: Redis,
    #[serde(default)] state: bool,
) -> TaskResult<()> {
    if state {
        return redis.push("redis-echo", "Out A").await;
    }
    redis.push("redis-echo", "In A").await?;
    let last = second_order_replace1::bare().kwarg("state", true).immutable();
    Err(ctx.replace(chain(second_order_replace2::bare()).then(last)).await)
}

#[task(name = "t.integration.tasks.second_order_replace2")]
async fn second_order_replace2(
    #[ctx] ctx: Context,
    #[state] redis: Redis,
    #[serde(default)] state: bool,
) -> TaskResult<()> {
    if state {
        return redis.push("redis-echo", "Out B").await;
    }
    redis.push("redis-echo", "In B").await?;
    let last = second_order_replace2::bare().kwarg("state", true).immutable();
    Err(ctx.replace(chain(redis_echo::bare().arg("In/Out C")).then(last)).await)
}

/// That the argument is a workflow, down to its leaves, is what binding it checks.
#[task(name = "t.integration.tasks.rebuild_signature")]
async fn rebuild_signature(sig_dict: Canvas) -> TaskResult<()> {
    drop(sig_dict);
    Ok(())
}

const KINDS: [&str; 3] = ["chain", "group", "chord"];

fn around(kind: &str, inner: Canvas) -> Canvas {
    match kind {
        "chain" => ChainNode::of(vec![inner]).into(),
        "group" => GroupNode::of(vec![inner]).into(),
        _ => ChordNode::of(inner, bare_add()).into(),
    }
}

/// `add.s()`
fn bare_add() -> Canvas {
    static ADD: LazyLock<Canvas> =
        LazyLock::new(|| add::bare().into_canvas().unwrap_or_else(|_| ChainNode::of(vec![]).into()));
    ADD.clone()
}
