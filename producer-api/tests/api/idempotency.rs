//! The same request twice: idempotency keys, dedupe keys, limits of queues, calls.

use celery_protocol::TaskId;
use celery_testkit::{Rabbit, Redis, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, SOON, TestApp};

async fn keyed(app: &TestApp, path: &str, key: &str, body: &Value) -> Answer {
    app.send(app.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

/// Checks that `expected` messages came before the next submission.
async fn only(app: &TestApp, queue: &mut crate::app::Tap, expected: usize) {
    let mut seen = queue.take(expected).await.len();
    app.submit(&json!({"task": "last"})).await;
    while queue.next().await.raw.headers["task"] != "last" {
        seen += 1;
    }
    assert_eq!(seen, expected, "messages in the queue");
}

#[tokio::test]
async fn a_key_is_one_effect_and_one_answer() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"task": "t", "args": [1]});
    let first = keyed(&app, "/v1/tasks", "\"k-1\"", &body).await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (202, ""), "{}", first.text);
    let again = keyed(&app, "/v1/tasks", "k-1", &body).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (202, "true"));
    assert_eq!((&again.text, again.header("location")), (&first.text, first.header("location")));

    let other = keyed(&app, "/v1/tasks", "\"k-1\"", &json!({"task": "t", "args": [2]})).await;
    assert_eq!(other.problem(422, "idempotency-key-reused")["outcome"], "not_published");
    // Another address is another request, and so is another key.
    assert_eq!(keyed(&app, "/v1/call/t?wait=0", "\"k-1\"", &json!([3])).await.status, 202);
    assert_eq!(keyed(&app, "/v1/tasks", "\"k-2\"", &body).await.status, 202);
    for bad in ["\"\"", "\"a", "a b", "\"a\";x=1\""] {
        keyed(&app, "/v1/tasks", bad, &body).await.problem(400, "invalid-parameter");
    }
    only(&app, &mut queue, 3).await;
}

#[tokio::test]
async fn fifty_at_once_with_one_key_are_one_message() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"task": "t"});
    let answers =
        futures_util::future::join_all((0..50).map(|_| keyed(&app, "/v1/tasks", "\"one\"", &body))).await;
    let first = answers.iter().find(|answer| answer.status == 202).unwrap();
    for answer in &answers {
        match answer.status.as_u16() {
            202 => assert_eq!(answer.text, first.text),
            _ => assert_eq!(answer.problem(409, "idempotency-in-progress")["retryable"], true),
        }
    }
    only(&app, &mut queue, 1).await;
}

#[tokio::test]
async fn a_key_is_free_again_if_nothing_was_published() {
    let app = TestApp::start().await;
    let body = json!({"task": "t", "queue": "later"});
    keyed(&app, "/v1/tasks", "\"k\"", &body).await.problem(422, "unroutable");
    let mut queue = app.consume("later").await;
    assert_eq!(keyed(&app, "/v1/tasks", "\"k\"", &body).await.status, 202);
    let delivery = queue.next().await;
    assert!(delivery.raw.properties.correlation_id.is_some());
}

