//! Server-sent events: of a task, of a group, of everything; coming back; tickets.

use celery_protocol::TaskId;
use celery_testkit::{Rabbit, Redis};
use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::app::{SOON, TestApp};

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

/// A stream, as a browser would read it.
struct Events {
    chunks: std::pin::Pin<Box<dyn futures_util::Stream<Item = Vec<u8>>>>,
    text: String,
    last_id: String,
}

impl Events {
    async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
        let chunks = response.bytes_stream().map(|chunk| chunk.unwrap_or_default().to_vec());
        Events { chunks: Box::pin(chunks), text: String::new(), last_id: String::new() }
    }

    /// The next event: its name and data.
    async fn next(&mut self) -> (String, Value) {
        let reading = async {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.text = rest;
                    let field = |name: &str| {
                        let prefix = format!("{name}: ");
                        block.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
                    };
                    if let Some(id) = field("id") {
                        self.last_id = id;
                    }
                    if let Some(event) = field("event") {
                        return (event, serde_json::from_str(&field("data").unwrap()).unwrap());
                    }
                    continue;
                }
                match self.chunks.next().await {
                    Some(chunk) => self.text.push_str(&String::from_utf8(chunk).unwrap()),
                    None => return ("closed".to_owned(), Value::Null),
                }
            }
        };
        tokio::time::timeout(SOON, reading).await.unwrap()
    }

    /// The names of the events up to the end.
    async fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let (name, _) = self.next().await;
            if name == "closed" {
                return names;
            }
            names.push(name);
        }
    }
}

#[tokio::test]
async fn a_task_is_followed_to_its_end() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    app.put("/v1/tasks/x", &json!({"task": "demo.t", "meta": {"order": 1}})).await;
    let mut events = Events::open(app.request(Method::GET, "/v1/tasks/x/events")).await;
    let (name, snapshot) = events.next().await;
    assert_eq!(
        (name.as_str(), &snapshot["state"], &snapshot["meta"]["order"]),
        ("snapshot", &json!("PENDING"), &json!(1))
    );
    app.state(&id("x"), "STARTED", json!({"hostname": "w"})).await;
    assert_eq!(events.next().await.0, "state");
    app.state(&id("x"), "PROGRESS", json!({"current": 3})).await;
    let (name, progress) = events.next().await;
    assert_eq!(
        (name.as_str(), &progress["progress"], &progress["task"]),
        ("progress", &json!({"current": 3}), &json!("demo.t"))
    );
    let seen = events.last_id.clone();
    // A break: what was seen does not come again, what was missed does.
    drop(events);
    app.succeed(&id("x"), "[1, 2]").await;
    let mut events =
        Events::open(app.request(Method::GET, "/v1/tasks/x/events").header("last-event-id", &seen)).await;
    let (name, result) = events.next().await;
    assert_eq!((name.as_str(), &result["result"]), ("result", &json!([1, 2])));
    assert_eq!(events.next().await, ("end".to_owned(), json!({"reason": "terminal"})));
    assert_eq!(events.next().await.0, "closed");
    app.get("/v1/tasks/nobody/events").await.problem(404, "task-unknown");
}

#[tokio::test]
async fn a_group_is_followed_to_its_end_over_breaks() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let tasks: Vec<Value> = (0..3).map(|n| json!({"task": "t", "task_id": format!("m{n}")})).collect();
    let batch = app.post("/v1/tasks/batch", &json!({"group": true, "tasks": tasks})).await.json();
    let path = format!("{}/events", batch["links"]["group"].as_str().unwrap());
    let mut events = Events::open(app.request(Method::GET, &path)).await;
    let (name, snapshot) = events.next().await;
    assert_eq!((name.as_str(), &snapshot["total"]), ("snapshot", &json!(3)));
    app.succeed(&id("m1"), "1").await;
    app.succeed(&id("stranger"), "1").await;
    let (name, change) = events.next().await;
    assert_eq!((name.as_str(), &change["id"]), ("result", &json!("m1")));
    let seen = events.last_id.clone();
    drop(events);
    app.fail(&id("m0"), "ValueError", "no").await;
    app.succeed(&id("m2"), "2").await;
    // Behind the last one that was seen: exactly the other two, and no snapshot.
    let resume = app.request(Method::GET, &path).header("last-event-id", &seen);
    let mut events = Events::open(resume).await;
    let (first, second) = (events.next().await, events.next().await);
    assert_eq!((first.0.as_str(), &first.1["id"]), ("error", &json!("m0")));
    assert_eq!((second.0.as_str(), &second.1["id"]), ("result", &json!("m2")));
    assert_eq!(events.names().await, ["end"]);
    // From another process, or too long ago: everything again.
    let lost = app.request(Method::GET, &path).header("last-event-id", "other-1");
    assert_eq!(Events::open(lost).await.names().await, ["snapshot", "end"]);
    let whole = format!("{}/events", batch["links"]["self"].as_str().unwrap());
    assert_eq!(Events::open(app.request(Method::GET, &whole)).await.names().await, ["snapshot", "end"]);
    app.get("/v1/groups/none/events").await.problem(404, "group-unknown");
}

