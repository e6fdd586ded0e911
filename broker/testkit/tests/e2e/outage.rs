//! Servers that die and workers that are told to stop, under load: nothing that was accepted is lost.

use crate::stage::{SOON, Stage};
use celery_testkit::{Python, Rabbit, Redis, wait};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The README's promise, counted from the moment the broker accepts connections again.
const RESUMED: Duration = Duration::from_secs(15);

/// Sends `count` tasks with publisher confirms; those are accepted.
async fn accepted(python: &Python, count: usize, task: &str) -> BTreeSet<String> {
    let program = format!(
        "import json
from peer_app import *
app.conf.broker_transport_options = {{'confirm_publish': True}}
with app.producer_pool.acquire(block=True) as producer:
    ids = [{task}.apply_async((0.01,), producer=producer).id for _ in range({count})]
print(json.dumps(ids))"
    );
    let ids: Vec<String> = python.run(&program).await.json();
    let ids: BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(ids.len(), count);
    ids
}

/// The ids that have a result.
async fn stored(redis: &Redis) -> BTreeSet<String> {
    let keys = redis.cli(&["KEYS", "celery-task-meta-*"]).await;
    keys.lines().filter_map(|key| key.strip_prefix("celery-task-meta-")).map(str::to_owned).collect()
}

async fn at_least(redis: &Redis, count: usize, deadline: Duration) {
    wait::until(deadline, "results", async || {
        let done = stored(redis).await.len();
        if done >= count { Ok(()) } else { Err(format!("{done} of {count}")) }
    })
    .await;
}

async fn all_succeeded(redis: &Redis, ids: &BTreeSet<String>) {
    let keys: Vec<String> = ids.iter().map(|id| format!("celery-task-meta-{id}")).collect();
    let command: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    let metas = redis.cli(&command).await;
    let failed: Vec<_> = metas.lines().filter(|meta| !meta.contains("\"status\": \"SUCCESS\"")).collect();
    assert!(metas.lines().count() == ids.len() && failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn a_killed_broker_costs_no_task() {
    let (rabbit, redis) = (Rabbit::start().await, Redis::start().await);
    let stage = Stage { broker: rabbit.url(), backend: redis.url(0) };
    let ids = accepted(&stage.python(), 2000, "sleep").await;
    let worker = stage.worker(&["-c", "8"]).await;
    at_least(&redis, 500, SOON).await;

    rabbit.kill();
    let before = stored(&redis).await.len();
    assert!(before < 2000, "the tasks were done before the broker could be killed");
    rabbit.restart().await;
    let back = Instant::now();
    at_least(&redis, before + 50, RESUMED).await;
    println!("consumed again {:?} after the broker accepted", back.elapsed());

    at_least(&redis, 2000, Duration::from_secs(60)).await;
    assert_eq!(stored(&redis).await, ids);
    all_succeeded(&redis, &ids).await;
    worker.process().still_running().unwrap();
    wait::until(SOON, "the queue to be empty", async || {
        let queues = rabbit.queues(&stage.broker).await;
        let queue = queues.iter().find(|queue| queue.name == "celery").cloned().unwrap();
        if (queue.ready, queue.unacked, queue.consumers) == (0, 0, 1) {
            Ok(())
        } else {
            Err(format!("{queue:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_killed_result_store_costs_no_result() {
    let (rabbit, redis) = (Rabbit::start().await, Redis::start_durable().await);
    let stage = Stage { broker: rabbit.url(), backend: redis.url(0) };
    let ids = accepted(&stage.python(), 600, "sleep").await;
    let worker = stage.worker(&["-c", "4"]).await;
    at_least(&redis, 100, SOON).await;
    redis.kill();
    wait::nothing_for(Duration::from_secs(1)).await;
    redis.restart().await;
    at_least(&redis, 600, Duration::from_secs(60)).await;
    assert_eq!(stored(&redis).await, ids);
    all_succeeded(&redis, &ids).await;
    worker.process().still_running().unwrap();
}

#[tokio::test]
async fn a_frozen_broker_is_survived() {
    let (rabbit, redis) = (Rabbit::start().await, Redis::start().await);
    let stage = Stage { broker: rabbit.url(), backend: redis.url(0) };
    let ids = accepted(&stage.python(), 300, "sleep").await;
    let worker = stage.worker(&["-c", "2"]).await;
    at_least(&redis, 50, SOON).await;
    rabbit.pause();
    wait::nothing_for(Duration::from_secs(3)).await;
    rabbit.resume();
    at_least(&redis, 300, Duration::from_secs(60)).await;
    assert_eq!(stored(&redis).await, ids);
    worker.process().still_running().unwrap();
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing() {
    let (rabbit, redis) = (Rabbit::start().await, Redis::start().await);
    let stage = Stage { broker: rabbit.url(), backend: redis.url(0) };
    let ids = accepted(&stage.python(), 600, "sleep").await;
    let first = stage.worker(&["-c", "4"]).await;
    at_least(&redis, 100, SOON).await;
    first.process().term();
    let status = first.process().wait_exit(SOON).await;
    assert!(status.success(), "{status}\n{}", first.process().log_tail());

    let done = stored(&redis).await.len();
    assert!(done < 600, "the tasks were done before the worker could be stopped");
    // What was not begun is back in the queue, what was begun is finished and acknowledged: no overlap.
    let queues = rabbit.queues(&stage.broker).await;
    let queue = queues.iter().find(|queue| queue.name == "celery").unwrap();
    assert_eq!((usize::try_from(queue.ready).unwrap() + done, queue.unacked, queue.consumers), (600, 0, 0));

    let _second = stage.worker(&["-c", "8"]).await;
    at_least(&redis, 600, Duration::from_secs(60)).await;
    assert_eq!(stored(&redis).await, ids);
    all_succeeded(&redis, &ids).await;
}
