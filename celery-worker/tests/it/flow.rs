//! What the worker does with messages in time: later, never, so many at once, and what it gives back when it stops.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use celery_protocol::{TaskState, WireTime};
use celery_testkit::wait;
use celery_worker::Stopped;
use serde_json::json;

use crate::stage::{SOON, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_tasks_run_at_once_than_there_are_slots() {
    let stage = Stage::new("slots").await;
    let worker = stage.run(stage.worker().await.concurrency(3)).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(stage.call("t.sleep", json!([50])).await);
    }
    for id in &ids {
        assert_eq!(stage.end_of(id).await.status, TaskState::Success);
    }
    assert_eq!(stage.witness.most_running.load(Ordering::SeqCst), 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_starts_at_its_eta_and_others_pass_it() {
    let stage = Stage::new("eta").await;
    let worker = stage.run(stage.worker().await.prefetch_multiplier(1)).await;
    let begin = Instant::now();
    let mut later = Vec::new();
    // More of them than the prefetch has room for.
    for _ in 0..10 {
        let mut message = stage.message("t.add", json!([1, 2]));
        message.headers.eta = Some(WireTime::from(SystemTime::now() + Duration::from_millis(2_500)));
        stage.publish(&message).await;
        later.push(message.headers.id);
    }
    let now = stage.outcome("t.add", json!([3, 4])).await;
    assert_eq!(now.result.get(), "7");
    assert!(begin.elapsed() < Duration::from_millis(2_400), "{:?}", begin.elapsed());
    for id in &later {
        assert_eq!(stage.end_of(id).await.result.get(), "3");
    }
    assert!(begin.elapsed() >= Duration::from_millis(2_500), "{:?}", begin.elapsed());
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_while_it_waits_is_not_run() {
    let stage = Stage::new("expires").await;
    let worker = stage.run(stage.worker().await.concurrency(1)).await;
    let busy = stage.call("t.sleep", json!([1_500])).await;
    let mut message = stage.message("t.count", json!([]));
    message.headers.expires = Some(WireTime::from(SystemTime::now() + Duration::from_millis(700)));
    stage.publish(&message).await;
    let meta = stage.end_of(&message.headers.id).await;
    assert_eq!(meta.status, TaskState::Revoked);
    assert_eq!(meta.exception().unwrap().repr(), "TaskRevokedError('expired')");
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 0);
    assert_eq!(stage.end_of(&busy).await.status, TaskState::Success);
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back() {
    let stage = Stage::new("warm").await;
    let worker = stage.run(stage.worker().await.prefetch_multiplier(10)).await;
    let mut running = Vec::new();
    for _ in 0..2 {
        running.push(stage.call("t.sleep", json!([6_000])).await);
    }
    for _ in 0..5 {
        stage.call("t.count", json!([])).await;
    }
    let mut later = stage.message("t.count", json!([]));
    later.headers.eta = Some(WireTime::from(SystemTime::now() + Duration::from_secs(30)));
    stage.publish(&later).await;
    wait::until(SOON, "all are delivered", async || match stage.depth("celery").await {
        (0, 8) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(worker.stop().await, Stopped::Clean);
    for id in &running {
        assert_eq!(stage.celery.backend().get(id).await.unwrap().unwrap().status, TaskState::Success);
    }
    assert_eq!(stage.depth("celery").await, (6, 0));
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_shutdown_cuts_off_and_loses_nothing() {
    let stage = Stage::new("cold").await;
    let mut worker = stage.running().await;
    stage.call("t.sleep", json!([60_000])).await;
    wait::until(SOON, "it runs", async || match stage.witness.running.load(Ordering::SeqCst) {
        1 => Ok(()),
        n => Err(n),
    })
    .await;
    worker.handle.stop_now();
    assert_eq!(worker.ended().await.unwrap(), Stopped::CutOff);
    wait::until(SOON, "the message is back", async || match stage.depth("celery").await {
        (1, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redelivered_success_is_not_run_again() {
    let stage = Stage::new("dedup").await;
    let message = stage.message("t.count", json!([]));
    let worker = stage.running().await;
    stage.publish(&message).await;
    assert_eq!(stage.end_of(&message.headers.id).await.result.get(), "1");
    stage.drained("celery").await;
    // Somebody takes the same message and lets it go again, so that it is redelivered.
    worker.stop().await;
    stage.publish(&message).await;
    let mut consumer = stage
        .celery
        .consume(celery_broker::ConsumeOptions::new(vec![celery_broker::QueueSpec::new(
            stage.celery.default_queue().clone(),
        )]))
        .unwrap();
    let mut events = Vec::new();
    let delivery = loop {
        consumer.recv_many(&mut events, 10).await;
        let delivery = events.drain(..).find_map(|event| match event {
            celery_broker::ConsumerEvent::Delivery(delivery) => Some(delivery),
            _ => None,
        });
        if let Some(delivery) = delivery {
            break delivery;
        }
    };
    delivery.token.reject(celery_broker::Requeue::Yes);
    consumer.flush().await.unwrap();
    consumer.close().await;
    let worker = stage.running().await;
    stage.drained("celery").await;
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 1);
    worker.stop().await;
}
