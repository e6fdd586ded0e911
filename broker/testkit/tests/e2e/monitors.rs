//! Who watches: stock Flower and Celery's own tools on our worker, and our monitor on Python's.

use crate::stage::{BOOT, SOON, Stage};
use celery_testkit::{Flower, Rabbit, wait};
use serde_json::{Value, json};

async fn read(url: &str) -> Value {
    match reqwest::get(url).await {
        Ok(answer) => answer.json().await.unwrap_or(Value::Null),
        Err(err) => Value::String(err.to_string()),
    }
}

#[tokio::test]
async fn celerys_remote_control_reaches_our_worker() {
    let stage = Stage::new("control").await;
    let _worker = stage.worker(&["-c", "3", "-n", "one@here", "-Q", "celery,mail"]).await;
    let python = stage.python();
    let ping = wait::attempt(SOON, async || {
        let ping = python.try_run(&["-m", "celery", "-A", "peer_app", "inspect", "-j", "ping"]).await;
        if ping.code == 0 { Ok(ping) } else { Err(format!("{ping:?}")) }
    });
    let ping: Value = ping.await.unwrap().json();
    assert_eq!(ping, json!({"one@here": {"ok": "pong"}}));

    let stats: Value = python.celery(&["inspect", "-j", "stats"]).await.json();
    let stats = &stats["one@here"];
    assert_eq!(stats["pool"]["max-concurrency"], 3, "{stats:#}");
    for member in ["total", "pid", "clock", "uptime", "broker", "prefetch_count", "rusage"] {
        assert!(!stats[member].is_null(), "{member}: {stats:#}");
    }
    assert!(!stats.to_string().contains("guest:guest"), "{stats:#}");

    let registered: Value = python.celery(&["inspect", "-j", "registered"]).await.json();
    let names = registered["one@here"].as_array().unwrap();
    assert!(names.contains(&json!("demo.add")) && names.contains(&json!("demo.hash")), "{registered:#}");

    let queues: Value = python.celery(&["inspect", "-j", "active_queues"]).await.json();
    let names: Vec<_> = queues["one@here"].as_array().unwrap().iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["celery", "mail"], "{queues:#}");

    let status = python.celery(&["status"]).await.stdout;
    assert!(status.contains("one@here") && status.contains("1 node online"), "{status}");
}

