//! The history over HTTP, and what survives a process that is killed.

use std::path::PathBuf;
use std::time::Duration;

use celery_testkit::{Program, Rabbit, binary, ports, wait};
use flower_lite::history::{History, HistoryOptions, Retention};
use flower_lite::{Monitor, MonitorOptions};
use serde_json::{Value, json};

use crate::helpers::{SOON, TestMonitor, event, life};

/// A file of the test's own in a folder that goes with it.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str) -> Kept {
        let folder = std::env::temp_dir().join(format!("flower-api-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Kept(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("flower.db")
    }

    fn open(&self) -> MonitorOptions {
        let retention = Retention { age: Duration::from_secs(86_400), bytes: 1 << 30 };
        let history = History::open(&HistoryOptions { path: self.path(), retention }).expect("it opens");
        MonitorOptions { history: Some(history), ..MonitorOptions::default() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str()).collect()
}

#[tokio::test]
async fn the_history_is_searched_page_by_page() {
    let kept = Kept::new("pages");
    let options = MonitorOptions {
        limits: flower_lite::state::Limits { max_tasks: 5, ..Default::default() },
        ..kept.open()
    };
    let monitor = TestMonitor::start_with(options, "").await;
    for i in 0..20 {
        monitor.tell(&life(&format!("id-{i:02}"), &format!("demo.task_{}", i % 2))).await;
    }
    let asked = "api/v2/history?name=demo.*_1&state=SUCCESS&queue=math&q=(2,%203)&limit=4";
    wait::until(SOON, "all of it to be written", async || {
        let found = monitor.get("api/v2/history?limit=100").await;
        if ids(&found).len() == 20 { Ok(()) } else { Err(found) }
    })
    .await;
    let mut seen: Vec<String> = Vec::new();
    let mut next = asked.to_owned();
    loop {
        let page = monitor.get(&next).await;
        assert_eq!(page["complete"], true);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{asked}&cursor={cursor}"),
            None => break,
        }
    }
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!((seen.len(), distinct.len()), (10, 10), "{seen:?}");

    let forgotten = monitor.get("api/v2/tasks/id-00").await;
    assert_eq!(
        (&forgotten["state"], &forgotten["timeline"][0]["type"]),
        (&json!("SUCCESS"), &json!("task-sent"))
    );
    let to_scripts = monitor.get("api/task/info/id-00").await;
    assert_eq!((&to_scripts["state"], &to_scripts["result"]), (&json!("SUCCESS"), &json!("5")));
    for (path, told) in [
        ("api/v2/history?q=ab", "3 characters"),
        ("api/v2/history?cursor=x", "next_cursor"),
        ("api/v2/history?since=yesterday", "seconds"),
        ("api/v2/history?nmae=x", "no such parameter"),
    ] {
        let answer = monitor.ask(path).await;
        assert_eq!(answer.status(), 422, "{path}");
        assert!(answer.text().await.expect("text").contains(told), "{path}");
    }
    let metrics = monitor.ask("metrics").await.text().await.expect("text");
    assert!(metrics.contains("flower_history_tasks 20\n"), "{metrics}");
}

#[tokio::test]
async fn a_workflow_is_shown_as_a_tree_even_where_memory_has_forgotten() {
    let kept = Kept::new("tree");
    let options = MonitorOptions {
        limits: flower_lite::state::Limits { max_tasks: 2, ..Default::default() },
        ..kept.open()
    };
    let monitor = TestMonitor::start_with(options, "").await;
    for (index, (id, parent)) in
        [("a", None), ("b", Some("a")), ("c", Some("a")), ("d", Some("c"))].iter().enumerate()
    {
        let call = json!({ "uuid": id, "name": "demo.step", "root_id": "a", "parent_id": parent, "clock": index + 1 });
        monitor.tell(&[event("task-received", 10.0 - index as f64, call)]).await;
    }
    wait::until(SOON, "all of it to be written", async || {
        let tree = monitor.get("api/v2/workflows/a").await;
        if tree["total"] == 4 { Ok(()) } else { Err(tree) }
    })
    .await;
    let tree = monitor.get("api/v2/workflows/a").await;
    let root = &tree["tree"][0];
    assert_eq!((tree["tree"].as_array().map(Vec::len), &root["id"]), (Some(1), &json!("a")));
    assert_eq!((&root["children"][0]["id"], &root["children"][1]["id"]), (&json!("b"), &json!("c")));
    assert_eq!(root["children"][1]["children"][0]["id"], "d");
    assert_eq!(tree["by_state"], json!({ "RECEIVED": 4 }));
    assert_eq!(monitor.ask("api/v2/workflows/nope").await.status(), 404);
}

