//! Remote control as Celery's own command line sees it: every command put to a Python worker and to ours, and the answers
//! compared key by key (`python/remote_control.py`).

use crate::stage::Stage;
use celery_testkit::{PythonWorker, peer_app};
use serde_json::Value;

#[tokio::test]
async fn every_command_is_answered_as_python_answers_it() {
    let stage = Stage::new("remote-control").await;
    // Our default; with it `acknowledged` means the same on both sides.
    let late = stage.python().env("PEER_SETTINGS", r#"{"task_acks_late": true}"#);
    let args = ["-P", "prefork", "-c", "1", "-n", "py@here", "-Q", "q-py"];
    let _python = PythonWorker::start_in(&late, &peer_app(), &args).await;
    let _ours = stage.worker(&["-c", "1", "-n", "rs@here", "-Q", "q-rs"]).await;
    let script = include_str!("../../python/remote_control.py");
    let answer = stage.python().run_with(script, &["py@here", "q-py", "rs@here", "q-rs"]).await;
    let answer: Value = answer.json();
    assert!(answer["asked"].as_u64().unwrap() >= 80, "{answer:#}");
    assert_eq!(answer["differences"], serde_json::json!([]), "{answer:#}");
}
