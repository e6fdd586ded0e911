//! Reading: states, results, waiting, forgetting.

use std::time::{Duration, Instant};

use celery_protocol::TaskId;
use reqwest::Method;
use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn unknown_is_not_pending() {
    let app = TestApp::start().await;
    for path in ["/v1/tasks/nobody", "/v1/tasks/nobody/result", "/v1/tasks/nobody?wait=20"] {
        assert_eq!(app.get(path).await.problem(404, "task-unknown")["task_id"], "nobody");
    }
    app.delete("/v1/tasks/nobody").await.problem(404, "task-unknown");
    let assumed = app.get("/v1/tasks/nobody?assume_pending=true").await;
    assert_eq!(assumed.status, 200);
    assert_eq!(assumed.json()["state"], "PENDING");
    assert_eq!(assumed.json()["sources"], json!({"submission": false, "backend": false}));
    app.get("/v1/tasks/a%2Fb").await.problem(400, "invalid-parameter");
    app.get("/v1/tasks/x?include=everything").await.problem(400, "invalid-parameter");
    app.get("/v1/tasks/x?wiat=1").await.problem(400, "invalid-parameter");
}

#[tokio::test]
async fn every_state_is_a_200_and_a_result_has_its_own_codes() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let id = app.submit(&json!({"task": "demo.add", "stamps": {"tenant": "a"}})).await;
    let (task, result) = (format!("/v1/tasks/{id}"), format!("/v1/tasks/{id}/result"));

    let answer = app.get(&task).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("PENDING")));
    assert_eq!((answer.header("cache-control"), answer.header("retry-after")), ("no-cache", "1"));
    assert_eq!(answer.json()["stamps"], json!({"tenant": "a"}));
    let answer = app.get(&result).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-task-state")), (202, "PENDING"));
    assert_eq!(answer.json()["id"], json!(id));

    app.state(&id, "STARTED", json!({"pid": 7, "hostname": "celery@w1"})).await;
    assert_eq!(app.get(&task).await.json()["worker"], "celery@w1");
    app.state(&id, "PROGRESS", json!({"current": 3, "total": 10})).await;
    let progress = app.get(&task).await.json();
    assert_eq!((&progress["progress"]["current"], &progress["ready"]), (&json!(3), &json!(false)));
    assert_eq!(app.get(&result).await.header("x-task-state"), "PROGRESS");

    app.succeed(&id, "{\"sum\": 1.50}").await;
    let answer = app.get(&task).await;
    assert!(answer.text.contains("\"result\":{\"sum\": 1.50}"), "{}", answer.text);
    assert_eq!(answer.json()["successful"], true);
    assert!(answer.json()["finished_at"].is_string());
    let answer = app.get(&result).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "{\"sum\": 1.50}"));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-task-state"), "SUCCESS");
}

#[tokio::test]
async fn failures_are_424_unless_asked_otherwise() {
    let app = TestApp::start().await;
    let id = TaskId::parse("failed-1").unwrap();
    app.fail(&id, "ValueError", "bad").await;
    let task = app.get("/v1/tasks/failed-1").await;
    assert_eq!(task.status, 200);
    assert_eq!(task.json()["error"]["type"], "ValueError");
    assert_eq!(task.json()["error"]["traceback"], json!(null));
    assert_eq!(
        app.get("/v1/tasks/failed-1?include=traceback").await.json()["error"]["traceback"],
        "Traceback …"
    );
    let answer = app.get("/v1/tasks/failed-1/result").await;
    let problem = answer.problem(424, "task-failed");
    assert_eq!(problem["error"]["message"], json!(["bad"]));
    assert_eq!(answer.header("x-task-state"), "FAILURE");
    assert_eq!(app.get("/v1/tasks/failed-1/result?on_failure=200").await.json()["state"], "FAILURE");
    app.get("/v1/tasks/failed-1/result?on_failure=302").await.problem(400, "invalid-parameter");

    let id = TaskId::parse("revoked-1").unwrap();
    app.state(&id, "REVOKED", json!({"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "celery.exceptions"})).await;
    app.get("/v1/tasks/revoked-1/result").await.problem(424, "task-revoked");
}

#[tokio::test]
async fn what_a_worker_stored_wrongly_is_shown_as_text() {
    let app = TestApp::start().await;
    for (id, stored) in [("odd-1", "\"plain text\""), ("odd-2", "{\"exc_type\": 7}"), ("odd-3", "[]")] {
        let id = TaskId::parse(id).unwrap();
        app.state(&id, "FAILURE", serde_json::from_str(stored).unwrap()).await;
        let problem = app.get(&format!("/v1/tasks/{id}/result")).await.problem(424, "task-failed");
        assert_eq!(problem["error"]["type"], json!(null), "{problem:#}");
    }
    let backend = app.celery.backend();
    let meta = celery_protocol::ResultMeta::decode(
        br#"{"status": "SUCCESS", "result": [NaN, 1], "task_id": "odd-4"}"#,
    )
    .unwrap();
    backend.store(&meta).await.unwrap();
    assert_eq!(app.get("/v1/tasks/odd-4").await.json()["result"], "[NaN, 1]");
    let answer = app.get("/v1/tasks/odd-4/result").await;
    assert_eq!(
        (answer.text.as_str(), answer.header("content-type")),
        ("[NaN, 1]", "text/plain; charset=utf-8")
    );
}

#[tokio::test]
async fn a_wait_ends_with_the_task_or_with_the_time() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let id = app.submit(&json!({"task": "t"})).await;
    let started = Instant::now();
    let answer = app.get(&format!("/v1/tasks/{id}/result?wait=0.3")).await;
    assert_eq!(answer.status, 202);
    assert!(started.elapsed() >= Duration::from_millis(300));

    let path = format!("/v1/tasks/{id}/result");
    let waiting = futures_util::future::join_all((0..20).map(|_| app.get_waiting(&path)));
    let worker = async {
        celery_testkit::wait::nothing_for(Duration::from_millis(200)).await;
        app.succeed(&id, "42").await;
    };
    let started = Instant::now();
    let (answers, ()) = futures_util::future::join(waiting, worker).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    for answer in answers {
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "42"));
        assert_eq!(answer.header("preference-applied"), "wait=20");
        assert_eq!(answer.header("vary"), "Prefer");
    }
}

