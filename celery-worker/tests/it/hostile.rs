//! Requests on the control exchange that nobody should send: answered or dropped, and the worker goes on.

use std::time::Duration;

use celery_broker::control::Destination;
use celery_broker::{PublishOptions, Route};
use celery_protocol::control::{Command, EXCHANGE};
use celery_protocol::{HeaderMap, Properties, RawMessage};
use serde_json::{Value, json};

use crate::stage::Stage;

async fn send(stage: &Stage, body: Vec<u8>, headers: Value) {
    let headers: HeaderMap = headers.as_object().cloned().unwrap_or_default();
    let message = RawMessage {
        properties: Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            correlation_id: Some(uuid::Uuid::new_v4().to_string()),
            ..Properties::default()
        },
        headers,
        body: body.into(),
    };
    let route = Route { exchange: EXCHANGE.into(), routing_key: String::new() };
    stage.celery.publisher().publish(&route, message, PublishOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_harms_the_worker() {
    let stage = Stage::new("hostile").await;
    let worker = stage.running().await;
    let to_a_task_queue = json!({"exchange": "", "routing_key": "celery"});
    let many: Vec<String> = (0..20_000).map(|n| format!("id-{n}")).collect();
    let requests = [
        json!({"method": ["ping"]}),
        json!({"method": "ping", "arguments": []}),
        json!({"method": "ping", "destination": "everyone"}),
        json!({"method": "ping", "destination": many}),
        json!({"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"}),
        json!({"method": "ping", "pattern": "a{1000}{1000}{1000}", "matcher": "pcre"}),
        json!({"method": "ping", "pattern": "x", "matcher": "perl"}),
        json!({"method": "ping", "reply_to": to_a_task_queue, "ticket": "t"}),
        json!({"method": "ping", "reply_to": 7}),
        json!({"method": "x".repeat(5_000)}),
        json!({"method": "revoke", "arguments": {"task_id": many}}),
        json!({"method": "revoke", "arguments": {"task_id": [1, {}]}}),
        json!({"method": "revoke", "arguments": {"task_id": "x", "terminate": true, "signal": "999"}}),
        json!({"method": "rate_limit", "arguments": {"task_name": "t.add", "rate_limit": "NaN"}}),
        json!({"method": "rate_limit", "arguments": {"task_name": "t.add", "rate_limit": -1}}),
        json!({"method": "pool_grow", "arguments": {"n": 1_000_000_000}}),
        json!({"method": "pool_shrink", "arguments": {"n": 1_000_000_000}}),
        json!({"method": "autoscale", "arguments": {"max": 1, "min": 5}}),
        json!({"method": "add_consumer", "arguments": {"queue": ""}}),
        json!({"method": "add_consumer", "arguments": {"queue": "q".repeat(300)}}),
        json!({"method": "add_consumer", "arguments": {"queue": "q", "exchange_type": "no-such-type"}}),
        json!({"method": "time_limit", "arguments": {"task_name": "t.add", "hard": 1e308, "soft": -1}}),
        json!({"method": "hello", "arguments": {"from_node": [], "revoked": 5}}),
        json!({"method": "revoke_by_stamped_headers", "arguments": {"headers": [{}]}}),
    ];
    for request in &requests {
        send(&stage, request.to_string().into_bytes(), json!({})).await;
    }
    for body in [&b""[..], b"[]", b"\xff\xfe", b"{\"method\": \"shutdown\"", &[b'['; 100_000]] {
        send(&stage, body.to_vec(), json!({"expires": "soon", "clock": -1})).await;
    }
    // Long expired.
    send(&stage, json!({"method": "shutdown"}).to_string().into_bytes(), json!({"expires": 1.0})).await;

    let control = stage.celery.control();
    let ask = async |command: Command| {
        let replies = control.call(&command, Destination::All, Duration::from_secs(5)).await.unwrap();
        replies.into_iter().next().expect("an answer").value
    };
    assert_eq!(ask(Command::Ping).await, json!({"ok": "pong"}));
    let stats = ask(Command::Stats).await;
    assert!(stats["pool"]["max-concurrency"].as_u64().unwrap() < 100, "{stats}");
    assert!(ask(Command::Revoked).await.as_array().unwrap().len() <= 10_000);
    assert_eq!(stage.outcome("t.add", json!([2, 3])).await.result.get(), "5");
    assert_eq!(stage.depth("celery").await.0, 0, "no answer went into a queue of tasks");
    worker.stop().await;
}