/// A batch that is still being sent: its stream goes on, though all of its tasks so far have ended.
#[tokio::test]
async fn a_growing_batch_is_followed_to_its_end() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let (send, lines) = tokio::sync::mpsc::unbounded_channel::<String>();
    let lines = futures_util::stream::unfold(lines, |mut lines| async move {
        Some((Ok::<_, std::io::Error>(lines.recv().await?), lines))
    });
    send.send(line(0)).unwrap();
    let request = app
        .request(Method::POST, "/v1/tasks/batch")
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(lines));
    let mut answer = request.send().await.unwrap();
    let batch = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(answer.chunk().await.unwrap().is_some(), "the answer to the first line");
    app.succeed(&id("line-0"), "0").await;
    let mut events = Events::open(app.request(Method::GET, &format!("{batch}/events"))).await;
    assert_eq!(events.next().await.0, "snapshot");
    (1..=1100).for_each(|n| send.send(line(n)).unwrap());
    drop(send);
    while answer.chunk().await.unwrap().is_some() {}
    // Shown again when more is known.
    let snapshot = loop {
        let (name, data) = events.next().await;
        assert_eq!(name, "snapshot");
        if data["accepted"] == 1101 {
            break data;
        }
    };
    assert_eq!(snapshot["states"], json!({"PENDING": 1100, "SUCCESS": 1}));
    for n in 1..=1100 {
        app.succeed(&id(&format!("line-{n}")), "1").await;
    }
    let names = events.names().await;
    assert_eq!((names.len(), names.last().map(String::as_str)), (1101, Some("end")));
    // One whose client goes away in the middle has an end too.
    let head = "POST /v1/tasks/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut socket = tokio::net::TcpStream::connect(app.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    let mut start = vec![0; 1024];
    let read = tokio::io::AsyncReadExt::read(&mut socket, &mut start).await.unwrap();
    let start = String::from_utf8_lossy(&start[..read]).to_lowercase();
    let batch = start.split("location: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut events = Events::open(app.request(Method::GET, &format!("{batch}/events"))).await;
    drop(socket);
    assert_eq!(events.names().await.last().map(String::as_str), Some("end"));
}

/// A line of a streamed batch.
fn line(n: usize) -> String {
    format!("{{\"task\":\"t\",\"task_id\":\"line-{n}\"}}\n")
}

/// HEAD is answered and over.
#[tokio::test]
async fn a_stream_has_a_head() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let task = json!({"tasks": [{"task": "t", "task_id": "x"}], "group": true});
    let batch = app.post("/v1/tasks/batch", &task).await.json();
    let link = |name: &str| format!("{}/events", batch["links"][name].as_str().unwrap());
    for path in ["/v1/events".to_owned(), "/v1/tasks/x/events".to_owned(), link("self"), link("group")] {
        // On one connection: the second is answered when the first is over.
        let both = format!(
            "HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        let mut socket = tokio::net::TcpStream::connect(app.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, both.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut answer);
        tokio::time::timeout(SOON, reading).await.unwrap_or_else(|_| panic!("{path} goes on")).unwrap();
        assert!(answer.contains("text/event-stream") && answer.ends_with("ok\n"), "{path}: {answer}");
    }
    let head = app.send(app.request(Method::HEAD, "/v1/tasks/nobody/events")).await;
    assert_eq!(head.status, 404);
}

#[tokio::test]
async fn everything_is_followed_filtered_and_resumed() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    app.put("/v1/tasks/a", &json!({"task": "demo.a"})).await;
    app.put("/v1/tasks/b", &json!({"task": "mail.b"})).await;
    let mut all = Events::open(app.request(Method::GET, "/v1/events")).await;
    let mut some = Events::open(app.request(Method::GET, "/v1/events?task=demo.*&state=success")).await;
    app.state(&id("a"), "STARTED", json!({})).await;
    app.succeed(&id("b"), "2").await;
    app.succeed(&id("a"), "1").await;
    app.succeed(&id("foreign"), "3").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(all.next().await.1["id"].clone());
        if seen.len() == 2 {
            all.last_id.clone_into(&mut some.text);
        }
    }
    assert_eq!(seen, ["a", "b", "a", "foreign"]);
    let resume_at = std::mem::take(&mut some.text);
    let (name, change) = some.next().await;
    assert_eq!(
        (name.as_str(), &change["id"], &change["task"], &change["queue"]),
        ("result", &json!("a"), &json!("demo.a"), &json!("celery"))
    );
    let mut again =
        Events::open(app.request(Method::GET, &format!("/v1/events?last_event_id={resume_at}"))).await;
    assert_eq!(
        (again.next().await.1["id"].clone(), again.next().await.1["id"].clone()),
        (json!("a"), json!("foreign"))
    );
    let mut lost = Events::open(app.request(Method::GET, "/v1/events").header("last-event-id", "x-1")).await;
    assert_eq!(lost.next().await, ("lagged".to_owned(), json!({"dropped": null})));
}

