//! Flower's HTTP API, compared with a running Flower: the same requests to both, endpoint by endpoint, by status, by the
//! kind of the content and by the keys of the JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use celery_broker::Celery;
use celery_testkit::{Flower, Python, PythonWorker, Rabbit, Redis, wait};
use flower_lite::access::Control;
use flower_lite::{Monitor, MonitorOptions};
use serde_json::{Value, json};

use crate::helpers::{SOON, TestMonitor, life, serve};

/// Both monitors of one broker.
struct Pair {
    theirs: String,
    ours: String,
    client: reqwest::Client,
}

/// An answer, as far as it is compared.
#[derive(Debug)]
struct Answer {
    status: u16,
    content: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

impl Pair {
    async fn ask(&self, base: &str, method: &str, path: &str, body: &Body) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{base}{path}"));
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(value),
            Body::Form(text) => {
                request.header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8").body(*text)
            }
            Body::Text(text) => request.body(*text),
        };
        let response = request.send().await.expect("an answer");
        let content = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content = content.unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let status = response.status().as_u16();
        Answer { status, content, text: response.text().await.expect("text") }
    }

    async fn both(&self, method: &str, path: &str, body: &Body) -> (Answer, Answer) {
        (self.ask(&self.theirs, method, path, body).await, self.ask(&self.ours, method, path, body).await)
    }
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Json(Value),
    Form(&'static str),
    Text(&'static str),
}

/// The keys of `value`, level by level; objects that are keyed by ids, names or tasks have none of their own.
fn keys(value: &Value, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(value, "", depth, &mut found);
    found
}

fn collect(value: &Value, path: &str, depth: usize, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if depth > 0 => {
            for (key, value) in map {
                let open = key.contains('@') || key.len() == 36 || key.contains("demo.");
                let path = if open { format!("{path}.*") } else { format!("{path}.{key}") };
                found.insert(path.clone());
                collect(value, &path, depth - 1, found);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| collect(item, &format!("{path}[]"), depth, found))
        }
        _ => {}
    }
}

async fn pair(
    name: &str,
) -> (Pair, PythonWorker, Flower, Celery, Monitor, tokio::sync::oneshot::Sender<()>, Python) {
    let broker = Rabbit::shared().await.vhost(name).await;
    let backend = Redis::shared().await.database();
    let settings = json!({ "worker_pool_restarts": true, "task_send_sent_event": true }).to_string();
    let python = Python::new(&broker, &backend).env("PEER_SETTINGS", &settings);
    let flower = Flower::start(&broker, &backend, &[]).await;
    let celery = Celery::builder("test").broker(&broker).backend(&backend).start().expect("right settings");
    let options = MonitorOptions { control: Control::On, ..MonitorOptions::default() };
    let monitor = Monitor::start(&celery, options).expect("it listens");
    let (ours, stop) = serve(monitor.clone(), "");
    let pair = Pair { theirs: flower.url(), ours, client: reqwest::Client::new() };
    let args = ["-E", "-c", "2", "-n", "py@here"];
    let worker = PythonWorker::start_in(&python, &celery_testkit::peer_app(), &args).await;
    (pair, worker, flower, celery, monitor, stop, python)
}

