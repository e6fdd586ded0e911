//! Serves the real monitor over a made-up cluster: for work on the pages, without broker and workers.
//!
//! ```sh
//! cargo run -p flower-lite --example fake_feed -- --port 5555 --rate 20 [--prefix /dashboard] [--history 3000]
//! ```
//!
//! Four workers run tasks of eight names with successes, failures, retries, revocations, ETAs, a growing chain of
//! children and custom progress events. One worker dies every now and then.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flower_lite::access::Access;
use flower_lite::guard::Hosts;
use flower_lite::startup::{Application, Feed, ServeOptions};
use flower_lite::{Monitor, MonitorOptions};
use serde_json::{Value, json};

const NAMES: [&str; 8] = [
    "demo.add",
    "demo.mul",
    "demo.xsum",
    "demo.flaky",
    "mail.send_newsletter",
    "reports.render_pdf",
    "media.resize",
    "demo.progress",
];
const WORKERS: [&str; 4] = ["celery@web-1", "celery@web-2", "rust@batch-1", "celery@gpu-1"];
const TRACEBACK: &str = "Traceback (most recent call last):\n  File \"/app/tasks.py\", line 41, in render\n    \
    page = template.render(**context)\n  File \"/app/templates.py\", line 7, in render\n    raise \
    ValueError(f\"unknown field {name!r}\")\nValueError: unknown field 'custömer <b>'\n";

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let options = options();
    let number =
        |name: &str, default: f64| options.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (monitor, feed) = Monitor::fed_by_hand(MonitorOptions::default());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a port")]
    let port = number("port", 5555.0) as u16;
    let application = Application::build(
        monitor,
        ServeOptions {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            prefix: options.get("prefix").cloned().unwrap_or_default(),
            hosts: Hosts::Loopback(Vec::new()),
            access: Access::open().map_err(std::io::Error::other)?,
        },
    )?;
    let prefix = options.get("prefix").map_or("", String::as_str).trim_matches('/');
    println!("http://{}/{prefix}", application.address());
    let cluster = Cluster::new(number("rate", 8.0), number("history", 600.0));
    application.run_until(cluster.run(feed)).await
}

fn options() -> BTreeMap<String, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments
        .chunks(2)
        .filter_map(|pair| Some((pair[0].strip_prefix("--")?.into(), pair.get(1)?.clone())))
        .collect()
}

/// A made-up cluster. What is to happen is kept by its time; what is due is sent.
struct Cluster {
    rate: f64,
    now: f64,
    history: f64,
    due: BTreeMap<(u64, u64), Value>,
    made: u64,
    clock: u64,
    dice: u64,
    dead: Option<usize>,
}

impl Cluster {
    fn new(rate: f64, history: f64) -> Cluster {
        Cluster {
            rate,
            now: unix_now(),
            history,
            due: BTreeMap::new(),
            made: 0,
            clock: 0,
            dice: 7,
            dead: None,
        }
    }

    async fn run(mut self, feed: Feed) {
        let end = self.now;
        self.now -= self.history / self.rate;
        while self.now < end {
            self.step(0.25);
            self.send(&feed).await;
        }
        let mut beat = tokio::time::interval(Duration::from_millis(50));
        loop {
            beat.tick().await;
            let passed = unix_now() - self.now;
            self.step(passed);
            self.send(&feed).await;
        }
    }

    fn step(&mut self, passed: f64) {
        let before = self.now;
        self.now += passed;
        if (before / 2.0).floor() < (self.now / 2.0).floor() {
            self.heartbeats();
        }
        if (before / 60.0).floor() < (self.now / 60.0).floor() {
            self.dead = match self.dead {
                Some(_) => None,
                None => Some(3),
            };
        }
        let mut tasks = passed * self.rate;
        while tasks > 0.0 {
            if tasks >= 1.0 || self.throw() < tasks {
                let at = self.now + self.throw() * passed;
                self.task(at, None, 0);
            }
            tasks -= 1.0;
        }
    }

    fn heartbeats(&mut self) {
        let dead = self.dead;
        for (index, name) in WORKERS.iter().enumerate().filter(|(index, _)| dead != Some(*index)) {
            let ident = if name.starts_with("rust") { "celeriac" } else { "py-celery" };
            let event = json!({
                "hostname": name, "pid": 4000 + index, "freq": 2.0, "active": 2, "processed": self.made / 4,
                "loadavg": [0.4, 0.5, 0.3], "sw_ident": ident, "sw_ver": "5.7.0", "sw_sys": "Linux",
                "type": "worker-heartbeat"
            });
            self.at(self.now, event);
        }
    }

