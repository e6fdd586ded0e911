//! What can be changed through `/api/v2`: by whom, what it does to a real broker and a real worker, and what is written
//! down of it.

use std::time::Duration;

use celery_broker::Celery;
use celery_testkit::{Python, PythonWorker, Rabbit, Redis, wait};
use flower_lite::access::{Action, Control};
use flower_lite::audit::Audit;
use flower_lite::{Monitor, MonitorOptions};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::access::Door;
use crate::helpers::{SOON, TestMonitor, event, serve};

const OWN: (&str, &str) = ("X-Requested-With", "flower-lite");

/// The least role for each action, written down once more: whoever changes the one has to think of the other.
const ROLES: [(&str, &str); 23] = [
    ("task.send", "operator"),
    ("task.retry", "operator"),
    ("task.revoke", "operator"),
    ("task.abort", "operator"),
    ("task.rate_limit", "operator"),
    ("task.time_limit", "operator"),
    ("queue.pause", "operator"),
    ("queue.resume", "operator"),
    ("queue.purge", "admin"),
    ("worker.add_consumer", "operator"),
    ("worker.cancel_consumer", "operator"),
    ("dead_letter.requeue", "operator"),
    ("dead_letter.drop", "admin"),
    ("worker.shutdown", "admin"),
    ("worker.pool_restart", "admin"),
    ("worker.pool_grow", "admin"),
    ("worker.pool_shrink", "admin"),
    ("worker.autoscale", "admin"),
    ("schedule.run", "operator"),
    ("schedule.enable", "operator"),
    ("schedule.disable", "operator"),
    ("schedule.edit", "admin"),
    ("schedule.revert", "admin"),
];

