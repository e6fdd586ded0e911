//! Python peers: Celery clients, Celery workers and Flower, from the virtual environment of `make venv`.

use crate::program::{Program, Recipe, give_up, or_give_up};
use crate::{config, guard, ports, wait};
use anyhow::Context as _;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Python starts slowly on a busy machine.
const BOOT: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(180);

/// The Celery application of `python/peer_app.py`; see there for its tasks.
pub fn peer_app() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/peer_app.py")
}

/// What a finished Python program printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit status: 0 is success.
    pub code: i32,
}

impl Output {
    /// The last line of the standard output, read as JSON.
    ///
    /// # Panics
    /// When it is not JSON of that shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        let line = self.stdout.trim_end().lines().next_back().unwrap_or_default();
        or_give_up(serde_json::from_str(line).with_context(|| format!("{self:?}")))
    }
}

/// The interpreter of the virtual environment, with the addresses its programs use.
#[derive(Clone, Debug)]
pub struct Python {
    env: Vec<(OsString, OsString)>,
}

impl Python {
    /// A client of the given broker and result store, with the peer application importable as `peer_app`.
    ///
    /// # Panics
    /// When the virtual environment is missing.
    pub fn new(broker: &str, backend: &str) -> Self {
        Self::with_app(&peer_app(), broker, backend)
    }

    fn with_app(app: &Path, broker: &str, backend: &str) -> Self {
        interpreter();
        let folder = app.parent().unwrap_or(Path::new("."));
        let env: [(&str, OsString); 6] = [
            ("CELERY_BROKER_URL", broker.into()),
            ("CELERY_RESULT_BACKEND", backend.into()),
            ("PYTHONPATH", folder.into()),
            ("PYTHONUNBUFFERED", "1".into()),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ("C_FORCE_ROOT", "1".into()), // Celery's workers refuse pickle as root, which is not used here
        ];
        Self { env: env.map(|(key, value)| (key.into(), value)).into() }
    }

    /// Adds a variable to the environment of what is run.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs a program given as text.
    ///
    /// # Panics
    /// When it fails, with all it printed.
    pub async fn run(&self, program: &str) -> Output {
        self.run_with(program, &[]).await
    }

    /// Runs a program given as text, with arguments in `sys.argv[1:]`.
    ///
    /// # Panics
    /// When it fails, with all it printed.
    pub async fn run_with(&self, program: &str, args: &[&str]) -> Output {
        self.succeed(&[&["-c", program], args].concat()).await
    }

    /// Runs Celery's command line on the peer application: `&["inspect", "ping"]`.
    ///
    /// # Panics
    /// When it fails, with all it printed.
    pub async fn celery(&self, args: &[&str]) -> Output {
        self.succeed(&[&["-m", "celery", "-A", "peer_app"], args].concat()).await
    }

    async fn succeed(&self, args: &[&str]) -> Output {
        let output = self.try_run(args).await;
        if output.code != 0 {
            give_up(&format!(
                "python {args:?} ended with {}\n{}{}",
                output.code, output.stdout, output.stderr
            ));
        }
        output
    }

    /// Runs the interpreter with these arguments, whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started or takes longer than three minutes.
    pub async fn try_run(&self, args: &[&str]) -> Output {
        let command = tokio::process::Command::new(interpreter())
            .args(args)
            .env_clear()
            .envs(config::inherited())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .kill_on_drop(true)
            .output();
        let output = async {
            tokio::time::timeout(RUN, command)
                .await
                .with_context(|| format!("python {args:?} still ran after {RUN:?}"))?
                .context("cannot start python")
        };
        let output = or_give_up(output.await);
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Starts a program that stays, such as `&["-m", "celery", "-A", "peer_app", "events", "--dump"]`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Program {
        let start = || {
            let folder = guard::folder(name)?;
            let args = args.iter().map(Into::into).collect();
            Program::run(name, Recipe { path: interpreter(), args, env: self.env.clone(), folder })
        };
        or_give_up(start())
    }
}

/// A Celery worker in Python.
#[derive(Debug)]
pub struct PythonWorker {
    process: Program,
}

impl PythonWorker {
    /// Starts a worker with the peer application and waits until it is ready. `args` are those of
    /// `celery worker`, such as `&["--pool", "solo", "-E"]`.
    ///
    /// # Panics
    /// When it does not become ready, with its output.
    pub async fn peer(broker: &str, backend: &str, args: &[&str]) -> Self {
        Self::start(&peer_app(), broker, backend, args).await
    }

