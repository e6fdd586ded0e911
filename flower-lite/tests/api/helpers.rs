//! A monitor to ask, and the only place that knows its addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use celery_testkit::wait;
use flower_lite::access::{Access, AccessOptions, Users};
use flower_lite::guard::Hosts;
use flower_lite::startup::{Application, Feed, ServeOptions};
use flower_lite::{Monitor, MonitorOptions};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Long enough for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A monitor that is served on a port of its own and fed by the test.
pub(crate) struct TestMonitor {
    pub(crate) base: String,
    pub(crate) feed: Feed,
    pub(crate) client: reqwest::Client,
    _stop: oneshot::Sender<()>,
}

impl TestMonitor {
    pub(crate) async fn start() -> TestMonitor {
        TestMonitor::start_with(MonitorOptions::default(), "").await
    }

    pub(crate) async fn start_with(options: MonitorOptions, prefix: &str) -> TestMonitor {
        let (monitor, feed) = Monitor::fed_by_hand(options);
        let (base, stop) = serve(monitor, prefix);
        TestMonitor { base, feed, client: reqwest::Client::new(), _stop: stop }
    }

    /// Hands events over and waits until they are in.
    pub(crate) async fn tell(&self, events: &[Value]) {
        let before = self.get("api/v2/overview").await["events"]["received"].as_u64();
        self.feed.body(json!(events).to_string().as_bytes()).await;
        let expected = before.map(|before| before + events.len() as u64);
        self.until("the events are in", async |overview| overview["events"]["received"].as_u64() == expected)
            .await;
    }

    /// Waits until the overview is as it should be.
    pub(crate) async fn until(&self, what: &str, check: impl AsyncFn(&Value) -> bool) {
        wait::until(SOON, what, async || {
            let overview = self.get("api/v2/overview").await;
            if check(&overview).await { Ok(()) } else { Err(overview) }
        })
        .await;
    }

    /// The JSON at `path`, which must be there.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.ask(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.expect("JSON")
    }

    /// Whatever is at `path`.
    pub(crate) async fn ask(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}/{path}", self.base)).send().await.expect("an answer")
    }
}

/// Serves `monitor`; gives its address, and what ends it when dropped.
pub(crate) fn serve(monitor: Monitor, prefix: &str) -> (String, oneshot::Sender<()>) {
    serve_to(monitor, prefix, Users::default())
}

/// The same, to these users only.
pub(crate) fn serve_to(monitor: Monitor, prefix: &str, users: Users) -> (String, oneshot::Sender<()>) {
    let lifetime = Duration::from_secs(3_600);
    serve_as(monitor, prefix, AccessOptions { users, secret: None, lifetime, public_url: None, oidc: None })
}

/// The same, to whom these options let in.
pub(crate) fn serve_as(
    monitor: Monitor,
    prefix: &str,
    options: AccessOptions,
) -> (String, oneshot::Sender<()>) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let access = Access::new(options).expect("random numbers");
    let (prefix_of, hosts) = (prefix.to_owned(), Hosts::Loopback(Vec::new()));
    let options = ServeOptions { address, prefix: prefix_of, hosts, access };
    let application = Application::build(monitor, options).expect("a free port");
    let base = format!("http://{}{prefix}", application.address());
    let (stop, stopped) = oneshot::channel::<()>();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(application.run_until(async {
        let _ = stopped.await;
    }));
    (base, stop)
}

pub(crate) fn now() -> f64 {
    flower_lite::clock::now().seconds()
}

/// An event of a worker `a@host` that happened `ago` seconds ago.
pub(crate) fn event(kind: &str, ago: f64, more: Value) -> Value {
    let timestamp = now() - ago;
    let mut event = json!({
        "type": kind, "hostname": "a@host", "timestamp": timestamp, "clock": 1, "utcoffset": 0, "pid": 7,
    });
    if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
        event.extend(more);
    }
    event
}

/// A task from its sending to its success, under `id`.
pub(crate) fn life(id: &str, name: &str) -> Vec<Value> {
    let call = json!({
        "uuid": id, "name": name, "args": "(2, 3)", "kwargs": "{}", "retries": 0, "root_id": id, "parent_id": null,
        "eta": null, "expires": null, "hostname": "gen1@api", "queue": "math", "exchange": "", "routing_key": "math",
    });
    let mut received = call.clone();
    received["hostname"] = json!("a@host");
    vec![
        event("task-sent", 4.0, call),
        event("task-received", 3.0, received),
        event("task-started", 2.0, json!({ "uuid": id })),
        event("task-succeeded", 1.0, json!({ "uuid": id, "result": "5", "runtime": 0.25 })),
    ]
}
