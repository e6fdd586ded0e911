//! A Python Celery 5.7 worker, and our HTTP producer in the place of a Python client.

use crate::stage::Stage;
use serde_json::json;

#[tokio::test]
async fn runs_what_producer_api_sends() {
    let stage = Stage::new("to-python").await;
    let _worker = stage.python_worker(&["--pool", "threads", "-c", "4"]).await;
    let api = stage.producer_api().await;

    let call = json!({"task": "py.echo", "args": [1, "zwei", null, 1.5], "kwargs": {"ä": {"b": [true]}}});
    let (status, handle) = api.post("/v1/tasks", &call).await;
    assert_eq!(status, 202, "{handle:#}");
    let id = handle["id"].as_str().unwrap();
    let (status, result) = api.get_waiting(&format!("/v1/tasks/{id}/result")).await;
    assert_eq!((status, &result), (200, &json!({"args": call["args"], "kwargs": call["kwargs"]})));
    let (status, task) = api.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!((status, &task["state"]), (200, &json!("SUCCESS")), "{task:#}");

    let (_, failing) =
        api.post("/v1/tasks", &json!({"task": "py.raise", "args": ["KeyError", "gone"]})).await;
    let path = format!("/v1/tasks/{}/result", failing["id"].as_str().unwrap());
    let (status, problem) = api.get_waiting(&path).await;
    assert_eq!(status, 424, "{problem:#}");
    assert!(problem.to_string().contains("KeyError"), "{problem:#}");
}

#[tokio::test]
async fn understands_every_option_that_producer_api_sends() {
    let stage = Stage::new("options-to-python").await;
    let _worker = stage.python_worker(&["--pool", "threads", "-c", "2"]).await;
    let api = stage.producer_api().await;
    let call = json!({
        "task": "py.request", "task_id": "order-42", "countdown": 0.5, "expires": 3600, "priority": 5,
        "retries": 2, "time_limit": 60, "soft_time_limit": 50, "shadow": "an order",
        "headers": {"x-tenant": "a"},
    });
    let (status, handle) = api.post("/v1/tasks", &call).await;
    assert_eq!(status, 202, "{handle:#}");
    let (status, request) = api.get_waiting("/v1/tasks/order-42/result").await;
    assert_eq!(status, 200, "{request:#}");
    assert_eq!(request["id"], "order-42");
    assert_eq!(request["root_id"], "order-42");
    assert_eq!(request["correlation_id"], "order-42");
    assert_eq!(request["retries"], 2);
    assert_eq!(request["timelimit"], json!([60, 50]));
    assert_eq!(request["shadow"], "an order");
    assert_eq!(request["argsrepr"], "()");
    assert_eq!(request["kwargsrepr"], "{}");
    assert_eq!(request["delivery_info"]["routing_key"], "celery");
    assert_eq!(request["delivery_info"]["priority"], 5);
    assert!(request["eta"].is_string() && request["expires"].is_string(), "{request:#}");
    assert_eq!(request["headers"]["x-tenant"], "a", "{request:#}");
}
