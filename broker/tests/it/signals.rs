//! Events and remote control, with Celery's own programs at the other end.

use std::time::Duration;

use celery_broker::event::{EventsOptions, Received};
use celery_broker::{Celery, control::Destination};
use celery_protocol::control::{Command, ok_value};
use celery_protocol::event::{
    EventBody, TaskEvent, TaskEventKind, WorkerEvent, WorkerEventKind, WorkerStatus,
};
use celery_protocol::{Event, Nodename};
use celery_testkit::{Python, PythonWorker, Rabbit, Redis};

const LONG: Duration = Duration::from_secs(30);

async fn servers(name: &str) -> (String, String) {
    (Rabbit::shared().await.vhost(name).await, Redis::shared().await.database())
}

async fn client(broker: &str) -> Celery {
    Celery::builder("test").broker(broker).connect().await.unwrap()
}

/// Events until `enough` says so.
async fn events_until(
    receiver: &mut celery_broker::event::Receiver,
    mut enough: impl FnMut(&[Event]) -> bool,
) -> Vec<Event> {
    let mut seen = Vec::new();
    let collect = async {
        let mut buffer = Vec::new();
        while !enough(&seen) {
            assert!(receiver.recv_many(&mut buffer, 100).await > 0, "the receiver ended");
            for received in buffer.drain(..) {
                match received {
                    Received::Event { event, .. } => seen.push(*event),
                    Received::Undecodable { reason } => panic!("undecodable: {reason}"),
                    Received::Fatal(err) => panic!("{err}"),
                    _ => {}
                }
            }
        }
    };
    let done = tokio::time::timeout(LONG, collect).await;
    assert!(done.is_ok(), "only these events came: {seen:#?}");
    seen
}

async fn connected(receiver: &mut celery_broker::event::Receiver) {
    let mut buffer = Vec::new();
    while !buffer.iter().any(|received| matches!(received, Received::Connected)) {
        assert!(tokio::time::timeout(LONG, receiver.recv_many(&mut buffer, 1)).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_in_batches() {
    let (broker, _) = servers("events").await;
    let celery = client(&broker).await;
    let mut receiver = celery.events(&EventsOptions::default()).unwrap();
    connected(&mut receiver).await;
    let emitter = celery.event_emitter("w1@test");
    let status = WorkerStatus { freq: Some(2.0), ..WorkerStatus::default() };
    emitter.emit(WorkerEvent { kind: WorkerEventKind::Online, status });
    for number in 0..1000 {
        emitter.emit(TaskEvent::new(TaskEventKind::Started, format!("t{number}")));
    }
    tokio::time::timeout(LONG, emitter.flush()).await.unwrap();
    let events = events_until(&mut receiver, |seen| seen.len() == 1001).await;
    assert_eq!(events[0].body.type_name(), "worker-online");
    assert!(events.windows(2).all(|pair| pair[0].clock < pair[1].clock), "clocks rise");
    let EventBody::Task(last) = &events[1000].body else { panic!("{:?}", events[1000]) };
    assert_eq!((last.uuid.as_str(), events[1000].hostname.as_str()), ("t999", "w1@test"));
    receiver.close().await;
    celery.close().await;
}

#[tokio::test]
async fn a_python_workers_events_and_answers_are_understood() {
    let (broker, backend) = servers("python-signals").await;
    let celery = client(&broker).await;
    let mut receiver = celery.events(&EventsOptions::default()).unwrap();
    connected(&mut receiver).await;
    let _worker = PythonWorker::peer(&broker, &backend, &["-E", "--pool", "solo", "-n", "py@test"]).await;

    let replies =
        celery.control().call(&Command::Ping, Destination::All, Duration::from_secs(3)).await.unwrap();
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!(
        (replies[0].node.as_str(), &replies[0].value),
        ("py@test", &serde_json::json!({"ok": "pong"}))
    );
    let nobody = Destination::Nodes(vec!["no@one".into()]);
    let none = celery.control().call(&Command::Ping, nobody, Duration::from_millis(300)).await.unwrap();
    assert!(none.is_empty());

    Python::new(&broker, &backend)
        .run("from peer_app import *; print(add.delay(2, 3).get(timeout=20))")
        .await;
    let succeeded = |event: &Event| event.body.type_name() == "task-succeeded";
    let events = events_until(&mut receiver, |seen| seen.iter().any(succeeded)).await;
    let EventBody::Task(done) = &events.iter().find(|event| succeeded(event)).unwrap().body else {
        panic!("not a task event")
    };
    assert_eq!(done.fields.result.as_deref(), Some("5"));
    celery.close().await;
}

#[tokio::test]
async fn celery_inspect_gets_our_answer() {
    let (broker, backend) = servers("inspect-us").await;
    let celery = client(&broker).await;
    let mut node = celery.control_node(&Nodename::parse("rust@test").unwrap());
    let python = Python::new(&broker, &backend);
    let asked = python.run(
        "from peer_app import *\nimport time, json\nfor i in range(40):\n    r = app.control.inspect(timeout=0.5).ping()\n    if r: break\nprint(json.dumps(r))",
    );
    let answer = async {
        while let Some(request) = node.recv().await {
            if Command::parse(&request) == Ok(Command::Ping) {
                node.reply(&request, ok_value("pong")).await;
            }
        }
    };
    let said = tokio::select! {
        said = asked => said,
        () = answer => panic!("the node ended"),
    };
    assert_eq!(said.json::<serde_json::Value>(), serde_json::json!({"rust@test": {"ok": "pong"}}));
    node.close().await;
    celery.close().await;
}
