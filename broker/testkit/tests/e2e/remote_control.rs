//! Remote control as Celery's own command line sees it: every command put to a Python worker and to ours, and the answers
//! compared key by key (`python/remote_control.py`).

use crate::stage::{SOON, Stage};
use celery_testkit::{PythonWorker, binary, peer_app, wait};
use serde_json::Value;

#[tokio::test]
async fn every_command_is_answered_as_python_answers_it() {
    let stage = Stage::new("remote-control").await;
    // Our default; with it `acknowledged` means the same on both sides.
    let late = stage.python().env("PEER_SETTINGS", r#"{"task_acks_late": true}"#);
    let args = ["-P", "prefork", "-c", "1", "-n", "py@here", "-Q", "q-py"];
    let python = PythonWorker::start_in(&late, &peer_app(), &args).await;
    let ours = stage.worker(&["-c", "1", "-n", "rs@here", "-Q", "q-rs"]).await;
    let script = include_str!("../../python/remote_control.py");
    let answer = stage.python().run_with(script, &["py@here", "q-py", "rs@here", "q-rs"]).await;
    let answer: Value = answer.json();
    assert!(answer["asked"].as_u64().unwrap() >= 80, "{answer:#}");
    assert_eq!(answer["differences"], serde_json::json!([]), "{answer:#}");
    for process in [python.process(), ours.process()] {
        assert!(process.wait_exit(SOON).await.success());
    }
}

#[tokio::test]
async fn our_command_line_reaches_pythons_workers_and_ours() {
    let stage = Stage::new("command-line").await;
    let _python = stage.python_worker(&["-P", "solo", "-n", "py@here", "-Q", "py"]).await;
    let _ours = stage.worker(&["-c", "1", "-n", "rs@here"]).await;
    let run = async |line: &str| {
        let args: Vec<&str> = line.split(' ').collect();
        let mut command = tokio::process::Command::new(binary("celery-worker"));
        let output = command.args(&args).envs(stage.env()).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = run("status -t 3").await;
    assert_eq!(
        (code, out.as_str()),
        (0, "->  py@here: OK\n        pong\n->  rs@here: OK\n        pong\n\n2 nodes online.")
    );
    let (_, out, _) = run("inspect -j active_queues -t 3").await;
    let queues: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&queues["py@here"][0]["name"], &queues["rs@here"][0]["name"]),
        (&"py".into(), &"celery".into())
    );
    let (_, out, _) = run("control rate_limit demo.mul 3/s -t 3").await;
    assert_eq!(out.matches("new rate limit set successfully").count(), 2, "{out}");

    for queue in ["celery", "py"] {
        let (code, id, err) = run(&format!("call demo.add -a [2] -k {{\"y\":5}} --queue {queue}")).await;
        assert_eq!(code, 0, "{err}");
        assert_eq!(run(&format!("result {id}")).await, (0, "7".to_owned(), String::new()));
    }
    let (_, id, _) = run("call demo.fail -a [\"why\"] --queue py").await;
    let (code, _, err) = run(&format!("result {id}")).await;
    assert_eq!((code, err.as_str()), (1, "Error: RuntimeError('why')"));

    assert_eq!(run("inspect ping -d nobody").await.0, 69);
    let (_, waiting, _) = run("call demo.add -a [1] --queue py --countdown 50").await;
    run(&format!("control revoke {waiting} -t 3")).await;
    let (code, _, err) = run(&format!("result {waiting}")).await;
    assert_eq!((code, err.as_str()), (1, "Error: TaskRevokedError('revoked')"));
    let (_, out, _) = run("purge -f -Q celery,py").await;
    assert_eq!(out, "No messages purged from 2 queues");
    run("control shutdown -d rs@here").await;
    let left = wait::attempt(SOON, async || match run("status").await.1 {
        out if out.ends_with("1 node online.") => Ok(()),
        out => Err(out),
    });
    left.await.unwrap();
}