#[tokio::test]
async fn every_endpoint_answers_as_flower_does() {
    let (pair, worker, _flower, celery, monitor, _stop, python) = pair("compat").await;
    wait::until(SOON, "both to know the worker", async || {
        for base in [&pair.theirs, &pair.ours] {
            let path = "/api/workers?refresh=1&workername=py@here";
            let answer = pair.ask(base, "GET", path, &Body::None).await;
            let status = pair.ask(base, "GET", "/api/workers?status=1", &Body::None).await;
            let known = answer.json()["py@here"]["registered"].is_array();
            if !known || answer.json()["py@here"]["active"].is_null() || status.json()["py@here"] != true {
                return Err(format!("{base}: {answer:?} {status:?}"));
            }
        }
        Ok(())
    })
    .await;
    let send = "from peer_app import *\n\
                good = add.delay(2, y=3); good.get(timeout=20)\n\
                bad = fail.delay('on purpose'); bad.get(timeout=20, propagate=False)\n\
                late = sleep.apply_async((1,), countdown=3600)\n\
                print('[\"%s\", \"%s\", \"%s\"]' % (good.id, bad.id, late.id))";
    let [good, bad, late]: [String; 3] = python.run(send).await.json();
    wait::until(SOON, "both to have seen all of it", async || {
        for base in [&pair.theirs, &pair.ours] {
            for (id, state) in [(&good, "SUCCESS"), (&bad, "FAILURE"), (&late, "RECEIVED")] {
                let answer = pair.ask(base, "GET", &format!("/api/task/info/{id}"), &Body::None).await;
                if answer.json()["state"] != state || answer.json()["sent"].is_null() {
                    return Err(format!("{base}: {answer:?}"));
                }
            }
        }
        Ok(())
    })
    .await;

    let get = |path: &str| ("GET", path.to_owned(), Body::None);
    let post = |path: &str, body: Body| ("POST", path.to_owned(), body);
    let requests = [
        get("/healthcheck"),
        get("/api/workers"),
        get("/api/workers?status=1"),
        get("/api/workers?workername=py@here"),
        get("/api/workers?refresh=1&workername=py@here"),
        get("/api/workers?workername=nope@here"),
        get("/api/workers?refresh=maybe"),
        get("/workers?json=1"),
        get("/api/tasks"),
        get("/api/tasks?limit=1"),
        get("/api/tasks?limit=2&offset=1&sort_by=-received"),
        get("/api/tasks?sort_by=name"),
        get("/api/tasks?sort_by=-state"),
        get("/api/tasks?sort_by=started"),
        get("/api/tasks?sort_by=bogus"),
        get("/api/tasks?limit=x"),
        get("/api/tasks?state=FAILURE"),
        get("/api/tasks?state=All&taskname=demo.add&workername=py@here"),
        get("/api/tasks?taskname=demo.nothing"),
        get("/api/tasks?search=state:FAILURE"),
        get("/api/tasks?search=kwargs:y=3"),
        get("/api/tasks?search=name:add%20OR%20result:purpose"),
        get("/api/tasks?search=ab"),
        get("/api/tasks?search=(abc"),
        get("/api/tasks?received_start=2020-01-01%2000:00"),
        get("/api/tasks?received_start=2090-01-01%2000:00"),
        get("/api/tasks?received_end=2020-01-01%2000:00"),
        get("/api/tasks?received_start=bad"),
        get("/api/task/types"),
        get(&format!("/api/task/info/{good}")),
        get(&format!("/api/task/info/{bad}")),
        get("/api/task/info/nope"),
        get(&format!("/api/task/result/{good}")),
        get(&format!("/api/task/result/{bad}")),
        get(&format!("/api/task/result/{late}?timeout=0.2")),
        get(&format!("/api/task/result/{good}?timeout=x")),
        get("/api/task/result/00000000-0000-0000-0000-000000000000"),
        post("/api/task/apply/demo.add", Body::Json(json!({ "args": [1, 2] }))),
        post("/api/task/apply/demo.fail", Body::Json(json!({ "args": ["on purpose"] }))),
        post("/api/task/apply/demo.sleep", Body::Json(json!({ "args": [5], "timeout": 0.2 }))),
        post("/api/task/apply/demo.sleep", Body::Json(json!({ "args": [5], "timeout": "soon" }))),
        post("/api/task/apply/demo.unknown", Body::Json(json!({}))),
        post("/api/task/async-apply/demo.add", Body::Json(json!({ "args": [3, 4], "kwargs": {} }))),
        post("/api/task/async-apply/demo.add", Body::Text("{\"args\": [3], \"kwargs\": {\"y\": 4}}")),
        post("/api/task/async-apply/demo.add", Body::Json(json!({ "args": [3, 4], "countdown": 1.5 }))),
        post("/api/task/async-apply/demo.add", Body::Json(json!({ "args": [1, 2], "eta": "bad" }))),
        post("/api/task/async-apply/demo.add", Body::Json(json!({ "args": [1, 2], "expires": "300" }))),
        post("/api/task/async-apply/demo.unknown", Body::Json(json!({ "args": [3, 4] }))),
        post("/api/task/send-task/demo.add", Body::Json(json!({ "args": [5, 6] }))),
        post("/api/task/send-task/demo.add", Body::Json(json!({ "args": { "a": 1 } }))),
        post("/api/task/send-task/demo.add", Body::Json(json!([1]))),
        post("/api/task/send-task/demo.add", Body::Text("{")),
        post(&format!("/api/task/revoke/{late}?terminate=true&signal=SIGKILL"), Body::None),
        post(&format!("/api/task/revoke/{late}?terminate=perhaps"), Body::None),
        post("/api/task/abort/00000000-0000-0000-0000-000000000001", Body::None),
        post("/api/task/timeout/demo.sleep", Body::Form("workername=py%40here&soft=30&hard=100")),
        post("/api/task/timeout/demo.sleep", Body::Form("workername=nope%40here&soft=30")),
        post("/api/task/timeout/demo.sleep", Body::Form("soft=30")),
        post("/api/task/timeout/demo.sleep", Body::Form("workername=py%40here&soft=soon")),
        post("/api/task/timeout/demo.unknown", Body::Form("workername=py%40here&soft=30")),
        post("/api/task/rate-limit/demo.add", Body::Form("workername=py%40here&ratelimit=200")),
        post("/api/task/rate-limit/demo.add?workername=py@here&ratelimit=10/m", Body::None),
        post("/api/task/rate-limit/demo.add", Body::Form("workername=py%40here&ratelimit=often")),
        post("/api/task/rate-limit/demo.add", Body::Form("workername=py%40here")),
        post("/api/worker/pool/grow/py@here?n=1", Body::None),
        post("/api/worker/pool/grow/py@here?n=x", Body::None),
        post("/api/worker/pool/grow/nope@here", Body::None),
        post("/api/worker/pool/shrink/py@here", Body::None),
        post("/api/worker/pool/shrink/nope@here", Body::None),
        post("/api/worker/pool/autoscale/py@here?min=1&max=3", Body::None),
        post("/api/worker/pool/autoscale/py@here?min=1", Body::None),
        post("/api/worker/pool/restart/py@here", Body::None),
        post("/api/worker/pool/restart/nope@here", Body::None),
        post("/api/worker/queue/add-consumer/py@here?queue=extra", Body::None),
        post("/api/worker/queue/add-consumer/py@here", Body::None),
        post("/api/worker/queue/cancel-consumer/py@here?queue=extra", Body::None),
        post("/api/worker/queue/cancel-consumer/nope@here?queue=extra", Body::None),
        post("/api/worker/shutdown/nope@here", Body::None),
        get("/api/task/apply/demo.add"),
    ];
    let mut wrong = Vec::new();
    for (method, path, body) in requests {
        let (theirs, ours) = pair.both(method, &path, &body).await;
        let error = !(200..300).contains(&theirs.status);
        // Flower sends what a worker refused as HTML, and its 405 as an empty page.
        let content = error || theirs.content == ours.content || path == "/healthcheck";
        let (their_keys, our_keys) = (keys(&theirs.json(), 2), keys(&ours.json(), 2));
        // Flower counts worker-online of its own; and what a worker has never sent has no key.
        let keys =
            their_keys.iter().filter(|key| !key.contains("worker-online")).all(|key| our_keys.contains(key))
                && (path.contains("/workers") || our_keys.iter().all(|key| their_keys.contains(key)));
        let words =
            !error || path.contains("async-apply") && theirs.status == 400 || words(&theirs) == words(&ours);
        if theirs.status != ours.status || !content || !keys || !words {
            let (missing, more): (Vec<_>, Vec<_>) =
                (their_keys.difference(&our_keys).collect(), our_keys.difference(&their_keys).collect());
            wrong.push(format!(
                "{method} {path} {body:?}\n  Flower {theirs:?}\n  ours   {ours:?}\n  -{missing:?} +{more:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Values, not only keys: what Flower knows of a task is what we know.
    for id in [&good, &bad] {
        let (theirs, ours) = pair.both("GET", &format!("/api/task/info/{id}"), &Body::None).await;
        for (key, value) in theirs.json().as_object().expect("an object") {
            let same = match (value.as_f64(), ours.json()[key].as_f64()) {
                (Some(theirs), Some(ours)) => (theirs - ours).abs() < 1e-3,
                _ => *value == ours.json()[key],
            };
            assert!(same, "{key}: Flower {value}, ours {}", ours.json()[key]);
        }
    }
    compare_metrics(&pair).await;

    let (theirs, ours) = pair.both("POST", "/api/worker/shutdown/py@here", &Body::None).await;
    assert_eq!((theirs.status, theirs.text), (ours.status, ours.text.replace("\":\"", "\": \"")));
    worker.process().wait_exit(Duration::from_secs(30)).await;
    monitor.close();
    celery.close().await;
}

/// What is said of an error; where JSON's own reader speaks, only that it does.
fn words(answer: &Answer) -> String {
    match answer.json()["error"].as_str() {
        Some(error) => error.to_owned(),
        None if answer.status == 405 => String::new(),
        None if answer.text.contains("column") || answer.text.contains("EOF") => "not JSON".to_owned(),
        None => answer.text.clone(),
    }
}

/// For each name the sets of labels that its samples have.
fn samples(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("flower_")) {
        let (name, rest) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap_or(line), "}"));
        let labels: BTreeSet<&str> = rest
            .split('}')
            .next()
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| pair.split('=').next())
            .collect();
        let labels = labels.into_iter().filter(|label| !label.is_empty()).collect::<Vec<_>>().join(",");
        found.entry(name.to_owned()).or_default().insert(labels);
    }
    found
}

