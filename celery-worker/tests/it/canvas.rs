//! Callbacks, errbacks, chains and chords: what a task leaves behind.

use celery_protocol::{Body, Embed, Message, Signature, TaskId, TaskName, TaskState, canvas};
use celery_protocol::{Chain, Sig, chain, chord, group};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

fn signature(task: &str, id: &str) -> Signature {
    let mut signature = Signature::new(TaskName::parse(task).unwrap());
    signature.options.set("task_id", &id);
    signature
}

fn embed(message: &mut Message, change: impl FnOnce(&mut Embed)) {
    let mut body: Body = message.body(&celery_protocol::Limits::DEFAULT).unwrap();
    change(&mut body.embed);
    message.body = body.encode_json();
}

fn id(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_link_is_run_and_its_callback_too() {
    let stage = Stage::new("link").await;
    let worker = stage.running().await;
    let mut message = stage.message("t.add", json!([2, 3]));
    embed(&mut message, |embed| embed.callbacks = vec![signature("t.list", "called-back")].into());
    stage.publish(&message).await;
    assert_eq!(stage.end_of(&id("called-back")).await.result.get(), "[5]");
    let meta = stage.end_of(&message.headers.id).await;
    assert_eq!(meta.children.unwrap()[0].id, id("called-back"));
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errback_gets_the_id_of_the_failed_task() {
    let stage = Stage::new("errback").await;
    let worker = stage.running().await;
    let mut message = stage.message("t.fail", json!(["no"]));
    embed(&mut message, |embed| embed.errbacks = vec![signature("t.list", "told")].into());
    stage.publish(&message).await;
    let told = stage.end_of(&id("told")).await;
    assert_eq!(told.result.get(), format!("[\"{}\"]", message.headers.id));
    assert_eq!(stage.end_of(&message.headers.id).await.status, TaskState::Failure);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_goes_on_and_its_failure_reaches_the_end() {
    let stage = Stage::new("chain").await;
    let worker = stage.running().await;
    let add = |x: i64| Sig::<i64>::new("t.add").arg(x);
    let steps: Chain<i64> = chain(add(1).arg(2)).then(add(10)).then(add(100));
    let value = stage.celery.send(steps).await.unwrap().get(SOON).await.unwrap();
    assert_eq!(value, 113);

    let broken = chain(Sig::<Value>::new("t.fail").arg("first")).then(add(1)).then(add(2));
    let result = stage.celery.send(broken).await.unwrap();
    let error = result.get(SOON).await.unwrap_err().to_string();
    assert!(error.contains("first"), "{error}");
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_calls_its_body_once_with_all_results() {
    let stage = Stage::new("chord").await;
    let worker = stage.running().await;
    let add = |x: i64| Sig::<i64>::new("t.add").arg(x).arg(x);
    let header = group((0..10).map(add));
    let value: Value =
        stage.celery.send(chord(header, Sig::<Value>::new("t.list"))).await.unwrap().get(SOON).await.unwrap();
    assert_eq!(value, json!([[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]]));
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_with_a_failed_member_ends_in_its_bodys_errback() {
    let stage = Stage::new("chord-fails").await;
    let worker = stage.running().await;
    let bad = canvas::Group::of([
        canvas::Canvas::Task(Sig::<i64>::new("t.add").arg(1).arg(1).into_signature().unwrap()),
        canvas::Canvas::Task(Sig::<Value>::new("t.fail").arg("member").into_signature().unwrap()),
    ]);
    let errback = Sig::<Value>::new("t.list").task_id(&id("chord-errback"));
    let body = Sig::<Value>::new("t.list").link_error(errback);
    let result = stage.celery.send(chord(bad, body)).await.unwrap();
    let error = result.get(SOON).await.unwrap_err().to_string();
    assert!(error.contains("ChordError") && error.contains("member"), "{error}");
    assert_eq!(stage.end_of(&id("chord-errback")).await.result.get(), format!("[\"{}\"]", result.id()));
    stage.drained("celery").await;
    worker.stop().await;
}
