//! The pool of child processes, by the example that shows it: what crashes, hangs, is terminated or has done its share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use celery_broker::QueueSpec;
use celery_protocol::{QueueName, TaskState};
use celery_testkit::{Program, Rabbit, Redis, wait};
use serde_json::json;

use crate::stage::{SOON, Stage};

/// The example's program: beside this one, where cargo puts examples.
fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/prefork");
    assert!(path.exists(), "{} is missing: cargo build -p celery-worker --example prefork", path.display());
    path
}

async fn serving(stage: &Stage, args: &[&str]) -> Program {
    serving_by(&example(), stage, args).await
}

async fn serving_by(path: &Path, stage: &Stage, args: &[&str]) -> Program {
    let env =
        [("CELERY_BROKER_URL", stage.broker.as_str()), ("CELERY_RESULT_BACKEND", stage.backend.as_str())];
    let program = Program::start(path, &[&["serve"], args].concat(), &env);
    wait::until(SOON, "it consumes", async || {
        let queues = Rabbit::shared().await.queues(&stage.broker).await;
        match queues.iter().any(|queue| queue.name == "celery" && queue.consumers > 0) {
            true => Ok(()),
            false => Err(program.log_tail()),
        }
    })
    .await;
    program
}

fn queue(name: &str) -> QueueSpec {
    QueueSpec::new(QueueName::parse(name).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_costs_a_child_and_not_the_worker() {
    let stage = Stage::new("prefork").await;
    stage.celery.declare(&queue("dead")).await.unwrap();
    let own =
        queue("celery").argument("x-dead-letter-exchange", "").argument("x-dead-letter-routing-key", "dead");
    stage.celery.declare(&own).await.unwrap();
    let program = serving(&stage, &[]).await;

    let lost = stage.outcome("proc.abort", json!([])).await;
    let exception = lost.exception().unwrap();
    assert_eq!(exception.exc_module.as_deref(), Some("billiard.exceptions"));
    assert!(
        exception.repr().starts_with("WorkerLostError('Worker exited prematurely: signal 6 (SIGABRT) Job:"),
        "{}",
        exception.repr()
    );

    let poison = stage.outcome("proc.again", json!([])).await;
    let text = poison.exception().unwrap().repr();
    assert!(text.contains("taken its process with it 4 times"), "{text}");
    wait::until(SOON, "the message is dead-lettered", async || match stage.depth("dead").await {
        (1, 0) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;

    let hung = stage.outcome("proc.limited", json!([60_000])).await;
    assert_eq!(hung.exception().unwrap().repr(), "TimeLimitExceeded(1)");
    let child = stage.outcome("proc.pid", json!([])).await;
    assert_eq!(child.status, TaskState::Success);
    assert_ne!(child.result.get(), program.pid().to_string());
    stage.drained("celery").await;
    program.term();
    assert!(program.wait_exit(SOON).await.success(), "{}", program.log_tail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_task_ends_with_its_child_and_worn_out_ones_are_replaced() {
    let stage = Stage::new("children").await;
    let program = serving(&stage, &["2"]).await;
    let mut pids = Vec::new();
    for _ in 0..4 {
        pids.push(stage.outcome("proc.pid", json!([])).await.result.get().to_owned());
    }
    assert_eq!(pids[0], pids[1]);
    assert_eq!(pids[2], pids[3]);
    assert_ne!(pids[0], pids[2], "a child runs two tasks");

    let stuck = stage.call("proc.stuck", json!([600_000])).await;
    wait::until(SOON, "it runs", async || match stage.depth("celery").await {
        (0, 1) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    stage.celery.control().revoke(std::slice::from_ref(&stuck), true).await.unwrap();
    let meta = stage.end_of(&stuck).await;
    assert_eq!(meta.exception().unwrap().repr(), "TaskRevokedError('terminated')");
    assert_eq!(stage.outcome("proc.pid", json!([])).await.status, TaskState::Success);

    // A cold shutdown does not wait for what does not listen.
    stage.call("proc.stuck", json!([600_000])).await;
    wait::until(SOON, "it runs", async || match stage.depth("celery").await {
        (0, 1) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    program.signal("QUIT");
    program.wait_exit(SOON).await;
    wait::until(SOON, "its message is back", async || match stage.depth("celery").await {
        (1, 0) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_taken_whole_workers_with_it_is_not_run_again() {
    let stage = Stage::new("poison").await;
    let mut worker = stage.running().await;
    let ids = [stage.call("t.sleep", json!([600_000])).await, stage.call("t.sleep", json!([600_000])).await];
    wait::until(SOON, "they run", async || match stage.depth("celery").await {
        (0, 2) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    worker.handle.stop_now();
    worker.ended().await.unwrap();
    // As if three more workers had died with the first.
    let cluster = stage.celery.cluster().unwrap();
    for _ in 0..3 {
        cluster.count(&format!("crashes:{}", ids[0]), SOON).await.unwrap();
    }
    let worker = stage.running().await;
    let meta = stage.end_of(&ids[0]).await;
    let text = meta.exception().unwrap().repr();
    assert!(text.starts_with("WorkerLostError('The worker was lost 4 times"), "{text}");
    wait::until(SOON, "the other runs", async || match stage.depth("celery").await {
        (0, 1) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    worker.handle.stop_now();
}

/// Only crashes of children were counted there, not those of the worker itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_workers_with_children_count_as_those_without() {
    let stage = Stage::new("poison-children").await;
    let program = serving(&stage, &[]).await;
    let id = stage.call("proc.stuck", json!([600_000])).await;
    wait::until(SOON, "it runs", async || match stage.depth("celery").await {
        (0, 1) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    program.kill();
    wait::until(SOON, "its message is back", async || match stage.depth("celery").await {
        (1, 0) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    let cluster = stage.celery.cluster().unwrap();
    for _ in 0..3 {
        cluster.count(&format!("crashes:{id}"), SOON).await.unwrap();
    }
    let _program = serving(&stage, &[]).await;
    let text = stage.end_of(&id).await.exception().unwrap().repr();
    assert!(text.starts_with("WorkerLostError('The worker was lost 4 times"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_has_grown_too_large_is_replaced() {
    let stage = Stage::new("leak").await;
    let program = serving(&stage, &["1000", "200000"]).await;
    let mut pids = Vec::new();
    for mebibytes in [1, 1, 250, 1] {
        pids.push(stage.outcome("proc.leak", json!([mebibytes])).await.result.get().to_owned());
    }
    assert_eq!((&pids[0], &pids[1]), (&pids[1], &pids[2]));
    assert_ne!(pids[2], pids[3]);
    program.term();
    assert!(program.wait_exit(SOON).await.success(), "{}", program.log_tail());
}

/// Where no child could be started, a message that was acked before was simply gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_acked_before_fails_where_there_is_no_child() {
    let stage = Stage::new("no-child").await;
    let path = std::env::temp_dir().join(format!("celeriac-no-child-{}", std::process::id()));
    std::fs::copy(example(), &path).unwrap();
    let program = serving_by(&path, &stage, &[]).await;
    assert_eq!(stage.outcome("proc.early", json!([])).await.status, TaskState::Success);
    // It cannot start itself again.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(stage.outcome("proc.abort", json!([])).await.status, TaskState::Failure);
    let text = stage.outcome("proc.early", json!([])).await.exception().unwrap().repr();
    assert!(text.starts_with("WorkerLostError('No child process could run this task"), "{text}");
    program.term();
    program.wait_exit(SOON).await;
}

/// The hard limit is for the task. It killed children that only waited for a slow store, and tasks that had succeeded were
/// told to have failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_does_not_count_as_the_tasks_time() {
    let redis = Redis::start().await;
    let stage = Stage::on(Rabbit::shared().await.vhost("slow-store").await, redis.url(0)).await;
    let _program = serving(&stage, &[]).await;
    let child = stage.outcome("proc.pid", json!([])).await.result.get().to_owned();
    redis.pause();
    let id = stage.call("proc.limited", json!([1])).await;
    // Its limit is a second.
    wait::nothing_for(Duration::from_millis(2_500)).await;
    redis.resume();
    assert_eq!(stage.end_of(&id).await.status, TaskState::Success);
    // What was on its way to the store arrives in any case; the child must be alive, too.
    assert_eq!(stage.outcome("proc.pid", json!([])).await.result.get(), child);
}

/// A child that is stopped takes no call, and the worker tried for ever to tell it of one that does not fit into the socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_takes_no_call_is_replaced() {
    let stage = Stage::new("stopped-child").await;
    let program = serving(&stage, &[]).await;
    let stopped = stage.outcome("proc.pid", json!([])).await.result.get().to_owned();
    assert!(Command::new("kill").args(["-STOP", &stopped]).status().unwrap().success());
    let large = stage.call("proc.pid", json!(["x".repeat(2 << 20)])).await;
    // It takes no argument: another child says so.
    assert_eq!(stage.end_of(&large).await.exception().unwrap().exc_type, "TypeError");
    let other = stage.outcome("proc.pid", json!([])).await.result.get().to_owned();
    assert_ne!(other, stopped);
    program.term();
    assert!(program.wait_exit(SOON).await.success(), "{}", program.log_tail());
}
