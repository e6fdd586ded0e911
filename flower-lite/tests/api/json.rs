//! The JSON of `/api/v2`: its fields, its filters, its errors.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::helpers::{TestMonitor, event, life};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn missing<'a>(value: &Value, fields: &'a str) -> Vec<&'a str> {
    let known = keys(value);
    fields.split_whitespace().filter(|field| !known.contains(field)).collect()
}

const TASK: &str = "id name state worker queue args kwargs result exception runtime retries eta expires root_id parent_id \
                    sent received started succeeded failed retried revoked rejected timestamp clock ready";
const WORKER: &str = "name online last_heartbeat freq pid sw_ident sw_ver sw_sys loadavg active processed clock drift \
                      counts first_seen running";

#[tokio::test]
async fn every_field_is_there_known_or_not() {
    let monitor = TestMonitor::start().await;
    monitor.tell(&[event("task-started", 1.0, json!({ "uuid": "bare" }))]).await;

    let overview = monitor.get("api/v2/overview").await;
    let fields = "version server_time connected started_at events tasks workers rates series program";
    assert_eq!(missing(&overview, fields), [""; 0]);
    assert_eq!(missing(&overview["events"], "received dropped undecodable lag"), [""; 0]);
    assert_eq!(overview["series"].as_array().map(Vec::len), Some(300));
    assert_eq!(missing(&overview["series"][299], "t received succeeded failed retried"), [""; 0]);

    let page = monitor.get("api/v2/tasks").await;
    assert_eq!(missing(&page, "version total items next_cursor"), [""; 0]);
    assert_eq!(missing(&page["items"][0], TASK), [""; 0]);
    let detail = monitor.get("api/v2/tasks/bare").await;
    assert_eq!(missing(&detail, TASK), [""; 0]);
    assert_eq!(missing(&detail, "traceback timeline children parent root version"), [""; 0]);
    assert_eq!(missing(&detail["timeline"][0], "state type timestamp worker clock detail"), [""; 0]);

    let workers = monitor.get("api/v2/workers").await;
    assert_eq!(missing(&workers["items"][0], WORKER), [""; 0]);
    let worker = monitor.get("api/v2/workers/a%40host").await;
    assert_eq!(missing(&worker, WORKER), [""; 0]);
    assert_eq!(worker["tasks"][0]["id"], "bare");
    assert_eq!(worker["running"], json!(["bare"]));
}

