//! What an earlier worker in Rust got wrong: one test for each mistake, numbered as the tests of celery-broker are.
//!
//! That worker was rusty-celery 0.5. Its mistakes with connections are tested in `broker/tests/it`, those with tasks here.

use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime};

use celery_broker::{Celery, QueueSpec};
use celery_protocol::{Body, Embed, Limits, QueueName, Signature, TaskId, TaskName, TaskState};
use celery_testkit::wait;
use celery_worker::Stopped;
use celery_worker::prelude::*;
use celery_worker::testing::TestWorker;

use crate::stage::{SOON, Stage};

fn signature(task: &str, id: &str) -> Signature {
    let mut signature = Signature::new(TaskName::parse(task).unwrap());
    signature.options.set("task_id", &id);
    signature
}

/// A message with link, link_error, chain or chord could not be decoded and was acked, so that the task never ran.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_1_messages_with_signatures_in_them_are_run() {
    let stage = Stage::new("defect-1").await;
    let worker = stage.running().await;
    let embeds: [fn(&mut Embed); 4] = [
        |embed| embed.callbacks = vec![signature("t.list", "d1-link")].into(),
        |embed| embed.errbacks = vec![signature("t.list", "d1-errback")].into(),
        |embed| embed.chain = vec![signature("t.list", "d1-chain")].into(),
        |embed| embed.chord = Some(Box::new(signature("t.list", "d1-chord"))),
    ];
    for change in embeds {
        let mut message = stage.message("t.add", json!([2, 3]));
        let mut body: Body = message.body(&Limits::DEFAULT).unwrap();
        change(&mut body.embed);
        message.body = body.encode_json();
        stage.publish(&message).await;
        assert_eq!(stage.end_of(&message.headers.id).await.result.get(), "5");
    }
    for id in ["d1-link", "d1-chain"] {
        assert_eq!(stage.end_of(&TaskId::parse(id).unwrap()).await.result.get(), "[5]");
    }
    stage.drained("celery").await;
    worker.stop().await;
}

/// The message of an unknown task was acked and gone. Rejected, a dead-letter exchange can keep it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_2_an_unknown_task_is_rejected_and_not_acked() {
    let stage = Stage::new("defect-2").await;
    let dead = QueueSpec::new(QueueName::parse("dead").unwrap());
    // Somebody has to declare the queue of dead letters; nobody consumes from it.
    stage.run(stage.worker().await.queue(dead)).await.stop().await;
    let mut spec = QueueSpec::new(QueueName::parse("work").unwrap());
    spec.arguments.insert("x-dead-letter-exchange".into(), json!(""));
    spec.arguments.insert("x-dead-letter-routing-key".into(), json!("dead"));
    let worker = stage.run(stage.worker().await.queue(spec)).await;
    stage.publish_raw("work", stage.message("t.nobody", json!([])).encode()).await;
    wait::until(SOON, "one dead letter", async || match stage.depth("dead").await {
        (1, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    worker.stop().await;
}

/// With early acks the prefetch limits nothing, and every delivery was started at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_7_early_acks_do_not_lift_the_limit_on_concurrency() {
    let stage = Stage::new("defect-7").await;
    let builder = stage.worker().await.configure(|settings| settings.tasks.acks_late = Some(false));
    let worker = stage.run(builder.concurrency(3)).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(stage.call("t.sleep", json!([40])).await);
    }
    for id in &ids {
        assert_eq!(stage.end_of(id).await.status, TaskState::Success);
    }
    assert_eq!(stage.witness.most_running.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

/// A panic left its message unacked and the count of running tasks wrong, so that a warm shutdown never ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_8_a_panic_is_settled_and_does_not_hold_up_the_shutdown() {
    let stage = Stage::new("defect-8").await;
    let worker = stage.running().await;
    for _ in 0..3 {
        assert_eq!(stage.outcome("t.panic", json!([])).await.status, TaskState::Failure);
    }
    assert_eq!(stage.outcome("t.add", json!([1, 1])).await.result.get(), "2");
    stage.drained("celery").await;
    assert_eq!(worker.stop().await, Stopped::Clean);
}

/// The end of a task was counted before its retry was published and its message acked: a shutdown in between lost one
/// or the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_9_a_shutdown_loses_no_retries_and_no_late_acks() {
    let stage = Stage::new("defect-9").await;
    let worker = stage.run(stage.worker().await.concurrency(8).prefetch_multiplier(20)).await;
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(stage.call("t.retry", json!([2, 20])).await);
    }
    wait::until(SOON, "some have ended", async || match stage.celery.backend().get(&ids[0]).await.unwrap() {
        Some(_) => Ok(()),
        None => Err("none"),
    })
    .await;
    assert_eq!(worker.stop().await, Stopped::Clean);
    let mut open = 0;
    for meta in stage.celery.backend().get_many(&ids).await.unwrap() {
        open += u64::from(!meta.is_some_and(|meta| meta.status.is_ready()));
    }
    // Every call has ended or is in the queue, once.
    wait::until(SOON, "the rest is in the queue", async || match stage.depth("celery").await {
        depth if depth == (open, 0) => Ok(()),
        other => Err(format!("{other:?} instead of {open}")),
    })
    .await;
    let worker = stage.running().await;
    for id in &ids {
        assert_eq!(stage.end_of(id).await.result.get(), "2");
    }
    stage.drained("celery").await;
    worker.stop().await;
}

