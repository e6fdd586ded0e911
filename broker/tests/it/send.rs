//! Calls from Rust that a Python worker runs, and what stays at home.

use std::time::Duration;

use celery_broker::{BrokerErrorKind, Celery, Children, GetError, SendContext};
use celery_protocol::{GroupId, Limits, Message, Sig, TaskId, TaskState, chain, chord, group, remote_task};
use celery_testkit::{PythonWorker, Rabbit, Redis};
use futures_util::StreamExt;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

remote_task! {
    fn add("demo.add")(x: i64, y: i64) -> i64;
}
remote_task! {
    fn xsum("demo.xsum")(numbers: Vec<i64>) -> i64;
}

async fn with_python(name: &str) -> (Celery, PythonWorker) {
    let broker = Rabbit::shared().await.vhost(name).await;
    let backend = Redis::shared().await.database();
    let worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo"]).await;
    let celery = Celery::builder("it").broker(broker).backend(backend).connect().await.unwrap();
    (celery, worker)
}

#[tokio::test]
async fn a_python_worker_runs_our_calls() {
    let (celery, _worker) = with_python("send_python").await;
    assert_eq!(celery.send(add::s(2, 3)).await.unwrap().get(SOON).await.unwrap(), 5);

    let echo = Sig::<Value>::new("py.echo").arg("ü").arg([1.5]).kwarg("k", json!({"n": null}));
    let echoed = celery.send(echo).await.unwrap().get(SOON).await.unwrap();
    assert!(echoed.to_string().contains("\"n\":null"), "{echoed}");

    let failed = celery.send(Sig::<Value>::new("py.raise").arg("KeyError").arg("gone")).await.unwrap();
    match failed.get(SOON).await.unwrap_err() {
        GetError::Failed(failure) => {
            assert_eq!(failure.exception.exc_type, "KeyError");
            assert_eq!(failure.exception.message(), "gone");
            assert!(failure.traceback.unwrap().contains("Traceback"));
        }
        other => panic!("{other}"),
    }
    assert_eq!(failed.state().await.unwrap(), TaskState::Failure);
    failed.forget().await.unwrap();
    assert_eq!(failed.state().await.unwrap(), TaskState::Pending);

    let wrong = celery.send(add::s(1, 1)).await.unwrap();
    let wrong = celery.result::<String>(wrong.id().clone());
    assert!(matches!(wrong.get(SOON).await.unwrap_err(), GetError::Type { .. }));
    celery.close().await;
}

#[tokio::test]
async fn python_understands_our_options() {
    let (celery, _worker) = with_python("send_options").await;
    let id = TaskId::parse("my-own.id:1").unwrap();
    let call = Sig::<Value>::new("py.request")
        .task_id(&id)
        .priority(3)
        .time_limit(Duration::from_secs(30))
        .soft_time_limit(Duration::from_secs(20))
        .expires_in(Duration::from_secs(60))
        .countdown(Duration::from_millis(300))
        .option("headers", json!({"x-tenant": "a"}))
        .option("shadow", "nick");
    let seen = celery.send(call).await.unwrap();
    assert_eq!(seen.id(), &id);
    let seen = seen.get(SOON).await.unwrap();
    for (key, value) in [
        ("id", json!("my-own.id:1")),
        ("root_id", json!("my-own.id:1")),
        ("timelimit", json!([30.0, 20.0])),
        ("shadow", json!("nick")),
        ("retries", json!(0)),
    ] {
        let equal = match (&seen[key], &value) {
            (Value::Array(seen), Value::Array(value)) => {
                seen.iter().zip(value).all(|(seen, value)| seen.as_f64() == value.as_f64())
            }
            (seen, value) => seen == value,
        };
        assert!(equal, "{key}: {} instead of {value}, in {seen}", seen[key]);
    }
    assert!(seen["eta"].as_str().is_some_and(|eta| eta.ends_with("+00:00")), "{seen}");
    assert!(seen["origin"].as_str().is_some_and(|origin| origin.starts_with("gen")), "{seen}");
    celery.close().await;
}