#[tokio::test]
async fn waits_are_capped_in_time_and_number() {
    let app = TestApp::start_with(&[("PRODUCER_API_MAX_WAIT", "1s"), ("PRODUCER_API_MAX_WAITS", "1")]).await;
    app.declare("celery").await;
    let id = app.submit(&json!({"task": "t"})).await;
    let path = format!("/v1/tasks/{id}");
    let both = futures_util::future::join(app.get_waiting(&path), app.get_waiting(&path)).await;
    let (waited, refused) = if both.0.status == 200 { both } else { (both.1, both.0) };
    assert_eq!((waited.status.as_u16(), waited.header("preference-applied")), (200, "wait=1"));
    let problem = refused.problem(429, "too-many-waits");
    assert_eq!(problem["retryable"], true);
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn nothing_new_is_a_304() {
    let app = TestApp::start().await;
    let id = TaskId::parse("cached-1").unwrap();
    app.succeed(&id, "4").await;
    for path in ["/v1/tasks/cached-1", "/v1/tasks/cached-1/result"] {
        let tag = app.get(path).await.header("etag").to_owned();
        assert!(tag.starts_with("\"SUCCESS-"), "{tag}");
        let again = app.send(app.request(Method::GET, path).header("if-none-match", &tag)).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
        assert_eq!(again.header("etag"), tag);
        let other = app.send(app.request(Method::GET, path).header("if-none-match", "\"PENDING-0\"")).await;
        assert_eq!(other.status, 200);
        let head = app.send(app.request(Method::HEAD, path)).await;
        assert_eq!((head.status.as_u16(), head.text.as_str(), head.header("etag")), (200, "", tag.as_str()));
    }
}

#[tokio::test]
async fn a_forgotten_task_is_gone_and_remembered_as_such() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let id = app.submit(&json!({"task": "t"})).await;
    let path = format!("/v1/tasks/{id}");
    app.delete(&path).await.problem(409, "task-not-finished");
    app.succeed(&id, "1").await;
    let answer = app.delete(&path).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    app.get(&path).await.problem(410, "task-forgotten");
    app.get(&format!("{path}/result")).await.problem(410, "task-forgotten");

    // With force a running one, and its children.
    let parent = app.submit(&json!({"task": "t"})).await;
    let child = TaskId::parse("child-1").unwrap();
    app.succeed(&child, "1").await;
    let meta = format!(
        r#"{{"status": "STARTED", "result": null, "task_id": "{parent}", "children": [[["child-1", null], null]]}}"#
    );
    app.celery.backend().store(&celery_protocol::ResultMeta::decode(meta.as_bytes()).unwrap()).await.unwrap();
    let path = format!("/v1/tasks/{parent}");
    assert_eq!(app.get(&path).await.json()["children"], json!(["child-1"]));
    assert_eq!(app.delete(&format!("{path}?force=true&recursive=true")).await.status, 204);
    app.get("/v1/tasks/child-1").await.problem(404, "task-unknown");
}

#[tokio::test]
async fn an_ignored_result_is_not_waited_for() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let id = app.submit(&json!({"task": "t", "ignore_result": true})).await;
    let started = Instant::now();
    app.get_waiting(&format!("/v1/tasks/{id}/result")).await.problem(409, "result-ignored");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(app.get(&format!("/v1/tasks/{id}")).await.json()["ignore_result"], true);
}