#[tokio::test]
async fn a_ticket_opens_one_stream_once() {
    let app = TestApp::start_with(&[("PRODUCER_API_TOKENS", "s3cret")]).await;
    let with_token = |request: RequestBuilder| request.header("authorization", "Bearer s3cret");
    app.declare("celery").await;
    let submit = app.request(Method::PUT, "/v1/tasks/x").json(&json!({"task": "t"}));
    assert_eq!(app.send(with_token(submit)).await.status, 202);
    app.get("/v1/tasks/x/events").await.problem(401, "unauthenticated");
    let wanted = json!({"task_ids": ["x"], "ttl": 60});
    let made = app.send(with_token(app.request(Method::POST, "/v1/tickets").json(&wanted))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
    // For another stream it is no good, and is used up by the attempt.
    app.get(&format!("/v1/events?ticket={ticket}")).await.problem(401, "unauthenticated");
    app.get(&format!("/v1/tasks/x/events?ticket={ticket}")).await.problem(401, "unauthenticated");
    let made = app.send(with_token(app.request(Method::POST, "/v1/tickets").json(&wanted))).await;
    let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
    let mut events =
        Events::open(app.request(Method::GET, &format!("/v1/tasks/x/events?ticket={ticket}"))).await;
    let (name, next) = events.next().await;
    assert_eq!(name, "ticket");
    assert_eq!(events.next().await.0, "snapshot");
    app.get(&format!("/v1/tasks/x/events?ticket={ticket}")).await.problem(401, "unauthenticated");
    // The page comes back with the ticket that the stream began with.
    let next = next["ticket"].as_str().unwrap();
    let mut again =
        Events::open(app.request(Method::GET, &format!("/v1/tasks/x/events?ticket={next}"))).await;
    assert_eq!(again.next().await.0, "ticket");
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"task_ids": ["a b"]}), "/task_ids/0"),
        (json!({"everything": true, "ttl": 1e9}), "/ttl"),
    ] {
        let problem = app.send(with_token(app.request(Method::POST, "/v1/tickets").json(&body))).await;
        assert_eq!(problem.problem(422, "invalid-option")["errors"][0]["pointer"], pointer);
    }
}

#[tokio::test]
async fn streams_survive_redis_and_end_with_the_server() {
    let broker = Rabbit::shared().await.vhost("api").await;
    let redis = Redis::start().await;
    let app = TestApp::start_on(&broker, &redis.url(0), &[("PRODUCER_API_MAX_WAITS", "2")]).await;
    app.declare("celery").await;
    let tasks = json!({"tasks": [{"task": "t", "task_id": "a"}, {"task": "t", "task_id": "b"}]});
    let batch = app.post("/v1/tasks/batch", &tasks).await.json();
    let mut events = Events::open(app.request(Method::GET, batch["links"]["events"].as_str().unwrap())).await;
    assert_eq!(events.next().await.0, "snapshot");
    let mut all = Events::open(app.request(Method::GET, "/v1/events")).await;
    // Both places are taken.
    assert_eq!(app.get("/v1/events").await.problem(429, "too-many-waits")["retryable"], true);
    redis.kill();
    redis.restart().await;
    // What this Redis does not remember is gone; the streams say so, and go on.
    assert_eq!(events.next().await, ("end".to_owned(), json!({"reason": "forgotten"})));
    assert_eq!(events.next().await.0, "closed");
    assert_eq!(all.next().await.0, "lagged");
    celery_testkit::wait::until(SOON, "results to be stored again", async || {
        let raw = serde_json::value::to_raw_value(&1).unwrap();
        let meta = celery_protocol::ResultMeta::success(id("late"), raw, crate::app::now());
        app.celery.backend().store(&meta).await.map_err(|err| err.to_string())
    })
    .await;
    assert_eq!(all.next().await.1["id"], "late");
    app.stop();
    assert_eq!(all.names().await, ["end"]);
}