#[task(name = "defects.expiring", expires = "1h")]
async fn expiring() -> TaskResult<()> {
    Ok(())
}

/// A call's expiry and its task's default cancelled each other out.
#[tokio::test]
async fn defect_17_the_expiry_of_a_call_wins_over_its_tasks() {
    let (celery, outbox) = Celery::builder("test").offline().unwrap();
    let now = SystemTime::now();
    let hours = |count: u64| Duration::from_secs(3_600 * count);
    celery.send(expiring::s()).await.unwrap();
    celery.send(expiring::s().expires_in(hours(2))).await.unwrap();
    celery.send(expiring::s().expires(now + hours(3))).await.unwrap();
    for ((_, raw), expected) in outbox.take().into_iter().zip(1..) {
        let message = celery_protocol::Message::decode(raw, &Limits::DEFAULT).unwrap();
        let left = SystemTime::from(message.headers.expires.unwrap()).duration_since(now).unwrap();
        let error = left.as_secs_f64() - hours(expected).as_secs_f64();
        assert!(error.abs() < 60.0, "{expected} hours: {left:?}");
        // The broker drops it then too.
        assert!(message.properties.expiration.is_some());
    }
    // A retry keeps what is left of it.
    let run = TestWorker::new(()).task::<again>().run(again::s().expires(now + hours(3))).await.unwrap();
    assert_eq!(run.follow_ups[0].headers.expires, run.request.headers().expires);
    assert!(run.follow_ups[0].headers.expires.is_some());
}

#[task(name = "defects.again", expires = "1h")]
async fn again(#[ctx] ctx: Context) -> TaskResult<()> {
    Err(ctx.retry().into())
}

/// Python sends time limits as floats; they were read as none at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_18_time_limits_in_fractions_of_a_second_hold() {
    let stage = Stage::new("defect-18").await;
    let worker = stage.running().await;
    let mut raw = stage.message("t.sleep", json!([60_000])).encode();
    raw.headers.insert("timelimit".into(), json!([0.25, null]));
    let id = TaskId::parse(raw.headers["id"].as_str().unwrap()).unwrap();
    stage.publish_raw("celery", raw).await;
    let meta = stage.end_of(&id).await;
    assert_eq!(meta.exception().unwrap().exc_type, "TimeLimitExceeded");
    worker.stop().await;
}

static DOOR: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Blocks its thread until `open` runs.
#[task(name = "defects.wait_at_the_door")]
fn wait_at_the_door() -> TaskResult<bool> {
    let closed = DOOR.0.lock().unwrap();
    Ok(*DOOR.1.wait_while(closed, |open| !*open).unwrap())
}

#[task(name = "defects.open")]
async fn open() -> TaskResult<()> {
    *DOOR.0.lock().unwrap() = true;
    DOOR.1.notify_all();
    Ok(())
}

/// Functions that block ran on the threads of the async runtime, and nothing else did until they ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_19_blocking_functions_keep_nobody_waiting() {
    let stage = Stage::new("defect-19").await;
    let builder = stage.worker().await.task::<wait_at_the_door>().task::<open>();
    // More blocked tasks than there are threads for async ones.
    let worker =
        stage.run(builder.concurrency(8).configure(|settings| settings.task_threads = Some(1))).await;
    let mut waiting = Vec::new();
    for _ in 0..7 {
        waiting.push(stage.celery.send(wait_at_the_door::s()).await.unwrap());
    }
    stage.celery.send(open::s()).await.unwrap().get(SOON).await.unwrap();
    for result in waiting {
        assert!(result.get(SOON).await.unwrap());
    }
    worker.stop().await;
}
