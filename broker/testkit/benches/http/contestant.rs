//! Who takes part: a server on a vhost and a database of its own, the address that submits, and the body it wants.

use crate::floor;
use anyhow::Context as _;
use celery_testkit::{Flower, Program, binary, config, ports, wait};
use std::time::Duration;

/// Python starts slowly.
const BOOT: Duration = Duration::from_secs(60);
const ADD: &str = r#"{"args": [1, 2]}"#;

/// The ways to submit a task over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The smallest actix program with confirms.
    Floor,
    /// producer-api as it comes, but for its log: a line a request is more than any of the others writes.
    Ours,
    /// producer-api without a result backend: nothing is recorded, as with the floor.
    OursWithoutBackend,
    /// Flask and Celery under gunicorn: what a Python team writes in a minute.
    Flask,
    /// Flower's `send-task`.
    Flower,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] =
        [Kind::Floor, Kind::Ours, Kind::OursWithoutBackend, Kind::Flask, Kind::Flower];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::Ours => "producer-api",
            Kind::OursWithoutBackend => "no-backend",
            Kind::Flask => "flask",
            Kind::Flower => "flower",
        }
    }
}

/// A server that takes submissions.
pub(crate) struct Contestant {
    server: Server,
    /// Where to post.
    pub(crate) url: String,
    /// What.
    pub(crate) body: &'static str,
}

enum Server {
    Program(Program),
    Flower(Flower),
}

impl Contestant {
    /// Starts one; returns when it serves.
    pub(crate) async fn start(kind: Kind, broker: &str, backend: &str) -> anyhow::Result<Self> {
        let port = ports::free();
        let on = |path: &str| format!("http://127.0.0.1:{port}{path}");
        let port_text = port.to_string();
        let ours = |backend: &str| {
            let env = [
                ("CELERY_BROKER_URL", broker),
                ("CELERY_RESULT_BACKEND", backend),
                ("PRODUCER_API_PORT", &port_text),
                ("PRODUCER_API_LOG", "warn"),
                ("PRODUCER_API_DASHBOARD", "false"),
            ];
            Program::start(binary("producer-api"), &[], &env)
        };
        let task = r#"{"task": "demo.add", "args": [1, 2]}"#;
        let contestant = match kind {
            Kind::Floor => {
                let me = std::env::current_exe()?;
                let program = Program::start(me, &[floor::COMMAND, broker, &port_text], &[]);
                Contestant { server: Server::Program(program), url: on("/add"), body: ADD }
            }
            Kind::Ours => {
                Contestant { server: Server::Program(ours(backend)), url: on("/v1/tasks"), body: task }
            }
            Kind::OursWithoutBackend => {
                Contestant { server: Server::Program(ours("disabled")), url: on("/v1/tasks"), body: task }
            }
            Kind::Flask => {
                let server = Server::Program(gunicorn(broker, backend, &port_text)?);
                Contestant { server, url: on("/add"), body: ADD }
            }
            Kind::Flower => {
                let flower = Flower::start(broker, backend, &["--loglevel=warning"]).await;
                let url = format!("{}/api/task/send-task/demo.add", flower.url());
                Contestant { server: Server::Flower(flower), url, body: ADD }
            }
        };
        contestant.ready().await;
        Ok(contestant)
    }

    /// Waits until it has taken a task.
    async fn ready(&self) {
        let client = reqwest::Client::new();
        wait::until(BOOT, "a first task to be taken", async || {
            self.process().still_running().map_err(|err| err.to_string())?;
            let request = client.post(&self.url).header("content-type", "application/json").body(self.body);
            let answer = request.send().await.map_err(|err| err.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    pub(crate) fn process(&self) -> &Program {
        match &self.server {
            Server::Program(program) => program,
            Server::Flower(flower) => flower.process(),
        }
    }
}

/// Two synchronous workers, as the machine's two cores want.
fn gunicorn(broker: &str, backend: &str, port: &str) -> anyhow::Result<Program> {
    let peers = config::repository().join(".run/peers/bin/gunicorn");
    anyhow::ensure!(peers.exists(), "no Flask at {}: run `make peers`", peers.display());
    let folder = celery_testkit::peer_app();
    let folder = folder.parent().and_then(|folder| folder.to_str()).context("the folder of the peers")?;
    let packages = config::venv().join("lib");
    let packages = std::fs::read_dir(&packages)?.flatten().next().context("no Python in the environment")?;
    let packages = packages.path().join("site-packages");
    let path = format!("{folder}:{}", packages.display());
    let bind = format!("127.0.0.1:{port}");
    let env = [
        ("CELERY_BROKER_URL", broker),
        ("CELERY_RESULT_BACKEND", backend),
        ("PYTHONPATH", &path),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    Ok(Program::start(peers, &["--workers", "2", "--bind", &bind, "flask_peer:web"], &env))
}