async fn compare_metrics(pair: &Pair) {
    let (theirs, ours) = pair.both("GET", "/metrics", &Body::None).await;
    let ours_by_name = samples(&ours.text);
    for (name, labels) in samples(&theirs.text) {
        // When a series was created is prometheus_client's own addition.
        if !name.ends_with("_created") {
            assert_eq!(ours_by_name.get(&name), Some(&labels), "{name}");
        }
    }
    let buckets = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with("flower_task_runtime_seconds_bucket"));
        lines.filter_map(|line| Some(line.split("le=\"").nth(1)?.split('"').next()?.to_owned())).collect()
    };
    assert_eq!(buckets(&theirs.text), buckets(&ours.text));
    for name in [
        "celery_task_sent_total",
        "celery_task_received_total",
        "celery_task_started_total",
        "celery_task_succeeded_total",
        "celery_task_failed_total",
        "celery_task_runtime_bucket",
        "celery_worker_up",
        "celery_worker_tasks_active",
        "celery_queue_length",
        "celery_active_consumer_count",
        "celery_active_worker_count",
        "celery_active_process_count",
    ] {
        assert!(ours.text.lines().any(|line| line.starts_with(&format!("{name}{{"))), "{name}");
    }
    assert!(ours.text.contains("exception=\"RuntimeError\""), "{}", ours.text);
    let drains = ours
        .text
        .lines()
        .any(|line| line.starts_with("flower_queue_time_to_drain_seconds{queue=\"celery\"}"));
    assert!(drains, "{}", ours.text);
}

