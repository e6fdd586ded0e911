//! HTTP in, our worker, HTTP out.

use crate::stage::Stage;
use serde_json::json;

#[tokio::test]
async fn a_task_goes_the_whole_way() {
    let stage = Stage::new("http").await;
    let _worker = stage.worker(&["-c", "4", "-E"]).await;
    let api = stage.producer_api().await;

    let (status, handle) =
        api.post("/v1/tasks", &json!({"task": "demo.add", "args": [2], "kwargs": {"y": 3}})).await;
    assert_eq!(status, 202, "{handle:#}");
    let id = handle["id"].as_str().unwrap();
    assert_eq!(api.get_waiting(&format!("/v1/tasks/{id}/result")).await, (200, json!(5)));
    let read = format!("from peer_app import app; print(app.AsyncResult('{id}').get(timeout=10))");
    assert_eq!(stage.python().run(&read).await.json::<i64>(), 5);

    let (_, handle) = api.post("/v1/tasks", &json!({"task": "demo.fail", "args": ["on purpose"]})).await;
    let (status, problem) =
        api.get_waiting(&format!("/v1/tasks/{}/result", handle["id"].as_str().unwrap())).await;
    assert_eq!(status, 424, "{problem:#}");
    assert!(problem.to_string().contains("on purpose"), "{problem:#}");

    assert_eq!(api.get("/v1/tasks/never-sent/result").await.0, 404);
    assert_eq!(api.post("/v1/tasks", &json!({"args": []})).await.0, 422);
    assert_eq!(api.post("/v1/tasks", &json!({"task": "demo.add", "args": {}})).await.0, 422);
    let unroutable = json!({"task": "demo.add", "args": [1, 2], "exchange": "nowhere", "routing_key": "x"});
    assert_eq!(api.post("/v1/tasks", &unroutable).await.0, 422);
    assert_eq!(api.get("/livez").await.0, 200);
}

#[tokio::test]
async fn the_walkthrough_of_2016_still_works() {
    let stage = Stage::new("walkthrough").await;
    let api = stage.producer_api().await;

    assert_eq!(api.get("/").await, (400, json!("Stop value not specified!")));
    assert_eq!(api.get("/?stop=many").await.0, 400);
    let (status, queued) = api.get("/?start=23&stop=54&step=1").await;
    assert_eq!(status, 200, "{queued:#}");
    let id = queued["job_id"].as_str().unwrap().to_owned();
    let (_, waiting) = api.get("/results").await;
    assert!(waiting["queued_job_ids"].as_array().unwrap().contains(&json!(id)), "{waiting:#}");
    assert_eq!(api.get(&format!("/results/{id}")).await, (202, json!("Job has not finished!")));

    let worker = stage.worker(&["-c", "1"]).await;
    let (status, number) = api.get_waiting(&format!("/v1/tasks/{id}/result")).await;
    assert!(status == 200 && (23..54).contains(&number.as_i64().unwrap()), "{number}");
    assert_eq!(api.get(&format!("/results/{id}")).await, (200, json!({"result": number})));
    let (_, waiting) = api.get("/results").await;
    assert_eq!(waiting, json!({"queued_job_ids": []}), "{}", worker.process().log_tail());

    let (_, queued) = api.get("/?start=53&stop=45").await;
    let id = queued["job_id"].as_str().unwrap();
    api.get_waiting(&format!("/v1/tasks/{id}/result")).await;
    assert_eq!(api.get(&format!("/results/{id}")).await, (400, json!("Job has failed!")));
    assert_eq!(api.get("/results/never-sent").await.0, 404);
    assert_eq!(api.get("/dashboard/api/v2/overview").await.0, 200);
}
