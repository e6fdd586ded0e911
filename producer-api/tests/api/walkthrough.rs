//! The requests of the 2016 walkthrough, and what it shows as their answers.

use celery_protocol::TaskId;
use celery_testkit::{PythonWorker, Rabbit, Redis, wait};
use reqwest::Method;
use serde_json::json;

use crate::app::{SOON, TestApp};

#[tokio::test]
async fn the_article_can_be_followed() {
    let broker = Rabbit::shared().await.vhost("walkthrough").await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&broker, &backend, &[("PRODUCER_API_DASHBOARD", "true")]).await;

    let answer = app.get("/?start=41&stop=45").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    let id = answer.json()["job_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.text, format!("{{\n  \"job_id\": \"{id}\"\n}}\n"));
    assert_eq!(app.get("/results").await.json(), json!({"queued_job_ids": [id]}));
    let waiting = app.get(&format!("/results/{id}")).await;
    assert_eq!((waiting.status.as_u16(), waiting.text.as_str()), (202, "Job has not finished!"));
    assert_eq!(waiting.header("content-type"), "text/html; charset=utf-8");

    let _worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo", "-E"]).await;
    app.get_waiting(&format!("/v1/tasks/{id}/result")).await;
    let answer = app.get(&format!("/results/{id}")).await;
    let number = answer.json()["result"].as_i64().unwrap();
    assert!((41..45).contains(&number));
    assert_eq!(answer.text, format!("{{\n  \"result\": {number}\n}}\n"));
    assert_eq!(app.get("/results").await.json(), json!({"queued_job_ids": []}));

    for path in ["/dashboard", "/dashboard/"] {
        let page = app.get(path).await;
        assert_eq!(page.status, 200, "{}", page.text);
    }
    wait::until(SOON, "the dashboard to show the task", async || {
        let shown = app.get(&format!("/dashboard/api/v2/tasks/{id}")).await;
        if shown.status == 200 { Ok(()) } else { Err(shown.text) }
    })
    .await;

    let failing = app.get("/?start=53&stop=45").await.json()["job_id"].as_str().unwrap().to_owned();
    app.get_waiting(&format!("/v1/tasks/{failing}/result")).await;
    let answer = app.get(&format!("/results/{failing}")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (400, "Job has failed!"));
}

#[tokio::test]
async fn parameters_are_read_as_python_reads_them() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let answer = app.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (400, "Stop value not specified!"));
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    for path in ["/?stop=ten", "/?stop=", "/?stop=1.5", "/?start=x&stop=3", "/?stop=99999999999999999999"] {
        assert_eq!(app.get(path).await.status, 400, "{path}");
    }
    for (path, args) in [
        ("/?stop=45", "[0, 45, 1]"),
        ("/?start=%2B41&stop=45&step=2", "[41, 45, 2]"),
        ("/?start=-3&stop=+7+", "[-3, 7, 1]"),
    ] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
        let delivery = queue.next().await;
        assert_eq!(delivery.raw.headers["task"], "demo.randrange");
        assert!(delivery.raw.body.starts_with(format!("[{args}, ").as_bytes()), "{:?}", delivery.raw.body);
    }
    let by_form =
        app.request(Method::POST, "/?start=1").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(app.send(by_form.body("stop=9")).await.status, 200);
    assert!(queue.next().await.raw.body.starts_with(b"[[1, 9, 1], "));
    assert_eq!(app.send(app.request(Method::POST, "/?stop=9")).await.status, 200);
    app.get("/results/nobody").await.problem(404, "task-unknown");
}

#[tokio::test]
async fn only_what_waits_is_listed_oldest_first() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let mut ids: Vec<TaskId> = Vec::new();
    for _ in 0..4 {
        ids.push(app.submit(&json!({"task": "t"})).await);
    }
    app.submit(&json!({"task": "t", "ignore_result": true})).await;
    app.post("/v1/tasks", &json!({"task": "t", "queue": "missing"})).await;
    assert_eq!(app.get("/results").await.json(), json!({"queued_job_ids": ids}));
    app.succeed(&ids[0], "1").await;
    app.state(&ids[2], "STARTED", json!({})).await;
    assert_eq!(app.get("/results").await.json(), json!({"queued_job_ids": [ids[1], ids[3]]}));
}

#[tokio::test]
async fn it_can_be_left_out() {
    let app = TestApp::start_with(&[("PRODUCER_API_WALKTHROUGH", "false")]).await;
    app.get("/?stop=3").await.problem(404, "not-found");
    app.get("/results").await.problem(404, "not-found");
}