    /// One task from its sending to its end, with what it calls.
    fn task(&mut self, sent: f64, parent: Option<(&str, &str)>, depth: u32) {
        self.made += 1;
        let id = format!("{:08x}-0000-4000-8000-{:012x}", self.dice >> 32, self.made);
        let (root, parent_id) = match parent {
            Some((root, parent)) => (root.to_owned(), Some(parent.to_owned())),
            None => (id.clone(), None),
        };
        let name = NAMES[self.pick(NAMES.len())];
        let worker = WORKERS[self.pick(if self.dead.is_some() { 3 } else { 4 })];
        let (x, y) = (self.pick(1000), self.pick(1000));
        let args = format!("({x}, {y})");
        let kwargs = "{'user': 'ann@example.org', 'note': '<b>ünïcode</b>'}";
        let task = |kind: &str, from: &str, more: Value| {
            let mut event =
                json!({ "type": format!("task-{kind}"), "uuid": id, "hostname": from, "pid": 4000 });
            merge(&mut event, more);
            event
        };
        let call = |retries: u32| {
            json!({
                "name": name, "args": args, "kwargs": kwargs, "root_id": root, "parent_id": parent_id,
                "retries": retries, "eta": null, "expires": null
            })
        };
        let mut published = call(0);
        merge(&mut published, json!({ "queue": "celery", "exchange": "", "routing_key": "celery" }));
        self.at(sent, task("sent", "gen17@api", published));
        let mut at = sent + 0.01 + self.throw() * 0.3;
        let runtime = self.throw() * if name.starts_with("reports") { 4.0 } else { 0.5 };
        if self.throw() < 0.02 {
            self.at(
                at + 5.0,
                task("revoked", worker, json!({ "terminated": false, "signum": null, "expired": false })),
            );
            return;
        }
        let mut retries = 0;
        let trouble =
            json!({ "exception": "ValueError(\"unknown field 'custömer <b>'\")", "traceback": TRACEBACK });
        loop {
            self.at(at, task("received", worker, call(retries)));
            self.at(at + 0.02, task("started", worker, json!({})));
            let end = at + 0.02 + runtime;
            if name == "demo.progress" {
                self.at(at + runtime / 2.0, task("progress", worker, json!({ "done": 5, "of": 10 })));
            }
            let luck = self.throw();
            if name == "demo.flaky" && luck < 0.6 && retries < 3 {
                self.at(end, task("retried", worker, trouble.clone()));
                retries += 1;
                at = end + 1.0 + f64::from(retries);
                continue;
            }
            if luck < 0.06 {
                self.at(end, task("failed", worker, trouble));
                return;
            }
            let result = format!("{}", x + y);
            self.at(end, task("succeeded", worker, json!({ "result": result, "runtime": runtime })));
            if depth < 3 && self.throw() < 0.15 {
                self.task(end, Some((&root, &id)), depth + 1);
                self.task(end, Some((&root, &id)), depth + 1);
            }
            return;
        }
    }

    fn at(&mut self, time: f64, mut event: Value) {
        self.clock += 1;
        merge(&mut event, json!({ "timestamp": time, "clock": self.clock, "utcoffset": 0 }));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after 1970")]
        self.due.insert(((time * 1e6) as u64, self.clock), event);
    }

    async fn send(&mut self, feed: &Feed) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after 1970")]
        let later = self.due.split_off(&((self.now * 1e6) as u64, 0));
        let due: Vec<Value> = std::mem::replace(&mut self.due, later).into_values().collect();
        if !due.is_empty() {
            feed.body(Value::from(due).to_string().as_bytes()).await;
        }
    }

    /// From 0 to 1.
    fn throw(&mut self) -> f64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 40) as f64 / (1u64 << 24) as f64
    }

    fn pick(&mut self, count: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
        let index = (self.throw() * count as f64) as usize;
        index.min(count - 1)
    }
}

fn merge(event: &mut Value, more: Value) {
    if let (Value::Object(event), Value::Object(more)) = (event, more) {
        event.extend(more);
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
