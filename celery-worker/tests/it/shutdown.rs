//! However a worker ends, and whatever state it is in: every call that the broker has accepted is run, by it or by the next.

use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use celery_protocol::{TaskId, TaskState, WireTime};
use celery_testkit::{Program, Rabbit, wait};
use serde_json::json;

use crate::stage::{SOON, Stage};

/// A debug build on a busy machine.
const BOOT: Duration = Duration::from_secs(60);

/// The demo worker, with three slots and room for more in its hands.
fn start(stage: &Stage) -> Program {
    let program = env!("CARGO_BIN_EXE_celery-worker");
    let env = [
        ("CELERY_BROKER_URL", stage.broker.as_str()),
        ("CELERY_RESULT_BACKEND", stage.backend.as_str()),
        ("CELERY_WORKER_PREFETCH_MULTIPLIER", "40"),
    ];
    Program::start(program, &["-c", "3", "-l", "info"], &env)
}

async fn ready(stage: &Stage) -> Program {
    let program = start(stage);
    program.wait_for_log(" ready.", BOOT).await;
    program
}

/// Three calls that run, twenty that wait for a slot, fifty that wait for their time.
async fn busy(stage: &Stage, program: &Program, milliseconds: u64) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(stage.call("demo.sleep", json!([milliseconds as f64 / 1_000.0])).await);
    }
    wait::until(SOON, "three run", async || match program.log().matches("received").count() {
        n if n >= 3 => Ok(()),
        n => Err(n),
    })
    .await;
    for number in 0..20 {
        ids.push(stage.call("demo.add", json!([number, 1])).await);
    }
    let eta = WireTime::from(SystemTime::now() + Duration::from_secs(40));
    for number in 0..50 {
        let mut later = stage.message("demo.add", json!([number, 2]));
        later.headers.eta = Some(eta);
        stage.publish(&later).await;
        ids.push(later.headers.id);
    }
    held(stage, (0, 73)).await;
    ids
}

async fn held(stage: &Stage, expected: (u64, u64)) {
    wait::until(SOON, "the queue is as it should be", async || match stage.depth("celery").await {
        depth if depth == expected => Ok(()),
        depth => Err(format!("{depth:?} instead of {expected:?}")),
    })
    .await;
}

/// The next worker finishes everything; nothing is left, and nothing has failed.
async fn nothing_is_lost(stage: &Stage, ids: &[TaskId]) {
    let next = ready(stage).await;
    wait::until(2 * BOOT, "all have ended", async || {
        let metas = stage.celery.backend().get_many(ids).await.unwrap();
        let done = metas.iter().flatten().filter(|meta| meta.status == TaskState::Success).count();
        if done == ids.len() { Ok(()) } else { Err(format!("{done} of {}", ids.len())) }
    })
    .await;
    held(stage, (0, 0)).await;
    next.term();
    assert!(next.wait_exit(SOON).await.success(), "{}", next.log_tail());
}

async fn done(stage: &Stage, ids: &[TaskId]) -> usize {
    let metas = stage.celery.backend().get_many(ids).await.unwrap();
    metas.iter().flatten().filter(|meta| meta.status == TaskState::Success).count()
}

async fn end(program: &Program, signals: &[&str]) -> ExitStatus {
    for signal in signals {
        program.signal(signal);
        // Two signals that are pending at once are one.
        wait::nothing_for(Duration::from_millis(300)).await;
    }
    program.wait_exit(BOOT).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_loses_nothing() {
    let stage = Stage::new("killed").await;
    let program = ready(&stage).await;
    let ids = busy(&stage, &program, 3_000).await;
    program.kill();
    held(&stage, (73, 0)).await;
    assert_eq!(done(&stage, &ids).await, 0);
    nothing_is_lost(&stage, &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back() {
    let stage = Stage::new("warm").await;
    let program = ready(&stage).await;
    let ids = busy(&stage, &program, 15_000).await;
    // More of it changes nothing.
    let status = end(&program, &["TERM", "TERM", "TERM"]).await;
    assert!(status.success(), "{status}\n{}", program.log_tail());
    held(&stage, (70, 0)).await;
    assert_eq!(done(&stage, &ids).await, 3);
    nothing_is_lost(&stage, &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_shutdown_waits_for_nothing_and_loses_nothing() {
    for signals in [&["QUIT"][..], &["INT", "INT"], &["TERM", "QUIT"], &["QUIT", "QUIT", "QUIT"]] {
        let stage = Stage::new("cold").await;
        let program = ready(&stage).await;
        let ids = busy(&stage, &program, 20_000).await;
        let status = end(&program, signals).await;
        assert!(!status.success(), "{signals:?}: {status}\n{}", program.log_tail());
        held(&stage, (73, 0)).await;
        assert_eq!(done(&stage, &ids).await, 0, "{signals:?}");
        if signals.len() == 2 {
            nothing_is_lost(&stage, &ids).await;
        }
    }
}

/// What has ended cannot be acked: the next worker finds that it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_without_a_broker_comes_to_an_end() {
    let stage = Stage::on_own(Rabbit::start().await).await;
    let program = ready(&stage).await;
    let ids = busy(&stage, &program, 15_000).await;
    stage.rabbit().await.kill();
    program.wait_for_log("the connection to the broker was lost", SOON).await;
    let status = end(&program, &["TERM"]).await;
    assert!(status.success(), "{status}\n{}", program.log_tail());
    stage.rabbit().await.restart().await;
    held(&stage, (73, 0)).await;
    assert_eq!(done(&stage, &ids).await, 3, "what ran was finished");
    nothing_is_lost(&stage, &ids).await;
}

/// A broker short of memory stops reading from those who publish. Acks and the end go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_a_memory_alarm_loses_nothing() {
    let stage = Stage::on_own(Rabbit::start().await).await;
    let program = ready(&stage).await;
    let ids = busy(&stage, &program, 15_000).await;
    stage.rabbit().await.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let status = end(&program, &["TERM"]).await;
    assert!(status.success(), "{status}\n{}", program.log_tail());
    held(&stage, (70, 0)).await;
    assert_eq!(done(&stage, &ids).await, 3);
    stage.rabbit().await.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    nothing_is_lost(&stage, &ids).await;
}

/// A broker that answers nothing, not even the first greeting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_can_be_stopped_before_it_is_ready() {
    let stage = Stage::on_own(Rabbit::start().await).await;
    stage.rabbit().await.pause();
    for signal in ["TERM", "INT", "QUIT"] {
        let program = start(&stage);
        program.wait_for_log("celery@", BOOT).await;
        end(&program, &[signal]).await;
    }
    stage.rabbit().await.resume();
}