    /// Starts a worker with the application `app`, a Python file that defines `app`.
    ///
    /// # Panics
    /// When it does not become ready, with its output.
    pub async fn start(app: &Path, broker: &str, backend: &str, args: &[&str]) -> Self {
        let python = Python::with_app(app, broker, backend);
        Self::start_in(&python, app, args).await
    }

    /// As [`start`](Self::start), with an environment prepared by the caller.
    ///
    /// # Panics
    /// When it does not become ready, with its output.
    pub async fn start_in(python: &Python, app: &Path, args: &[&str]) -> Self {
        let module = app.file_stem().unwrap_or_default().to_string_lossy();
        let fixed = ["-m", "celery", "-A", &module, "worker", "--loglevel", "INFO"];
        let process = python.spawn("python-worker", &[&fixed, args].concat());
        process.wait_for_log(" ready.", BOOT).await;
        Self { process }
    }

    /// The worker's process, for its log, signals and end.
    pub fn process(&self) -> &Program {
        &self.process
    }
}

/// Flower, the monitor of Python Celery.
#[derive(Debug)]
pub struct Flower {
    process: Program,
    port: u16,
}

impl Flower {
    /// Starts Flower and waits until it serves pages. Its API is open to the test.
    ///
    /// # Panics
    /// When it does not come up, with its output.
    pub async fn start(broker: &str, backend: &str, args: &[&str]) -> Self {
        let port = ports::free();
        let port_arg = format!("--port={port}");
        let fixed = ["-m", "celery", "-A", "peer_app", "flower", "--address=127.0.0.1", &port_arg];
        let python = Python::new(broker, backend).env("FLOWER_UNAUTHENTICATED_API", "true");
        let process = python.spawn("flower", &[&fixed, args].concat());
        let flower = Self { process, port };
        flower.serving().await;
        flower
    }

    async fn serving(&self) {
        let seen = wait::attempt(BOOT, async || {
            match tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await {
                Ok(_) => Ok(Ok(())),
                Err(err) => self.process.still_running().map_or_else(|ended| Ok(Err(ended)), |()| Err(err)),
            }
        });
        match seen.await {
            Ok(outcome) => or_give_up(outcome),
            Err(err) => give_up(&format!("Flower did not come up: {err}\n{}", self.process.log_tail())),
        }
    }

    /// The address of its pages and API, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Flower's process, for its log.
    pub fn process(&self) -> &Program {
        &self.process
    }
}

fn interpreter() -> PathBuf {
    let path = config::venv().join("bin/python");
    if !path.exists() {
        give_up(&format!(
            "no Python peers at {}: run `make venv` (it needs Debian's python3-venv), or set CELERIAC_VENV",
            config::venv().display()
        ));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rabbit, Redis};

    #[tokio::test]
    async fn a_python_client_talks_to_a_python_worker_and_flower_sees_both() {
        let broker = Rabbit::shared().await.vhost("python").await;
        let backend = Redis::shared().await.database();
        let worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo", "-E"]).await;
        let flower = Flower::start(&broker, &backend, &[]).await;
        let python = Python::new(&broker, &backend);
        let output = python.run("from peer_app import *; print(add.delay(2, y=3).get(timeout=20))").await;
        assert_eq!(output.json::<i64>(), 5);
        assert!(python.celery(&["inspect", "ping"]).await.stdout.contains("pong"));
        let read = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())";
        let tasks = python.run_with(read, &[&format!("{}/api/tasks", flower.url())]).await;
        assert!(tasks.stdout.contains("demo.add"), "{tasks:?}\n{}", flower.process().log_tail());
        worker.process().term();
        assert!(worker.process().wait_exit(Duration::from_secs(20)).await.success());
    }
}
