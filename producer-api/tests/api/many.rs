//! Reading many tasks: look-ups, groups, batches, lists.

use std::time::Duration;

use celery_protocol::{ResultTuple, TaskId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn members(value: &Value, name: &str) -> Vec<Value> {
    value.as_array().unwrap().iter().map(|item| item[name].clone()).collect()
}

#[tokio::test]
async fn many_are_looked_up_at_once() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    for name in ["a", "b", "c"] {
        app.put(&format!("/v1/tasks/{name}"), &json!({"task": "t"})).await;
    }
    app.succeed(&id("a"), "1").await;
    app.fail(&id("b"), "ValueError", "no").await;
    let answer = app.post("/v1/tasks/lookup", &json!({"ids": ["a", "b", "c", "nobody"]})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["ready"], &body["pending"], &body["unknown"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(members(&body["items"], "id"), ["a", "b", "c", "nobody"]);
    assert_eq!(
        (&body["items"][0]["result"], &body["items"][1]["error"]["type"]),
        (&json!(1), &json!("ValueError"))
    );
    assert_eq!(body["items"][3]["problem"]["type"], "/problems/task-unknown");

    // All of them: the answer comes with the last result, and is not made of polls.
    let all = json!({"ids": ["a", "b", "c"], "wait": 20});
    let waiting = app.post("/v1/tasks/lookup", &all);
    let worker = async {
        app.state(&id("c"), "STARTED", json!({})).await;
        app.succeed(&id("c"), "3").await;
    };
    let (answer, ()) = futures_util::future::join(waiting, worker).await;
    assert_eq!(answer.json()["ready"], 3, "{}", answer.text);
    // Any of them: what has ended counts at once.
    app.put("/v1/tasks/d", &json!({"task": "t"})).await;
    let any = json!({"ids": ["d", "a"], "wait": 30, "wait_for": "any"});
    let quick =
        tokio::time::timeout(Duration::from_secs(15), app.post("/v1/tasks/lookup", &any)).await.unwrap();
    assert_eq!(quick.json()["pending"], 1);
    // The same one twice is one.
    let twice = json!({"ids": ["d", "d"], "wait": 0.5, "wait_for": "any"});
    let started = std::time::Instant::now();
    assert_eq!(app.post("/v1/tasks/lookup", &twice).await.json()["pending"], 2);
    assert!(started.elapsed() >= Duration::from_millis(500), "it did not wait");
    let late = app.post("/v1/tasks/lookup", &json!({"ids": ["d"], "wait": 0.05})).await;
    assert_eq!(late.json()["pending"], 1);
    for (body, pointer) in [
        (json!({"ids": []}), "/ids"),
        (json!({"ids": ["a b"]}), "/ids/0"),
        (json!({"ids": (0..1001).map(|n| n.to_string()).collect::<Vec<_>>()}), "/ids"),
        (json!({"ids": ["a"], "include": ["secrets"]}), "/include"),
        (json!({"ids": ["a"], "wait": -1}), "/wait"),
        (json!({"ids": ["a"], "wait_for": "some"}), "/wait_for"),
    ] {
        let problem = app.post("/v1/tasks/lookup", &body).await.problem(422, "invalid-option");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
}

#[tokio::test]
async fn a_group_is_read_waited_for_and_forgotten() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let tasks: Vec<Value> = (0..3).map(|n| json!({"task": "t", "task_id": format!("m{n}")})).collect();
    let batch = app.post("/v1/tasks/batch", &json!({"group": true, "tasks": tasks})).await.json();
    let group = batch["links"]["group"].as_str().unwrap();
    let whole = batch["links"]["self"].as_str().unwrap();
    let answer = app.get(group).await;
    let shown = answer.json();
    assert_eq!(
        (&shown["total"], &shown["ready"], &shown["states"]),
        (&json!(3), &json!(false), &json!({"PENDING": 3}))
    );
    let unchanged = app.request(Method::GET, group).header("if-none-match", answer.header("etag"));
    assert_eq!(app.send(unchanged).await.status, 304);
    let results = format!("{group}/results");
    assert_eq!(app.get(&results).await.status, 202);
    app.succeed(&id("m0"), "10").await;
    assert_eq!(app.get(&format!("{results}?partial=true")).await.json(), json!([10, null, null]));
    app.delete(group).await.problem(409, "task-not-finished");

    let (waiting, worker) = (app.get_waiting(&results), async {
        app.succeed(&id("m2"), "12.50").await;
        app.succeed(&id("m1"), "11").await;
    });
    let (answer, ()) = futures_util::future::join(waiting, worker).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "[10,11,12.50]"));
    let shown = app.get(whole).await.json();
    assert_eq!((&shown["successful"], &shown["group_id"]), (&json!(true), &batch["group_id"]), "{shown:#}");

    assert_eq!(app.delete(group).await.status, 204);
    app.get(group).await.problem(404, "group-unknown");
    app.get("/v1/tasks/m0").await.problem(410, "task-forgotten");
    assert_eq!(app.delete(&format!("{whole}?force=true")).await.status, 204);
    app.get(whole).await.problem(404, "batch-unknown");
    app.get("/v1/groups/none/results").await.problem(404, "group-unknown");
}

