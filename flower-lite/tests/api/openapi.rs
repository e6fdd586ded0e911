//! The OpenAPI description against what is served: every path, and every field of every answer.

use std::collections::BTreeSet;
use std::time::Duration;

use flower_lite::MonitorOptions;
use flower_lite::access::Control;
use flower_lite::audit::Audit;
use serde_json::{Value, json};

use crate::helpers::{TestMonitor, event, life};

/// What in `value` is not as `schema` says; an empty list if all of it is.
fn differences(document: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        return differences(document, &document["components"]["schemas"][name], value, path);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let each: Vec<Vec<String>> =
            choices.iter().map(|choice| differences(document, choice, value, path)).collect();
        return each.into_iter().min_by_key(Vec::len).unwrap_or_default();
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() || kinds.contains(&"number") => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        return vec![format!("{path}: {kind} is none of {kinds:?}")];
    }
    match value {
        Value::Array(items) => items
            .iter()
            .flat_map(|item| differences(document, &schema["items"], item, &format!("{path}[]")))
            .collect(),
        Value::Object(map) if schema["properties"].is_object() => {
            let known = schema["properties"].as_object().expect("properties");
            let unknown = map
                .keys()
                .filter(|key| !known.contains_key(*key))
                .map(|key| format!("{path}.{key}: not described"));
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing =
                required.filter(|key| !map.contains_key(*key)).map(|key| format!("{path}.{key}: missing"));
            let deeper = map.iter().filter_map(|(key, value)| Some((key, value, known.get(key)?)));
            let deeper = deeper.flat_map(|(key, value, schema)| {
                differences(document, schema, value, &format!("{path}.{key}"))
            });
            unknown.chain(missing).chain(deeper).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_description_says_what_is_served() {
    let audit = Audit::open(None, Duration::from_secs(60)).expect("memory");
    let options = MonitorOptions {
        audit: Some(audit),
        control: Control::On,
        schedules: vec!["shop".into()],
        ..MonitorOptions::default()
    };
    let monitor = TestMonitor::start_with(options, "/m").await;
    monitor.tell(&life("one", "demo.add")).await;
    monitor
        .tell(&[
            event(
                "worker-heartbeat",
                0.0,
                json!({ "freq": 2.0, "active": 1, "processed": 3, "loadavg": [1, 2.5, 3] }),
            ),
            event(
                "task-received",
                1.0,
                json!({ "uuid": "two", "name": "demo.fail", "parent_id": "one", "root_id": "one" }),
            ),
            event("task-failed", 0.5, json!({ "uuid": "two", "exception": "E()", "traceback": "tb" })),
        ])
        .await;
    let document = monitor.get("api/v2/openapi.json").await;
    let paths: BTreeSet<&str> =
        document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (path, asked) in [
        ("/api/v2/overview", "api/v2/overview"),
        ("/api/v2/workers", "api/v2/workers"),
        ("/api/v2/workers/{name}", "api/v2/workers/a@host"),
        ("/api/v2/workers/{name}/answers", "api/v2/workers/a@host/answers?refresh=1"),
        ("/api/v2/queues", "api/v2/queues"),
        ("/api/v2/tasks", "api/v2/tasks?facets=1&limit=1"),
        ("/api/v2/tasks/{id}", "api/v2/tasks/one"),
        ("/api/v2/tasks/{id}", "api/v2/tasks/two"),
        ("/api/v2/workflows/{root}", "api/v2/workflows/one"),
        ("/api/v2/me", "api/v2/me"),
        ("/api/v2/failures", "api/v2/failures"),
        ("/api/v2/schedules", "api/v2/schedules"),
        ("/api/v2/alerts", "api/v2/alerts"),
        ("/api/v2/aggregates", "api/v2/aggregates?window=3600&by=worker"),
        ("/api/v2/arguments/{id}", "api/v2/arguments/one"),
        ("/api/v2/dead-letters", "api/v2/dead-letters"),
        ("/api/v2/bulk", "api/v2/bulk"),
        ("/api/v2/audit", "api/v2/audit"),
        ("/api/v2/openapi.json", "api/v2/openapi.json"),
    ] {
        let answer = monitor.get(asked).await;
        let schema =
            &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} is not described");
        wrong.extend(differences(&document, schema, &answer, asked));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let problem = monitor.ask("api/v2/tasks?nmae=x").await.json().await.expect("JSON");
    let described = &document["components"]["schemas"]["Problem"];
    assert_eq!(differences(&document, described, &problem, "problem"), Vec::<String>::new());

    // Every path of the routes is described, and the other way round.
    let routes = include_str!("../../src/routes/mod.rs");
    let served: BTreeSet<String> = routes
        .split('"')
        .filter_map(|text| text.strip_prefix("/api").or(Some(text)).filter(|text| text.starts_with("/v2/")))
        .map(|text| format!("/api{}", text.replace(":.+}", "}")))
        .collect();
    assert_eq!(served.iter().map(String::as_str).collect::<BTreeSet<_>>(), paths);
}
