//! The live stream: hello, deltas, resuming, starting over.

use std::time::Duration;

use celery_testkit::wait;
use flower_lite::MonitorOptions;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::helpers::{SOON, TestMonitor, event, life};

/// One client of the stream.
struct Client {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    text: String,
}

/// One message of the stream.
#[derive(Debug)]
struct Message {
    event: String,
    id: Option<u64>,
    data: Value,
}

impl Client {
    async fn connect(monitor: &TestMonitor, query: &str, last: Option<u64>) -> Client {
        let mut request = monitor.client.get(format!("{}/api/v2/stream?{query}", monitor.base));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["x-accel-buffering"], "no");
        Client { bytes: Box::pin(answer.bytes_stream()), text: String::new() }
    }

    async fn next(&mut self) -> Message {
        tokio::time::timeout(SOON, async {
            loop {
                if let Some((message, rest)) = self.text.split_once("\n\n") {
                    let (message, rest) = (message.to_owned(), rest.to_owned());
                    self.text = rest;
                    if message.starts_with(':') {
                        continue;
                    }
                    let field = |name: &str| {
                        message
                            .lines()
                            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                            .map(str::to_owned)
                    };
                    return Message {
                        event: field("event").unwrap_or_default(),
                        id: field("id").and_then(|id| id.parse().ok()),
                        data: serde_json::from_str(&field("data").unwrap_or_default())
                            .expect("JSON in one line"),
                    };
                }
                let bytes = self.bytes.next().await.expect("the stream goes on").expect("bytes");
                self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
            }
        })
        .await
        .expect("a message in time")
    }

    async fn until(&mut self, check: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next().await;
            if check(&message) {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn hello_then_changed_rows_only() {
    let monitor = TestMonitor::start().await;
    monitor.tell(&life("old", "demo.add")).await;
    let mut client = Client::connect(&monitor, "topics=overview,workers,tasks", None).await;
    let hello = client.next().await;
    assert_eq!(hello.event, "hello");
    assert!(hello.data["server_time"].is_number());
    let version = hello.data["version"].as_u64().expect("a version");

    monitor.tell(&life("new", "demo.mul")).await;
    let delta = client.until(|message| message.data["tasks"].is_array()).await;
    assert_eq!(delta.event, "delta");
    assert!(delta.id.is_some_and(|id| id > version));
    assert_eq!(delta.id, delta.data["version"].as_u64());
    let ids: Vec<&Value> =
        delta.data["tasks"].as_array().into_iter().flatten().map(|task| &task["id"]).collect();
    assert_eq!(ids, ["new"]);
    assert_eq!(delta.data["workers"][0]["name"], "a@host");
    assert!(delta.data["overview"]["series"].as_array().is_some_and(|points| !points.is_empty()));
}

#[tokio::test]
async fn topics_are_kept_apart() {
    let monitor = TestMonitor::start().await;
    let mut client = Client::connect(&monitor, "topics=task:mine", None).await;
    assert_eq!(client.next().await.event, "hello");
    monitor.tell(&life("other", "demo.add")).await;
    monitor.tell(&[event("worker-heartbeat", 0.0, json!({ "freq": 2.0 }))]).await;
    monitor.tell(&life("mine", "demo.add")).await;
    let delta = client.next().await;
    assert_eq!(
        (&delta.data["task"]["id"], &delta.data["task"]["state"]),
        (&json!("mine"), &json!("SUCCESS"))
    );
    assert_eq!(delta.data["task"]["timeline"].as_array().map(Vec::len), Some(4));
    for topic in ["overview", "workers", "tasks"] {
        assert!(delta.data.get(topic).is_none(), "{topic}");
    }
}

#[tokio::test]
async fn the_overview_moves_on_though_nothing_happens() {
    let monitor = TestMonitor::start().await;
    let mut client = Client::connect(&monitor, "topics=overview", None).await;
    let first = client.until(|message| message.event == "delta").await;
    let second = client.until(|message| message.event == "delta").await;
    let time = |message: &Message| message.data["overview"]["server_time"].as_f64().unwrap_or_default();
    assert!((0.9..5.0).contains(&(time(&second) - time(&first))), "{first:?} {second:?}");
    let shown = second.data["overview"]["series"].as_array().map_or(0, Vec::len);
    assert!((2..10).contains(&shown), "a delta repeats only the end of the series: {shown}");
}

#[tokio::test]
async fn a_client_that_comes_back_goes_on_where_it_was() {
    let monitor = TestMonitor::start().await;
    monitor.tell(&life("t1", "demo.add")).await;
    let known = monitor.get("api/v2/tasks").await["version"].as_u64();
    monitor.tell(&life("t2", "demo.add")).await;
    monitor.tell(&life("t3", "demo.add")).await;
    for (query, last) in
        [("topics=tasks", known), (&*format!("topics=tasks&since={}", known.unwrap_or(0)), None)]
    {
        let mut client = Client::connect(&monitor, query, last).await;
        assert_eq!(client.next().await.event, "hello");
        let delta = client.next().await;
        let ids: Vec<&Value> =
            delta.data["tasks"].as_array().into_iter().flatten().map(|task| &task["id"]).collect();
        assert_eq!(ids, ["t2", "t3"], "all that was missed, oldest change first");
    }
}

#[tokio::test]
async fn one_that_knows_another_process_starts_over() {
    let monitor = TestMonitor::start().await;
    let version = monitor.get("api/v2/overview").await["version"].as_u64().expect("a version");
    for last in [0, 17, version + 1_000_000_000] {
        let mut client = Client::connect(&monitor, "topics=tasks", Some(last)).await;
        assert_eq!(client.next().await.event, "hello");
        let message = client.next().await;
        assert_eq!((&*message.event, message.id), ("resync", message.data["version"].as_u64()), "{last}");
    }
}

#[tokio::test]
async fn more_than_fits_is_cut_to_the_newest_and_said() {
    let monitor = TestMonitor::start().await;
    let mut client = Client::connect(&monitor, "topics=tasks", None).await;
    assert_eq!(client.next().await.event, "hello");
    let many: Vec<Value> =
        (0..500).map(|index| event("task-received", 1.0, json!({ "uuid": format!("t{index}") }))).collect();
    monitor.tell(&many).await;
    let mut last = client.until(|message| message.event == "delta").await;
    let mut omitted = last.data["tasks_omitted"].as_u64().unwrap_or(0);
    loop {
        assert!(last.data["tasks"].as_array().map_or(0, Vec::len) <= 200);
        if last.data["tasks"]
            .as_array()
            .and_then(|tasks| tasks.last())
            .is_some_and(|task| task["id"] == "t499")
        {
            break;
        }
        last = client.until(|message| message.event == "delta").await;
        omitted += last.data["tasks_omitted"].as_u64().unwrap_or(0);
    }
    assert!(omitted > 0, "they came too fast to be told one by one");
    client.until(|message| message.event == "resync").await;
}

#[tokio::test]
async fn streams_are_numbered_and_free_their_place() {
    let options = MonitorOptions { max_streams: 2, ..MonitorOptions::default() };
    let monitor = TestMonitor::start_with(options, "").await;
    let mut one = Client::connect(&monitor, "topics=overview", None).await;
    let mut two = Client::connect(&monitor, "topics=overview", None).await;
    assert_eq!((&*one.next().await.event, &*two.next().await.event), ("hello", "hello"));
    let refused = monitor.ask("api/v2/stream").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    drop(one);
    wait::until(Duration::from_secs(20), "a free place", async || {
        let status = monitor.ask("api/v2/stream").await.status();
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
}