#[actix_web::test]
async fn every_action_needs_its_role() {
    assert_eq!(ROLES.len(), Action::ALL.len());
    let door = Door::open("", Control::On);
    let rank = |role: &str| ["viewer", "operator", "admin"].iter().position(|known| *known == role);
    let mut posts: Vec<(String, &str)> =
        ROLES.iter().map(|(action, least)| (format!("/api/v2/actions/{action}"), *least)).collect();
    posts.push(("/api/v2/bulk".into(), "operator"));
    for role in ["viewer", "operator", "admin"] {
        let cookie = door.session(role).await;
        for (path, least) in &posts {
            let body =
                if path.ends_with("bulk") { r#"{"action": "task.retry", "ids": ["x"]}"# } else { "{}" };
            let status = async |headers: &[(&str, &str)]| door.send(path, headers, body).await.status();
            let may = rank(role) >= rank(least);
            // There is no broker: whoever may, is told that.
            let expected = if may { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
            assert_eq!(status(&[("Cookie", &cookie), OWN]).await, expected, "{role} {path}");
            assert_eq!(
                status(&[("Cookie", &cookie)]).await,
                StatusCode::FORBIDDEN,
                "{path} without our header"
            );
            let foreign = [("Cookie", &*cookie), OWN, ("Sec-Fetch-Site", "cross-site")];
            assert_eq!(status(&foreign).await, StatusCode::FORBIDDEN, "{path} from elsewhere");
            assert_eq!(status(&[OWN]).await, StatusCode::UNAUTHORIZED, "{path} of a stranger");
        }
        for (path, least) in [
            ("/api/v2/audit", "operator"),
            ("/api/v2/bulk", "operator"),
            ("/api/v2/arguments/x", "operator"),
            ("/api/v2/dead-letters/x", "operator"),
            ("/api/v2/dead-letters", "viewer"),
            ("/api/v2/failures", "viewer"),
            ("/api/v2/overview", "viewer"),
        ] {
            let status = door.get(path, &[("Cookie", &cookie)]).await.status();
            let expected = rank(role) < rank(least);
            assert_eq!(status == StatusCode::FORBIDDEN, expected, "{role} {path}: {status}");
            assert_eq!(door.get(path, &[]).await.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    let unknown = door.session("admin").await;
    let status =
        door.send("/api/v2/actions/worker.explode", &[("Cookie", &unknown), OWN], "{}").await.status();
    assert_eq!(status, StatusCode::NOT_FOUND);

    let closed = Door::open("", Control::ReadOnly);
    let cookie = closed.session("admin").await;
    for (path, _) in &posts {
        let body = if path.ends_with("bulk") { r#"{"action": "task.retry", "ids": ["x"]}"# } else { "{}" };
        let status = closed.send(path, &[("Cookie", &cookie), OWN], body).await.status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{path} in read-only mode");
    }
}

#[actix_web::test]
async fn what_is_secret_is_nowhere_to_be_seen() {
    let monitor = TestMonitor::start().await;
    let mut stream = monitor.ask("api/v2/stream?topics=tasks").await;
    let call = json!({
        "uuid": "s", "name": "t.login", "args": "('x',)", "kwargs": "{'user': 'anna', 'password': 'canary'}",
    });
    let result = json!({"uuid": "s", "result": "{'session_token': 'canary', 'n': 1}", "runtime": 0.1});
    monitor.tell(&[event("task-received", 2.0, call), event("task-succeeded", 1.0, result)]).await;
    let mut live = String::new();
    while !live.contains("t.login") {
        let bytes =
            tokio::time::timeout(SOON, stream.chunk()).await.expect("it is told soon").expect("a chunk");
        live.push_str(&String::from_utf8_lossy(&bytes.expect("it goes on")));
    }
    let mut seen = vec![("the stream", live)];
    for path in ["api/v2/tasks", "api/v2/tasks/s", "api/tasks", "api/task/info/s"] {
        seen.push((path, monitor.ask(path).await.text().await.expect("text")));
    }
    for (path, text) in seen {
        assert!(
            text.contains("t.login") && text.contains("[redacted]") && !text.contains("canary"),
            "{path}: {text}"
        );
    }
}

/// A monitor of a real broker that may control it.
struct Bench {
    base: String,
    celery: Celery,
    client: reqwest::Client,
}

impl Bench {
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer =
            self.client.post(format!("{}/{path}", self.base)).json(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// An action that works.
    async fn act(&self, action: &str, body: Value) -> Value {
        let (status, report) = self.post(&format!("api/v2/actions/{action}"), &body).await;
        assert_eq!((status, &report["ok"]), (200, &json!(true)), "{action}: {report}");
        report
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("{}/{path}", self.base)).send().await.expect("an answer");
        answer.json().await.unwrap_or_default()
    }

    /// Waits until what is at `path` is as it should be.
    async fn until(&self, what: &str, path: &str, check: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        wait::until(SOON, what, async || {
            let now = self.get(path).await;
            if check(&now) { Ok(()) } else { Err(now) }
        })
        .await;
        seen.clone_from(&self.get(path).await);
        seen
    }

    async fn ready(&self, queue: &str) -> Option<u32> {
        let name = celery_protocol::QueueName::parse(queue).expect("a name");
        self.celery.queue_depth(&name).await.expect("the broker").map(|depth| depth.ready)
    }
}

#[tokio::test]
async fn tasks_queues_and_dead_letters_are_handled() {
    let broker = Rabbit::shared().await.vhost("actions").await;
    let backend = Redis::shared().await.database();
    let celery = Celery::builder("test").broker(&broker).backend(&backend).start().expect("right settings");
    let audit = Audit::open(None, Duration::from_secs(3_600)).expect("memory");
    let options = MonitorOptions {
        control: Control::On,
        audit: Some(audit),
        dead_letter_queues: vec!["dead".into()],
        ..MonitorOptions::default()
    };
    let monitor = Monitor::start(&celery, options).expect("it listens");
    let (base, _stop) = serve(monitor.clone(), "");
    let bench = Bench { base, celery: celery.clone(), client: reqwest::Client::new() };
    bench.until("the monitor to listen", "api/v2/overview", |overview| overview["connected"] == true).await;
    let _worker =
        PythonWorker::peer(&broker, &backend, &["--pool", "threads", "-c", "2", "-n", "py@here", "-E"]).await;
    bench
        .until("the worker's queues", "api/v2/workers/py@here/answers?refresh=1", |answers| {
            answers["answers"]["active_queues"].is_array()
        })
        .await;

    // A task is sent, and run again: with its own arguments, and with others.
    let sent = bench.act("task.send", json!({"name": "demo.add", "args": [2], "kwargs": {"y": 3}})).await;
    let id = sent["results"][0]["task_id"].as_str().expect("an id").to_owned();
    let done = |task: &Value| task["state"] == "SUCCESS" && task["args"].is_string();
    bench.until("the task", &format!("api/v2/tasks/{id}"), done).await;
    let arguments = bench.get(&format!("api/v2/arguments/{id}")).await;
    assert_eq!(
        (&arguments["args"], &arguments["kwargs"]),
        (&json!("[2]"), &json!("{\"y\": 3}")),
        "{arguments}"
    );
    let again = bench.act("task.retry", json!({"id": id})).await;
    let new = again["results"][0]["task_id"].as_str().expect("an id").to_owned();
    let task = bench.until("the task again", &format!("api/v2/tasks/{new}"), done).await;
    assert_eq!((&task["result"], &task["root_id"]), (&json!("5"), &json!(id)), "{task}");
    let edited = bench.act("task.retry", json!({"id": id, "args": [10]})).await;
    let edited = edited["results"][0]["task_id"].as_str().expect("an id").to_owned();
    let task = bench.until("the edited task", &format!("api/v2/tasks/{edited}"), done).await;
    assert_eq!(task["result"], "13", "{task}");
    let (status, told) = bench.post("api/v2/actions/task.retry", &json!({"id": "unheard-of"})).await;
    assert_eq!(status, 404, "{told}");

    // Many at once.
    let filter = json!({"action": "task.retry", "filter": {"name": "demo.add", "state": ["SUCCESS"]}, "dry_run": true});
    let (status, dry) = bench.post("api/v2/bulk", &filter).await;
    assert_eq!((status, &dry["total"]), (200, &json!(3)), "{dry}");
    let (status, job) =
        bench.post("api/v2/bulk", &json!({"action": "task.retry", "ids": [id, "unheard-of"]})).await;
    assert_eq!(status, 202, "{job}");
    let path = format!("api/v2/bulk/{}", job["id"].as_str().expect("an id"));
    let job = bench.until("the job", &path, |job| job["state"] == "done").await;
    assert_eq!((&job["done"], &job["succeeded"], &job["failed"]), (&json!(2), &json!(1), &json!(1)), "{job}");
    assert_eq!(job["errors"][0]["target"], "unheard-of");

    // A paused queue is read by nobody, not even by a worker that starts to.
    let paused = bench.act("queue.pause", json!({"queue": "celery", "reason": "repair"})).await;
    assert_eq!(paused["results"][0]["target"], "py@here", "{paused}");
    let waiting = bench.act("task.send", json!({"name": "demo.add", "args": [1, 1]})).await;
    let waiting = waiting["results"][0]["task_id"].as_str().expect("an id").to_owned();
    assert_eq!(bench.ready("celery").await, Some(1));
    bench.act("worker.add_consumer", json!({"queue": "celery", "workers": ["py@here"]})).await;
    bench.until("its run", &format!("api/v2/tasks/{waiting}"), done).await;
    bench.get("api/v2/workers/py@here/answers?refresh=1").await;
    bench
        .until("the worker to be stopped again", "api/v2/workers/py@here/answers?refresh=1", |answers| {
            answers["answers"]["active_queues"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    let queues = bench.get("api/v2/queues").await;
    let queue = queues["items"].as_array().and_then(|all| all.iter().find(|queue| queue["name"] == "celery"));
    let pause = queue.map(|queue| queue["paused"].clone()).expect("the queue");
    assert_eq!((&pause["reason"], &pause["workers"]), (&json!("repair"), &json!(["py@here"])));
    for n in 0..3 {
        bench.act("task.send", json!({"name": "demo.add", "args": [n, 1]})).await;
    }
    let (status, _) = bench.post("api/v2/actions/queue.purge", &json!({"queue": "celery"})).await;
    assert_eq!(status, 422, "nobody said its name twice");
    let purged = bench.act("queue.purge", json!({"queue": "celery", "confirm": "celery"})).await;
    assert_eq!(purged["results"][0]["count"], 3);
    bench.act("queue.resume", json!({"queue": "celery"})).await;
    let sent = bench.act("task.send", json!({"name": "demo.add", "args": [4, 4]})).await;
    let sent = sent["results"][0]["task_id"].as_str().expect("an id").to_owned();
    bench.until("a run after the pause", &format!("api/v2/tasks/{sent}"), done).await;

    // Dead letters are looked at, sent again, and dropped.
    let die = "
from peer_app import app
import kombu
with app.connection_for_write() as connection:
    channel = connection.channel()
    kombu.Queue('dead', channel=channel).declare()
    kombu.Queue('risky', channel=channel, queue_arguments={
        'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead', 'x-message-ttl': 1}).declare()
    for n in range(3):
        app.send_task('demo.add', (n, 1), {'password': 'canary'}, queue=kombu.Queue('risky', queue_arguments={
            'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead', 'x-message-ttl': 1}), task_id=f'dead-{n}')
print('null')
";
    Python::new(&broker, &backend).run(die).await;
    let letters =
        bench.until("three dead letters", "api/v2/dead-letters/dead", |letters| letters["ready"] == 3).await;
    let first = &letters["items"][0];
    assert_eq!(
        (&first["id"], &first["name"], &first["reason"], &first["from"]),
        (&json!("dead-0"), &json!("demo.add"), &json!("expired"), &json!("risky")),
        "{letters}"
    );
    assert!(!letters.to_string().contains("canary"), "{letters}");
    assert_eq!(bench.get("api/v2/dead-letters").await["items"][0]["queue"], "dead");
    let requeue = json!({"queue": "dead", "ids": ["dead-1", "unheard-of"], "to": "celery"});
    let (status, report) = bench.post("api/v2/actions/dead_letter.requeue", &requeue).await;
    assert_eq!(
        (status, &report["ok"], &report["results"][0]["count"]),
        (200, &json!(false), &json!(1)),
        "{report}"
    );
    assert_eq!(bench.ready("dead").await, Some(2));
    let dropped = bench.act("dead_letter.drop", json!({"queue": "dead", "confirm": "dead"})).await;
    assert_eq!((&dropped["results"][0]["count"], bench.ready("dead").await), (&json!(2), Some(0)));

    // Orders to workers, and what they say.
    let (status, _) = bench.post("api/worker/pool/autoscale/py@here?min=1&max=2", &json!({})).await;
    assert_eq!(status, 403, "Flower's API says no in its own way");
    let (status, refused) = bench
        .post("api/v2/actions/worker.autoscale", &json!({"workers": ["py@here"], "min": 1, "max": 2}))
        .await;
    assert_eq!((status, &refused["ok"]), (200, &json!(false)), "{refused}");
    assert!(
        refused["results"][0]["said"].as_str().is_some_and(|said| said.contains("not enabled")),
        "{refused}"
    );
    bench.act("task.rate_limit", json!({"name": "demo.add", "rate_limit": "100/s"})).await;
    bench.act("task.time_limit", json!({"name": "demo.add", "soft": 5, "hard": 10})).await;
    let (status, _) =
        bench.post("api/v2/actions/worker.shutdown", &json!({"workers": ["nobody@here"]})).await;
    assert_eq!(status, 404);

    // All of it is written down.
    let log = bench.get("api/v2/audit?action=queue.&limit=2").await;
    let seen: Vec<(&str, &str)> = log["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((entry["action"].as_str()?, entry["outcome"].as_str()?)))
        .collect();
    assert_eq!(seen, [("queue.resume", "ok"), ("queue.purge", "ok")], "{log}");
    let next = log["next_cursor"].as_str().expect("there is more");
    let log = bench.get(&format!("api/v2/audit?action=queue.&cursor={next}")).await;
    assert_eq!(log["items"][0]["outcome"], "failed", "{log}");
    let retries = bench.get("api/v2/audit?action=task.retry&outcome=ok").await;
    let newest = &retries["items"][0];
    assert_eq!((&newest["user"], &newest["target"]), (&json!("anonymous"), &json!(id)), "{retries}");
    assert!(newest["detail"].as_str().is_some_and(|detail| detail.contains(&edited)), "{retries}");
    let refused = bench.get("api/v2/audit?action=worker.autoscale").await;
    let details: Vec<&str> = refused["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["detail"].as_str())
        .collect();
    assert_eq!(details.len(), 2, "{refused}");
    assert_eq!(
        (refused["items"][1]["outcome"].as_str(), details[1]),
        (Some("failed"), "403 by Flower's API")
    );
    celery.close().await;
}

#[tokio::test]
async fn a_shared_schedule_is_shown_and_edited() {
    let broker = Rabbit::shared().await.vhost("schedules").await;
    let backend = Redis::shared().await.database();
    let celery = Celery::builder("test").broker(&broker).backend(&backend).start().expect("right settings");
    let queue = celery_broker::QueueSpec::new(celery.default_queue().clone());
    celery.declare(&queue).await.expect("a queue");
    let schedules = vec!["shop".to_owned()];
    let options = MonitorOptions { control: Control::On, schedules, ..MonitorOptions::default() };
    let monitor = Monitor::start(&celery, options).expect("it listens");
    let (base, _stop) = serve(monitor, "");
    let bench = Bench { base, celery: celery.clone(), client: reqwest::Client::new() };
    let fenced = celery.fenced().expect("Redis");
    // As a beat that leads writes it.
    let hold = celery_broker::fenced::Hold { name: "shop", token: "beat", ttl: SOON };
    assert!(fenced.hold(hold).await.expect("Redis"));
    let entry =
        json!({"task": "demo.add", "schedule": "30 4 * * *", "args": [1, 2], "kwargs": {"token": "canary"}});
    let record = json!({"at": 7.0, "count": 3, "entry": entry}).to_string();
    fenced.replace(hold, "report", None, Some(record.as_bytes())).await.expect("Redis");

    let shown = async || bench.get("api/v2/schedules").await["items"][0]["entries"][0].clone();
    let first = shown().await;
    assert_eq!(
        (&first["name"], &first["task"], &first["schedule"], &first["last_run"]),
        (&json!("report"), &json!("demo.add"), &json!("30 4 * * *"), &json!(7.0))
    );
    assert!(!first.to_string().contains("canary"), "{first}");
    let at = json!({"schedule": "shop", "name": "report"});
    bench.act("schedule.run", at.clone()).await;
    assert_eq!(bench.ready(celery.default_queue().as_str()).await, Some(1));
    bench.act("schedule.disable", at.clone()).await;
    assert_eq!(shown().await["enabled"], false);
    bench.act("schedule.enable", at.clone()).await;
    assert_eq!(shown().await["enabled"], true);
    let mut edit = at.clone();
    edit["entry"] = json!({"task": "demo.mul", "schedule": 60});
    bench.act("schedule.edit", edit).await;
    let edited = shown().await;
    assert_eq!(
        (&edited["task"], &edited["schedule"], &edited["edited"]),
        (&json!("demo.mul"), &json!(60), &json!(true))
    );
    bench.act("schedule.revert", at.clone()).await;
    assert_eq!(shown().await["task"], "demo.add");
    let mut wrong = at;
    wrong["entry"] = json!({"task": "demo.mul", "schedule": 0});
    let (status, told) = bench.post("api/v2/actions/schedule.edit", &wrong).await;
    assert!(
        status == 422 && told["detail"].as_str().is_some_and(|told| told.contains("entry.schedule")),
        "{told}"
    );
    let elsewhere = json!({"schedule": "other", "name": "report"});
    assert_eq!(bench.post("api/v2/actions/schedule.run", &elsewhere).await.0, 404);
    celery.close().await;
}
