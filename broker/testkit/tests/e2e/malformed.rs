//! The bad-input table of task messages, published raw by `python/malformed.py` to a queue whose refused
//! messages are dead-lettered. After each message the next valid task must complete.

use crate::stage::Stage;
use celery_testkit::Rabbit;
use std::path::Path;

#[tokio::test]
async fn no_message_stops_the_worker() {
    let stage = Stage::new("malformed").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/malformed.py");
    let script = script.to_str().unwrap();
    let policy = r#"{"dead-letter-exchange":"","dead-letter-routing-key":"malformed.dead"}"#;
    let vhost = stage.broker.rsplit('/').next().unwrap();
    Rabbit::shared().await.ctl(&["set_policy", "-p", vhost, "dead", "^malformed$", policy]).await;
    let python = stage.python();
    assert_eq!(python.try_run(&[script, "--declare"]).await.code, 0);
    let worker = stage.worker(&["-c", "2", "-Q", "malformed"]).await;
    let pid = worker.process().pid();

    let output = python.try_run(&[script]).await;
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    let bad: Vec<String> = output.json();
    assert!(bad.is_empty(), "not as expected: {bad:#?}\n{}", output.stdout);

    worker.process().still_running().unwrap();
    assert_eq!(worker.process().pid(), pid);
    let queues = Rabbit::shared().await.queues(&stage.broker).await;
    let left = queues.iter().find(|queue| queue.name == "malformed").unwrap();
    assert_eq!((left.ready, left.unacked), (0, 0), "something was left in the queue");
}
