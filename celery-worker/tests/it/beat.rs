//! `celery-beat` as a process, with a real RabbitMQ and a real Redis: what it sends, and what becomes of it when it is frozen
//! or killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use celery_broker::{Celery, ConsumeOptions, Consumer, ConsumerEvent, QueueSpec};
use celery_protocol::{Limits, Message, QueueName, WireTime};
use celery_testkit::{Program, Rabbit, Redis, wait};
use serde_json::json;

use crate::stage::{SOON, Stage};

/// A beat in a folder of its own.
struct Beat {
    program: Program,
    folder: PathBuf,
}

impl Beat {
    /// With this configuration file, and this state file if any.
    fn start(stage: &Stage, name: &str, config: &str, state: Option<&str>) -> Beat {
        let folder = std::env::temp_dir().join(format!("celery-beat-{name}-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, schedule) = (folder.join("beat.toml"), folder.join("state.json"));
        std::fs::write(&file, config).unwrap();
        if let Some(state) = state {
            std::fs::write(&schedule, state).unwrap();
        }
        let env = [
            ("CELERY_BROKER_URL", &*stage.broker),
            ("CELERY_RESULT_BACKEND", &*stage.backend),
            ("RUST_LOG", ""),
        ];
        let args = ["--config", file.to_str().unwrap(), "-s", schedule.to_str().unwrap()];
        let program = Program::start(env!("CARGO_BIN_EXE_celery-beat"), &args, &env);
        Beat { program, folder }
    }

    fn leads(&self) -> bool {
        self.program.log().contains("beat: Leading")
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Reads messages of the queue until `enough` has seen what it wants.
struct Reader {
    consumer: Consumer,
    seen: Vec<Message>,
}

impl Reader {
    fn new(celery: &Celery) -> Reader {
        Reader::of(celery, celery.default_queue().clone())
    }

    fn of(celery: &Celery, queue: QueueName) -> Reader {
        let queue = QueueSpec::new(queue);
        let consumer = celery.consume(ConsumeOptions::new(vec![queue]).prefetch(100)).unwrap();
        Reader { consumer, seen: Vec::new() }
    }

    async fn until(&mut self, what: &str, enough: impl Fn(&[Message]) -> bool) {
        let reading = async {
            let mut events = Vec::new();
            while !enough(&self.seen) {
                self.consumer.recv_many(&mut events, 100).await;
                for event in events.drain(..) {
                    if let ConsumerEvent::Delivery(delivery) = event {
                        self.seen.push(Message::decode(delivery.raw, &Limits::DEFAULT).unwrap());
                        delivery.token.ack();
                    }
                }
            }
        };
        tokio::time::timeout(3 * SOON, reading).await.expect(what);
    }

    async fn more(&mut self, count: usize) {
        let wanted = self.seen.len() + count;
        self.until("more ticks", |seen| seen.len() >= wanted).await;
    }
}

fn count(messages: &[Message], task: &str) -> usize {
    messages.iter().filter(|message| message.headers.task.as_str() == task).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beat_sends_intervals_and_crontabs_and_remembers_them() {
    let stage = Stage::new("beat-sends").await;
    let mut reader = Reader::new(&stage.celery);
    let config = r#"
        timezone = "Europe/Berlin"
        [beat_schedule.often]
        task = "t.often"
        schedule = 0.3
        args = [1, "two"]
        options = { queue = "celery", priority = 3 }
        [beat_schedule.missed]
        task = "t.missed"
        schedule = { minute = "*" }
        [beat_schedule.later]
        task = "t.later"
        schedule = "1d"
    "#;
    // The minute before last was remembered: the crontab has missed one, and is due at once.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let state = json!({"version": 1, "entries": {"missed": {"at": now - 130.0, "count": 4}}}).to_string();
    let beat = Beat::start(&stage, "sends", config, Some(&state));
    reader
        .until("five ticks and the crontab's", |seen| {
            count(seen, "t.often") >= 5 && count(seen, "t.missed") >= 1
        })
        .await;
    assert_eq!(count(&reader.seen, "t.later"), 0);
    let often = reader.seen.iter().find(|message| message.headers.task.as_str() == "t.often").unwrap();
    assert_eq!(often.body(&Limits::DEFAULT).unwrap().args.to_raw().get(), r#"[1, "two"]"#);
    assert_eq!(often.properties.priority, Some(3));
    assert_eq!(often.headers.extra["celery_beat_task"], true);
    beat.program.term();
    assert!(beat.program.wait_exit(SOON).await.success());
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(beat.folder.join("state.json")).unwrap()).unwrap();
    assert!(state["entries"]["often"]["count"].as_u64().unwrap() >= 5, "{state}");
    // Two if the minute has just changed.
    assert!((5..=6).contains(&state["entries"]["missed"]["count"].as_u64().unwrap()), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beat_and_the_command_line_follow_the_routes() {
    let stage = Stage::new("beat-routes").await;
    let mut reader = Reader::of(&stage.celery, QueueName::parse("routed").unwrap());
    let config = r#"
        [task_routes]
        "z.*" = { queue = "routed", priority = 4 }
        "z.never*" = "elsewhere"
        '^y\.\d' = "routed"
        [beat_schedule.tick]
        task = "z.never"
        schedule = 0.3
    "#;
    let beat = Beat::start(&stage, "routes", config, None);
    reader.more(1).await;
    assert_eq!(reader.seen[0].properties.priority, Some(4));
    let file = beat.folder.join("beat.toml");
    let config = std::fs::read_to_string(&file).unwrap().split("[beat_schedule").next().unwrap().to_owned();
    let worker_file = beat.folder.join("worker.toml");
    std::fs::write(&worker_file, config).unwrap();
    let call = async |task: &str, more: &[&str], env: &[(&str, &str)]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_celery-worker"));
        command.args(["call", task, "-b", &stage.broker, "--result-backend", "disabled://"]).args(more);
        let output = command.envs(env.iter().copied()).output().await.unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let file = ["--config", worker_file.to_str().unwrap()];
    assert_eq!(call("y.1", &file, &[]).await, (true, String::new()));
    let routes = [("CELERY_TASK_ROUTES", r#"[["x", {"queue": "routed"}]]"#)];
    assert_eq!(call("x", &[], &routes).await, (true, String::new()));
    reader.until("calls by file and environment", |seen| count(seen, "y.1") + count(seen, "x") == 2).await;
    let (done, told) = call("x", &[], &[("CELERY_TASK_ROUTES", r#"{"x": {"queu": 1}}"#)]).await;
    assert!(!done && told.contains("task_routes") && told.contains("no option queu"), "{told}");
    beat.program.term();
    assert!(beat.program.wait_exit(SOON).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_that_was_sent_before_is_not_run_again() {
    let stage = Stage::new("beat-again").await;
    let worker = stage.running().await;
    let mut message = stage.message("t.count", json!([]));
    stage.publish(&message).await;
    assert_eq!(stage.end_of(&message.headers.id).await.result.get(), "1");
    // What a beat does that takes over from one that was lost while it sent.
    message.headers.extra.insert("celery_beat_again".into(), json!(true));
    stage.publish(&message).await;
    stage.drained("celery").await;
    assert_eq!(stage.outcome("t.count", json!([])).await.result.get(), "2");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_beat_sends_a_worker_runs() {
    let stage = Stage::new("beat-worker").await;
    let worker = stage.running().await;
    let beat = Beat::start(&stage, "worker", "[beat_schedule.c]\ntask = \"t.count\"\nschedule = 0.2\n", None);
    wait::until(SOON, "five runs", async || {
        match stage.witness.runs.load(std::sync::atomic::Ordering::SeqCst) {
            runs if runs >= 5 => Ok(()),
            runs => Err(runs),
        }
    })
    .await;
    beat.program.term();
    assert!(beat.program.wait_exit(SOON).await.success());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_its_own_beat() {
    let stage = Stage::new("beat-inside").await;
    let folder = std::env::temp_dir().join(format!("celery-beat-inside-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, state) = (folder.join("worker.toml"), folder.join("state.json"));
    let config =
        "worker_concurrency = 2\n[beat_schedule.add]\ntask = \"demo.add\"\nschedule = 0.3\nargs = [1, 2]\n";
    std::fs::write(&file, config).unwrap();
    let args = ["-B", "--config", file.to_str().unwrap(), "-s", state.to_str().unwrap(), "-l", "info", "-q"];
    let env = [("CELERY_BROKER_URL", &*stage.broker), ("CELERY_RESULT_BACKEND", &*stage.backend)];
    let program = Program::start(env!("CARGO_BIN_EXE_celery-worker"), &args, &env);
    wait::until(SOON, "three runs", async || match program.log().matches(" succeeded in ").count() {
        runs if runs >= 3 => Ok(()),
        _ => Err(program.log_tail()),
    })
    .await;
    program.term();
    assert!(program.wait_exit(SOON).await.success(), "{}", program.log_tail());
    assert!(std::fs::read_to_string(&state).unwrap().contains("\"add\""));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_keeps_its_id_over_its_tries() {
    let rabbit = Rabbit::start().await;
    let stage = Stage::on(rabbit.vhost("beat-tries").await, Redis::shared().await.database()).await;
    let mut reader = Reader::new(&stage.celery);
    let config = "publish_timeout = 0.5\n[beat_schedule.tick]\ntask = \"t.tick\"\nschedule = 0.5\n";
    let beat = Beat::start(&stage, "tries", config, None);
    reader.more(2).await;
    rabbit.pause();
    wait::until(SOON, "it is tried again", async || {
        match beat.program.log().matches("is tried again").count() {
            tries if tries >= 2 => Ok(()),
            tries => Err(tries),
        }
    })
    .await;
    rabbit.resume();
    let again = |message: &Message| message.headers.extra.contains_key("celery_beat_again");
    reader.until("a message that says so", |seen| seen.iter().any(again)).await;
    reader.more(2).await;
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for message in &reader.seen {
        let due = message.headers.extra["celery_beat_due"].as_str().unwrap();
        ids.entry(due).or_default().insert(message.headers.id.as_str());
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    beat.program.term();
    assert!(beat.program.wait_exit(SOON).await.success());
}

/// How far apart ticks are, and what a shared schedule is told.
const INTERVAL: f64 = 0.5;
const SHARED: &str = r#"
    beat_shared_schedule = "it"
    beat_lease = "8s"
    [beat_schedule.tick]
    task = "t.tick"
    schedule = 0.5
"#;

/// Each tick has come, and under one id; whoever could not know whether a tick had been sent says so.
fn assert_no_tick_lost_or_doubled(messages: &[Message]) {
    let mut ticks: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for message in messages {
        let due: WireTime = message.headers.extra["celery_beat_due"].as_str().unwrap().parse().unwrap();
        let due = SystemTime::from(due).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let id = message.headers.id.as_str();
        ticks.entry(u64::try_from(due).unwrap()).or_default().insert(id);
        let again = message.headers.extra.get("celery_beat_again").is_some();
        assert!(ids.insert(id) || again, "{id} came twice and does not say why");
    }
    for (due, ids) in &ticks {
        assert_eq!(ids.len(), 1, "the tick of {due} was sent as {ids:?}");
    }
    let dues: Vec<u64> = ticks.into_keys().collect();
    for pair in dues.windows(2) {
        let gap = (pair[1] - pair[0]) as f64 / 1_000.0;
        assert!((gap - INTERVAL).abs() < 0.01, "after {} nothing for {gap} s", pair[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tick_is_lost_or_doubled_when_a_leader_is_frozen_thawed_or_killed() {
    let stage = Stage::new("beat-shared").await;
    let mut reader = Reader::new(&stage.celery);
    let one = Beat::start(&stage, "one", SHARED, None);
    reader.more(4).await;
    let two = Beat::start(&stage, "two", SHARED, None);
    two.program.wait_for_log("Another beat leads", SOON).await;
    reader.more(4).await;
    // Frozen: the lease ends, the other one takes over.
    one.program.pause();
    two.program.wait_for_log("beat: Leading", SOON).await;
    reader.more(10).await;
    // Thawed: it finds that it does not lead.
    one.program.resume();
    one.program.wait_for_log("beat: the lease was lost", SOON).await;
    one.program.wait_for_log("Another beat leads", SOON).await;
    reader.more(10).await;
    // Killed: the first one leads again.
    let before = one.program.log().matches("beat: Leading").count();
    two.program.kill();
    wait::until(SOON, "the first one leads again", async || {
        match one.program.log().matches("beat: Leading").count() {
            count if count > before => Ok(()),
            count => Err(count),
        }
    })
    .await;
    reader.more(20).await;
    assert!(two.leads());
    // Told to stop: it gives the lease up and leaves nothing half done.
    one.program.term();
    assert!(one.program.wait_exit(SOON).await.success());
    stage.drained("celery").await;
    assert_no_tick_lost_or_doubled(&reader.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_at_the_start() {
    let stage = Stage::new("beat-mistakes").await;
    for (config, told) in [
        ("timezone = \"Mars\"\n", "is no time zone"),
        ("[beat_schedule.e]\ntask = \"t\"\nschedule = \"* * 31 2 *\"\n", "no date matches"),
        ("beat_lease = \"soon\"\n", "beat_lease"),
    ] {
        let beat = Beat::start(&stage, "mistakes", config, None);
        assert!(!beat.program.wait_exit(SOON).await.success());
        assert!(beat.program.log().contains(told), "{}", beat.program.log());
    }
}
