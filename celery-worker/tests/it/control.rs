//! Remote control and events, asked by Celery's own command line.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use celery_broker::control::Destination;
use celery_protocol::control::Command;
use celery_protocol::{TaskState, WireTime};
use celery_testkit::{Python, wait};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

/// Asks all workers with Celery's client; the answer of the only one.
async fn ask(python: &Python, call: &str) -> Value {
    ask_all(python, &[call.to_owned()]).await.remove(0)
}

/// Asks several things in one program: starting Python takes longer than any answer.
async fn ask_all(python: &Python, calls: &[String]) -> Vec<Value> {
    let program = format!(
        "import json\nfrom peer_app import app\n\
         print(json.dumps([{}], default=repr))",
        calls.join(", ")
    );
    let answers: Vec<Value> = python.run(&program).await.json();
    answers.into_iter().map(of_the_only_node).collect()
}

/// `inspect` answers with `{node: value}`, `broadcast` with `[{node: value}]`.
fn of_the_only_node(answer: Value) -> Value {
    match answer {
        Value::Object(nodes) => nodes.into_iter().next().map_or(Value::Null, |(_, value)| value),
        Value::Array(mut replies) if !replies.is_empty() => of_the_only_node(replies.remove(0)),
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspect_answers_in_celerys_shapes() {
    let stage = Stage::new("inspect").await;
    let worker = stage.run(stage.worker().await.concurrency(1).prefetch_multiplier(10)).await;
    let python = Python::new(&stage.broker, &stage.backend);
    let running = stage.call("t.sleep", json!([120_000])).await;
    let waiting = stage.call("t.add", json!([1, 2])).await;
    let mut later = stage.message("t.add", json!([3, 4]));
    later.headers.eta = Some(WireTime::from(SystemTime::now() + Duration::from_secs(50)));
    stage.publish(&later).await;
    wait::until(SOON, "it runs", async || match stage.witness.running.load(Ordering::SeqCst) {
        1 => Ok(()),
        n => Err(n),
    })
    .await;

    let inspect = |what: &str| format!("app.control.inspect(timeout=3).{what}");
    let query = format!("query_task('{running}', '{waiting}', '{}', 'none')", later.headers.id);
    let names = [
        "active()",
        "active(safe=True)",
        "reserved()",
        "scheduled()",
        &query,
        "registered()",
        "active_queues()",
        "stats()",
        "conf()",
        "clock()",
        "report()",
    ];
    let mut calls = vec![
        "app.control.ping(timeout=3)".to_owned(),
        "app.control.broadcast('bogus', reply=True, timeout=3)".to_owned(),
    ];
    calls.extend(names.iter().map(|name| inspect(name)));
    let answers = ask_all(&python, &calls).await;
    let [
        ping,
        bogus,
        active,
        safe,
        reserved,
        scheduled,
        states,
        registered,
        queues,
        stats,
        conf,
        clock,
        report,
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!(*ping, json!({"ok": "pong"}));
    assert_eq!(*bogus, json!({"error": "KeyError('bogus')"}));
    assert_eq!(active[0]["id"], running.as_str());
    assert_eq!(active[0]["args"], json!([120_000]));
    assert_eq!(active[0]["acknowledged"], false);
    assert_eq!(active[0]["delivery_info"]["routing_key"], "celery");
    assert!(active[0]["time_start"].as_f64().unwrap() > 1e9 && active[0]["worker_pid"].is_u64());
    assert_eq!(safe[0]["args"], "(120000,)");
    assert_eq!(reserved[0]["id"], waiting.as_str());
    assert_eq!(scheduled[0]["request"]["id"], later.headers.id.as_str());
    assert_eq!(scheduled[0]["priority"], 6);
    let state = |id: &str| states[id][0].clone();
    assert_eq!([state(running.as_str()), state(waiting.as_str())], [json!("active"), json!("reserved")]);
    assert_eq!(state(later.headers.id.as_str()), "scheduled");
    assert!(states.get("none").is_none());
    assert!(registered.as_array().unwrap().contains(&json!("t.add")));
    assert_eq!((&queues[0]["name"], &queues[0]["exchange"]["name"]), (&json!("celery"), &json!("celery")));
    assert_eq!(stats["total"], json!({"t.sleep": 1}));
    assert!(stats["clock"].is_string() && stats["uptime"].is_u64() && stats["rusage"]["maxrss"].is_u64());
    assert_eq!(stats["pool"]["max-concurrency"], 1);
    assert!(!stats.to_string().contains("guest:"));
    assert_eq!(conf["task_acks_late"], true);
    assert!(clock["clock"].is_u64());
    assert!(report["ok"].as_str().unwrap().contains("celeriac"));
    worker.handle.stop_now();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_task_is_dropped_and_a_terminated_one_ended() {
    let stage = Stage::new("revoke").await;
    let worker = stage.run(stage.worker().await.concurrency(1).prefetch_multiplier(10)).await;
    let python = Python::new(&stage.broker, &stage.backend);
    let running = stage.call("t.sleep", json!([60_000])).await;
    let waiting = stage.call("t.count", json!([])).await;
    let mut later = stage.message("t.count", json!([]));
    later.headers.eta = Some(WireTime::from(SystemTime::now() + Duration::from_secs(50)));
    stage.publish(&later).await;
    wait::until(SOON, "it runs", async || match stage.witness.running.load(Ordering::SeqCst) {
        1 => Ok(()),
        n => Err(n),
    })
    .await;
    let later = later.headers.id;
    let text =
        ask(&python, &format!("app.control.revoke(['{waiting}', '{later}'], reply=True, timeout=3)")).await;
    assert_eq!(text, json!({"ok": format!("tasks {{'{waiting}', '{later}'}} flagged as revoked")}));
    for id in [&waiting, &later] {
        let meta = stage.end_of(id).await;
        assert_eq!(meta.status, TaskState::Revoked);
        assert_eq!(meta.exception().unwrap().repr(), "TaskRevokedError('revoked')");
    }
    let text =
        ask(&python, &format!("app.control.revoke('{running}', terminate=True, reply=True, timeout=3)"))
            .await;
    assert_eq!(text, json!({"ok": format!("terminate: {running}")}));
    let meta = stage.end_of(&running).await;
    assert_eq!(meta.exception().unwrap().repr(), "TaskRevokedError('terminated')");
    assert_eq!(stage.witness.runs.load(Ordering::SeqCst), 0);
    stage.drained("celery").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_runs_elsewhere_is_not_said_to_be_revoked() {
    let stage = Stage::new("revoke-elsewhere").await;
    let (one, two) = (stage.running().await, stage.running().await);
    let running = stage.call("t.sleep", json!([60_000])).await;
    wait::until(SOON, "it runs", async || match stage.witness.running.load(Ordering::SeqCst) {
        1 => Ok(()),
        n => Err(n),
    })
    .await;
    let python = Python::new(&stage.broker, &stage.backend);
    let call = format!("len(app.control.revoke('{running}', reply=True, timeout=5, limit=2))");
    assert_eq!(ask(&python, &call).await, 2);
    assert_eq!(stage.celery.backend().get(&running).await.unwrap(), None);
    for worker in [one, two] {
        worker.handle.stop_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_changes_takes_effect() {
    let stage = Stage::new("mutate").await;
    let worker = stage.run(stage.worker().await.concurrency(1)).await;
    let python = Python::new(&stage.broker, &stage.backend);
    let control = |what: &str| format!("app.control.{what}");
    for (call, answer) in [
        ("pool_grow(2, reply=True, timeout=3)", json!({"ok": "pool will grow"})),
        ("pool_shrink(1, reply=True, timeout=3)", json!({"ok": "pool will shrink"})),
        ("rate_limit('t.add', '1/y', reply=True, timeout=3)", json!({"error": "KeyError('y')"})),
        ("rate_limit('t.none', '1/s', reply=True, timeout=3)", json!({"error": "unknown task"})),
        (
            "rate_limit('t.count', '2/s', reply=True, timeout=3)",
            json!({"ok": "new rate limit set successfully"}),
        ),
        (
            "time_limit('t.sleep', hard=1, reply=True, timeout=3)",
            json!({"ok": "time limits set successfully"}),
        ),
        ("enable_events(reply=True, timeout=3)", json!({"ok": "task events enabled"})),
        ("enable_events(reply=True, timeout=3)", json!({"ok": "task events already enabled"})),
        ("add_consumer('extra', reply=True, timeout=3)", json!({"ok": "add consumer extra"})),
        (
            "broadcast('autoscale', arguments={'max': 2}, reply=True, timeout=3)",
            json!({"error": "ValueError('Autoscale not enabled')"}),
        ),
    ] {
        assert_eq!(ask(&python, &control(call)).await, answer, "{call}");
    }
    let stats = ask(&python, "app.control.inspect(timeout=3).stats()").await;
    assert_eq!(stats["pool"]["max-concurrency"], 2);

    let message = stage.message("t.add", json!([1, 2]));
    stage.publish_raw("extra", message.encode()).await;
    assert_eq!(stage.end_of(&message.headers.id).await.status, TaskState::Success);

    let limited = stage.outcome("t.sleep", json!([20_000])).await;
    assert_eq!(limited.exception().unwrap().repr(), "TimeLimitExceeded(1)");
    assert_eq!(limited.exception().unwrap().exc_module.as_deref(), Some("billiard.exceptions"));

    let begin = std::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(stage.call("t.count", json!([])).await);
    }
    for id in &ids {
        stage.end_of(id).await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(1_400), "{:?}", begin.elapsed());

    assert_eq!(
        ask(&python, "app.control.cancel_consumer('extra', reply=True, timeout=3)").await,
        json!({"ok": "no longer consuming from extra"})
    );
    let mut worker = worker;
    python.run("from peer_app import app\napp.control.shutdown()").await;
    assert_eq!(worker.ended().await.unwrap(), celery_worker::Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_celerys_order() {
    use celery_broker::event::{EventsOptions, Received};

    let stage = Stage::new("events").await;
    let mut receiver = stage.celery.events(&EventsOptions::default()).unwrap();
    let mut buffer = Vec::new();
    while !buffer.iter().any(|received| matches!(received, Received::Connected)) {
        receiver.recv_many(&mut buffer, 10).await;
    }
    buffer.clear();
    let worker = stage.run(stage.worker().await.task_events()).await;
    let good = stage.call("t.add", json!([1, 2])).await;
    let bad = stage.call("t.fail", json!(["x"])).await;
    stage.end_of(&good).await;
    stage.end_of(&bad).await;
    worker.stop().await;
    let mut seen: Vec<(String, Option<String>)> = Vec::new();
    let all = async {
        while !seen.iter().any(|(kind, _)| kind == "worker-offline") {
            receiver.recv_many(&mut buffer, 100).await;
            for received in buffer.drain(..) {
                let Received::Event { event, .. } = received else { continue };
                let uuid = match &event.body {
                    celery_protocol::event::EventBody::Task(task) => Some(task.uuid.clone()),
                    _ => None,
                };
                seen.push((event.body.type_name().into_owned(), uuid));
            }
        }
    };
    tokio::time::timeout(SOON, all).await.unwrap();
    let of = |id: &celery_protocol::TaskId| -> Vec<&str> {
        seen.iter()
            .filter(|(_, uuid)| uuid.as_deref() == Some(id.as_str()))
            .map(|(kind, _)| kind.as_str())
            .collect()
    };
    assert_eq!(of(&good), ["task-received", "task-started", "task-succeeded"]);
    assert_eq!(of(&bad), ["task-received", "task-started", "task-failed"]);
    assert_eq!(seen.first().unwrap().0, "worker-online");
    assert!(seen.iter().any(|(kind, _)| kind == "worker-heartbeat"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_starter_learns_what_is_revoked() {
    let stage = Stage::new("mingle").await;
    let first = stage.run(stage.worker().await.nodename("first@test")).await;
    let python = Python::new(&stage.broker, &stage.backend);
    ask(&python, "app.control.revoke('gone', reply=True, timeout=3)").await;
    let second = stage.run(stage.worker().await.nodename("second@test")).await;
    wait::until(SOON, "the second knows it", async || {
        match ask(&python, "app.control.inspect(['second@test'], timeout=3).revoked()").await {
            known if known == json!(["gone"]) => Ok(()),
            known => Err(known),
        }
    })
    .await;
    second.stop().await;
    first.stop().await;
}

/// A slot that was given up while its task ran took the task out of sight, and out of reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_given_up_shows_its_task_until_it_ends() {
    let stage = Stage::new("shrink").await;
    let worker = stage.run(stage.worker().await.concurrency(3)).await;
    let control = stage.celery.control();
    let ask = async |command: Command| {
        let replies = control.call(&command, Destination::All, Duration::from_secs(5)).await.unwrap();
        replies.into_iter().next().unwrap().value
    };
    let state = async || {
        let active = ask(Command::Active { safe: false }).await.as_array().unwrap().len();
        (active, ask(Command::Stats).await["pool"]["max-concurrency"].clone())
    };
    let ids = [stage.call("t.sleep", json!([120_000])).await, stage.call("t.sleep", json!([120_000])).await];
    wait::until(SOON, "they run", async || match stage.witness.running.load(Ordering::SeqCst) {
        2 => Ok(()),
        n => Err(n),
    })
    .await;
    // The idle one goes first: there is none left for this.
    ask(Command::PoolShrink { n: 1 }).await;
    let waiting = stage.call("t.add", json!([1, 1])).await;
    ask(Command::PoolShrink { n: 1 }).await;
    assert_eq!(state().await, (2, json!(1)));
    stage.celery.control().revoke(&ids, true).await.unwrap();
    for id in &ids {
        assert_eq!(stage.end_of(id).await.status, TaskState::Revoked);
    }
    assert_eq!(stage.end_of(&waiting).await.status, TaskState::Success);
    assert_eq!(state().await, (0, json!(1)));
    worker.stop().await;
}
