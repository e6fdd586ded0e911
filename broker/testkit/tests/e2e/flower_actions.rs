//! Stock Flower's actions, put to a Python worker and to ours: what Flower answers, and what becomes of it.

use crate::stage::{SOON, Stage};
use celery_testkit::{Flower, PythonWorker, peer_app, wait};
use serde_json::Value;

/// Flower, and a worker of each kind with one slot and a queue of its own.
struct Both {
    flower: Flower,
    client: reqwest::Client,
}

impl Both {
    async fn post(&self, path: &str) -> (u16, String) {
        let answer = self.client.post(format!("{}{path}", self.flower.url())).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn workers(&self) -> Value {
        let answer = self.client.get(format!("{}/api/workers?refresh=1", self.flower.url())).send().await;
        answer.unwrap().json().await.unwrap_or_default()
    }

    /// Puts an action to both and compares the answers; `{}` stands for the worker.
    async fn compare(&self, path: &str) -> (u16, String) {
        let mut answers = Vec::new();
        for node in ["py@here", "rs@here"] {
            let (status, text) = self.post(&path.replace("{}", node)).await;
            answers.push((status, text.replace(node, "{}")));
        }
        assert_eq!(answers[1], answers[0], "ours, then Python's: {path}");
        answers.remove(1)
    }
}

#[tokio::test]
async fn every_action_of_stock_flower_works_on_our_worker() {
    let stage = Stage::new("flower-actions").await;
    let flower = Flower::start(&stage.broker, &stage.backend, &["--inspect-timeout=5000"]).await;
    let python = stage.python();
    let args = ["-P", "prefork", "-c", "1", "-n", "py@here", "-Q", "q-py"];
    let theirs = PythonWorker::start_in(&python, &peer_app(), &args).await;
    let ours = stage.worker(&["-c", "1", "-n", "rs@here", "-Q", "q-rs"]).await;
    let scaled = stage.worker(&["-n", "auto@here", "-Q", "q-auto", "--autoscale", "3,1"]).await;
    let both = Both { flower, client: reqwest::Client::builder().timeout(SOON).build().unwrap() };
    wait::until(SOON, "Flower to know all workers", async || match both.workers().await {
        known if ["py@here", "rs@here", "auto@here"].iter().all(|node| known[*node]["stats"].is_object()) => {
            Ok(())
        }
        known => Err(known),
    })
    .await;

    for (path, status) in [
        ("/api/worker/pool/grow/{}?n=2", 200),
        ("/api/worker/pool/restart/{}", 403),
        ("/api/worker/pool/autoscale/{}?min=1&max=3", 403),
        ("/api/worker/queue/add-consumer/{}?queue=extra", 200),
        ("/api/worker/queue/cancel-consumer/{}?queue=extra", 200),
        ("/api/worker/queue/cancel-consumer/{}?queue=none", 200),
        ("/api/task/timeout/demo.add?workername={}&hard=7&soft=5", 200),
        ("/api/task/rate-limit/demo.add?workername={}&ratelimit=100/s", 200),
        ("/api/task/rate-limit/demo.add?workername={}&ratelimit=often", 403),
    ] {
        assert_eq!(both.compare(path).await.0, status, "{path}");
    }
    let (status, _) = both.post("/api/worker/pool/autoscale/auto@here?min=2&max=4").await;
    assert_eq!(status, 200);
    let (status, _) = both.post("/api/worker/pool/shrink/rs@here?n=1").await;
    assert_eq!(status, 200);
    let workers = both.workers().await;
    assert_eq!(workers["rs@here"]["stats"]["pool"]["max-concurrency"], 2, "{workers:#}");
    assert_eq!(workers["auto@here"]["stats"]["autoscaler"]["max"], 4, "{workers:#}");

    let sleep = "from peer_app import *; r = [sleep.apply_async((600,), queue=q) for q in ('q-py', 'q-rs')]
import json, time
end = time.monotonic() + 20
while sum(len(v or []) for v in (app.control.inspect(timeout=3).active() or {}).values()) < 2:
    assert time.monotonic() < end
print(json.dumps([one.id for one in r]))";
    let running: Vec<String> = python.run(sleep).await.json();
    for id in &running {
        let (status, text) = both.post(&format!("/api/task/revoke/{id}?terminate=true&signal=SIGTERM")).await;
        assert!(status == 200 && text.contains(&format!("Revoked '{id}'")), "{status} {text}");
    }
    // The state alone would not do: Python's worker says REVOKED of what another one runs.
    let active = "from peer_app import app; import json
print(json.dumps(sum(len(tasks) for tasks in app.control.inspect(timeout=3).active().values())))";
    wait::until(SOON, "both to be ended", async || match python.run(active).await.json::<u64>() {
        0 => Ok(()),
        running => Err(running),
    })
    .await;

    for (node, process) in
        [("py@here", theirs.process()), ("rs@here", ours.process()), ("auto@here", scaled.process())]
    {
        assert_eq!(both.post(&format!("/api/worker/shutdown/{node}")).await.0, 200);
        process.wait_exit(SOON).await;
    }
}