#[tokio::test]
async fn celery_events_shows_our_worker_and_its_tasks() {
    let stage = Stage::new("events").await;
    let python = stage.python();
    let dump = python.spawn("celery-events", &["-m", "celery", "-A", "peer_app", "events", "--dump"]);
    wait::until(BOOT, "the consumer of events", async || {
        let queues = Rabbit::shared().await.queues(&stage.broker).await;
        if queues.iter().any(|queue| queue.name.starts_with("celeryev")) {
            Ok(())
        } else {
            Err(dump.log_tail())
        }
    })
    .await;
    let worker = stage.worker(&["-c", "2", "-E", "-n", "two@here"]).await;
    python.run("from peer_app import *; add.delay(2, y=3).get(timeout=20)").await;
    let failing = "from peer_app import *; fail.delay('x').get(timeout=20, propagate=False)";
    python.run(failing).await;
    worker.process().term();
    worker.process().wait_exit(SOON).await;
    wait::until(SOON, "the events", async || {
        let log = dump.log();
        // `started` and `shutdown` are what the dump calls worker-online and worker-offline.
        let wanted = [
            "two@here",
            "] started: ",
            "task received: demo.add",
            "task started: demo.add",
            "task succeeded: demo.add",
            "task failed: demo.fail",
            "] shutdown: ",
        ];
        let missing: Vec<_> = wanted.iter().filter(|words| !log.contains(**words)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing in\n{log}")) }
    })
    .await;
}

#[tokio::test]
async fn stock_flower_shows_our_worker_and_its_tasks() {
    let stage = Stage::new("flower").await;
    let flower = Flower::start(&stage.broker, &stage.backend, &[]).await;
    let _worker = stage.worker(&["-c", "2", "-E", "-n", "three@here"]).await;
    let sent = "from peer_app import *; r = add.delay(2, y=3); r.get(timeout=20); print('\"%s\"' % r.id)";
    let id: String = stage.python().run(sent).await.json();
    wait::until(SOON, "Flower to show the task", async || {
        let task = read(&format!("{}/api/task/info/{id}", flower.url())).await;
        let wanted = json!({"name": "demo.add", "state": "SUCCESS", "result": "5", "args": "(2,)",
                            "kwargs": "{'y': 3}", "worker": "three@here"});
        let shown = wanted.as_object().unwrap().iter().all(|(member, value)| task[member] == *value);
        let times = ["received", "started", "succeeded"].iter().all(|member| task[member].is_number());
        if shown && times { Ok(()) } else { Err(format!("{task:#}")) }
    })
    .await;
    wait::until(SOON, "Flower to show the worker", async || {
        let workers = read(&format!("{}/api/workers?refresh=1", flower.url())).await;
        let worker = &workers["three@here"];
        let registered =
            worker["registered"].as_array().is_some_and(|names| names.contains(&json!("demo.add")));
        if registered && worker["stats"].is_object() { Ok(()) } else { Err(format!("{workers:#}")) }
    })
    .await;
    let page = reqwest::get(format!("{}/worker/three@here", flower.url())).await.unwrap();
    assert_eq!(page.status(), 200);
}

#[tokio::test]
async fn flower_lite_shows_python_and_our_worker_alike() {
    let stage = Stage::new("flower-lite").await;
    let monitor = stage.flower_lite().await;
    let python_worker =
        stage.python_worker(&["--pool", "threads", "-E", "-n", "python@here", "-Q", "py"]).await;
    let _worker = stage.worker(&["-c", "2", "-E", "-n", "rust@here"]).await;
    let sent = "import json; from peer_app import *
results = [task.apply_async((2,), {'y': 3}, queue=queue) for task, queue in ((add, 'celery'), (mul, 'py'))]
failed = fail.apply_async(('on <b>purpose',))
for result in results: result.get(timeout=20)
failed.get(timeout=20, propagate=False)
print(json.dumps([r.id for r in results] + [failed.id]))";
    let ids: Vec<String> = stage.python().run(sent).await.json();
    for (id, worker, name, state) in [
        (&ids[0], "rust@here", "demo.add", "SUCCESS"),
        (&ids[1], "python@here", "demo.mul", "SUCCESS"),
        (&ids[2], "rust@here", "demo.fail", "FAILURE"),
    ] {
        wait::until(SOON, "flower-lite to show the task", async || {
            let (status, task) = monitor.get(&format!("/api/v2/tasks/{id}")).await;
            let shown =
                status == 200 && task["name"] == name && task["state"] == state && task["worker"] == worker;
            if shown { Ok(()) } else { Err(format!("{status} {task:#}")) }
        })
        .await;
    }
    let (_, workers) = monitor.get("/api/v2/workers").await;
    let online = |name: &str| {
        let items = workers["items"].as_array().unwrap();
        items.iter().any(|worker| worker["name"] == name && worker["online"] == true)
    };
    assert!(online("python@here") && online("rust@here"), "{workers:#}");
    let (status, failures) = monitor.get("/api/v2/tasks?state=FAILURE").await;
    assert_eq!((status, &failures["total"]), (200, &json!(1)), "{failures:#}");
    python_worker.process().term();
    python_worker.process().wait_exit(SOON).await;
    wait::until(SOON, "the worker's end to be shown", async || {
        let (_, worker) = monitor.get("/api/v2/workers/python@here").await;
        if worker["online"] == false { Ok(()) } else { Err(format!("{worker:#}")) }
    })
    .await;
}
