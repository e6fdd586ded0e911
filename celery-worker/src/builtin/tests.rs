//! Built-in tasks through the worker's own path, without servers.

use celery_protocol::{Sig, TaskName};
use serde_json::{Value, json};

use crate::prelude::*;
use crate::testing::{Run, TestWorker};

#[task(name = "t.double")]
async fn double(n: i64) -> TaskResult<i64> {
    Ok(n * 2)
}

#[task(name = "t.sub")]
fn sub(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x - y)
}

#[task(name = "t.picky")]
async fn picky(#[ctx] ctx: Context, n: i64) -> TaskResult<i64> {
    match n {
        0 => raise!("ValueError", "no zero"),
        1 => Err(ctx.retry().because(Failure::new("KeyError", "one")).into()),
        2 => Err(ctx.retry().into()),
        n => Ok(n),
    }
}

fn worker() -> TestWorker<()> {
    TestWorker::new(()).task::<double>().task::<sub>().task::<picky>()
}

async fn run<O>(call: Sig<O>) -> Run {
    worker().run(call).await.unwrap()
}

fn builtin(name: &str) -> Sig<Value> {
    Sig::new(&format!("celery.{name}"))
}

#[test]
fn every_worker_has_them() {
    let tasks = crate::task::Registry::new(()).build().unwrap();
    let names: Vec<_> = tasks.names().iter().map(ToString::to_string).collect();
    let expected = [
        "celery.accumulate",
        "celery.backend_cleanup",
        "celery.chain",
        "celery.chord",
        "celery.chord_unlock",
        "celery.chunks",
        "celery.group",
        "celery.map",
        "celery.starmap",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn accumulate_returns_all_or_one() {
    for (kwargs, expected) in [
        (json!(null), Ok(json!([1, "b", null]))),
        (json!(0), Ok(json!(1))),
        (json!(-2), Ok(json!("b"))),
        (json!(3), Err("IndexError('tuple index out of range')")),
        (json!(-4), Err("IndexError('tuple index out of range')")),
        (json!("x"), Err("TypeError('tuple indices must be integers or slices')")),
    ] {
        let call = builtin("accumulate").arg(1).arg("b").arg(json!(null)).kwarg("index", &kwargs);
        let run = run(call).await;
        match expected {
            Ok(value) => assert_eq!(run.value::<Value>(), Some(value), "{kwargs}"),
            Err(error) => assert_eq!(run.exception().as_deref(), Some(error), "{kwargs}"),
        }
    }
}

#[tokio::test]
async fn map_and_starmap_run_the_task_here() {
    assert_eq!(run(double::bare().map([1, 2, 3])).await.value(), Some(vec![2, 4, 6]));
    assert_eq!(run(sub::bare().starmap([(5, 1), (1, 5)])).await.value(), Some(vec![4, -4]));
    assert_eq!(run(double::bare().map(Vec::<i64>::new())).await.value(), Some(Vec::<i64>::new()));
}

#[tokio::test]
async fn an_item_that_fails_fails_the_map() {
    let picked = |items: &[i64]| run(picky::bare().map(items.to_vec()));
    assert_eq!(picked(&[3, 0, 4]).await.exception().as_deref(), Some("ValueError('no zero')"));
    assert_eq!(picked(&[1]).await.exception().as_deref(), Some("KeyError('one')"));
    assert_eq!(picked(&[2]).await.exception().as_deref(), Some("Retry('Task can be retried')"));
    let unknown = run(Sig::<i64>::new("t.elsewhere").map([1])).await;
    assert_eq!(unknown.exception().as_deref(), Some("NotRegistered('t.elsewhere')"));
    let wrong = run(double::bare().map(["x"])).await.exception().unwrap();
    assert!(wrong.starts_with("TypeError("), "{wrong}");
}

#[tokio::test]
async fn chunks_send_one_starmap_for_each_piece() {
    let task = sub::bare().into_signature().unwrap();
    let call = builtin("chunks").arg(task).arg([[5, 1], [1, 5], [2, 2]]).arg(2);
    let run = run(call).await;
    assert_eq!(run.sent(), ["celery.starmap", "celery.starmap"]);
    let result: Value = run.value().unwrap();
    assert_eq!(result[1].as_array().map(Vec::len), Some(2), "{result}");
}

#[tokio::test]
async fn group_sends_its_tasks_with_the_partial_arguments() {
    let tasks = [json!({"task": "t.sub", "args": [1], "kwargs": {}, "options": {"task_id": "a"},
        "subtask_type": null, "immutable": false})];
    let result = json!([["g", null], [[["a", null], null]]]);
    let call = builtin("group").arg(tasks).arg(&result).arg("g").arg([9]);
    let run = run(call).await;
    assert_eq!(run.value(), Some(result));
    let message = &run.messages[0];
    assert_eq!(message.headers.id.as_str(), "a");
    assert_eq!(message.headers.group.as_ref().map(|group| group.as_str()), Some("g"));
    assert!(message.body.starts_with(b"[[9, 1], "), "{:?}", message.body);
}

#[tokio::test]
async fn chord_takes_a_list_or_a_group() {
    let member = json!({"task": "t.double", "args": [1], "kwargs": {}, "options": {}, "subtask_type": null,
        "immutable": false});
    let group = json!({"task": "celery.group", "args": [], "kwargs": {"tasks": [member]}, "options": {},
        "subtask_type": "group", "immutable": false});
    for header in [json!([member]), group] {
        let run = run(builtin("chord").arg(header).arg(&member).kwarg("countdown", 3)).await;
        assert_eq!(run.sent(), ["t.double"], "{:?}", run.exception());
        assert!(run.messages[0].headers.group.is_some());
    }
}

#[tokio::test]
async fn chain_is_not_a_real_task() {
    let error = run(builtin("chain")).await.exception();
    assert_eq!(error.as_deref(), Some("NotImplementedError('chain is not a real task')"));
}

#[tokio::test]
async fn chord_unlock_waits_for_members_that_are_not_ready() {
    let callback = double::bare().into_signature().unwrap();
    let unlock =
        || builtin("chord_unlock").arg("g").arg(&callback).kwarg("result", json!([[["a", null], null]]));
    let waiting = run(unlock().kwarg("interval", 7.5)).await;
    let resend = waiting.retry().unwrap();
    assert_eq!(resend.delay, Duration::from_millis(7500));
    assert!(waiting.sent().is_empty());
    let over = run(unlock().kwarg("max_retries", 0)).await;
    assert!(over.exception().unwrap().starts_with("MaxRetriesExceededError("));
    // an empty chord is over at once
    let empty = run(builtin("chord_unlock").arg("g").arg(&callback).kwarg("result", json!([]))).await;
    assert_eq!(empty.sent(), ["t.double"]);
    assert!(empty.messages[0].body.starts_with(b"[[[]], "), "{:?}", empty.messages[0].body);
}

#[tokio::test]
async fn a_task_of_the_same_name_takes_its_place() {
    #[task(name = "celery.accumulate")]
    async fn own() -> TaskResult<String> {
        Ok("own".to_owned())
    }
    let tasks = crate::task::Registry::new(()).task::<own>().build().unwrap();
    assert_eq!(tasks.names().len(), 9);
    assert_eq!(tasks.get(&TaskName::builtin("accumulate")).unwrap().positional(), [""; 0]);
}
