//! Every example runs to its end against real servers and says what it should.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use celery_testkit::{PythonWorker, Rabbit, Redis};
use tokio::process::Command;

async fn check(example: &str, last_lines: &[&str]) {
    let broker = Rabbit::shared().await.vhost(&format!("example-{example}")).await;
    let backend = Redis::shared().await.database();
    check_on(&broker, &backend, example, last_lines).await;
}

async fn check_on(broker: &str, backend: &str, example: &str, last_lines: &[&str]) {
    let here = std::env::current_exe().unwrap();
    let path = here.ancestors().nth(2).unwrap().join("examples").join(example);
    assert!(path.exists(), "{} is not built: `cargo build --examples` does that", path.display());
    let mut command = Command::new(&path);
    command.env("CELERY_BROKER_URL", broker).env("CELERY_RESULT_BACKEND", backend).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = output.await.unwrap_or_else(|_| panic!("{example} does not end")).unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{example} failed: {err}\n{out}");
    for line in last_lines {
        assert!(out.lines().any(|said| said == *line), "{example} did not say {line:?}: {out}\n{err}");
    }
}

#[tokio::test]
async fn examples_say_what_they_promise() {
    check("hello", &["2 + 3 = 5"]).await;
    check("state", &["The corner shop has 5 apples"]).await;
    check(
        "retry",
        &["fetched at call 2", "ready after 4 retries", "gave up: ConnectionError('nobody listens')"],
    )
    .await;
    check("blocking", &["stopped: SoftTimeLimitExceeded()"]).await;
    check("progress", &["imported 4 rows"]).await;
    check("chain", &["20 apples", "42 m²"]).await;
    check("chord", &["each: [2, 4, 4]", "all: 10"]).await;
    check(
        "testing",
        &[
            r#"value: Some("confirmation 7")"#,
            r#"sent while it ran: ["shop.log"], because it ended: ["shop.log"]"#,
            "after 2 retries: ConnectionError('no mail server')",
        ],
    )
    .await;
    let lost = ["another process: true", "crashed: WorkerLostError", "crashed again: WorkerLostError"];
    check("prefork", &[&lost[..], &["hung: TimeLimitExceeded", "still working: 1"]].concat()).await;
    check("periodic", &["counted"]).await;
    check("raw_task", &["raw.double(7) = 14", "raw.triple(7) = 21"]).await;
}

#[tokio::test]
async fn the_example_with_python_works_through_both_languages() {
    let broker = Rabbit::shared().await.vhost("example-python").await;
    let backend = Redis::shared().await.database();
    let _python = PythonWorker::peer(&broker, &backend, &["--pool", "solo", "-Q", "python"]).await;
    let said = ["Python says 6 * 7 = 42", "(1 + 2) * 10 + 5 = 35", "Python raised RuntimeError('not today')"];
    check_on(&broker, &backend, "python_peer", &said).await;
}
