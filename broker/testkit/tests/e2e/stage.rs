//! What every end-to-end test needs: addresses of its own, and our programs started on them.

use celery_testkit::{Program, Python, PythonWorker, Rabbit, Redis, binary, config, peer_app, wait};
use serde_json::Value;
use std::time::Duration;

/// Debug builds on two busy cores.
pub(crate) const BOOT: Duration = Duration::from_secs(60);
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The addresses of one test.
pub(crate) struct Stage {
    pub(crate) broker: String,
    pub(crate) backend: String,
}

impl Stage {
    /// An empty vhost and an empty database of the shared servers.
    pub(crate) async fn new(name: &str) -> Self {
        Self { broker: Rabbit::shared().await.vhost(name).await, backend: Redis::shared().await.database() }
    }

    /// A Python client; the peer application is importable as `peer_app`.
    pub(crate) fn python(&self) -> Python {
        Python::new(&self.broker, &self.backend)
    }

    /// Our worker with the demo tasks, ready. `args` are those of `celery worker`.
    pub(crate) async fn worker(&self, args: &[&str]) -> Worker {
        if config::python_is_judged() {
            let args = [args, &["--pool", "threads"]].concat();
            return Worker::Python(PythonWorker::peer(&self.broker, &self.backend, &args).await);
        }
        let program = Program::start(binary("celery-worker"), &[&["-l", "info"], args].concat(), &self.env());
        program.wait_for_log(" ready.", BOOT).await;
        Worker::Ours(program)
    }

    /// Python's worker with the peer application.
    pub(crate) async fn python_worker(&self, args: &[&str]) -> PythonWorker {
        let app = peer_app();
        PythonWorker::start(&app, &self.broker, &self.backend, args).await
    }

    /// Our HTTP producer, ready.
    pub(crate) async fn producer_api(&self) -> Server {
        Server::start("producer-api", &[&self.env()[..], &[("PRODUCER_API_PORT", "0")]].concat()).await
    }

    /// Our HTTP producer with these settings, ready.
    pub(crate) async fn producer_api_with(&self, settings: &[(&str, &str)]) -> Server {
        Server::start("producer-api", &[&self.env()[..], &[("PRODUCER_API_PORT", "0")], settings].concat())
            .await
    }

    /// Our monitor, ready.
    pub(crate) async fn flower_lite(&self) -> Server {
        Server::start("flower-lite", &[&self.env()[..], &[("FLOWER_PORT", "0")]].concat()).await
    }

    pub(crate) fn env(&self) -> [(&str, &str); 2] {
        [("CELERY_BROKER_URL", &self.broker), ("CELERY_RESULT_BACKEND", &self.backend)]
    }
}

/// The worker under test.
pub(crate) enum Worker {
    Ours(Program),
    Python(PythonWorker),
}

impl Worker {
    pub(crate) fn process(&self) -> &Program {
        match self {
            Self::Ours(program) => program,
            Self::Python(worker) => worker.process(),
        }
    }
}

/// One of our HTTP programs.
pub(crate) struct Server {
    pub(crate) process: Program,
    pub(crate) url: String,
    client: reqwest::Client,
}

impl Server {
    async fn start(name: &str, env: &[(&str, &str)]) -> Self {
        const ADDRESS: &str = "listening on http://";
        let process = Program::start(binary(name), &[], env);
        process.wait_for_log(ADDRESS, BOOT).await;
        let log = process.log();
        let rest = log.split(ADDRESS).nth(1).unwrap();
        let address: String = rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
        let client = reqwest::Client::builder().timeout(BOOT).build().unwrap();
        let server = Self { process, url: format!("http://{address}"), client };
        wait::until(BOOT, "/readyz", async || match server.get("/readyz").await {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status} {body}\n{}", server.process.log_tail())),
        })
        .await;
        server
    }

    /// GET: the status, and the body as JSON (or as a string, where it is not JSON).
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        Self::answer(self.client.get(format!("{}{path}", self.url))).await
    }

    /// GET, holding the line until there is a result.
    pub(crate) async fn get_waiting(&self, path: &str) -> (u16, Value) {
        Self::answer(self.client.get(format!("{}{path}", self.url)).header("Prefer", "wait=25")).await
    }

    /// POST of a JSON document.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        Self::answer(self.client.post(format!("{}{path}", self.url)).json(body)).await
    }

    async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}