#[tokio::test]
async fn workflows_run_on_a_python_worker() {
    let (celery, _worker) = with_python("send_canvas").await;
    let sum = chain(add::s(2, 3))
        .then(Sig::<i64>::new("demo.add").arg(4))
        .then(Sig::<i64>::new("demo.mul").arg(10));
    let sum = celery.send(sum).await.unwrap();
    assert_eq!(sum.get(SOON).await.unwrap(), 90);
    let first = sum.parent().unwrap().parent().unwrap();
    assert_eq!(first.get(SOON).await.unwrap(), json!(5));

    let all = celery.send(group((0..20).map(|i| add::s(i, i)))).await.unwrap();
    let expected: Vec<i64> = (0..20).map(|i| 2 * i).collect();
    assert_eq!(all.get(SOON).await.unwrap(), expected);
    assert_eq!(all.completed().await.unwrap(), 20);
    all.save().await.unwrap();
    let found = celery.group::<i64>(&all.id()).await.unwrap().unwrap();
    assert_eq!(found.get(SOON).await.unwrap(), expected);
    all.forget().await.unwrap();
    assert!(celery.group::<i64>(&all.id()).await.unwrap().is_none());

    let total =
        celery.send(chord(group((0..10).map(|i| add::s(i, 1))), Sig::<i64>::new("demo.xsum"))).await.unwrap();
    assert_eq!(total.get(SOON).await.unwrap(), 55);

    let linked = add::s(1, 1).link(Sig::<i64>::new("demo.add").arg(10));
    let linked = celery.send(linked).await.unwrap();
    assert_eq!(linked.get(SOON).await.unwrap(), 2);
    let children = linked.children().await.unwrap();
    assert_eq!(children[0].get(SOON).await.unwrap(), json!(12));
    celery.close().await;
}

#[tokio::test]
async fn progress_is_seen_on_the_way() {
    let (celery, _worker) = with_python("send_progress").await;
    let result = celery.send(Sig::<Value>::new("demo.progress").arg(3)).await.unwrap();
    let states: Vec<String> = tokio::time::timeout(
        SOON,
        result.watch().await.unwrap().map(|meta| meta.status.to_string()).collect(),
    )
    .await
    .unwrap();
    assert_eq!(states.last().map(String::as_str), Some("SUCCESS"));
    celery.close().await;
}

#[tokio::test]
async fn a_result_that_never_comes_times_out() {
    let backend = Redis::shared().await.database();
    let celery = Celery::builder("it").broker("amqp://127.0.0.1:1").backend(backend).start().unwrap();
    let never = celery.result::<i64>(TaskId::parse("never").unwrap());
    let begun = std::time::Instant::now();
    assert!(matches!(never.get(Duration::from_millis(300)).await, Err(GetError::Timeout)));
    assert!(begun.elapsed() < Duration::from_secs(2));
    celery.close().await;
}

/// Defect 12 and 22 of rusty-celery: it forced priorities to 0, dropped headers it did not know, and mislabelled bodies.
#[tokio::test]
async fn defect_12_22_messages_are_whole() {
    let (celery, outbox) = Celery::builder("it").route("mail.*", "mail").offline().unwrap();
    celery.send(Sig::<Value>::new("mail.send").option("headers", json!({"x": 1})).priority(7)).await.unwrap();
    celery.send(Sig::<Value>::new("mail.send").queue("other")).await.unwrap();
    celery.send(Sig::<Value>::new("tasks.add")).await.unwrap();
    let sent = outbox.take();
    let seen: Vec<_> = sent
        .iter()
        .map(|(route, message)| (route.routing_key.as_str(), message.properties.priority))
        .collect();
    assert_eq!(seen, [("mail", Some(7)), ("other", None), ("celery", Some(0))]);
    assert_eq!(sent[0].1.headers["x"], 1);
    for (_, raw) in sent {
        assert_eq!(raw.properties.content_encoding.as_deref(), Some("utf-8"));
        let message = Message::decode(raw, &Limits::DEFAULT).unwrap();
        assert_eq!(message.headers.origin.as_deref(), Some(celery.origin()));
    }
    celery.close().await;
}