#[tokio::test]
async fn a_life_is_told_as_it_was() {
    let monitor = TestMonitor::start().await;
    monitor.tell(&life("t1", "demo.add")).await;
    let task = monitor.get("api/v2/tasks/t1").await;
    for (field, value) in [
        ("state", json!("SUCCESS")),
        ("name", json!("demo.add")),
        ("queue", json!("math")),
        ("worker", json!("a@host")),
        ("args", json!("(2, 3)")),
        ("result", json!("5")),
        ("runtime", json!(0.25)),
        ("retries", json!(0)),
        ("ready", json!(true)),
        ("client", json!("gen1@api")),
        ("parent", json!(null)),
        ("root", json!("t1")),
    ] {
        assert_eq!(task[field], value, "{field}");
    }
    let types: Vec<&Value> =
        task["timeline"].as_array().into_iter().flatten().map(|entry| &entry["type"]).collect();
    assert_eq!(types, ["task-sent", "task-received", "task-started", "task-succeeded"]);
    let overview = monitor.get("api/v2/overview").await;
    assert_eq!(
        (&overview["tasks"]["by_state"]["SUCCESS"], &overview["workers"]["online"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let monitor = TestMonitor::start().await;
    let lives: Vec<Value> = (0..25)
        .flat_map(|index| life(&format!("t{index:02}"), if index % 2 == 0 { "demo.add" } else { "demo.mul" }))
        .collect();
    monitor.tell(&lives).await;
    let page =
        monitor.get("api/v2/tasks?name=demo.a*&state=SUCCESS,FAILURE&limit=5&sort=name&facets=1").await;
    assert_eq!((&page["total"], page["items"].as_array().map(Vec::len)), (&json!(13), Some(5)));
    assert_eq!(page["facets"]["name"], json!({ "demo.add": 13, "demo.mul": 12 }));
    assert_eq!(page["facets"]["state"], json!({ "SUCCESS": 13 }));
    let mut seen = BTreeSet::new();
    let mut cursor = page["next_cursor"].clone();
    seen.extend(page["items"].as_array().into_iter().flatten().map(|task| task["id"].to_string()));
    while let Some(text) = cursor.as_str() {
        let path = format!("api/v2/tasks?name=demo.a*&limit=5&sort=name&cursor={}", percent(text));
        let page = monitor.get(&path).await;
        seen.extend(page["items"].as_array().into_iter().flatten().map(|task| task["id"].to_string()));
        cursor = page["next_cursor"].clone();
    }
    assert_eq!(seen.len(), 13);
    let none = monitor.get("api/v2/tasks?q=nothing+like+it").await;
    assert_eq!((&none["total"], &none["items"]), (&json!(0), &json!([])));
    assert!(!keys(&none).contains("facets"), "only when asked for");
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn a_parameter_that_cannot_be_used_is_named() {
    let monitor = TestMonitor::start().await;
    for (query, parameter) in [
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("sort=__proto__", "sort"),
        ("sort=-", "sort"),
        ("cursor=nonsense", "cursor"),
        ("facets=maybe", "facets"),
        ("colour=red", "colour"),
        ("offset=5", "offset"),
        (&format!("q={}", "x".repeat(300)), "q"),
        (&format!("state={}", "A,".repeat(60)), "state"),
    ] {
        let answer = monitor.ask(&format!("api/v2/tasks?{query}")).await;
        assert_eq!(answer.status(), 422, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{query}");
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["status"], 422);
        assert!(problem["detail"].as_str().is_some_and(|text| text.starts_with(parameter)), "{problem}");
    }
    for query in ["limit=0", "limit=1000000000000", "limit=99999999999999999999999999", "q=", "state=&name="]
    {
        assert_eq!(monitor.ask(&format!("api/v2/tasks?{query}")).await.status(), 200, "{query}");
    }
    for query in ["topics=everything", "topics=task:a,task:b", "since=yesterday", "topic=tasks"] {
        assert_eq!(monitor.ask(&format!("api/v2/stream?{query}")).await.status(), 422, "{query}");
    }
}

#[tokio::test]
async fn what_is_not_known_is_404_and_what_is_not_get_is_405() {
    let monitor = TestMonitor::start().await;
    for path in ["api/v2/tasks/none", "api/v2/workers/none", "api/v2/nothing", "api/v1/tasks", "api"] {
        let answer = monitor.ask(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
    for path in ["api/v2/overview", "api/v2/tasks", "api/v2/tasks/x", "healthcheck", "metrics", ""] {
        let answer = monitor
            .client
            .post(format!("{}/{path}", monitor.base))
            .body("{}")
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 405, "POST {path}");
        assert_eq!(answer.headers()["allow"], "GET, HEAD");
    }
}

#[tokio::test]
async fn machines_are_told_how_it_is() {
    let monitor = TestMonitor::start().await;
    monitor.tell(&[event("worker-heartbeat", 0.0, json!({ "freq": 0.5, "active": 3 }))]).await;
    monitor.tell(&life("t1", "demo.\"add\"\nx")).await;
    assert_eq!(monitor.ask("healthcheck").await.text().await.expect("text"), "OK");
    assert_eq!(monitor.ask("livez").await.status(), 200);
    assert_eq!(monitor.ask("readyz").await.status(), 200);
    let metrics = monitor.ask("metrics").await.text().await.expect("text");
    for line in [
        "flower_worker_online{worker=\"a@host\"} 1",
        "flower_worker_number_of_currently_executing_tasks{worker=\"a@host\"} 3",
        r#"flower_events_total{worker="a@host",type="task-succeeded",task="demo.\"add\"\nx"} 1"#,
        r#"flower_events_total{worker="client",type="task-sent",task="demo.\"add\"\nx"} 1"#,
        "flower_tasks{state=\"SUCCESS\"} 1",
        "flower_broker_connected 1",
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} in\n{metrics}");
    }
    // No goodbye, no heartbeat: what Flower shows as online for ever.
    monitor.until("the silent worker is offline", async |overview| overview["workers"]["offline"] == 1).await;
    let metrics = monitor.ask("metrics").await.text().await.expect("text");
    assert!(metrics.contains("flower_worker_online{worker=\"a@host\"} 0\n"), "{metrics}");

    monitor.feed.link(flower_lite::live::Link::Lost).await;
    monitor.until("it is told", async |overview| overview["connected"] == false).await;
    assert_eq!(monitor.ask("readyz").await.status(), 503);
    assert_eq!(monitor.ask("healthcheck").await.status(), 200);
}
