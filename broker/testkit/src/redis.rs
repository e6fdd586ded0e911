//! A private Redis: the installed server on a free port, without persistence unless asked for.

use crate::program::{Program, Recipe, give_up, or_give_up};
use crate::{guard, ports, wait};
use anyhow::Context as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

const BOOT: Duration = Duration::from_secs(30);
const DATABASES: u32 = 512;

/// A Redis server that belongs to the test.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    next: AtomicU32,
    server: Program,
}

static SHARED: OnceCell<Redis> = OnceCell::const_new();

impl Redis {
    /// The server shared by all tests of this process; take a [`database`](Self::database) of it.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a server that forgets everything when it ends.
    ///
    /// # Panics
    /// When Redis is not installed or does not come up, with its log.
    pub async fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server that keeps every write over a kill.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_durable() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// Starts a server with the given options.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(options: &[&str]) -> Self {
        let redis = or_give_up(Self::launch(options));
        or_give_up(redis.accepting().await);
        redis
    }

    fn launch(options: &[&str]) -> anyhow::Result<Self> {
        let folder = guard::folder("redis")?;
        let port = ports::free();
        let (port_text, databases) = (port.to_string(), DATABASES.to_string());
        let fixed =
            ["--port", &port_text, "--bind", "127.0.0.1", "--databases", &databases, "--daemonize", "no"];
        let args = fixed.iter().chain(options).map(Into::into).collect();
        let recipe = Recipe { path: PathBuf::from("redis-server"), args, env: vec![], folder };
        let server = Program::run("redis-server", recipe).context(
            "Redis is not installed: run `make deps`, which installs Debian's package redis-server",
        )?;
        Ok(Self { port, next: AtomicU32::new(1), server })
    }

    /// The address of database `db`.
    pub fn url(&self, db: u32) -> String {
        format!("redis://127.0.0.1:{}/{db}", self.port)
    }

    /// The address of a database that nobody used yet.
    ///
    /// # Panics
    /// When all 511 are taken.
    pub fn database(&self) -> String {
        let db = self.next.fetch_add(1, Ordering::Relaxed);
        if db >= DATABASES {
            give_up("this test process has used up the databases of its Redis");
        }
        self.url(db)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server process, for its log and pid.
    pub fn process(&self) -> &Program {
        &self.server
    }

    /// Runs `redis-cli` against this server (`-n 3` selects a database) and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with what it printed.
    pub async fn cli(&self, args: &[&str]) -> String {
        let run = async {
            let output = tokio::process::Command::new("redis-cli")
                .args(["-p", &self.port.to_string()])
                .args(args)
                .kill_on_drop(true)
                .output();
            let output = tokio::time::timeout(BOOT, output).await.context("redis-cli gave no answer")??;
            let (stdout, stderr) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            anyhow::ensure!(output.status.success(), "redis-cli {args:?} failed: {stdout}{stderr}");
            Ok(stdout.trim_end_matches('\n').to_owned())
        };
        or_give_up(run.await)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// An orderly end.
    pub async fn stop(&self) {
        self.server.term();
        self.server.wait_exit(BOOT).await;
        self.server.kill();
    }

    /// Starts the server again (stopping it first if it runs) and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&self) {
        if self.server.still_running().is_ok() {
            self.stop().await;
        }
        or_give_up(self.server.spawn());
        or_give_up(self.accepting().await);
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.server.resume();
    }

    async fn accepting(&self) -> anyhow::Result<()> {
        let outcome = wait::attempt(BOOT, async || match ping(self.port).await {
            Ok(()) => Ok(Ok(())),
            Err(err) => self.server.still_running().map_or_else(|ended| Ok(Err(ended)), |()| Err(err)),
        });
        match outcome.await {
            Ok(outcome) => outcome,
            Err(err) => Err(err.context(format!("Redis did not come up\n{}", self.server.log_tail()))),
        }
    }
}

async fn ping(port: u16) -> anyhow::Result<()> {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        anyhow::ensure!(&answer == b"+PONG", "answered {:?}", String::from_utf8_lossy(&answer));
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn forgets_or_keeps_over_a_kill_as_asked() {
        for (redis, kept) in [(Redis::start().await, ""), (Redis::start_durable().await, "value")] {
            redis.cli(&["-n", "3", "SET", "key", "value"]).await;
            redis.kill();
            redis.restart().await;
            assert_eq!(redis.cli(&["-n", "3", "GET", "key"]).await, kept);
            redis.stop().await;
        }
    }
}
