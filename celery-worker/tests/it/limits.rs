//! Limits and revocations that hold over several workers, and over their restarts.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use celery_broker::QueueSpec;
use celery_broker::control::Destination;
use celery_protocol::control::Command;
use celery_protocol::{QueueName, TaskState};
use celery_testkit::wait;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_over_all_workers_and_for_each_key() {
    let stage = Stage::new("cluster-limit").await;
    let limits = ["t.count=2/s*2", "t.add[0]=1/s"];
    let limited =
        async || stage.worker().await.configure(|own| own.cluster_limits = limits.map(str::to_owned).into());
    let one = stage.run(limited().await).await;
    let two = stage.run(limited().await).await;

    let begin = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(stage.call("t.count", json!([])).await);
    }
    for id in &ids {
        assert_eq!(stage.end_of(id).await.status, TaskState::Success);
    }
    // Two at once, the other four at half a second each.
    assert!(begin.elapsed() >= Duration::from_millis(1_900), "{:?}", begin.elapsed());

    let begin = Instant::now();
    let apart = [stage.call("t.add", json!([1, 0])).await, stage.call("t.add", json!([2, 0])).await];
    for id in &apart {
        stage.end_of(id).await;
    }
    let again = stage.call("t.add", json!([1, 0])).await;
    stage.end_of(&again).await;
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    one.stop().await;
    two.stop().await;
}

/// The answer of the only worker.
async fn ask(stage: &Stage, command: Command) -> Value {
    let control = stage.celery.control();
    let replies = control.call(&command, Destination::All, Duration::from_secs(2)).await.unwrap();
    replies.into_iter().next().unwrap().value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_control_changes_a_limit_over_all_workers() {
    let stage = Stage::new("cluster-changed").await;
    let limit = |own: &mut celery_worker::Settings| own.cluster_limits = vec!["t.count=1/h".to_owned()];
    let worker = stage.run(stage.worker().await.configure(limit)).await;
    let change = async |rate: &str| {
        let (task_name, rate_limit) = ("t.count".to_owned(), Some(rate.to_owned()));
        ask(&stage, Command::RateLimit { task_name, rate_limit }).await
    };
    let call = async || stage.call("t.count", json!([])).await;
    let runs = || stage.witness.runs.load(Ordering::SeqCst);
    stage.end_of(&call().await).await;
    let begin = Instant::now();
    let held = [call().await, call().await, call().await];
    wait::until(SOON, "they wait", async || match stage.depth("celery").await {
        (0, 3) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    assert_eq!(runs(), 1);
    assert_eq!(change("2/s").await, json!({"ok": "new rate limit set successfully"}));
    for id in &held {
        stage.end_of(id).await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    change("1/h").await;
    stage.end_of(&call().await).await;
    let held = call().await;
    wait::until(SOON, "it waits", async || match stage.depth("celery").await {
        (0, 1) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    assert_eq!(runs(), 5);
    assert_eq!(change("0").await, json!({"ok": "rate limit disabled successfully"}));
    stage.end_of(&held).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_cannot_be_read_stops_the_start() {
    let stage = Stage::new("bad-limit").await;
    let problem = stage.worker().await.cluster_limit("t.add=often").build().unwrap_err();
    assert!(problem.to_string().contains("it has no rate"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_while_no_worker_ran_is_not_run() {
    let stage = Stage::new("revoked-before").await;
    stage.celery.declare(&QueueSpec::new(QueueName::parse("celery").unwrap())).await.unwrap();
    let message = stage.message("t.count", json!([]));
    stage.celery.control().revoke(std::slice::from_ref(&message.headers.id), false).await.unwrap();
    stage.publish(&message).await;
    let worker = stage.running().await;
    let meta = stage.end_of(&message.headers.id).await;
    assert_eq!(meta.status, TaskState::Revoked);
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_file_keeps_revocations_over_a_restart() {
    let mut stage = Stage::new("statedb").await;
    let path = std::env::temp_dir().join(format!("celeriac-statedb-{}", std::process::id()));
    let file = path.to_str().unwrap().to_owned();
    let with_file = async |stage: &Stage| {
        let file = file.clone();
        stage.run(stage.worker().await.configure(|own| own.statedb = Some(file))).await
    };
    let worker = with_file(&stage).await;
    let message = stage.message("t.count", json!([]));
    stage.celery.control().revoke(std::slice::from_ref(&message.headers.id), false).await.unwrap();
    wait::until(SOON, "the revocation arrives", async || match ask(&stage, Command::Revoked).await {
        known if known == json!([message.headers.id.as_str()]) => Ok(()),
        known => Err(known),
    })
    .await;
    worker.stop().await;
    assert!(std::fs::read_to_string(&path).unwrap().contains(message.headers.id.as_str()));

    // An empty store: only the file knows.
    stage = Stage::on(stage.broker.clone(), celery_testkit::Redis::shared().await.database()).await;
    let worker = with_file(&stage).await;
    stage.publish(&message).await;
    assert_eq!(stage.end_of(&message.headers.id).await.status, TaskState::Revoked);
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 0);
    worker.stop().await;
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_follow_the_work() {
    let stage = Stage::new("autoscale").await;
    let range = "3,1".parse().unwrap();
    let worker = stage.run(stage.worker().await.configure(|own| own.autoscale = Some(range))).await;
    for _ in 0..5 {
        stage.call("t.sleep", json!([60_000])).await;
    }
    wait::until(SOON, "three run", async || match stage.witness.running.load(Ordering::SeqCst) {
        3 => Ok(()),
        n => Err(n),
    })
    .await;
    let ask = async |command: Command| ask(&stage, command).await;
    let autoscaler = ask(Command::Stats).await["autoscaler"].clone();
    assert_eq!(autoscaler, json!({"max": 3, "min": 1, "current": 3, "qty": 5}));
    let grown = ask(Command::Autoscale { max: Some(4), min: None }).await;
    assert_eq!(grown, json!({"ok": "autoscale now max=4 min=1"}));
    wait::until(SOON, "four run", async || match stage.witness.running.load(Ordering::SeqCst) {
        4 => Ok(()),
        n => Err(n),
    })
    .await;
    let refused = ask(Command::PoolGrow { n: 1 }).await;
    assert!(refused["error"].as_str().unwrap().contains("not supported with autoscale"), "{refused}");
    assert_eq!(stage.witness.most_running.load(Ordering::SeqCst), 4);
    worker.handle.stop_now();
}
