//! Many submissions in one request.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::app::{Answer, SOON, TestApp};

fn statuses(answer: &Answer) -> Vec<u64> {
    let body = answer.json();
    let items = body["items"].as_array().unwrap().iter();
    items.map(|item| item["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_item_has_its_own_answer() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let good = json!({"defaults": {"kwargs": {"x": 1}, "priority": 4}, "tasks": [
        {"task": "a", "ref": "row-1"}, {"task": "b", "kwargs": {}, "task_id": "mine"}]});
    let answer = app.post("/v1/tasks/batch", &good).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let body = answer.json();
    assert_eq!(answer.header("location"), format!("/v1/batches/{}", body["batch_id"].as_str().unwrap()));
    assert_eq!(
        (&body["accepted"], &body["failed"], &body["deduplicated"]),
        (&json!(2), &json!(0), &json!(0))
    );
    assert_eq!(body["items"][0]["ref"], "row-1");
    assert_eq!(body["items"][1]["task"]["id"], "mine");
    let sent = queue.take(2).await;
    let bodies: Vec<_> =
        sent.iter().map(|sent| String::from_utf8_lossy(&sent.raw.body).into_owned()).collect();
    assert!(bodies[0].starts_with("[[], {\"x\": 1}, ") && bodies[1].starts_with("[[], {}, "), "{bodies:?}");

    let mixed = json!({"tasks": [
        {"task": "a"}, {"task": "a", "queue": "nowhere"}, {"task": "", "countdown": -1}, [],
        {"task": "b", "task_id": "mine", "kwargs": {}, "priority": 4}, {"task": "other", "task_id": "mine"},
        {"task": "a", "coutdown": 1}, {"task": "a", "task_id": "x y"}]});
    let answer = app.post("/v1/tasks/batch", &mixed).await;
    assert_eq!(answer.status, 207, "{}", answer.text);
    assert_eq!(statuses(&answer), [202, 422, 422, 422, 200, 409, 422, 400]);
    let items = &answer.json()["items"];
    assert_eq!(items[1]["problem"]["type"], "/problems/unroutable");
    let pointers: Vec<_> =
        items[2]["problem"]["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/tasks/2/task", "/tasks/2/countdown"]);
    assert_eq!(items[3]["problem"]["errors"][0]["pointer"], "/tasks/3");
    assert_eq!(items[4]["task"]["deduplicated"], true);
    assert_eq!(items[6]["problem"]["errors"][0]["pointer"], "/tasks/6/coutdown");
    for item in items.as_array().unwrap().iter().filter(|item| item["status"].as_u64() >= Some(400)) {
        assert_eq!(item["problem"]["outcome"], "not_published", "{item:#}");
    }

    let none = json!({"tasks": [{"task": "a", "queue": "nowhere"}, {"task": "", "task_id": "x"}]});
    let answer = app.post("/v1/tasks/batch", &none).await;
    assert_eq!((answer.status.as_u16(), statuses(&answer)), (422, vec![422, 422]));

    let request = app.request(Method::POST, "/v1/tasks/batch").header("prefer", "return=minimal").json(&good);
    let items = app.send(request).await.json()["items"].clone();
    assert_eq!(items[1], json!({"index": 1, "status": 200, "id": "mine"}));
}

#[tokio::test]
async fn an_atomic_batch_publishes_all_or_nothing() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    for wrong in [json!({"task": ""}), json!({"task": "t", "queue": "nowhere"})] {
        let mut tasks: Vec<Value> = (0..100).map(|n| json!({"task": "t", "args": [n]})).collect();
        tasks[2] = wrong;
        let answer = app.post("/v1/tasks/batch", &json!({"atomic": true, "tasks": tasks})).await;
        assert_eq!(answer.status, 424, "{}", answer.text);
        let statuses = statuses(&answer);
        assert_eq!(statuses[2], 422);
        assert!(statuses.iter().enumerate().all(|(index, status)| index == 2 || *status == 424));
    }
    app.submit(&json!({"task": "first"})).await;
    assert_eq!(queue.next().await.raw.headers["task"], "first");
    let tasks: Vec<Value> = (0..1000).map(|n| json!({"task": "t", "args": [n]})).collect();
    let answer = app.post("/v1/tasks/batch", &json!({"atomic": true, "tasks": tasks, "group": true})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let group = answer.json()["group_id"].clone();
    let sent = queue.take(1000).await;
    assert!(sent.iter().all(|sent| sent.raw.headers["group"] == group));
    let index: Vec<u64> = sent.iter().map(|sent| sent.raw.headers["group_index"].as_u64().unwrap()).collect();
    assert_eq!(index, (0..1000).collect::<Vec<u64>>(), "the order of the batch is the order of the queue");
}

#[tokio::test]
async fn the_batch_itself_is_judged() {
    let app = TestApp::start().await;
    let many: Vec<Value> = (0..1001).map(|_| json!({"task": "t"})).collect();
    for (body, slug, pointer) in [
        (json!({}), "invalid-option", "/tasks"),
        (json!({"tasks": []}), "invalid-option", "/tasks"),
        (json!({"tasks": many}), "invalid-option", "/tasks"),
        (json!({"tasks": [{"task": "t"}], "defaults": []}), "invalid-option", "/defaults"),
        (json!({"tasks": [{"task": "t"}], "atomc": true}), "unknown-field", "/atomc"),
    ] {
        let problem = app.post("/v1/tasks/batch", &body).await.problem(422, slug);
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["outcome"]),
            (&json!(pointer), &json!("not_published"))
        );
    }
    let too_large = json!({"tasks": [{"task": "t", "args": ["x".repeat(9 << 20)]}]});
    app.post("/v1/tasks/batch", &too_large).await.problem(413, "body-too-large");
}

