//! flower-lite beside Flower 2.2, in one run: the same events at full speed to both, one after the other.
//!
//! `cargo bench -p flower-lite --bench beside -- [--short]`. For each: how many events of 100,000 task events were lost, how
//! many it takes in per second, what a task costs in memory, the longest that `/healthcheck` took meanwhile, and how long
//! `GET /api/tasks?limit=100` takes as tasks pile up. Both run with their default settings, with a RabbitMQ and a Redis of
//! their own. `--short` does a twentieth of it: it shows that this runs, its figures say nothing.

#![expect(clippy::expect_used, clippy::cast_precision_loss, reason = "a bench that can't go on ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use celery_broker::Celery;
use celery_protocol::event::decode;
use celery_testkit::{Flower, Program, Rabbit, Redis, binary, ports, wait};
use serde_json::{Value, json};

/// How long a monitor may take for anything.
const PATIENCE: Duration = Duration::from_secs(600);
/// When no event was taken in for so long, no more will be.
const QUIET: Duration = Duration::from_secs(10);
/// Events that are handed over before it is waited until the broker has them.
const TOGETHER: usize = 4_800;
/// Events of a task: received, started, succeeded.
const EVENTS: usize = 3;

/// A monitor under load.
struct Monitor {
    name: &'static str,
    url: String,
    pid: u32,
    /// Where it listens.
    broker: String,
    client: reqwest::Client,
}

/// What was seen of one.
#[derive(Default)]
struct Seen {
    lost: f64,
    per_second: f64,
    task: f64,
    healthcheck: Duration,
    /// Tasks that it knew, and how long a list then took.
    lists: Vec<(usize, Duration, Duration)>,
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--short");
    let part = if short { 20 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let theirs = of_flower(part).await;
        let ours = of_flower_lite(part).await;
        println!("{:<44} {:>14} {:>14}", "", "Flower 2.2", "flower-lite");
        let row = |what: &str, show: &dyn Fn(&Seen) -> String| {
            println!("{what:<44} {:>14} {:>14}", show(&theirs), show(&ours));
        };
        let burst = 33_334 / part * EVENTS;
        row(&format!("lost of {burst} events at full speed"), &|seen| format!("{:.1} %", seen.lost * 100.0));
        row("events taken in per second", &|seen| format!("{:.0}", seen.per_second));
        row("memory of a task", &|seen| format!("{:.0} B", seen.task));
        row("/healthcheck meanwhile, longest", &|seen| format!("{:.0} ms", ms(seen.healthcheck)));
        for index in 0..theirs.lists.len() {
            row("GET /api/tasks?limit=100, tasks known", &|seen| seen.lists[index].0.to_string());
            row("  p50", &|seen| format!("{:.1} ms", ms(seen.lists[index].1)));
            row("  p95", &|seen| format!("{:.1} ms", ms(seen.lists[index].2)));
        }
        // A claim that is held here, for it depends on no machine.
        assert!(ours.lost == 0.0, "flower-lite lost events");
    });
}

async fn of_flower(part: usize) -> Seen {
    let broker = Rabbit::shared().await.vhost("beside-flower").await;
    let backend = Redis::shared().await.database();
    let flower = Flower::start(&broker, &backend, &[]).await;
    let (url, pid) = (flower.url(), flower.process().pid());
    measure(Monitor { name: "Flower", url, pid, broker, client: reqwest::Client::new() }, part).await
}

async fn of_flower_lite(part: usize) -> Seen {
    let broker = Rabbit::shared().await.vhost("beside-lite").await;
    let port = ports::free();
    let (url, port) = (format!("http://127.0.0.1:{port}"), port.to_string());
    let environment = [("CELERY_BROKER_URL", &*broker), ("FLOWER_PORT", &*port)];
    let program = Program::start(binary("flower-lite"), &[], &environment);
    let pid = program.pid();
    let monitor =
        Monitor { name: "flower-lite", url, pid, broker: broker.clone(), client: reqwest::Client::new() };
    measure(monitor, part).await
}