#[tokio::test]
async fn an_unknown_outcome_is_sent_again_under_the_same_id() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("celery").await;
    rabbit.pause();
    let body = json!({"task": "t", "publish": {"timeout": 1}});
    let problem = keyed(&app, "/v1/tasks", "\"k\"", &body).await.problem(504, "publish-unconfirmed");
    assert_eq!(problem["outcome"], "unknown");
    rabbit.resume();
    let answer = wait::until(SOON * 2, "the request to be settled", async || {
        let answer = keyed(&app, "/v1/tasks", "\"k\"", &body).await;
        if answer.status == 202 { Ok(answer) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(answer.json()["id"], problem["task_id"]);
}

/// The client goes away before the answer: whoever comes back with the key gets it.
#[tokio::test]
async fn a_keyed_request_ends_well_without_its_client() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = r#"{"canvas":{"task":"t"}}"#;
    let head = format!(
        "POST /v1/canvas HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: \"gone\"\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(app.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    let first = queue.next().await.raw.properties.correlation_id;
    drop(socket);
    let answer = wait::until(SOON, "the answer to be kept", async || {
        let answer = keyed(&app, "/v1/canvas", "\"gone\"", &serde_json::from_str(body).unwrap()).await;
        if answer.status == 202 { Ok(answer) } else { Err(answer.text) }
    })
    .await;
    assert_eq!((answer.header("idempotent-replayed"), &answer.json()["id"]), ("true", &json!(first)));
}

#[tokio::test]
async fn without_redis_a_key_is_not_honoured_and_that_is_said() {
    let broker = Rabbit::shared().await.vhost("api").await;
    let redis = Redis::start().await;
    let app = TestApp::start_on(&broker, &redis.url(0), &[]).await;
    app.declare("celery").await;
    redis.kill();
    let answer = keyed(&app, "/v1/tasks", "\"k\"", &json!({"task": "t"})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("warning")),
        (202, "199 - \"idempotency-not-enforced\"")
    );
    let answer = app.post("/v1/tasks", &json!({"task": "t", "dedupe": {"key": "d"}})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert!(answer.text.contains("dedupe-not-enforced"), "{}", answer.text);
}

#[tokio::test]
async fn a_task_is_unique_while_it_is_pending_or_running() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let with = |conflict: &str| json!({"task": "t", "dedupe": {"key": "invoice-1", "on_conflict": conflict}});
    let id = |answer: &Answer| TaskId::parse(answer.json()["id"].as_str().unwrap()).unwrap();
    let first = app.post("/v1/tasks", &json!({"task": "t", "dedupe": {"key": "invoice-1", "ttl": 60}})).await;
    assert_eq!(first.status, 202, "{}", first.text);
    let first = id(&first);
    let same = app.post("/v1/tasks", &with("return_existing")).await;
    assert_eq!(
        (same.status.as_u16(), id(&same), same.json()["deduplicated"].clone()),
        (200, first.clone(), json!(true))
    );
    app.state(&first, "STARTED", json!({"hostname": "w"})).await;
    let problem = app.post("/v1/tasks", &with("reject")).await.problem(409, "dedupe-rejected");
    assert_eq!((&problem["task_id"], &problem["outcome"]), (&json!(first), &json!("not_published")));
    // When it has ended, the key is free.
    app.succeed(&first, "1").await;
    let second = app.post("/v1/tasks", &with("reject")).await;
    assert_eq!(second.status, 202, "{}", second.text);
    let third = app.post("/v1/tasks", &with("replace")).await;
    assert_eq!(third.status, 202, "{}", third.text);
    assert_ne!(id(&third), id(&second));
    // What could not be published does not keep the key.
    let lost = json!({"task": "t", "queue": "nowhere", "dedupe": {"key": "invoice-2"}});
    app.post("/v1/tasks", &lost).await.problem(422, "unroutable");
    let found = json!({"task": "t", "dedupe": {"key": "invoice-2"}});
    assert_eq!(app.post("/v1/tasks", &found).await.status, 202);
    only(&app, &mut queue, 4).await;
    for (dedupe, pointer) in [
        (json!({"key": ""}), "/dedupe/key"),
        (json!({"key": "k", "ttl": 0}), "/dedupe/ttl"),
        (json!({"key": "k", "on_conflict": "panic"}), "/dedupe/on_conflict"),
        (json!({}), "/dedupe/key"),
    ] {
        let problem = app
            .post("/v1/tasks", &json!({"task": "t", "dedupe": dedupe}))
            .await
            .problem(422, "invalid-option");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
}

/// Who is replaced is revoked when its successor is queued, and keeps its key if that fails.
#[tokio::test]
async fn a_replacement_that_fails_replaces_nothing() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let with = |conflict: &str, more: &Value| {
        let mut body = json!({"task": "t", "dedupe": {"key": "k", "on_conflict": conflict, "ttl": 60}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let revoked = async || {
        let kept = app.celery.cluster().unwrap().revoked_since(std::time::UNIX_EPOCH).await.unwrap();
        format!("{kept:?}")
    };
    app.submit(&with("reject", &json!({"task_id": "first"}))).await;
    let lost = with("replace", &json!({"task_id": "second", "queue": "nowhere"}));
    app.post("/v1/tasks", &lost).await.problem(422, "unroutable");
    let holds = async |id: &str| {
        let problem =
            app.post("/v1/tasks", &with("reject", &json!({}))).await.problem(409, "dedupe-rejected");
        assert_eq!(problem["task_id"], id);
    };
    holds("first").await;
    assert!(!revoked().await.contains("first"), "{}", revoked().await);
    // Nor does another body under the holder's id take its key away.
    let other = with("reject", &json!({"task_id": "first", "args": [1]}));
    app.post("/v1/tasks", &other).await.problem(409, "task-exists");
    holds("first").await;
    let found = with("replace", &json!({"task_id": "third"}));
    assert_eq!(app.post("/v1/tasks", &found).await.status, 202);
    assert!(revoked().await.contains("first"), "{}", revoked().await);
    holds("third").await;
    only(&app, &mut queue, 2).await;
}

/// An answer that is too long to be kept: the request is not run again.
#[tokio::test]
async fn a_long_answer_is_not_kept_and_that_is_said() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    for (key, length, kept) in [("medium", 200_000, true), ("long", 1_200_000, false)] {
        let key = format!("\"{key}\"");
        let body = json!([1]);
        let worker = async {
            let id = queue.next().await.raw.properties.correlation_id.clone().unwrap();
            app.succeed(&TaskId::parse(&id).unwrap(), &json!("x".repeat(length)).to_string()).await;
            id
        };
        let calling = keyed(&app, "/v1/call/t?wait=20", &key, &body);
        let (first, id) = futures_util::future::join(calling, worker).await;
        assert!(first.status == 200 && first.text.len() > length, "{}", first.status);
        let again = keyed(&app, "/v1/call/t?wait=20", &key, &body).await;
        if kept {
            assert!(again.header("idempotent-replayed") == "true" && again.text == first.text);
        } else {
            assert_eq!(again.problem(409, "answer-not-kept")["outcome"], "published");
            assert_eq!(again.header("location"), format!("/v1/tasks/{id}"));
        }
    }
    only(&app, &mut queue, 0).await;
}

#[tokio::test]
async fn many_at_once_with_one_dedupe_key_are_one_message() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"task": "t", "dedupe": {"key": "popular"}});
    let answers = futures_util::future::join_all((0..50).map(|_| app.post("/v1/tasks", &body))).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(202), count(202) + count(200) + count(409)), (1, 50));
    only(&app, &mut queue, 1).await;
}

