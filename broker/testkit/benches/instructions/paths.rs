//! The paths that need no server.

use celery_broker::config::Sources;
use celery_broker::route::Router;
use celery_protocol::event::decode;
use celery_protocol::{QueueName, TaskId, WireTime};
use flower_lite::clock;
use flower_lite::state::{ClusterState, Limits as StateLimits};
use producer_api::config::Config;
use producer_api::dto::submit::SubmitTask;
use producer_api::plan::{Context, Plan};
use producer_api::policy::Policy;
use serde_json::{Value, json};
use std::hint::black_box;

/// Events of one message, as a worker batches them.
const TOGETHER: u64 = 24;

pub(crate) fn walk(path: &str, count: u64) {
    match path {
        "submit" => submit(count),
        "ingest" => ingest(count),
        other => panic_on(&format!("no path is called {other}")),
    }
}

#[expect(clippy::panic, reason = "a benchmark that can't go on ends")]
fn panic_on(problem: &str) -> ! {
    panic!("{problem}")
}

fn submit(count: u64) {
    let nothing = |_: &str| None;
    let config = Config::load(&Sources { flag: &nothing, env: &nothing, file: None });
    let limits = config.unwrap_or_else(|err| panic_on(&err)).limits;
    let (router, policy) = (Router::new(QueueName::parse("celery").unwrap()), Policy::default());
    let context = Context {
        now: WireTime::parse("2026-11-24T02:51:34.920842+00:00").unwrap(),
        origin: "api@here",
        router: &router,
        policy: &policy,
        limits: &limits,
        trace: None,
        raw_priority: false,
    };
    let body = r#"{"task": "demo.add", "args": [1, 2], "kwargs": {}, "queue": "celery", "expires": 3600}"#;
    for number in 0..count {
        let id = TaskId::parse(format!("{number:08x}-7a1b-4c2d-8e3f-0123456789ab")).unwrap();
        let task =
            SubmitTask::parse(black_box(body)).unwrap_or_else(|problem| panic_on(&format!("{problem:?}")));
        let plan =
            Plan::make(task, &id, &context).unwrap_or_else(|problem| panic_on(&format!("{problem:?}")));
        black_box(plan);
    }
}

fn ingest(count: u64) {
    let bodies: Vec<String> = (0..count / TOGETHER).map(batch).collect();
    let limits = StateLimits { max_tasks: 100_000, max_bytes: usize::MAX, ..StateLimits::default() };
    let mut state = ClusterState::new(limits, clock::now());
    for body in &bodies {
        let now = clock::now();
        for event in decode(black_box(body.as_bytes())).unwrap() {
            state.apply(&event.unwrap(), now);
        }
    }
    black_box(state.totals());
}

/// The three events each of eight tasks.
fn batch(number: u64) -> String {
    let now = clock::now().seconds();
    let tasks = (0..TOGETHER / 3).flat_map(|task| {
        let id = format!("{number:08x}-7a1b-4c2d-8e3f-{task:012x}");
        let common = move |kind: &str, clock: u64| {
            json!({"type": kind, "uuid": id, "hostname": "bench@host", "utcoffset": 0, "pid": 1000, "timestamp": now,
                   "clock": 3 * number + clock})
        };
        let mut received = common("task-received", 1);
        let call = json!({"name": "bench.task", "args": "(1, 2)", "kwargs": "{'order_id': 7}", "retries": 0,
                          "root_id": null, "parent_id": null, "eta": null, "expires": null});
        if let (Value::Object(received), Value::Object(call)) = (&mut received, call) {
            received.extend(call);
        }
        let mut succeeded = common("task-succeeded", 3);
        succeeded["result"] = json!("'ok'");
        succeeded["runtime"] = json!(0.25);
        [received, common("task-started", 2), succeeded]
    });
    Value::Array(tasks.collect()).to_string()
}
