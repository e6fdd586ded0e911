//! The whole way: a real broker, a Python worker, and what the monitor shows of them.

use celery_broker::Celery;
use celery_testkit::{Program, Python, PythonWorker, Rabbit, Redis, binary, ports, wait};
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
    let worker =
        PythonWorker::peer(&broker, &backend, &["--pool", "threads", "-c", "2", "-n", "py@here"]).await;
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

    let busy: String =
        python.run("from peer_app import *; print('\"%s\"' % sleep.delay(600).id)").await.json();
    let task = format!("{base}/api/v2/tasks/{busy}");
    wait::until(SOON, "a task to run", async || {
        let task = read(&task).await;
        if task["state"] == "STARTED" && task["orphaned"] == false { Ok(()) } else { Err(task) }
    })
    .await;
    worker.process().kill();
    wait::until(SOON, "the dead worker to be shown as offline", async || {
        let worker = read(&format!("{base}/api/v2/workers/py@here")).await;
        if worker["online"] == false { Ok(()) } else { Err(worker) }
    })
    .await;
    let orphan = read(&task).await;
    assert_eq!((&orphan["state"], &orphan["orphaned"]), (&json!("STARTED"), &json!(true)));
    let metrics =
        reqwest::get(format!("{base}/metrics")).await.expect("an answer").text().await.expect("text");
    for line in [
        "flower_worker_online{worker=\"py@here\"} 0",
        "celery_worker_up{hostname=\"here\"} 0",
        "flower_tasks_orphaned 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    monitor.close();
    celery.close().await;
}

#[tokio::test]
async fn two_virtual_hosts_are_watched_by_one_program() {
    let rabbit = Rabbit::shared().await;
    let (here, there) = (rabbit.vhost("here").await, rabbit.vhost("there").await);
    let port = ports::free();
    let (port_text, brokers) = (port.to_string(), format!("there={there}"));
    let env = [("CELERY_BROKER_URL", &*here), ("FLOWER_BROKERS", &*brokers), ("FLOWER_PORT", &*port_text)];
    let program = Program::start(binary("flower-lite"), &[], &env);
    let base = format!("http://127.0.0.1:{port}");
    for (url, id, path) in [(&here, "one", ""), (&there, "two", "/brokers/there")] {
        let celery = Celery::builder("test").broker(url).start().expect("right settings");
        wait::until(SOON, "it to listen", async || {
            program.still_running().map_err(|error| error.to_string())?;
            let overview = read(&format!("{base}{path}/api/v2/overview")).await;
            if overview["connected"] == true { Ok(()) } else { Err(overview.to_string()) }
        })
        .await;
        let emitter = celery.event_emitter("w@host");
        let event = json!({ "type": "task-received", "uuid": id, "name": "demo.add" }).to_string();
        let mut events = celery_protocol::event::decode(event.as_bytes()).expect("a body");
        emitter.emit(events.remove(0).expect("an event").body);
        emitter.flush().await;
        wait::until(SOON, "its task alone", async || {
            let page = read(&format!("{base}{path}/api/v2/tasks")).await;
            if page["total"] == 1 && page["items"][0]["id"] == id { Ok(()) } else { Err(page) }
        })
        .await;
        celery.close().await;
    }
}

#[tokio::test]
async fn a_frozen_monitor_leaves_the_broker_flat_and_says_that_it_missed_something() {
    let rabbit = Rabbit::shared().await;
    let url = rabbit.vhost("frozen").await;
    let port = ports::free();
    let port_text = port.to_string();
    let program = Program::start(
        binary("flower-lite"),
        &[],
        &[("CELERY_BROKER_URL", &*url), ("FLOWER_PORT", &*port_text)],
    );
    let base = format!("http://127.0.0.1:{port}");
    wait::until(SOON, "it to listen", async || {
        program.still_running().map_err(|error| error.to_string())?;
        let overview = read(&format!("{base}/api/v2/overview")).await;
        if overview["connected"] == true { Ok(()) } else { Err(overview.to_string()) }
    })
    .await;
    program.pause();
    // 100 MiB, half as much again as may wait.
    let flood = "import json, time\nfrom kombu import Connection, Exchange\nfrom peer_app import app\n\
        with app.connection() as c:\n\
        \x20   p = c.Producer(exchange=Exchange('celeryev', type='topic'))\n\
        \x20   body = json.dumps({'type': 'task-filling', 'uuid': 'x', 'hostname': 'w@h', 'timestamp': time.time(), 'more': 'x' * 262144})\n\
        \x20   for _ in range(400): p.publish(body, routing_key='task.filling', content_type='application/json', content_encoding='utf-8')\n\
        print('true')";
    let backend = Redis::shared().await.database();
    let _: bool = Python::new(&url, &backend).run(flood).await.json();
    wait::nothing_for(std::time::Duration::from_secs(6)).await;
    let vhost = url.rsplit('/').next().unwrap_or_default().replace("%2f", "/");
    let told = rabbit.ctl(&["list_queues", "-p", &vhost, "message_bytes"]).await;
    let waiting: u64 = told.lines().filter_map(|line| line.trim().parse::<u64>().ok()).sum();
    // What was pushed into the frozen monitor's socket is not the broker's any more; a few messages may be over.
    assert!(waiting > 8 << 20 && waiting <= 66 << 20, "{told}");
    program.resume();
    wait::until(SOON, "it to say that it stood still", async || {
        let overview = read(&format!("{base}/api/v2/overview")).await;
        let stalled = overview["events"]["stalled"].as_f64().unwrap_or(0.0);
        if stalled > 5.0 { Ok(()) } else { Err(overview["events"].to_string()) }
    })
    .await;
}