#[tokio::test]
async fn an_idempotent_batch_is_answered_again() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"tasks": [{"task": "a"}, {"task": "b", "queue": "nowhere"}]});
    let send = || app.request(Method::POST, "/v1/tasks/batch").header("idempotency-key", "\"b\"").json(&body);
    let first = app.send(send()).await;
    let again = app.send(send()).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (207, 207));
    assert_eq!((&first.text, again.header("idempotent-replayed")), (&again.text, "true"));
    queue.next().await;
    app.submit(&json!({"task": "last"})).await;
    assert_eq!(queue.next().await.raw.headers["task"], "last");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .collect()
}

#[tokio::test]
async fn a_stream_is_answered_line_by_line() {
    const LINES: usize = 3000;
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let line = |n: usize| {
        let queue = if n.is_multiple_of(7) { "nowhere" } else { "celery" };
        format!("{}\n", json!({"task": "t", "args": [n], "queue": queue, "ref": n.to_string()}))
    };
    let body = futures_util::stream::iter((0..LINES).map(move |n| Ok::<_, std::io::Error>(line(n))));
    let request = app
        .request(Method::POST, "/v1/tasks/batch")
        .header("content-type", "application/x-ndjson")
        .header("prefer", "return=minimal")
        .body(reqwest::Body::wrap_stream(body));
    let answer = app.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (202, "application/x-ndjson"));
    let mut lines = lines(&answer.text);
    let summary = lines.pop().unwrap()["summary"].clone();
    let failed = LINES.div_ceil(7);
    assert_eq!(summary["total"], LINES, "{summary:#}");
    assert_eq!((&summary["failed"], &summary["complete"]), (&json!(failed), &json!(true)));
    assert_eq!(lines.len(), LINES);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line["index"], &line["ref"]), (&json!(n), &json!(n.to_string())), "{line:#}");
        assert_eq!(line["status"], if n % 7 == 0 { 422 } else { 202 }, "{line:#}");
    }
    assert_eq!(queue.take(LINES - failed).await.len(), LINES - failed);
    // Every task is written down, those too that came while others were being written.
    let batch = app.get(answer.header("location")).await.json();
    assert_eq!((&batch["total"], &batch["states"]), (&json!(LINES), &json!({"PENDING": LINES - failed})));
}

#[tokio::test]
async fn a_bad_line_fails_alone() {
    let app =
        TestApp::start_with(&[("PRODUCER_API_BODY_LIMIT", "2000"), ("PRODUCER_API_BODY_TIMEOUT", "1s")])
            .await;
    app.declare("celery").await;
    let long = json!({"task": "t", "args": ["x".repeat(5000)]}).to_string();
    let text = format!(
        "{{\"task\":\"a\"}}\n{{\"task\":\n[]\n\n{long}\n{{\"task\":\"a\",\"x\":1}}\n{{\"task\":\"z\"}}"
    );
    let request = app
        .request(Method::POST, "/v1/tasks/batch")
        .header("content-type", "application/x-ndjson")
        .body(text);
    let answer = app.send(request).await;
    let lines = lines(&answer.text);
    let statuses: Vec<u64> = lines.iter().filter_map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [202, 400, 422, 413, 422, 202], "{}", answer.text);
    assert_eq!(lines[6]["summary"]["accepted"], 2);
    assert!(lines[1]["problem"]["instance"].is_string());
    // No key for a stream, and no compression.
    for (name, value, status) in [("idempotency-key", "\"k\"", 400), ("content-encoding", "gzip", 415)] {
        let request =
            app.request(Method::POST, "/v1/tasks/batch").header("content-type", "application/x-ndjson");
        assert_eq!(app.send(request.header(name, value).body("{}")).await.status, status);
    }
    // Who stops sending is told so, and keeps what was accepted.
    let head = "POST /v1/tasks/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{\"task\":\"a\"}\n{\"ta";
    let mut socket = TcpStream::connect(app.address()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let reading = async {
        while !String::from_utf8_lossy(&answer).contains("summary") {
            let read = socket.read(&mut chunk).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&chunk[..read]);
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("\"accepted\":1") && answer.contains("request-timeout"), "{answer}");
}

/// Whoever does not read the answers cannot make the server read on: what it holds is bounded.
#[tokio::test]
async fn a_stream_is_read_as_fast_as_its_answers_are() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(app.address().parse().unwrap()).await.unwrap();
    let head = "POST /v1/tasks/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    // Every answer is longer than its line.
    let members: String = (0..50).map(|n| format!(",\"m{n}\":0")).collect();
    let line = format!("{{\"task\":\"t\"{members}}}\n");
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let mut sent = 0;
    // Until the server's buffers and the kernel's are full.
    while let Ok(written) =
        tokio::time::timeout(Duration::from_secs(3), socket.write_all(chunk.as_bytes())).await
    {
        written.unwrap();
        sent += 1;
        assert!(sent < 200_000, "the server reads without end");
    }
    drop(socket);
    assert_eq!(app.post("/v1/tasks", &json!({"task": "t"})).await.status, 202);
}
