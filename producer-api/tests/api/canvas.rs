//! Workflows over HTTP, run by a Python worker.

#![expect(clippy::needless_pass_by_value, reason = "tables read better without references")]

use celery_testkit::{PythonWorker, Rabbit, Redis};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, TestApp};

fn add(args: Value) -> Value {
    json!({"task": "demo.add", "args": args})
}

async fn start(app: &TestApp, canvas: Value) -> Value {
    let answer = app.post("/v1/canvas", &json!({ "canvas": canvas })).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let body = answer.json();
    assert_eq!(answer.header("location"), body["links"]["self"].as_str().unwrap());
    body
}

#[tokio::test]
async fn a_python_worker_runs_workflows() {
    let broker = Rabbit::shared().await.vhost("canvas").await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&broker, &backend, &[]).await;
    let _worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo"]).await;
    let result = async |canvas: Value| {
        let started = start(&app, canvas).await;
        let answer = app.get_waiting(started["links"]["result"].as_str().unwrap()).await;
        (answer.status.as_u16(), answer.json())
    };
    let chain = json!({"chain": [add(json!([1, 2])), add(json!([3])), {"task": "demo.mul", "args": [10]}]});
    assert_eq!(result(chain).await, (200, json!(60)));
    let chord = json!({"chord": {"header": [add(json!([1, 1])), add(json!([2, 2])), {"chain": [add(json!([1, 2])), add(json!([3]))]}], "body": {"task": "demo.xsum"}}});
    assert_eq!(result(chord).await, (200, json!(12)));
    let upgraded = json!({"chain": [{"group": [add(json!([1, 1])), add(json!([2, 2]))]}, {"task": "demo.xsum"}, add(json!([100]))]});
    assert_eq!(result(upgraded).await, (200, json!(106)));
    let nested = json!({"chord": {"header": [{"chord": {"header": [add(json!([1, 1])), add(json!([1, 1]))], "body": {"task": "demo.xsum"}}}, add(json!([3, 3]))], "body": {"task": "demo.xsum"}}});
    assert_eq!(result(nested).await, (200, json!(10)));
    assert_eq!(
        result(json!({"starmap": {"task": "demo.add", "it": [[1, 2], [3, 4]]}})).await,
        (200, json!([3, 7]))
    );
    assert_eq!(
        result(json!({"map": {"task": "demo.xsum", "it": [[1, 2], [3]]}})).await,
        (200, json!([3, 3]))
    );
    let immutable =
        json!({"chain": [add(json!([1, 2])), {"task": "demo.add", "args": [5, 6], "immutable": true}]});
    assert_eq!(result(immutable).await, (200, json!(11)));
    let failing = json!({"chain": [{"task": "demo.fail", "args": ["no"]}, add(json!([1]))]});
    let started = start(&app, failing).await;
    let first = started["tree"]["parent"]["id"].as_str().unwrap();
    app.get_waiting(&format!("/v1/tasks/{first}/result")).await.problem(424, "task-failed");
}

#[tokio::test]
async fn every_task_of_a_workflow_is_known_from_the_start() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"canvas": {"chain": [add(json!([1, 2])), {"group": [add(json!([3])), add(json!([4]))]}, {"task": "demo.xsum"}]},
        "meta": {"order": 7}, "stamps": {"tenant": "a"}});
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer =
        app.send(app.request(Method::POST, "/v1/canvas").header("traceparent", trace).json(&body)).await;
    let started = answer.json();
    assert_eq!((answer.status.as_u16(), &started["published"]), (202, &json!(1)), "{}", answer.text);
    let delivery = queue.next().await;
    assert_eq!(
        (&delivery.raw.headers["traceparent"], &delivery.raw.headers["stamps"]),
        (&json!(trace), &json!({"tenant": "a"}))
    );
    let last = started["id"].as_str().unwrap();
    let task = app.get(&format!("/v1/tasks/{last}")).await.json();
    assert_eq!((&task["state"], &task["task"]), (&json!("PENDING"), &json!("demo.xsum")));
    assert_eq!((&task["meta"]["order"], &task["stamps"]["tenant"]), (&json!(7), &json!("a")));
    assert_eq!(task["root_id"], delivery.raw.headers["id"]);
    let members = started["tree"]["parent"]["members"].as_array().unwrap();
    assert_eq!(members.len(), 2, "{started:#}");
    for member in members {
        assert_eq!(app.get(&format!("/v1/tasks/{}", member["id"].as_str().unwrap())).await.status, 200);
    }
    let shown = app.post("/v1/canvas?dry_run=true", &body).await.json();
    assert_eq!((&shown["valid"], shown["messages"].as_array().unwrap().len()), (&json!(true), 1));
    assert_eq!(shown["messages"][0]["message"]["headers"]["task"], "demo.add");
}

