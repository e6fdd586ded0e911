//! The monitor's pages in a real browser, on real data: the browser tests of `flower-lite/web/e2e`, pointed at
//! the programs. (By themselves they run on a mock, which can provoke what a real cluster cannot.)

use crate::stage::{Server, Stage};
use celery_testkit::{Program, config};
use std::path::PathBuf;
use std::time::Duration;

const BROWSING: Duration = Duration::from_secs(400);

/// Node as `make web` found it: the system's, or the one in the virtual environment.
fn node() -> PathBuf {
    let own = config::venv().join("bin/node");
    if own.exists() { own } else { "node".into() }
}

async fn some_work(stage: &Stage) {
    let work = "from peer_app import *
results = [add.delay(i, y=i) for i in range(40)] + [fail.delay('on <b>purpose</b>') for _ in range(3)]
for result in results: result.get(timeout=30, propagate=False)";
    stage.python().run(work).await;
}

async fn browse(server: &Server, path: &str) {
    let script = config::repository().join("flower-lite/web/e2e/run.mjs");
    let url = format!("{}{path}", server.url);
    let browser = Program::start(node(), &[script.to_str().unwrap(), &url], &[]);
    let status = browser.wait_exit(BROWSING).await;
    assert!(status.success() && browser.log().contains(" passed, 0 failed"), "{}", browser.log_tail());
}

#[tokio::test]
async fn pages_show_a_real_cluster() {
    let stage = Stage::new("pages").await;
    let monitor = stage.flower_lite().await;
    let _worker = stage.worker(&["-c", "2", "-E"]).await;
    some_work(&stage).await;
    browse(&monitor, "/").await;
}

#[tokio::test]
async fn pages_are_part_of_producer_api() {
    let stage = Stage::new("dashboard").await;
    let api = stage.producer_api().await;
    for path in ["/dashboard", "/dashboard/", "/dashboard/tasks"] {
        let (status, page) = api.get(path).await;
        assert_eq!(status, 200, "{path}: {page}");
        assert!(page.as_str().unwrap().contains("<base href=\"/dashboard/\""), "{path}: {page}");
    }
}