async fn measure(monitor: Monitor, part: usize) -> Seen {
    let celery = Celery::builder("bench").broker(&monitor.broker).start().expect("right settings");
    wait::until(PATIENCE, "the monitor to listen", async || {
        let queues = Rabbit::shared().await.queues(&monitor.broker).await;
        let listens = queues.iter().any(|queue| queue.name.starts_with("celeryev") && queue.consumers > 0);
        if listens && monitor.ask("/healthcheck").await.is_some() {
            Ok(())
        } else {
            Err(format!("{queues:?}"))
        }
    })
    .await;
    let mut seen = Seen::default();
    let before = resident(monitor.pid);

    // The burst first: it finds the monitor as it comes up.
    let tasks = 33_334 / part;
    let ended = Arc::new(AtomicBool::new(false));
    let watch = monitor.watch(ended.clone());
    #[expect(clippy::disallowed_methods, reason = "ends with the bench")]
    let watch = tokio::spawn(watch);
    let begun = Instant::now();
    feed(&celery, 0..tasks).await;
    let (taken, last) = monitor.settled(tasks * EVENTS).await;
    ended.store(true, Ordering::Relaxed);
    seen.healthcheck = watch.await.expect("it ends");
    seen.lost = 1.0 - taken as f64 / (tasks * EVENTS) as f64;
    seen.per_second = taken as f64 / last.duration_since(begun).as_secs_f64();
    // Before the long list is asked for, which costs memory by itself.
    let grown = resident(monitor.pid).saturating_sub(before) as f64;
    let known = monitor.known(tasks).await;
    seen.task = grown / known.max(1) as f64;
    seen.lists.push(monitor.lists(known).await);

    // And twice as much, at a pace that both can bear, to see what a longer list costs.
    let more = 100_000 / part;
    let mut total = taken;
    for from in (tasks..more).step_by(1_000) {
        let to = (from + 1_000).min(more);
        feed(&celery, from..to).await;
        total = monitor.settled(total + (to - from) * EVENTS).await.0;
    }
    let known = monitor.known(more).await;
    seen.lists.push(monitor.lists(known).await);
    celery.close().await;
    eprintln!("{}: {known} tasks known at the end, {total} events", monitor.name);
    seen
}

impl Monitor {
    async fn ask(&self, path: &str) -> Option<String> {
        let answer = self.client.get(format!("{}{path}", self.url)).timeout(PATIENCE).send().await.ok()?;
        answer.text().await.ok()
    }

    /// The longest that `/healthcheck` took until `ended`, asked for twenty times a second.
    fn watch(&self, ended: Arc<AtomicBool>) -> impl Future<Output = Duration> + use<> {
        let (client, url) = (self.client.clone(), format!("{}/healthcheck", self.url));
        async move {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                let start = Instant::now();
                let _ = client.get(&url).send().await;
                longest = longest.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            longest
        }
    }

    /// The task events it has taken in, as its own `/metrics` say.
    async fn taken(&self) -> usize {
        let metrics = self.ask("/metrics").await.unwrap_or_default();
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("flower_events_total{") && line.contains("type=\"task-"));
        let numbers = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
        let sum = numbers.sum::<f64>() as usize;
        sum
    }

    /// How many events it has taken in when it has all, or takes in no more; and when the last one came.
    async fn settled(&self, expected: usize) -> (usize, Instant) {
        let (mut taken, mut last) = (0, Instant::now());
        loop {
            let now = self.taken().await;
            if now > taken {
                (taken, last) = (now, Instant::now());
            }
            if taken >= expected || last.elapsed() > QUIET {
                return (taken, last);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many tasks it knows, no more than `most`.
    async fn known(&self, most: usize) -> usize {
        let path = format!("/api/tasks?limit={most}");
        let tasks = self.ask(&path).await.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        tasks.as_ref().and_then(Value::as_object).map_or(0, serde_json::Map::len)
    }

    async fn lists(&self, known: usize) -> (usize, Duration, Duration) {
        let mut took = Vec::new();
        for _ in 0..40 {
            let start = Instant::now();
            self.ask("/api/tasks?limit=100").await.expect("an answer");
            took.push(start.elapsed());
        }
        took.sort();
        (known, took[took.len() / 2], took[took.len() * 95 / 100])
    }
}

/// Sends the events of these tasks, in batches as a worker does.
async fn feed(celery: &Celery, tasks: std::ops::Range<usize>) {
    let emitter = celery.event_emitter("bench@host");
    for (sent, i) in tasks.enumerate() {
        let id = format!("{:08x}-7a1b-4c2d-8e3f-{i:012x}", i.wrapping_mul(2_654_435_761) & 0xffff_ffff);
        let events = json!([
            { "type": "task-received", "uuid": id, "name": format!("bench.task_{}", i % 10), "args": format!("({i}, {})", i * 2),
              "kwargs": format!("{{'order_id': {i}, 'note': '{}'}}", "x".repeat(80)), "root_id": id, "parent_id": null,
              "retries": 0, "eta": null, "expires": null },
            { "type": "task-started", "uuid": id },
            { "type": "task-succeeded", "uuid": id, "result": format!("'ok {i}'"), "runtime": 0.25 },
        ]);
        for event in decode(events.to_string().as_bytes()).expect("a body") {
            emitter.emit(event.expect("an event").body);
        }
        if ((sent + 1) * EVENTS).is_multiple_of(TOGETHER) {
            emitter.flush().await;
        }
    }
    emitter.flush().await;
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory of a process, in bytes.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).map_or(0, |kib| kib * 1_024)
}