#[tokio::test]
async fn a_workflow_is_started_whole_or_called_back() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let lost = json!({"task": "t", "options": {"queue": "nowhere"}});
    let answer = app.post("/v1/canvas", &json!({"canvas": {"group": [add(json!([1, 1])), lost]}})).await;
    let problem = answer.problem(422, "unroutable");
    assert_eq!(problem["outcome"], "unknown");
    let first = queue.next().await;
    assert_eq!(problem["published"], json!([first.raw.properties.correlation_id]));
    // What was not published at all leaves nothing behind.
    let answer = app
        .post(
            "/v1/canvas",
            &json!({"canvas": {"chain": [lost, {"task": "t", "options": {"task_id": "never"}}]}}),
        )
        .await;
    assert_eq!(answer.problem(422, "unroutable")["outcome"], "not_published");
    app.get("/v1/tasks/never").await.problem(404, "task-unknown");
    let problem =
        app.post("/v1/canvas", &json!({"canvas": {"chain": [add(json!([1])), {"group": []}]}})).await;
    let problem = problem.problem(422, "canvas-invalid");
    assert_eq!(
        (&problem["errors"][0]["pointer"], &problem["outcome"]),
        (&json!("/canvas/chain/1/group"), &json!("not_published"))
    );
}

#[tokio::test]
async fn an_idempotent_workflow_is_started_once() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let body = json!({"canvas": {"group": [add(json!([1, 1])), add(json!([2, 2]))]}});
    let send = async || -> Answer {
        app.send(app.request(Method::POST, "/v1/canvas").header("idempotency-key", "\"w\"").json(&body)).await
    };
    let (first, again) = (send().await, send().await);
    assert_eq!((first.text, again.header("idempotent-replayed")), (again.text.clone(), "true"));
    queue.take(2).await;
    app.submit(&json!({"task": "last"})).await;
    assert_eq!(queue.next().await.raw.headers["task"], "last");
}

/// What was called back is used up: the same request again is run under new ids.
#[tokio::test]
async fn a_workflow_that_was_called_back_can_be_sent_again() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let lost = json!({"task": "t", "options": {"queue": "later"}});
    let body = json!({"canvas": {"group": [add(json!([1, 1])), lost]}});
    let send = async || -> Answer {
        app.send(app.request(Method::POST, "/v1/canvas").header("idempotency-key", "\"w\"").json(&body)).await
    };
    let problem = send().await.problem(422, "unroutable");
    let revoked = queue.next().await.raw.properties.correlation_id;
    assert_eq!((&problem["outcome"], &problem["published"]), (&json!("unknown"), &json!([revoked])));
    app.declare("later").await;
    let answer = send().await;
    assert_eq!((answer.status.as_u16(), answer.header("idempotent-replayed")), (202, ""), "{}", answer.text);
    assert_ne!(queue.next().await.raw.properties.correlation_id, revoked);
    assert_eq!(send().await.header("idempotent-replayed"), "true");
}

/// Ids of the client's choice: what belongs to another task is neither overwritten nor removed.
#[tokio::test]
async fn a_workflow_takes_no_id_of_others() {
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let mine = json!({"task": "mine", "meta": {"order": 7}});
    assert_eq!(app.put("/v1/tasks/taken", &mine).await.status, 202);
    let id = |name: &str| json!({"task": "t", "options": {"task_id": name}});
    for queue in ["celery", "nowhere"] {
        let canvas = json!({"chain": [{"task": "t", "options": {"queue": queue}}, id("free"), id("taken")]});
        let problem = app.post("/v1/canvas", &json!({ "canvas": canvas })).await.problem(409, "task-exists");
        assert_eq!((&problem["outcome"], &problem["task_id"]), (&json!("not_published"), &json!("taken")));
        let task = app.get("/v1/tasks/taken").await.json();
        assert_eq!((&task["task"], &task["meta"]["order"]), (&json!("mine"), &json!(7)));
        app.get("/v1/tasks/free").await.problem(404, "task-unknown");
    }
    start(&app, json!({"chain": [add(json!([1, 1])), id("free")]})).await;
    let names: Vec<_> =
        queue.take(2).await.into_iter().map(|sent| sent.raw.headers["task"].clone()).collect();
    assert_eq!(names, ["mine", "demo.add"]);
    // What was deleted by request is free again.
    assert_eq!(app.delete("/v1/tasks/taken?force=true").await.status, 204);
    start(&app, id("taken")).await;
    assert_eq!(app.get("/v1/tasks/taken").await.json()["task"], "t");
}
