//! What a client should not send: each case has an exact answer, and the server goes on.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{Answer, TestApp};

async fn post_text(app: &TestApp, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = app.request(Method::POST, "/v1/tasks").header("content-type", content_type).body(body);
    app.send(request).await
}

/// Sends bytes as they are and reads until the server closes, or for `patience`.
async fn raw(app: &TestApp, bytes: &[u8], patience: Duration) -> String {
    let mut socket = TcpStream::connect(app.address()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_must_be_json_of_bounded_size_and_depth() {
    let app = TestApp::start().await;
    let json_type = "application/json";
    let too_large = json!({"task": "t", "args": ["x".repeat(1 << 20)]}).to_string();
    let deep =
        |levels: usize| format!("{{\"task\":\"t\",\"args\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    // H1: too large, declared and chunked.
    let answer = post_text(&app, json_type, too_large.clone()).await;
    assert_eq!(answer.problem(413, "body-too-large")["outcome"], "not_published");
    let chunks = too_large
        .into_bytes()
        .chunks(60_000)
        .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
        .collect::<Vec<_>>();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    post_text(&app, json_type, chunked).await.problem(413, "body-too-large");
    // H2: compressed bodies.
    let zipped = app
        .request(Method::POST, "/v1/tasks")
        .header("content-type", json_type)
        .header("content-encoding", "gzip");
    let answer = app.send(zipped.body(vec![0x1f, 0x8b])).await;
    answer.problem(415, "unsupported-media-type");
    assert_eq!(answer.header("accept-encoding"), "identity");
    // H3: other types.
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
    ] {
        post_text(&app, content_type, "{}").await.problem(415, "unsupported-media-type");
    }
    let answer = app.send(app.request(Method::POST, "/v1/tasks").body("{}")).await;
    answer.problem(415, "unsupported-media-type");
    // H4: not JSON, or ambiguous.
    for (body, pointer) in [
        ("", ""),
        ("{", ""),
        ("{}x", ""),
        ("{\"task\":\"t\",\"args\":[NaN]}", "/args/0"),
        ("{\"task\":\"t\",\"args\":[-Infinity]}", "/args/0"),
        ("{\"task\":\"t\",\"task\":\"u\"}", ""),
        ("{\"task\":\"t\",\"kwargs\":{\"a\":1,\"\\u0061\":2}}", "/kwargs"),
        ("{\"task\":\"t\",\"args\":[\"\\ud800\"]}", "/args/0"),
        ("\u{feff}{\"task\":\"t\"}", ""),
    ] {
        let problem = post_text(&app, json_type, body).await.problem(400, "malformed-json");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    post_text(&app, json_type, deep(64)).await.problem(400, "malformed-json");
    post_text(&app, json_type, deep(100_000)).await.problem(400, "malformed-json");
    post_text(&app, json_type, vec![b'{', 0xff]).await.problem(400, "malformed-json");
    assert_eq!(
        post_text(&app, json_type, deep(63).replace("\"t\"", "\"t\",\"queue\":\"none\"")).await.status,
        422
    );
}

#[tokio::test]
async fn members_are_judged_one_by_one() {
    let app = TestApp::start().await;
    let name = "x".repeat(256);
    let id = "x".repeat(201);
    for (body, status, slug, pointer) in [
        // H5
        (json!({}), 422, "invalid-option", "/task"),
        (json!([]), 422, "invalid-option", ""),
        (json!({"task": "t", "args": {}}), 422, "invalid-option", "/args"),
        (json!({"task": "t", "kwargs": []}), 422, "invalid-option", "/kwargs"),
        (json!({"task": "t", "options": {"queue": "q"}}), 422, "unknown-field", "/options"),
        (json!({"task": "t", "coutdown": 5}), 422, "unknown-field", "/coutdown"),
        // H7
        (json!({"task": "t", "task_id": "../x"}), 400, "invalid-parameter", "/task_id"),
        (json!({"task": "t", "task_id": ""}), 400, "invalid-parameter", "/task_id"),
        (json!({"task": "t", "task_id": "a\r\nSet-Cookie: x"}), 400, "invalid-parameter", "/task_id"),
        (json!({"task": "t", "task_id": id}), 400, "invalid-parameter", "/task_id"),
        // H8
        (json!({"task": "t", "eta": "2030-01-01T00:00:00Z", "countdown": 1}), 422, "invalid-option", "/eta"),
        (json!({"task": "t", "countdown": -1}), 422, "invalid-option", "/countdown"),
        (json!({"task": "t", "countdown": 1e18}), 422, "invalid-option", "/countdown"),
        (json!({"task": "t", "countdown": "5"}), 422, "invalid-option", "/countdown"),
        (json!({"task": "t", "eta": "2030-01-01T00:00:00"}), 422, "invalid-option", "/eta"),
        (json!({"task": "t", "eta": "9999-12-31T23:59:59Z"}), 422, "invalid-option", "/eta"),
        (json!({"task": "t", "countdown": 60, "expires": 30}), 422, "invalid-option", "/expires"),
        // H9
        (json!({"task": "t", "queue": "a\nb"}), 422, "invalid-option", "/queue"),
        (json!({"task": "t", "queue": name}), 422, "name-too-long", "/queue"),
        (json!({"task": "t", "queue": "amq.direct"}), 422, "invalid-option", "/queue"),
        (json!({"task": "t", "exchange": "celeryev"}), 422, "invalid-option", "/exchange"),
        (json!({"task": "t", "queue": "w@h.celery.pidbox"}), 422, "invalid-option", "/queue"),
        (
            json!({"task": "t", "exchange": "x", "routing_key": "a\u{0}b"}),
            422,
            "invalid-option",
            "/routing_key",
        ),
        // H10, H11
        (json!({"task": "t", "headers": {"id": "x"}}), 422, "invalid-option", "/headers/id"),
        (json!({"task": "a\r\nb"}), 422, "invalid-option", "/task"),
        (json!({"task": "t", "headers": {"a": "x".repeat(66_000)}}), 422, "headers-too-large", ""),
    ] {
        let problem = app.post("/v1/tasks", &body).await.problem(status, slug);
        assert_eq!(problem["outcome"], "not_published", "{body}");
        if slug != "headers-too-large" {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        }
    }
    // Many mistakes are told at once.
    let body = json!({"task": "", "countdown": -1, "priority": 99});
    let problem = app.post("/v1/tasks", &body).await.problem(422, "invalid-option");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3, "{problem:#}");
    for path in
        ["/v1/tasks?dry_run=perhaps", "/v1/tasks?dryrun=true", "/v1/tasks?wait=x", "/v1/tasks?wait=-1"]
    {
        app.post(path, &json!({"task": "t"})).await.problem(400, "invalid-parameter");
    }
}

#[tokio::test]
async fn the_allow_lists_are_kept() {
    let lists = [("PRODUCER_API_ALLOW_TASKS", "demo.*"), ("PRODUCER_API_ALLOW_QUEUES", "celery")];
    let app = TestApp::start_with(&lists).await;
    app.declare("celery").await;
    app.submit(&json!({"task": "demo.add"})).await;
    for (body, slug) in [
        (json!({"task": "other.add"}), "task-forbidden"),
        (json!({"task": "demo.add", "queue": "other"}), "queue-forbidden"),
        (json!({"task": "demo.add", "exchange": "other", "routing_key": "celery"}), "queue-forbidden"),
        (json!({"task": "demo.add", "link": [{"task": "other.add"}]}), "task-forbidden"),
        (
            json!({"task": "demo.add", "link_error": [{"task": "demo.add", "options": {"queue": "other"}}]}),
            "queue-forbidden",
        ),
        (
            json!({"task": "demo.add", "chord": {"task": "celery.chain", "kwargs": {"tasks": [{"task": "demo.add"}]}}}),
            "task-forbidden",
        ),
    ] {
        let problem = app.post("/v1/tasks", &body).await.problem(403, slug);
        assert_eq!(problem["outcome"], "not_published");
    }
}

#[tokio::test]
async fn addresses_and_methods_that_do_not_exist_are_problems_too() {
    let app = TestApp::start().await;
    for path in ["/nope", "/v1/tasks/a/b/c", "/v1//tasks", "/static/..%2f..%2fetc/passwd", "/v1/tasks/"] {
        app.get(path).await.problem(404, "not-found");
    }
    for (method, path, allow) in [
        (Method::PUT, "/v1/tasks", "GET, HEAD, POST"),
        (Method::GET, "/v1/tasks/batch", "POST"),
        (Method::POST, "/v1/tasks/x", "GET, HEAD, PUT, DELETE"),
        (Method::PATCH, "/v1/tasks/x/result", "GET, HEAD"),
        (Method::OPTIONS, "/livez", "GET, HEAD"),
        (Method::TRACE, "/", "GET, HEAD, POST"),
    ] {
        let answer = app.send(app.request(method, path)).await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn line_breaks_do_not_reach_headers_or_logs() {
    let app = TestApp::start().await;
    let answer = app.get("/v1/tasks/a%0d%0aSet-Cookie:%20x").await;
    answer.problem(400, "invalid-parameter");
    assert!(!answer.headers.contains_key("set-cookie"));
    let request = app.request(Method::GET, "/livez").header("x-request-id", "not-a-uuid");
    assert_ne!(app.send(request).await.header("x-request-id"), "not-a-uuid");
    let id = "8b7a1f9e-6f0e-4b5e-9c39-0d2f5b0b8f2c";
    let request = app.request(Method::GET, "/livez").header("x-request-id", id);
    assert_eq!(app.send(request).await.header("x-request-id"), id);
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let app = TestApp::start_with(&[("PRODUCER_API_BODY_TIMEOUT", "300ms")]).await;
    let head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let started = Instant::now();
    let answer = raw(&app, head, Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("/problems/request-timeout"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(5), "the connection is closed: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_body_that_is_refused_by_its_head_is_not_read() {
    let app = TestApp::start().await;
    let head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n";
    let answer = raw(&app, head, Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn tokens_are_asked_for_where_they_are_configured() {
    let app =
        TestApp::start_with(&[("PRODUCER_API_TOKENS", "s3cret,other"), ("PRODUCER_API_DASHBOARD", "true")])
            .await;
    let body = json!({"task": "t"});
    let answer = app.post("/v1/tasks", &body).await;
    let problem = answer.problem(401, "unauthenticated");
    assert!(answer.header("www-authenticate").starts_with("Bearer "), "{problem:#}");
    for path in ["/v1/tasks/x", "/v1/tasks/x/result", "/metrics", "/", "/results", "/results/x"] {
        app.get(path).await.problem(401, "unauthenticated");
    }
    for path in ["/livez", "/readyz", "/openapi.json", "/problems/unroutable", "/docs/"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    let dashboard = app.get("/dashboard/api/v2/overview").await;
    assert_eq!((dashboard.status.as_u16(), &dashboard.header("www-authenticate")[..6]), (401, "Basic "));
    for (path, password, expected) in [
        ("/dashboard/healthcheck", "s3cret", 200),
        ("/dashboard/healthcheck", "wrong", 401),
        ("/metrics", "s3cret", 401),
    ] {
        let request = app.request(Method::GET, path).basic_auth("anybody", Some(password));
        assert_eq!(app.send(request).await.status, expected, "{path} {password}");
    }
    for (scheme, token, expected) in [
        ("Bearer", "s3cret", 404),
        ("bearer", "other", 404),
        ("Bearer", "wrong", 401),
        ("Basic", "s3cret", 401),
    ] {
        let request =
            app.request(Method::GET, "/v1/tasks/x").header("authorization", format!("{scheme} {token}"));
        assert_eq!(app.send(request).await.status, expected, "{scheme} {token}");
    }
}