#[tokio::test]
async fn a_monitor_that_ends_while_the_disk_is_slow_writes_all_it_knew() {
    let kept = Kept::new("slow");
    let (monitor, feed) = Monitor::fed_by_hand(kept.open());
    let history = monitor.history().expect("one is kept").clone();
    let other = rusqlite::Connection::open(kept.path()).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("the file is free");
    let mut told = 0;
    while history.is_ready() {
        feed.body(json!(life(&format!("id-{told}"), "demo.add")).to_string().as_bytes()).await;
        told += 1;
        wait::until(SOON, "a batch to be under way", async || {
            let known = monitor.state().is_saved() || !history.is_ready();
            if known { Ok(()) } else { Err(monitor.state().version()) }
        })
        .await;
    }
    feed.body(json!(life("last", "demo.add")).to_string().as_bytes()).await;
    let ending = async {
        monitor.close();
        // As a disk that goes on when the monitor is already ending.
        wait::nothing_for(Duration::from_millis(100)).await;
        other.execute_batch("ROLLBACK").expect("the file is given back");
    };
    tokio::join!(monitor.finish(), ending);
    assert!(history.task("last").expect("it reads").is_some(), "after {told} others");
    assert_eq!(history.numbers().skipped, 0);
}

#[tokio::test]
async fn without_a_history_it_is_said_how_to_have_one() {
    let monitor = TestMonitor::start().await;
    let answer = monitor.ask("api/v2/history").await;
    assert_eq!(answer.status(), 404);
    assert!(answer.text().await.expect("text").contains("FLOWER_DB"));
}

async fn read(url: &str) -> Value {
    match reqwest::get(url).await {
        Ok(answer) => answer.json().await.unwrap_or(Value::Null),
        Err(error) => Value::String(error.to_string()),
    }
}

#[tokio::test]
async fn a_killed_monitor_comes_back_with_all_it_knew() {
    let kept = Kept::new("killed");
    let broker = Rabbit::shared().await.vhost("killed").await;
    let port = ports::free();
    let (db, port_text) = (kept.path().to_string_lossy().into_owned(), port.to_string());
    let base = format!("http://127.0.0.1:{port}");
    let start = || {
        let env = [("CELERY_BROKER_URL", &*broker), ("FLOWER_DB", &*db), ("FLOWER_PORT", &*port_text)];
        Program::start(binary("flower-lite"), &[], &env)
    };
    let first = start();
    wait::until(SOON, "it to listen", async || {
        let overview = read(&format!("{base}/api/v2/overview")).await;
        first.still_running().map_err(|error| error.to_string())?;
        if overview["connected"] == true { Ok(()) } else { Err(overview.to_string()) }
    })
    .await;
    let celery = celery_broker::Celery::builder("test").broker(&broker).start().expect("right settings");
    let emitter = celery.event_emitter("w@here");
    for body in life("kept", "demo.add").into_iter().skip(1) {
        let mut event = celery_protocol::event::decode(body.to_string().as_bytes()).expect("a body");
        emitter.emit(event.remove(0).expect("an event").body);
    }
    emitter.flush().await;
    let path = format!("{base}/api/v2/history?q=kept");
    wait::until(SOON, "it to be on disk", async || {
        let page = read(&path).await;
        if page["items"][0]["state"] == "SUCCESS" { Ok(()) } else { Err(page) }
    })
    .await;
    first.kill();

    let second = start();
    wait::until(SOON, "the task to be there again", async || {
        second.still_running().map_err(|error| error.to_string())?;
        let task = read(&format!("{base}/api/v2/tasks/kept")).await;
        let page = read(&format!("{base}/api/v2/tasks")).await;
        let all = task["state"] == "SUCCESS" && task["result"] == "5" && page["total"] == 1;
        if all { Ok(()) } else { Err(format!("{task} {page}")) }
    })
    .await;
    celery.close().await;
}
