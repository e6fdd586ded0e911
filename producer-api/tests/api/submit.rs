//! Submitting: what a 202 means, and what repeating a submission does.

use celery_protocol::{Limits, Message};
use celery_testkit::{PythonWorker, Rabbit, Redis};
use serde_json::{Value, json};

use crate::app::TestApp;

#[tokio::test]
async fn a_202_is_a_message_in_the_queue() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"task": "demo.add", "args": [2], "kwargs": {"y": 3}, "headers": {"x-tenant": "a"}});
    let answer = app.post("/v1/tasks", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let handle = answer.json();
    let id = handle["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/tasks/{id}"));
    assert_eq!(answer.header("retry-after"), "1");
    for (member, value) in [
        ("task", json!("demo.add")),
        ("state", json!("PENDING")),
        ("queue", json!("celery")),
        ("exchange", json!("")),
        ("routing_key", json!("celery")),
        ("root_id", json!(id)),
        ("deduplicated", json!(false)),
        ("warnings", json!([])),
        (
            "links",
            json!({
                "self": format!("/v1/tasks/{id}"),
                "result": format!("/v1/tasks/{id}/result"),
                "events": format!("/v1/tasks/{id}/events")
            }),
        ),
    ] {
        assert_eq!(handle[member], value, "{member} in {handle:#}");
    }
    let delivery = queue.next().await;
    assert_eq!(delivery.raw.properties.correlation_id.as_deref(), Some(id));
    assert_eq!(delivery.raw.properties.delivery_mode, Some(2));
    assert_eq!(delivery.raw.headers["x-tenant"], "a");
    let message = Message::decode(delivery.raw, &Limits::DEFAULT).unwrap();
    assert_eq!((message.headers.id.as_str(), message.headers.task.as_str()), (id, "demo.add"));
}

#[tokio::test]
async fn numbers_reach_the_queue_digit_for_digit() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let text = r#"{"task":"t","args":[123456789012345678901234567890, 1.50, 1e400, -0.0],"kwargs":{"z":0.10,"ä":"\u00e9é"}}"#;
    let request =
        app.request(reqwest::Method::POST, "/v1/tasks").header("content-type", "application/json").body(text);
    assert_eq!(app.send(request).await.status, 202);
    let body = queue.next().await.raw.body;
    let body = std::str::from_utf8(&body).unwrap();
    assert!(
        body.starts_with("[[123456789012345678901234567890, 1.50, 1e400, -0.0], {\"z\": 0.10, "),
        "{body}"
    );
    assert!(body.contains("\"\\u00e9é\""), "{body}");
}

#[tokio::test]
async fn a_trace_goes_on_in_the_message() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (given, expected) in [(trace, Some(trace)), ("00-nonsense", None)] {
        let request = app.request(reqwest::Method::POST, "/v1/tasks").json(&json!({"task": "t"}));
        let request = request.header("traceparent", given).header("tracestate", "vendor=1");
        assert_eq!(app.send(request).await.status, 202);
        let headers = queue.next().await.raw.headers;
        assert_eq!(headers.get("traceparent").and_then(Value::as_str), expected);
        assert_eq!(headers.contains_key("tracestate"), expected.is_some());
    }
}

#[tokio::test]
async fn a_dry_run_shows_the_message_and_sends_nothing() {
    let app = TestApp::start().await;
    let body = json!({"task": "demo.add", "args": [1.50, 2], "task_id": "dry-1", "queue": "no-such-queue", "expires": 60});
    let answer = app.post("/v1/tasks?dry_run=true", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let shown = answer.json();
    assert_eq!(shown["valid"], true);
    assert_eq!((&shown["exchange"], &shown["routing_key"]), (&json!(""), &json!("no-such-queue")));
    assert_eq!(shown["message"]["properties"]["expiration"], "60000");
    assert_eq!(shown["message"]["headers"]["argsrepr"], "(1.5, 2)");
    assert!(answer.text.contains("[[1.5, 2], {}, {"), "{}", answer.text);
    app.get("/v1/tasks/dry-1").await.problem(404, "task-unknown");
    let compressed = json!({"task": "demo.add", "compression": "zlib"});
    let shown = app.post("/v1/tasks?dry_run=true", &compressed).await.json();
    assert_eq!(shown["message"]["body_encoding"], "base64");
}

#[tokio::test]
async fn what_no_queue_takes_is_never_a_202() {
    let app = TestApp::start().await;
    let answer =
        app.post("/v1/tasks", &json!({"task": "t", "task_id": "lost", "queue": "no-such-queue"})).await;
    let problem = answer.problem(422, "unroutable");
    assert_eq!((&problem["outcome"], &problem["task_id"]), (&json!("not_published"), &json!("lost")));
    // It is not remembered, so the corrected submission may use the id.
    app.get("/v1/tasks/lost").await.problem(404, "task-unknown");
    app.declare("celery").await;
    assert_eq!(app.post("/v1/tasks", &json!({"task": "t", "task_id": "lost"})).await.status, 202);

    let answer =
        app.post("/v1/tasks", &json!({"task": "t", "exchange": "nowhere", "routing_key": "x"})).await;
    assert_eq!(answer.problem(422, "exchange-not-found")["outcome"], "not_published");
}

#[tokio::test]
async fn queues_of_ours_are_declared_when_they_are_missing() {
    let app = TestApp::start_with(&[("PRODUCER_API_TASK_ROUTES", "mail.*=mail")]).await;
    // No worker has declared anything yet.
    for (task, queue) in [("demo.add", "celery"), ("mail.send", "mail")] {
        let handle = app.post("/v1/tasks", &json!({"task": task})).await.json();
        assert_eq!(handle["queue"], queue, "{handle:#}");
    }
    let mut queue = app.consume("mail").await;
    assert_eq!(queue.next().await.raw.headers["task"], "mail.send");
}

#[tokio::test]
async fn the_same_submission_again_publishes_nothing_new() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let body = json!({"task": "demo.add", "args": [1, 2], "meta": {"order": 42}});
    assert_eq!(app.put("/v1/tasks/order-42", &body).await.status, 202);
    let again = app.put("/v1/tasks/order-42", &body).await;
    assert_eq!(again.status, 200, "{}", again.text);
    let task = again.json();
    assert_eq!((&task["deduplicated"], &task["state"]), (&json!(true), &json!("PENDING")));
    assert_eq!(task["meta"], json!({"order": 42}));
    // By POST with the id in the body it is the same submission.
    let mut by_post = body.clone();
    by_post["task_id"] = json!("order-42");
    assert_eq!(app.post("/v1/tasks", &by_post).await.json()["deduplicated"], true);

    let other = json!({"task": "demo.add", "args": [1, 3]});
    let problem = app.put("/v1/tasks/order-42", &other).await.problem(409, "task-exists");
    assert_eq!(problem["outcome"], "not_published");
    let only_new =
        app.request(reqwest::Method::PUT, "/v1/tasks/order-42").header("if-none-match", "*").json(&body);
    app.send(only_new).await.problem(412, "precondition-failed");
    app.put("/v1/tasks/other", &by_post).await.problem(422, "invalid-option");

    let mut queue = app.consume("celery").await;
    assert_eq!(queue.next().await.raw.properties.correlation_id.as_deref(), Some("order-42"));
    app.submit(&json!({"task": "last"})).await;
    assert_eq!(queue.next().await.raw.headers["task"], "last", "nothing else was in between");
}