#[tokio::test]
async fn by_default_nothing_can_be_controlled_and_it_is_said_how_it_could() {
    let monitor = TestMonitor::start().await;
    monitor.tell(&life("one", "demo.add")).await;
    for path in [
        "api/task/revoke/one",
        "api/task/abort/one",
        "api/task/apply/demo.add",
        "api/task/async-apply/demo.add",
        "api/task/send-task/demo.add",
        "api/task/timeout/demo.add",
        "api/task/rate-limit/demo.add",
        "api/worker/shutdown/a@host",
        "api/worker/pool/restart/a@host",
        "api/worker/pool/grow/a@host",
        "api/worker/pool/shrink/a@host",
        "api/worker/pool/autoscale/a@host",
        "api/worker/queue/add-consumer/a@host",
        "api/worker/queue/cancel-consumer/a@host",
    ] {
        let answer = monitor.client.post(format!("{}/{path}", monitor.base)).send().await.expect("an answer");
        assert_eq!(answer.status(), 403, "{path}");
        let told = answer.text().await.expect("text");
        assert!(
            told.starts_with("Read only mode is enabled") && told.contains("FLOWER_BASIC_AUTH"),
            "{told}"
        );
    }
    let shown = monitor.get("api/tasks").await;
    assert_eq!(shown["one"]["state"], "SUCCESS", "reading is open");
}

#[tokio::test]
async fn pages_of_others_can_not_control_workers() {
    let options = MonitorOptions { control: Control::On, ..MonitorOptions::default() };
    let monitor = TestMonitor::start_with(options, "").await;
    let url = format!("{}/api/task/revoke/one", monitor.base);
    let answer =
        monitor.client.post(url).header("Origin", "http://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.text().await.expect("text"), "Cross-site request forbidden");
}
