//! Probes, metrics, headers.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn probes_say_what_they_check() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/livez").await.text, "ok\n");
    assert_eq!(app.get("/readyz").await.text, "ok\n");
    assert_eq!(app.get("/healthz").await.text, "ok\n");
    let verbose = app.get("/readyz?verbose").await;
    assert_eq!(verbose.text, "[+] broker ok\n[+] backend ok\n[+] draining ok\n");
    let partial = app.get("/readyz?verbose&exclude=backend,draining").await;
    assert_eq!(partial.text, "[+] broker ok\n[+] draining ok\n", "draining cannot be left out");
    assert_eq!(app.send(app.request(reqwest::Method::HEAD, "/livez")).await.status, 200);
}

#[tokio::test]
async fn measurements_have_bounded_labels() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let id = app.submit(&json!({"task": "demo.secret-name"})).await;
    app.get(&format!("/v1/tasks/{id}")).await;
    app.get("/no/such/address").await;
    let answer = app.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "http_server_request_duration_seconds_count{method=\"GET\",route=\"/v1/tasks/{id}\",code=\"200\"}",
        "http_server_request_duration_seconds_count{method=\"GET\",route=\"unmatched\",code=\"404\"}",
        "producer_api_publish_outcomes_total{outcome=\"confirmed\"}",
        "producer_api_confirm_seconds_bucket",
        "producer_api_broker_connected 1",
        "producer_api_broker_blocked 0",
        "producer_api_in_flight{what=\"waits\"} 0",
    ] {
        assert!(answer.text.contains(line), "{line} is not in\n{}", answer.text);
    }
    assert!(!answer.text.contains(id.as_str()) && !answer.text.contains("secret-name"));
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let app = TestApp::start().await;
    for path in ["/livez", "/v1/tasks/x", "/nope", "/openapi.json"] {
        let answer = app.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
    }
}
