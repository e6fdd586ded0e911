//! The pool of child processes, by the example that shows it: what crashes, hangs, is terminated or has done its share.

use std::path::PathBuf;

use celery_broker::QueueSpec;
use celery_protocol::{QueueName, TaskState};
use celery_testkit::{Program, Rabbit, wait};
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
    let env =
        [("CELERY_BROKER_URL", stage.broker.as_str()), ("CELERY_RESULT_BACKEND", stage.backend.as_str())];
    let program = Program::start(example(), &[&["serve"], args].concat(), &env);
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
    // As if four workers had died with the first.
    let cluster = stage.celery.cluster().unwrap();
    for _ in 0..4 {
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
