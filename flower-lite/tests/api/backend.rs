//! What the result backend has to do with it: what it knows that events don't tell, and that it may be down.

use celery_broker::{Celery, QueueSpec};
use celery_protocol::event::decode;
use celery_testkit::{Rabbit, Redis, ports, wait};
use flower_lite::access::Control;
use flower_lite::{Monitor, MonitorOptions};
use serde_json::{Value, json};

use crate::helpers::{SOON, serve};

async fn read(url: &str) -> Value {
    match reqwest::get(url).await {
        Ok(answer) => answer.json().await.unwrap_or(Value::Null),
        Err(error) => Value::String(error.to_string()),
    }
}

#[tokio::test]
async fn a_task_that_was_sent_is_answered_with_its_id_though_the_backend_is_down() {
    let broker = Rabbit::shared().await.vhost("sent").await;
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    let celery = Celery::builder("test").broker(&broker).backend(&nobody).start().expect("right settings");
    let options = MonitorOptions { control: Control::On, ..MonitorOptions::default() };
    let monitor = Monitor::start(&celery, options).expect("it listens");
    let (base, _stop) = serve(monitor, "");
    wait::until(SOON, "the monitor to listen", async || {
        let overview = read(&format!("{base}/api/v2/overview")).await;
        if overview["connected"] == true { Ok(()) } else { Err(overview) }
    })
    .await;
    celery.declare(&QueueSpec::new(celery.default_queue().clone())).await.expect("declared");
    let answer = reqwest::Client::new()
        .post(format!("{base}/api/task/send-task/demo.add"))
        .json(&json!({ "args": [1, 2] }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let told: Value = answer.json().await.expect("JSON");
    assert_eq!(told["state"], "PENDING");
    assert!(told["task-id"].is_string(), "{told}");
    let waiting = Rabbit::shared().await.queues(&broker).await;
    assert!(waiting.iter().any(|queue| queue.name == "celery" && queue.ready == 1), "{waiting:?}");
    celery.close().await;
}

#[tokio::test]
async fn a_stored_result_that_can_not_be_read_hides_no_other() {
    let broker = Rabbit::shared().await.vhost("stored").await;
    let redis = Redis::shared().await;
    let backend = redis.database();
    let database = backend.rsplit('/').next().expect("a number").to_owned();
    let good =
        json!({ "status": "SUCCESS", "result": 5, "traceback": null, "children": [], "task_id": "good" });
    for (id, value) in [("bad", "{".to_owned()), ("good", good.to_string())] {
        redis.cli(&["-n", &database, "set", &format!("celery-task-meta-{id}"), &value]).await;
    }
    let celery = Celery::builder("test").broker(&broker).backend(&backend).start().expect("right settings");
    let monitor = Monitor::start(&celery, MonitorOptions::default()).expect("it listens");
    let (base, _stop) = serve(monitor, "");
    wait::until(SOON, "the monitor to listen", async || {
        let overview = read(&format!("{base}/api/v2/overview")).await;
        if overview["connected"] == true { Ok(()) } else { Err(overview) }
    })
    .await;
    // Their worker is never heard of again: they are orphaned, and the backend is asked for them.
    let emitter = celery.event_emitter("w@host");
    for id in ["bad", "good"] {
        let event = json!({ "type": "task-started", "uuid": id }).to_string();
        emitter.emit(decode(event.as_bytes()).expect("a body").remove(0).expect("an event").body);
    }
    emitter.flush().await;
    wait::until(3 * SOON, "the end that the backend knows", async || {
        let task = read(&format!("{base}/api/v2/tasks/good")).await;
        let known = task["state"] == "SUCCESS" && task["completed_by"] == "result_backend";
        if known { Ok(()) } else { Err(task) }
    })
    .await;
    assert_eq!(read(&format!("{base}/api/v2/tasks/bad")).await["state"], "STARTED");
    celery.close().await;
}