#[tokio::test]
async fn the_first_failure_of_a_group_is_told() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let canvas = json!({"canvas": {"group": [{"task": "t", "options": {"task_id": "g0"}}, {"task": "t", "options": {"task_id": "g1"}}]}});
    let started = app.post("/v1/canvas", &canvas).await.json();
    app.fail(&id("g1"), "KeyError", "x").await;
    let answer = app.get(started["links"]["result"].as_str().unwrap()).await;
    let problem = answer.problem(424, "task-failed");
    assert_eq!((&problem["task_id"], &problem["error"]["type"]), (&json!("g1"), &json!("KeyError")));
    // A group that another program has saved.
    let saved = ResultTuple::group(
        id("theirs").into(),
        vec![ResultTuple::task(id("g0")), ResultTuple::task(id("g1"))],
    );
    app.celery.backend().store_group(&saved).await.unwrap();
    assert_eq!(members(&app.get("/v1/groups/theirs").await.json()["tasks"], "state"), ["PENDING", "FAILURE"]);
}

#[tokio::test]
async fn what_was_submitted_is_listed_and_searched() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    app.declare("other").await;
    for n in 0..30 {
        let queue = if n % 3 == 0 { "other" } else { "celery" };
        let body =
            json!({"task": format!("demo.t{}", n % 2), "queue": queue, "stamps": {"n": n.to_string()}});
        assert_eq!(app.put(&format!("/v1/tasks/t{n:02}"), &body).await.status, 202);
    }
    app.succeed(&id("t03"), "1").await;
    let listed =
        async |query: &str| members(&app.get(&format!("/v1/tasks?{query}")).await.json()["items"], "id");
    // Pages do not shift while others submit.
    let mut seen = Vec::new();
    let mut path = "/v1/tasks?limit=7&task=demo.*".to_owned();
    loop {
        let answer = app.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let page = answer.json();
        seen.extend(members(&page["items"], "id"));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert!(answer.header("link").contains(&format!("cursor={cursor}>; rel=\"next\"")));
        path = answer.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
        app.submit(&json!({"task": "demo.late"})).await;
    }
    let expected: Vec<String> = (0..30).rev().map(|n| format!("t{n:02}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(listed("state=SUCCESS").await, ["t03"]);
    assert_eq!(listed("queue=other&task=demo.t0&limit=2").await, ["t24", "t18"]);
    assert_eq!(listed("stamp.n=17").await, ["t17"]);
    assert_eq!(listed("stamp=n=17&state=FAILURE").await, Vec::<Value>::new());
    assert_eq!(listed("since=2100-01-01T00:00:00Z").await, Vec::<Value>::new());
    assert_eq!(listed("until=2100-01-01T00:00:00Z&limit=500").await.len(), 30 + 4);
    let page = app.get("/v1/tasks?state=SUCCESS").await;
    let again =
        app.request(Method::GET, "/v1/tasks?state=SUCCESS").header("if-none-match", page.header("etag"));
    assert_eq!(app.send(again).await.status, 304);
    app.delete("/v1/tasks/t03").await;
    assert_eq!(listed("state=SUCCESS").await, Vec::<Value>::new());
    // H20
    for query in ["limit=1000000000000", "offset=-1", "limit=-1", "cursor=AAAA", "days=999999999"] {
        app.get(&format!("/v1/tasks?{query}")).await.problem(400, "invalid-parameter");
    }
}
