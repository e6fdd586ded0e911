//! Who competes, and the servers they compete on.

use crate::bare;
use crate::queue::{self, Load};
use celery_testkit::{Program, Python, Rabbit, Redis, binary};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where celery-rs is built by `make bench`, beside the workspace's own programs.
const CELERY_RS: &str = "celery-rs-peer";

/// The private servers of a run.
pub(crate) struct Field {
    pub(crate) rabbit: Rabbit,
    pub(crate) redis: Redis,
}

/// A fresh vhost and an empty database.
pub(crate) struct Ground {
    pub(crate) broker: String,
    pub(crate) backend: String,
}

impl Field {
    pub(crate) async fn open() -> Self {
        Self { rabbit: Rabbit::start_with("", "").await, redis: Redis::start().await }
    }

    pub(crate) async fn ground(&self) -> Ground {
        let backend = self.redis.database();
        self.redis.cli(&["flushall"]).await;
        Ground { broker: self.rabbit.vhost("bench").await, backend }
    }

    /// A ground whose queue is filled.
    pub(crate) async fn filled(&self, load: &Load) -> Ground {
        let ground = self.ground().await;
        queue::fill(&ground.broker, load).await.unwrap();
        ground
    }

    /// The pids whose processor time is told: the program, RabbitMQ, Redis.
    pub(crate) fn pids(&self, program: &Program) -> [u32; 3] {
        [program.pid(), self.rabbit.process().pid(), self.redis.process().pid()]
    }

    /// Gives a vhost up, with what is left in it.
    pub(crate) async fn leave(&self, ground: &Ground) {
        let vhost = ground.broker.rsplit('/').next().unwrap_or_default();
        self.rabbit.ctl(&["delete_vhost", vhost]).await;
    }
}

/// A program that drains the queue `celery`.
#[derive(Clone, Debug)]
pub(crate) enum Contestant {
    /// As little as lapin and Redis allow.
    Bare,
    /// `celery-worker` with these arguments.
    Ours(&'static str, Vec<String>),
    /// Python's, with these arguments.
    Celery(&'static str, &'static str),
    /// celery-rs 0.5: stores no result, acks before it runs.
    CeleryRs,
}

impl Contestant {
    pub(crate) fn ours(name: &'static str, args: &str) -> Self {
        Self::Ours(name, args.split_whitespace().map(str::to_owned).collect())
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bare => "bare loop",
            Self::Ours(name, _) | Self::Celery(name, _) => name,
            Self::CeleryRs => "celery-rs",
        }
    }

    /// Whether results tell how far it is.
    pub(crate) fn stores_results(&self) -> bool {
        !matches!(self, Self::CeleryRs)
    }

    /// How much of a load it takes: Python is slow, and a rate needs no more.
    pub(crate) fn share(&self, tasks: u64) -> u64 {
        if matches!(self, Self::Celery(..)) { tasks / 5 } else { tasks }
    }

    pub(crate) fn start(&self, ground: &Ground) -> Program {
        let Ground { broker, backend } = ground;
        let env = [("CELERY_BROKER_URL", broker.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];
        match self {
            Self::Bare => {
                let me = std::env::current_exe().unwrap();
                Program::start(me, &[bare::COMMAND, broker, backend], &[])
            }
            Self::Ours(_, args) => {
                let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
                args.extend(["-l", "warning"]);
                Program::start(binary("celery-worker"), &args, &env)
            }
            Self::Celery(_, args) => {
                let fixed = ["-m", "celery", "-A", "peer", "worker", "-l", "warning"];
                let args: Vec<&str> = fixed.into_iter().chain(args.split_whitespace()).collect();
                python(ground).spawn("celery", &args)
            }
            Self::CeleryRs => Program::start(celery_rs(), &[], &env),
        }
    }
}

/// A Python in which `peer` can be imported.
pub(crate) fn python(ground: &Ground) -> Python {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/worker");
    Python::new(&ground.broker, &ground.backend).env("PYTHONPATH", &folder.to_string_lossy())
}

/// Where celery-rs would be.
fn celery_rs() -> PathBuf {
    binary("celery-worker").with_file_name(CELERY_RS)
}

/// Whether celery-rs was built.
pub(crate) fn has_celery_rs() -> bool {
    celery_rs().is_file()
}

/// Ends a program as an operator would.
pub(crate) async fn stop(program: &Program) {
    program.term();
    program.wait_exit(Duration::from_secs(60)).await;
}
