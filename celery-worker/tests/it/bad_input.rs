//! No message can stop the worker: each of these is refused, told about where an id can be read, and the next task runs.
//!
//! Numbers are those of the table of bad inputs that the project keeps (bodies, content, headers).

use bytes::Bytes;
use celery_protocol::{RawMessage, TaskId, TaskState};
use serde_json::{Value, json};

use crate::stage::Stage;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Rejected; a FAILURE with this exception is stored.
    Failed(&'static str),
    /// Rejected; there is no id to store anything under.
    Rejected,
    /// Run.
    Runs,
}

use Fate::{Failed, Rejected, Runs};

const INVALID: Fate = Failed("InvalidTaskError");

/// Changes a good message into a bad one.
type Change = fn(&mut RawMessage);

fn body(raw: &mut RawMessage, text: impl Into<Bytes>) {
    raw.body = text.into();
}

fn header(raw: &mut RawMessage, name: &str, value: Value) {
    raw.headers.insert(name.to_owned(), value);
}

const CASES: &[(&str, Fate, Change)] = &[
    ("M1 an object", INVALID, |raw| body(raw, r#"{"args": 1}"#)),
    ("M2 two items", INVALID, |raw| body(raw, "[[], {}]")),
    ("M2 four items", INVALID, |raw| body(raw, "[[], {}, {}, {}]")),
    ("M3 empty", INVALID, |raw| body(raw, "")),
    ("M4 no JSON", INVALID, |raw| body(raw, "{'a'")),
    ("M5 args a text", INVALID, |raw| body(raw, r#"["abc", {}, {}]"#)),
    ("M6 args an object", INVALID, |raw| body(raw, r#"[{"a": 1}, {}, {}]"#)),
    ("M7 kwargs a list", INVALID, |raw| body(raw, "[[], [], {}]")),
    ("M8 embed null", Runs, |raw| body(raw, "[[], {}, null]")),
    ("M8 embed empty", Runs, |raw| body(raw, "[[], {}, {}]")),
    ("M9 NaN", Runs, |raw| body(raw, "[[NaN, Infinity], {}, {}]")),
    ("M11 10^40", Runs, |raw| body(raw, "[[10000000000000000000000000000000000000000], {}, {}]")),
    ("M12 5000 digits", INVALID, |raw| body(raw, format!("[[{}], {{}}, {{}}]", "9".repeat(5_000)))),
    ("M14 not UTF-8", INVALID, |raw| body(raw, &b"[[\"\xff\"], {}, {}]"[..])),
    ("M16 NUL", Runs, |raw| body(raw, r#"[["\u0000"], {}, {}]"#)),
    ("M17 byte order mark", INVALID, |raw| body(raw, "\u{feff}[[], {}, {}]")),
    ("M18 depth 500", Runs, |raw| {
        body(raw, format!("[[{}{}], {{}}, {{}}]", "[".repeat(500), "]".repeat(500)))
    }),
    ("M19 depth 100000", INVALID, |raw| body(raw, "[".repeat(100_000))),
    ("M21 trailing bytes", INVALID, |raw| body(raw, "[[], {}, {}] x")),
    ("M24 pickle", INVALID, |raw| {
        raw.properties.content_type = Some("application/x-python-serialize".into())
    }),
    ("M26 unknown content", INVALID, |raw| raw.properties.content_type = Some("application/evil".into())),
    ("M27 no content type", INVALID, |raw| raw.properties.content_type = None),
    ("M28 binary encoding", Runs, |raw| raw.properties.content_encoding = Some("binary".into())),
    ("M29 unknown compression", INVALID, |raw| header(raw, "compression", json!("application/rar"))),
    ("M30 not compressed", INVALID, |raw| header(raw, "compression", json!("application/x-gzip"))),
    ("M35 nothing", Rejected, |raw| {
        raw.headers.clear();
        body(raw, "[]");
    }),
    ("M36 a number for a name", INVALID, |raw| header(raw, "task", json!(3))),
    ("M36 a long name", INVALID, |raw| header(raw, "task", json!("x".repeat(10_000)))),
    ("M36 a name with a newline", INVALID, |raw| header(raw, "task", json!("a\nb"))),
    ("M37 an unknown name", Failed("NotRegistered"), |raw| header(raw, "task", json!("../<script>"))),
    ("M38 no id", Rejected, |raw| drop(raw.headers.remove("id"))),
    ("M39 id null", Rejected, |raw| header(raw, "id", Value::Null)),
    ("M39 id a number", Rejected, |raw| header(raw, "id", json!(7))),
    ("M40 id a list", Rejected, |raw| header(raw, "id", json!(["a"]))),
    ("M41 id a path", Rejected, |raw| header(raw, "id", json!("../../etc/passwd"))),
    ("M42 a long id", Rejected, |raw| header(raw, "id", json!("x".repeat(1_000)))),
    ("M44 eta garbage", INVALID, |raw| header(raw, "eta", json!("soon"))),
    ("M44 eta a number", INVALID, |raw| header(raw, "eta", json!(5))),
    ("M46 eta past", Runs, |raw| header(raw, "eta", json!("2001-01-01T00:00:00"))),
    ("M49 expired", Failed("TaskRevokedError"), |raw| header(raw, "expires", json!("2001-01-01T00:00:00"))),
    ("M50 expires garbage", INVALID, |raw| header(raw, "expires", json!("never"))),
    ("M51 retries a text", INVALID, |raw| header(raw, "retries", json!("x"))),
    ("M51 retries negative", INVALID, |raw| header(raw, "retries", json!(-5))),
    ("M52 timelimit a text", INVALID, |raw| header(raw, "timelimit", json!("10"))),
    ("M52 timelimit too short", INVALID, |raw| header(raw, "timelimit", json!([1]))),
    ("M52 timelimit negative", Runs, |raw| header(raw, "timelimit", json!([-1, -1]))),
    ("M53 argsrepr a number", Runs, |raw| header(raw, "argsrepr", json!(3))),
    ("M54 ignore_result a text", INVALID, |raw| header(raw, "ignore_result", json!("no"))),
    ("M55 callbacks garbage", INVALID, |raw| body(raw, r#"[[], {}, {"callbacks": [3]}]"#)),
    ("M55 chain garbage", INVALID, |raw| body(raw, r#"[[], {}, {"chain": "x"}]"#)),
    ("M55 chord garbage", INVALID, |raw| body(raw, r#"[[], {}, {"chord": {}}]"#)),
    ("M56 10000 callbacks", INVALID, |raw| {
        let callbacks = vec![r#"{"task": "t.list"}"#; 10_000].join(", ");
        body(raw, format!(r#"[[], {{}}, {{"callbacks": [{callbacks}]}}]"#));
    }),
    ("M57 reply_to elsewhere", Runs, |raw| raw.properties.reply_to = Some("celery".into())),
    ("M58 odd headers", Runs, |raw| header(raw, "x-odd", json!({"a": [1, {"b": null}]}))),
    ("M60 priority 255", Runs, |raw| raw.properties.priority = Some(255)),
    ("M61 odd stamps", Runs, |raw| {
        header(raw, "stamps", json!(3));
        header(raw, "stamped_headers", json!({}));
    }),
    ("M63 shadow with markup", Runs, |raw| header(raw, "shadow", json!("<b>x</b>"))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_stops_the_worker() {
    let stage = Stage::new("bad-input").await;
    let worker = stage.running().await;
    let mut expected = Vec::new();
    for (name, fate, change) in CASES {
        let mut raw = stage.message("t.list", json!([])).encode();
        let id = TaskId::parse(raw.headers["id"].as_str().unwrap()).unwrap();
        change(&mut raw);
        stage.publish_raw("celery", raw).await;
        expected.push((*name, *fate, id));
    }
    stage.drained("celery").await;
    for (name, fate, id) in expected {
        let meta = stage.celery.backend().get(&id).await.unwrap();
        let seen = match &meta {
            None => Rejected,
            Some(meta) if meta.status == TaskState::Success => Runs,
            Some(meta) => {
                let exception = meta.exception().unwrap();
                let known = ["InvalidTaskError", "NotRegistered", "TaskRevokedError"];
                Failed(known.into_iter().find(|known| *known == exception.exc_type).unwrap_or("?"))
            }
        };
        assert_eq!(seen, fate, "{name}: {meta:?}");
    }
    assert_eq!(stage.outcome("t.add", json!([1, 1])).await.status, TaskState::Success);
    assert_eq!(worker.stop().await, celery_worker::Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_reaches_the_dead_letter_exchange() {
    use celery_broker::QueueSpec;
    use celery_protocol::QueueName;

    let stage = Stage::new("dead-letter").await;
    let mut spec = QueueSpec::new(QueueName::parse("work").unwrap());
    spec.arguments.insert("x-dead-letter-exchange".into(), json!(""));
    spec.arguments.insert("x-dead-letter-routing-key".into(), json!("dead"));
    let dead = QueueSpec::new(QueueName::parse("dead").unwrap());
    // Somebody has to declare the queue of dead letters; nobody consumes from it.
    let worker = stage.run(stage.worker().await.queue(dead)).await;
    worker.stop().await;
    let worker = stage.run(stage.worker().await.queue(spec)).await;
    let mut raw = stage.message("t.unknown", json!([])).encode();
    let id = TaskId::parse(raw.headers["id"].as_str().unwrap()).unwrap();
    stage.publish_raw("work", raw.clone()).await;
    let meta = stage.end_of(&id).await;
    assert_eq!(meta.exception().unwrap().repr(), "NotRegistered('t.unknown')");
    assert_eq!(meta.exception().unwrap().exc_module.as_deref(), Some("celery.exceptions"));
    assert_eq!(meta.traceback, None);
    raw.body = Bytes::from_static(b"junk");
    raw.headers.remove("id");
    stage.publish_raw("work", raw).await;
    celery_testkit::wait::until(crate::stage::SOON, "two dead letters", async || {
        match stage.depth("dead").await {
            (2, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    worker.stop().await;
}
