//! How tasks end, and what is stored about it.

use celery_broker::{Celery, ConsumeOptions, ConsumerEvent, QueueSpec};
use celery_protocol::{QueueName, ResultMeta, TaskState};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_is_stored_in_celerys_bytes() {
    let stage = Stage::new("success").await;
    let worker = stage.running().await;
    let id = stage.call("t.add", json!([2, 3])).await;
    let meta = stage.end_of(&id).await;
    let stored = stage.stored(&id).await;
    let done = meta.date_done.unwrap().isoformat();
    assert_eq!(
        stored,
        format!(
            r#"{{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": "{done}", "task_id": "{id}"}}"#
        )
    );
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_names_its_exception() {
    let stage = Stage::new("failure").await;
    let worker = stage.running().await;
    let id = stage.call("t.fail", json!(["boom"])).await;
    let meta = stage.end_of(&id).await;
    assert_eq!(meta.status, TaskState::Failure);
    let stored = json(&stage.stored(&id).await);
    assert_eq!(
        stored["result"],
        json!({"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"})
    );
    let traceback = stored["traceback"].as_str().unwrap();
    assert!(traceback.starts_with("Traceback (most recent call last):\n"), "{traceback}");
    assert!(traceback.ends_with("ValueError: boom\n"), "{traceback}");
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_a_failure_and_the_worker_goes_on() {
    let stage = Stage::new("panic").await;
    let worker = stage.running().await;
    for _ in 0..3 {
        let meta = stage.outcome("t.panic", json!([])).await;
        assert_eq!(meta.status, TaskState::Failure);
        assert!(meta.exception().unwrap().message().contains("out of cheese"));
    }
    assert_eq!(stage.outcome("t.add", json!([1, 1])).await.status, TaskState::Success);
    stage.drained("celery").await;
    assert_eq!(worker.stop().await, celery_worker::Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_keeps_the_message_and_comes_to_an_end() {
    let stage = Stage::new("retry").await;
    let worker = stage.running().await;
    let meta = stage.outcome("t.retry", json!([2, 10])).await;
    assert_eq!((meta.status, meta.result.get()), (TaskState::Success, "2"));
    let meta = stage.outcome("t.retry", json!([99, 1])).await;
    assert_eq!(meta.status, TaskState::Failure);
    assert_eq!(meta.exception().unwrap().repr(), "ConnectionError('attempt 3')");
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignored_and_rejected_messages() {
    let stage = Stage::new("ignore").await;
    let worker = stage.running().await;
    let ignored = stage.call("t.ignore", json!([])).await;
    let rejected = stage.outcome("t.reject", json!([false])).await;
    assert_eq!(rejected.exception().unwrap().repr(), "Reject('no', False)");
    let requeued = stage.outcome("t.reject", json!([true])).await;
    assert_eq!(requeued.result.get(), "\"second time\"");
    stage.drained("celery").await;
    assert!(stage.celery.backend().get(&ignored).await.unwrap().is_none());
    worker.stop().await;
    let _ = SOON;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_over_rpc_go_to_the_caller_as_messages() {
    let stage = Stage::new("rpc").await;
    let celery = Celery::builder("worker").broker(&stage.broker).backend("rpc://").connect().await.unwrap();
    let worker = stage.run(stage.worker_of(celery)).await;
    let answers = QueueSpec::new(QueueName::parse("answers").unwrap());
    stage.celery.declare(&answers).await.unwrap();
    let mut consumer = stage.celery.consume(ConsumeOptions::new(vec![answers])).unwrap();
    for (task, args, state, result) in
        [("t.add", json!([2, 3]), TaskState::Success, "5"), ("t.fail", json!(["no"]), TaskState::Failure, "")]
    {
        let mut message = stage.message(task, args);
        message.properties.reply_to = Some("answers".into());
        message.properties.correlation_id = Some(format!("call of {task}"));
        stage.publish(&message).await;
        let mut events = Vec::new();
        let answer = loop {
            tokio::time::timeout(SOON, consumer.recv_many(&mut events, 1)).await.expect("an answer");
            let Some(ConsumerEvent::Delivery(delivery)) = events.pop() else { continue };
            if ResultMeta::decode(&delivery.raw.body).unwrap().status.is_ready() {
                break delivery;
            }
            delivery.token.ack();
        };
        assert_eq!(answer.raw.properties.correlation_id.as_deref(), Some(&*format!("call of {task}")));
        assert_eq!(answer.raw.properties.content_type.as_deref(), Some("application/json"));
        let meta = ResultMeta::decode(&answer.raw.body).unwrap();
        assert_eq!((&meta.task_id, &meta.status), (&message.headers.id, &state));
        assert!(result.is_empty() || meta.result.get() == result);
        answer.token.ack();
    }
    // A call that names no queue is run all the same.
    stage.call("t.add", json!([1, 1])).await;
    stage.drained("celery").await;
    worker.stop().await;
}