#[tokio::test]
async fn an_id_may_be_submitted_by_many_at_once() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"task": "demo.add", "args": [1, 2]});
    let attempts = (0..50).map(|_| app.put("/v1/tasks/popular", &body));
    let answers = futures_util::future::join_all(attempts).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(202), 1);
    assert_eq!(count(202) + count(200) + count(409), 50);
    for answer in answers.iter().filter(|answer| answer.status == 409) {
        answer.problem(409, "submission-in-progress");
    }
    queue.next().await;
    app.submit(&json!({"task": "last"})).await;
    assert_eq!(queue.next().await.raw.headers["task"], "last");
}

#[tokio::test]
async fn waiting_for_the_result_is_part_of_the_submission() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let request = app
        .request(reqwest::Method::POST, "/v1/tasks")
        .header("prefer", "wait=20")
        .json(&json!({"task": "t"}));
    let worker = async {
        let delivery = queue.next().await;
        let id = celery_protocol::TaskId::parse(delivery.raw.properties.correlation_id.unwrap()).unwrap();
        app.state(&id, "PROGRESS", json!({"current": 1})).await;
        app.succeed(&id, "[1, 2.50]").await;
    };
    let (answer, ()) = futures_util::future::join(app.send(request), worker).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("preference-applied"), "wait=20");
    assert!(answer.text.contains("\"result\":[1, 2.50]"), "{}", answer.text);

    let request =
        app.request(reqwest::Method::POST, "/v1/tasks?wait=0.05").header("prefer", "return=minimal");
    let answer = app.send(request.json(&json!({"task": "t"}))).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["id"]);
    assert_eq!(answer.header("preference-applied"), "return=minimal");
}

#[tokio::test]
async fn a_python_worker_runs_what_is_submitted() {
    let broker = Rabbit::shared().await.vhost("api-python").await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&broker, &backend, &[]).await;
    let _worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo"]).await;

    let id = app.submit(&json!({"task": "demo.add", "args": [2], "kwargs": {"y": 3}})).await;
    let answer = app.get_waiting(&format!("/v1/tasks/{id}/result")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "5"));

    let big = r#"{"task":"demo.add","args":[100000000000000000000, 1]}"#;
    let request =
        app.request(reqwest::Method::POST, "/v1/tasks?wait=20").header("content-type", "application/json");
    let answer = app.send(request.body(big)).await;
    assert!(answer.text.contains("\"result\":100000000000000000001"), "{}", answer.text);

    let body = json!({"task": "demo.add", "args": ["é", "x"], "compression": "zlib",
        "link": [{"task": "demo.add", "args": ["!"]}], "store_args": true});
    let id = app.submit(&body).await;
    assert_eq!(app.get_waiting(&format!("/v1/tasks/{id}/result")).await.json(), json!("éx"));
    let task = app.get(&format!("/v1/tasks/{id}?include=args")).await.json();
    assert_eq!(task["args"], json!(["é", "x"]));
    let linked = task["children"][0].as_str().unwrap().to_owned();
    let answer = app.get_waiting(&format!("/v1/tasks/{linked}/result?assume_pending=true")).await;
    assert_eq!(answer.json(), json!("éx!"));

    let id = app.submit(&json!({"task": "demo.fail", "args": ["on purpose"]})).await;
    let answer = app.get_waiting(&format!("/v1/tasks/{id}/result")).await;
    let problem = answer.problem(424, "task-failed");
    assert_eq!(problem["error"]["type"], "RuntimeError");
    assert_eq!(problem["error"]["message"], json!(["on purpose"]));
    let task = app.get(&format!("/v1/tasks/{id}?include=traceback")).await.json();
    assert!(task["error"]["traceback"].as_str().unwrap().contains("on purpose"), "{task:#}");
}
