//! Callbacks, errbacks, chains and chords: what a task leaves behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use celery_broker::chord_watch::WatchedChord;
use celery_broker::{Celery, ChordPart, ChordProgress, QueueSpec};
use celery_protocol::{
    Body, Embed, GroupId, Message, QueueName, Signature, TaskId, TaskName, TaskState, canvas,
};
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

/// A client or worker that gives up chords after a moment.
async fn impatient(stage: &Stage, name: &str) -> Celery {
    let builder = Celery::builder(name).broker(&stage.broker).backend(&stage.backend);
    builder.chord_deadline(Some(Duration::from_secs(1))).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_that_has_lost_a_member_fails_once() {
    let stage = Stage::new("chord-lost").await;
    let client = impatient(&stage, "client").await;
    let worker = stage.run(stage.worker_of(impatient(&stage, "worker").await)).await;
    let elsewhere = QueueName::parse("elsewhere").unwrap();
    client.declare(&QueueSpec::new(elsewhere)).await.unwrap();
    let add = |x: i64| Sig::<i64>::new("t.add").arg(x).arg(x);
    let header = group([add(1), add(2).queue("elsewhere"), add(3)]);
    let body = Sig::<Value>::new("t.list").link_error(Sig::<Value>::new("t.count"));
    let result = client.send(chord(header, body)).await.unwrap();
    let error = result.get(SOON).await.unwrap_err().to_string();
    assert!(error.contains("ChordError('2 of 3 members of the chord have ended"), "{error}");

    // The lost member turns up: the chord stays as it is.
    let late = stage.worker_of(impatient(&stage, "late").await).queues(["elsewhere"]);
    let late = stage.run(late).await;
    stage.drained("elsewhere").await;
    stage.drained("celery").await;
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 1, "the errback ran once");
    assert_eq!(result.state().await.unwrap(), TaskState::Failure);
    late.stop().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_none_of_whose_members_is_heard_of_fails() {
    let stage = Stage::new("chord-all-lost").await;
    let client = impatient(&stage, "client").await;
    let worker = stage.run(stage.worker_of(impatient(&stage, "worker").await)).await;
    client.declare(&QueueSpec::new(QueueName::parse("elsewhere").unwrap())).await.unwrap();
    let header = group([Sig::<i64>::new("t.add").arg(1).arg(1).queue("elsewhere")]);
    let result = client.send(chord(header, Sig::<Value>::new("t.list"))).await.unwrap();
    let error = result.get(SOON).await.unwrap_err().to_string();
    assert!(error.contains("0 of 1 members"), "{error}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_whose_body_nobody_sent_is_finished() {
    let stage = Stage::new("chord-orphan").await;
    let client = impatient(&stage, "client").await;
    let body = Sig::<Value>::new("t.list").task_id(&id("orphan-body")).into_signature().unwrap();
    let group_id = GroupId::parse("orphan").unwrap();
    let backend = client.backend();
    backend.chord_start(&group_id, 1).await.unwrap();
    let patience = Duration::from_secs(1);
    let chord = WatchedChord { group: group_id.clone(), body: body.to_raw(), root_id: None, patience };
    backend.chord_watch().unwrap().watch(&chord).await.unwrap();
    // Somebody counts the only member, claims the chord and dies.
    let part = ChordPart {
        group: group_id,
        task: id("orphan-member"),
        state: TaskState::Success,
        result: celery_protocol::pyjson::to_raw(&7).unwrap(),
        index: Some(0),
        claim_seconds: 1,
        token: "somebody".to_owned(),
    };
    assert!(matches!(backend.chord_part(&part).await.unwrap(), ChordProgress::Claimed(_)));
    let worker = stage.run(stage.worker_of(impatient(&stage, "worker").await)).await;
    assert_eq!(stage.end_of(&id("orphan-body")).await.result.get(), "[[7]]");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_delivered_twice_counts_once() {
    let stage = Stage::new("chord-twice").await;
    let worker = stage.running().await;
    let add = |x: i64| Sig::<i64>::new("t.add").arg(x).arg(x).task_id(&id(&format!("twice-{x}")));
    stage.celery.declare(&QueueSpec::new(QueueName::parse("elsewhere").unwrap())).await.unwrap();
    let header = group([add(1), add(2).queue("elsewhere")]);
    let result = stage.celery.send(chord(header, Sig::<Value>::new("t.list"))).await.unwrap();
    stage.end_of(&id("twice-1")).await;
    // The first member again, as a broker may deliver it whose ack was lost.
    let mut message = stage.message("t.add", json!([1, 1]));
    message.headers.id = id("twice-1");
    message.headers.group = result.parent().map(|header| GroupId::from(header.id().clone()));
    message.headers.group_index = Some(0);
    let mut body = Signature::new(TaskName::parse("t.list").unwrap());
    body.options.set("task_id", result.id());
    embed(&mut message, |embed| embed.chord = Some(Box::new(body)));
    stage.publish(&message).await;
    stage.drained("celery").await;
    assert_eq!(result.state().await.unwrap(), TaskState::Pending);
    let other = stage.run(stage.worker().await.queues(["elsewhere"])).await;
    assert_eq!(result.get(SOON).await.unwrap(), json!([[2, 4]]));
    other.stop().await;
    worker.stop().await;
}

/// A call of `t.add` that is the member `index` of a chord with this body.
fn member(stage: &Stage, group: &GroupId, index: u32, body: &str) -> Message {
    let mut message = stage.message("t.add", json!([index, index]));
    message.headers.id = id(&format!("{group}-{index}"));
    message.headers.group = Some(group.clone());
    message.headers.group_index = Some(index);
    embed(&mut message, |embed| embed.chord = Some(Box::new(signature("t.list", body))));
    message
}

/// A member as another worker counts it.
fn part(group: &GroupId, index: u32, claim_seconds: u64) -> ChordPart {
    ChordPart {
        group: group.clone(),
        task: id(&format!("{group}-{index}")),
        state: TaskState::Success,
        result: celery_protocol::pyjson::to_raw(&(2 * index)).unwrap(),
        index: Some(index),
        claim_seconds,
        token: format!("another-{index}"),
    }
}

/// A worker stored the result of the last member and died before it told the chord: its message came again, was taken for a
/// duplicate and acked, and the chord waited for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_completed_before_is_told_to_its_chord() {
    let stage = Stage::new("chord-told-late").await;
    let (group, backend) = (GroupId::parse("told-late").unwrap(), stage.celery.backend());
    backend.chord_start(&group, 1).await.unwrap();
    let message = member(&stage, &group, 0, "told-late-body");
    stage.celery.declare(&QueueSpec::new(QueueName::parse("celery").unwrap())).await.unwrap();
    stage.publish(&message).await;
    stage.give_back("celery").await;
    let earlier = celery_protocol::pyjson::to_raw(&"of an earlier run").unwrap();
    let now = celery_protocol::WireTime::from(std::time::SystemTime::now());
    let done = celery_protocol::ResultMeta::success(message.headers.id, earlier, now);
    backend.store(&done).await.unwrap();
    let worker = stage.running().await;
    assert_eq!(stage.end_of(&id("told-late-body")).await.result.get(), r#"[["of an earlier run"]]"#);
    stage.drained("celery").await;
    worker.stop().await;
}

/// A worker claimed the chord and died: the message of the last member came again while the claim still held, and was acked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_of_a_dead_worker_is_waited_for() {
    let stage = Stage::new("chord-claimed").await;
    let (group, backend) = (GroupId::parse("claimed").unwrap(), stage.celery.backend());
    // Before the claim: it must still hold when the message comes.
    let worker = stage.running().await;
    backend.chord_start(&group, 2).await.unwrap();
    backend.chord_part(&part(&group, 1, 3)).await.unwrap();
    let progress = backend.chord_part(&part(&group, 0, 3)).await.unwrap();
    assert!(matches!(progress, ChordProgress::Claimed(_)), "{progress:?}");
    stage.publish(&member(&stage, &group, 0, "claimed-body")).await;
    assert_eq!(stage.end_of(&id("claimed-body")).await.result.get(), "[[0, 2]]");
    stage.drained("celery").await;
    worker.stop().await;
}

/// Python's workers put no chord under watch, and ours only did so with the first member of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_is_watched_whoever_counted_its_first_member() {
    let stage = Stage::new("chord-watched").await;
    let (group, backend) = (GroupId::parse("watched").unwrap(), stage.celery.backend());
    let worker = stage.run(stage.worker_of(impatient(&stage, "worker").await)).await;
    backend.chord_start(&group, 3).await.unwrap();
    backend.chord_part(&part(&group, 0, 6)).await.unwrap();
    stage.publish(&member(&stage, &group, 1, "watched-body")).await;
    let text = stage.end_of(&id("watched-body")).await.exception().unwrap().repr();
    assert!(text.contains("2 of 3 members of the chord have ended"), "{text}");
    worker.stop().await;
}
