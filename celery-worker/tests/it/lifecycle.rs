//! How a worker is stopped, what happens to its tasks when the connection is lost, and the queues that it declares.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use celery_broker::{ExchangeSpec, QueueSpec};
use celery_protocol::{QueueName, TaskId, TaskState, WireTime};
use celery_testkit::{Python, Rabbit, Redis, wait};
use celery_worker::{Settings, Stopped};
use serde_json::json;

use crate::stage::{SOON, Stage};

/// Waits until `count` sleepers run.
async fn running(stage: &Stage, count: usize) {
    wait::until(SOON, "they run", async || match stage.witness.running.load(Ordering::SeqCst) {
        n if n == count => Ok(()),
        n => Err(n),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_shutdown_gives_tasks_its_time_and_no_more() {
    let stage = Stage::new("soft").await;
    let builder = stage.worker().await.concurrency(2);
    let mut worker =
        stage.run(builder.configure(|own| own.soft_shutdown_timeout = Duration::from_secs(3))).await;
    let short = stage.call("t.sleep", json!([1_000])).await;
    let long = stage.call("t.sleep", json!([120_000])).await;
    running(&stage, 2).await;
    worker.handle.stop_soft();
    assert_eq!(worker.ended().await.unwrap(), Stopped::CutOff);
    assert_eq!(stage.end_of(&short).await.status, TaskState::Success);
    assert_eq!(stage.celery.backend().get(&long).await.unwrap(), None);
    wait::until(SOON, "the long one's message is back", async || match stage.depth("celery").await {
        (1, 0) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_soft_timeout_nothing_is_waited_for() {
    let stage = Stage::new("no-soft").await;
    let mut worker = stage.running().await;
    stage.call("t.sleep", json!([120_000])).await;
    running(&stage, 1).await;
    worker.handle.stop_soft();
    assert_eq!(worker.ended().await.unwrap(), Stopped::CutOff);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_running_tasks_if_it_is_told_to() {
    let stage = Stage::new("lost").await;
    let builder = stage.worker().await.concurrency(1);
    let worker = stage.run(builder.configure(|own| own.cancel_on_connection_loss = true)).await;
    stage.call("t.sleep", json!([120_000])).await;
    running(&stage, 1).await;
    let vhost = stage.broker.rsplit('/').next().unwrap();
    Rabbit::shared().await.ctl(&["close_all_connections", "-p", vhost, "test"]).await;
    wait::until(SOON, "the task is ended and its message runs anew", async || {
        match stage.witness.runs_of_sleep.load(Ordering::SeqCst) {
            2 => Ok(()),
            n => Err(n),
        }
    })
    .await;
    running(&stage, 1).await;
    worker.handle.stop_now();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_delayed_messages_reach_a_quorum_queue_through_its_exchange() {
    let stage = Stage::new("quorum").await;
    let builder = stage.worker().await.configure(|own| {
        own.new_queues.quorum = true;
        own.new_queues.default_exchange = Some(ExchangeSpec::durable("orders", "topic"));
        own.new_queues.default_routing_key = Some("order.#".to_owned());
    });
    let worker = stage.run(builder).await;
    let python = Python::new(&stage.broker, &stage.backend).env(
        "PEER_SETTINGS",
        r#"{"task_default_queue_type": "quorum", "broker_transport_options": {"confirm_publish": true}}"#,
    );
    let program = "
from kombu import Exchange, Queue
from peer_app import app
orders = Queue('celery', Exchange('orders', type='topic'), 'order.#', queue_arguments={'x-queue-type': 'quorum'})
app.conf.task_queues = [orders]
begin = __import__('time').time()
result = app.send_task('t.add', (3, 4), queue=orders, routing_key='order.new', countdown=2)
value = result.get(timeout=60)
print([value, __import__('time').time() - begin])";
    let (value, seconds): (i64, f64) = python.run(program).await.json();
    assert_eq!(value, 7);
    assert!(seconds > 1.9, "{seconds}");
    worker.stop().await;
}

/// RabbitMQ closes the channel of a consumer that keeps a message for longer than `consumer_timeout`, and delivers the message
/// again, as often as the task takes. An expiry is no reason to revoke a task that has begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_longer_than_the_brokers_patience_runs_once() {
    let rabbit =
        Rabbit::start_with("consumer_timeout = 2000", "+S 1:1 -rabbit channel_tick_interval 500").await;
    let stage = Stage::on_own(rabbit).await;
    let worker = stage.running().await;
    let long = stage.call("t.sleep", json!([9_000])).await;
    let mut expiring = stage.message("t.sleep", json!([9_000]));
    expiring.headers.expires = Some(WireTime::from(SystemTime::now() + Duration::from_secs(5)));
    stage.publish(&expiring).await;
    for id in [&long, &expiring.headers.id] {
        assert_eq!(stage.end_of(id).await.status, TaskState::Success, "{id}");
    }
    stage.drained("celery").await;
    assert_eq!(stage.witness.runs_of_sleep.load(Ordering::SeqCst), 2);
    let log = stage.rabbit().await.process().log();
    assert!(
        log.matches("timed out waiting for delivery acknowledgement").count() >= 2,
        "the channel was not closed:\n{log}"
    );
    assert_eq!(worker.stop().await, Stopped::Clean);
}

/// It was taken for one that nobody knows, and run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_has_ended_and_waits_for_the_store_is_not_run_again() {
    let redis = Redis::start().await;
    let broker = Rabbit::shared().await.vhost("settling").await;
    let stage = Stage::on(broker, redis.url(0)).await;
    let patient = |own: &mut Settings| own.store_patience = Duration::from_secs(60);
    let worker = stage.run(stage.worker().await.configure(patient)).await;
    redis.pause();
    let id = stage.call("t.count", json!([])).await;
    wait::until(SOON, "it has run", async || match stage.witness.runs.load(Ordering::SeqCst) {
        1 => Ok(()),
        n => Err(n),
    })
    .await;
    let vhost = stage.broker.rsplit('/').next().unwrap();
    Rabbit::shared().await.ctl(&["close_all_connections", "-p", vhost, "test"]).await;
    // As long as the store is asked whether it has run before.
    wait::nothing_for(Duration::from_secs(5)).await;
    redis.resume();
    assert_eq!(stage.end_of(&id).await.status, TaskState::Success);
    stage.drained("celery").await;
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 1);
    worker.stop().await;
}

/// The message of a task that has taken too long goes to whomever the broker likes, and was run there beside the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_longer_than_the_brokers_patience_runs_once_among_several_workers() {
    let rabbit =
        Rabbit::start_with("consumer_timeout = 2000", "+S 1:1 -rabbit channel_tick_interval 500").await;
    let stage = Stage::on_own(rabbit).await;
    let lease = |own: &mut Settings| own.running_lease = Duration::from_secs(3);
    let first = stage.run(stage.worker().await.configure(lease)).await;
    let long = stage.call("t.sleep", json!([9_000])).await;
    // This one ends badly; that it has ended at all is known to the others all the same.
    let mut limited = stage.message("t.sleep", json!([60_000])).encode();
    limited.headers.insert("timelimit".into(), json!([6.0, null]));
    let failing = TaskId::parse(limited.headers["id"].as_str().unwrap()).unwrap();
    stage.publish_raw("celery", limited).await;
    running(&stage, 2).await;
    let second = stage.run(stage.worker().await.configure(lease)).await;
    assert_eq!(stage.end_of(&failing).await.exception().unwrap().exc_type, "TimeLimitExceeded");
    assert_eq!(stage.end_of(&long).await.status, TaskState::Success);
    stage.drained("celery").await;
    assert_eq!(stage.witness.runs_of_sleep.load(Ordering::SeqCst), 2);
    let log = stage.rabbit().await.process().log();
    assert!(log.contains("timed out waiting for delivery acknowledgement"), "{log}");
    first.stop().await;
    second.stop().await;
}

/// A worker that is said to run a task, and of which nothing more is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_worker_is_not_heard_of_any_more_is_run() {
    let stage = Stage::new("lease").await;
    let message = stage.message("t.count", json!([]));
    let key = format!("running:{}:0", message.headers.id);
    let notes = stage.celery.notes().unwrap();
    notes.put(&key, b"somebody", Duration::from_secs(5)).await.unwrap();
    stage.celery.declare(&QueueSpec::new(QueueName::parse("celery").unwrap())).await.unwrap();
    stage.publish(&message).await;
    stage.give_back("celery").await;
    let lease = |own: &mut Settings| own.running_lease = Duration::from_secs(1);
    let worker = stage.run(stage.worker().await.configure(lease)).await;
    assert_eq!(stage.end_of(&message.headers.id).await.status, TaskState::Success);
    assert_eq!(notes.get(&key).await.unwrap(), None, "it was run while another worker had it");
    stage.drained("celery").await;
    worker.stop().await;
}
