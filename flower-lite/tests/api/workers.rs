//! The whole way: a real broker, a Python worker, and what the monitor shows of them.

use celery_broker::Celery;
use celery_testkit::{Python, PythonWorker, Rabbit, Redis, wait};
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
async fn a_python_worker_and_its_tasks_are_shown_and_its_death_is_noticed() {
    let broker = Rabbit::shared().await.vhost("monitor").await;
    let backend = Redis::shared().await.database();
    let celery = Celery::builder("test").broker(&broker).backend(&backend).start().expect("right settings");
    let monitor = Monitor::start(&celery, MonitorOptions::default()).expect("it listens");
    let (base, _stop) = serve(monitor.clone(), "");
    wait::until(SOON, "the monitor to listen", async || {
        let overview = read(&format!("{base}/api/v2/overview")).await;
        if overview["connected"] == true { Ok(()) } else { Err(overview) }
    })
    .await;

    // Without -E: the monitor itself has to switch the events of tasks on.
    let worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo", "-n", "py@here"]).await;
    let python = Python::new(&broker, &backend);
    let send = "from peer_app import *; r = add.delay(2, y=3); r.get(timeout=20); print('\"%s\"' % r.id)";
    wait::until(SOON, "a task whose whole life is shown", async || {
        let id: String = python.run(send).await.json();
        let found = wait::attempt(std::time::Duration::from_secs(3), async || {
            let task = read(&format!("{base}/api/v2/tasks/{id}")).await;
            let wanted = json!({
                "name": "demo.add", "state": "SUCCESS", "args": "(2,)", "kwargs": "{'y': 3}", "result": "5",
                "worker": "py@here", "retries": 0, "ready": true,
            });
            let shown = wanted.as_object().into_iter().flatten().all(|(field, value)| task[field] == *value);
            if shown && task["runtime"].is_number() { Ok(()) } else { Err(task) }
        });
        found.await
    })
    .await;
    let shown = read(&format!("{base}/api/v2/workers/py@here")).await;
    assert_eq!(
        (&shown["online"], &shown["sw_ident"], &shown["sw_ver"]),
        (&json!(true), &json!("py-celery"), &json!("5.7.0"))
    );

    worker.process().kill();
    wait::until(SOON, "the dead worker to be shown as offline", async || {
        let worker = read(&format!("{base}/api/v2/workers/py@here")).await;
        if worker["online"] == false { Ok(()) } else { Err(worker) }
    })
    .await;
    monitor.close();
    celery.close().await;
}