#[tokio::test]
async fn calls_inside_a_task_inherit_and_become_children() {
    let (celery, outbox) = Celery::builder("it").offline().unwrap();
    let children = Children::default();
    let inside = celery.within(SendContext {
        root_id: Some(TaskId::parse("root").unwrap()),
        parent_id: Some(TaskId::parse("parent").unwrap()),
        priority: Some(4),
        children: Some(children.clone()),
    });
    let one = inside.send(add::s(1, 2)).await.unwrap();
    let two = inside.send(group([add::s(1, 2), add::s(3, 4)])).await.unwrap();
    inside.send(add::s(1, 2).option("add_to_parent", false)).await.unwrap();
    for (_, raw) in outbox.take() {
        assert_eq!(raw.properties.priority, Some(4));
        let headers = Message::decode(raw, &Limits::DEFAULT).unwrap().headers;
        assert_eq!(headers.parent_id.unwrap().as_str(), "parent");
        assert_eq!(headers.root_id.unwrap().as_str(), "root");
    }
    let noted = children.snapshot();
    assert_eq!(noted.len(), 2);
    assert_eq!((&noted[0].id, noted[0].members.is_none()), (one.id(), true));
    assert_eq!(GroupId::from(noted[1].id.clone()), two.id());
    assert_eq!(noted[1].members.as_ref().unwrap().len(), 2);
    celery.close().await;
}

#[tokio::test]
async fn an_offline_client_consumes_nothing() {
    let (celery, _outbox) = Celery::builder("it").offline().unwrap();
    let options = celery_broker::ConsumeOptions::new(vec![crate::support::spec("q")]);
    assert_eq!(*celery.consume(options).unwrap_err().kind(), BrokerErrorKind::Connect);
    assert!(celery.health().connected);
    celery.close().await;
}

/// Defect 15 of rusty-celery: with retries off it never tried to connect at all. Connecting tells at once what is wrong
/// for good, and tries again what is not.
#[tokio::test]
async fn defect_15_connecting_tells_what_is_wrong() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("send_login").await;
    let wrong = broker.replacen("amqp://", "amqp://nobody:sesame@", 1).replace("guest:guest@", "");
    let begun = std::time::Instant::now();
    let err = Celery::builder("it").broker(&wrong).connect().await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Auth, "{err}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!format!("{err} {err:?}").contains("sesame"));
    let err = Celery::builder("it")
        .broker("amqp://127.0.0.1:1")
        .connect_timeout(Duration::from_millis(500))
        .connect()
        .await
        .unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Connect, "{err}");
    // The second node of a list is tried when the first is down.
    let both = format!("amqp://127.0.0.1:1;{broker}");
    let celery = Celery::builder("it").broker(&both).connect().await.unwrap();
    assert!(!celery.broker_info().to_string().contains("sesame"));
    assert_eq!(celery.broker_info()["alternates"], json!(["amqp://guest:**@127.0.0.1:1/%2F"]));
    celery.close().await;
}

#[tokio::test]
async fn a_client_starts_before_its_broker() {
    let rabbit = Rabbit::start().await;
    rabbit.stop().await;
    let celery = Celery::builder("it").broker(rabbit.url()).start().unwrap();
    assert!(!celery.health().connected);
    let options = celery_broker::PublishOptions {
        unavailable: celery_broker::WhenUnavailable::Fail,
        ..Default::default()
    };
    let route = celery_broker::Route::queue("q");
    let err = celery.publisher().publish(&route, crate::support::message("a"), options).await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::NotConnected, "{err}");
    rabbit.restart().await;
    celery.wait_connected(Duration::from_secs(15)).await.unwrap();
    assert!(celery.health().connected);
    celery.close().await;
}

/// The handle is used from threads with runtimes of their own, as actix's are, and these may end.
#[tokio::test]
async fn other_runtimes_may_come_and_go() {
    let broker = Rabbit::shared().await.vhost("send_runtimes").await;
    let backend = Redis::shared().await.database();
    let celery = Celery::builder("it").broker(broker).backend(backend).connect().await.unwrap();
    crate::support::consumer(&celery, &["q"], 1).await.close().await;
    for round in 0..3 {
        let celery = celery.clone();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                crate::support::publish(&celery, "q", &round.to_string()).await;
                celery.backend().ping().await.unwrap();
                let id = TaskId::parse(format!("t{round}")).unwrap();
                let mut watch = celery.backend().watch(&id).await.unwrap();
                let value = serde_json::value::RawValue::from_string("1".into()).unwrap();
                let now = celery_protocol::WireTime::from(std::time::SystemTime::now());
                celery.backend().store(&celery_protocol::ResultMeta::success(id, value, now)).await.unwrap();
                tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap();
            });
        });
        tokio::task::spawn_blocking(|| worker.join().unwrap()).await.unwrap();
    }
    celery.close().await;
}