#[tokio::test]
async fn a_long_queue_refuses_those_who_mind() {
    let app = TestApp::start().await;
    app.declare("long").await;
    let with = |limit: u32| json!({"task": "t", "queue": "long", "queue_limit": limit});
    assert_eq!(app.post("/v1/tasks", &with(0)).await.status, 202);
    wait::until(SOON, "the queue to be seen as long", async || {
        let answer = app.post("/v1/tasks", &with(0)).await;
        if answer.status == 503 { Ok(answer.problem(503, "queue-limit")) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(app.post("/v1/tasks", &with(1000)).await.status, 202);
    // What was accepted before is not refused now.
    let mine = |limit: u32| json!({"task": "t", "queue": "long", "task_id": "mine", "queue_limit": limit});
    assert_eq!(app.post("/v1/tasks", &mine(1000)).await.status, 202);
    let again = app.post("/v1/tasks", &mine(0)).await;
    assert_eq!((again.status.as_u16(), &again.json()["deduplicated"]), (200, &json!(true)));
    // A queue of ours that nobody has declared is empty.
    assert_eq!(app.post("/v1/tasks", &json!({"task": "t", "queue_limit": 0})).await.status, 202);
    let nowhere = json!({"task": "t", "queue": "nowhere", "queue_limit": 5});
    assert_eq!(
        app.post("/v1/tasks", &nowhere).await.problem(422, "queue-unknown")["outcome"],
        "not_published"
    );
}

#[tokio::test]
async fn a_call_is_its_arguments_and_its_result() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let worker = async |result: Result<&str, &str>| {
        let delivery = queue.next().await;
        let id = TaskId::parse(delivery.raw.properties.correlation_id.clone().unwrap()).unwrap();
        match result {
            Ok(value) => app.succeed(&id, value).await,
            Err(message) => app.fail(&id, "ValueError", message).await,
        }
        String::from_utf8(delivery.raw.body.to_vec()).unwrap()
    };
    let mut worker = worker;
    let request = app.request(Method::POST, "/v1/call/demo.add?priority=3").json(&json!([2, 3]));
    let (answer, body) = futures_util::future::join(app.send(request), worker(Ok("5"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let result = answer.json();
    assert_eq!((&result["state"], &result["result"]), (&json!("SUCCESS"), &json!(5)));
    assert!(body.starts_with("[[2, 3], {}, "), "{body}");

    let request = app.request(Method::POST, "/v1/call/demo.add?wait=20").json(&json!({"x": 1.50, "y": 2}));
    let (answer, body) = futures_util::future::join(app.send(request), worker(Err("no"))).await;
    let problem = answer.problem(424, "task-failed");
    assert_eq!((&problem["error"]["type"], &problem["outcome"]), (&json!("ValueError"), &json!("published")));
    assert!(body.starts_with("[[], {\"x\": 1.5, \"y\": 2}, "), "{body}");

    let answer = app.send(app.request(Method::POST, "/v1/call/demo.noargs?wait=0")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["task"]), (202, &json!("demo.noargs")));
    let shown =
        app.post("/v1/call/a%2Fb?dry_run=true&queue=q&countdown=5&task_id=me", &json!([])).await.json();
    assert_eq!(shown["routing_key"], "q");
    assert_eq!(
        (&shown["message"]["headers"]["task"], &shown["message"]["headers"]["id"]),
        (&json!("a/b"), &json!("me"))
    );
    for (path, body, status, slug) in [
        ("/v1/call/t", json!(5), 422, "invalid-option"),
        ("/v1/call/t?priority=11", json!([]), 422, "invalid-option"),
        ("/v1/call/t?task_id=a%20b", json!([]), 400, "invalid-parameter"),
        ("/v1/call/t?qeue=x", json!([]), 400, "invalid-parameter"),
    ] {
        app.post(path, &body).await.problem(status, slug);
    }
    let untyped = app.request(Method::POST, "/v1/call/t").body("[]");
    app.send(untyped).await.problem(415, "unsupported-media-type");
}
