//! A private RabbitMQ: the installed server with its own node name, ports and data folder.

use crate::program::{Program, Recipe, or_give_up};
use crate::{config, guard, ports, wait};
use anyhow::Context as _;
use serde::Deserialize;
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

/// Generous: a cold start takes four seconds on an idle machine of 2026.
const BOOT: Duration = Duration::from_secs(120);

/// A RabbitMQ server that belongs to the test. It may be killed, frozen, restarted and misconfigured.
#[derive(Debug)]
pub struct Rabbit {
    scripts: PathBuf,
    env: Vec<(OsString, OsString)>,
    port: u16,
    vhosts: AtomicU32,
    server: Program,
    /// Erlang's port mapper, also private: otherwise the first node would start a daemon that stays.
    _mapper: Program,
}

/// One row of [`Rabbit::queues`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct QueueState {
    /// The queue's name.
    pub name: String,
    /// Messages waiting.
    #[serde(rename = "messages_ready")]
    pub ready: u64,
    /// Messages delivered and not yet settled.
    #[serde(rename = "messages_unacknowledged")]
    pub unacked: u64,
    /// Consumers subscribed.
    pub consumers: u64,
}

static SHARED: OnceCell<Rabbit> = OnceCell::const_new();

impl Rabbit {
    /// The server shared by all tests of this process; take a [`vhost`](Self::vhost) of it. Tests that kill
    /// or freeze the server start their own.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a server on one scheduler thread, which is lighter and boots as fast.
    ///
    /// # Panics
    /// When RabbitMQ is not installed or does not come up, with its log.
    pub async fn start() -> Self {
        Self::start_with("", "+S 1:1").await
    }

    /// Starts a server with further lines for its `rabbitmq.conf` and further flags for the Erlang machine.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(conf: &str, erl_flags: &str) -> Self {
        let rabbit = or_give_up(Self::launch(conf, erl_flags));
        or_give_up(rabbit.accepting().await);
        rabbit
    }

    fn launch(conf: &str, erl_flags: &str) -> anyhow::Result<Self> {
        let scripts = scripts()?;
        let folder = guard::folder("rabbitmq")?;
        let (port, dist_port, mapper_port) = (ports::free(), ports::free(), ports::free());
        let conf_path = folder.join("rabbitmq.conf");
        fs::write(&conf_path, format!("{}{conf}\n", base_conf(port)))?;
        let plugins = folder.join("enabled_plugins");
        fs::write(&plugins, "[].\n")?;
        let env: Vec<(OsString, OsString)> = [
            ("HOME", folder.as_os_str()), // the cookie lives there
            ("ERL_EPMD_ADDRESS", "127.0.0.1".as_ref()),
            ("ERL_EPMD_PORT", mapper_port.to_string().as_ref()),
            ("RABBITMQ_NODENAME", "rabbit@localhost".as_ref()),
            ("RABBITMQ_DIST_PORT", dist_port.to_string().as_ref()),
            ("RABBITMQ_MNESIA_BASE", folder.join("data").as_ref()),
            ("RABBITMQ_LOG_BASE", folder.join("log").as_ref()),
            ("RABBITMQ_LOGS", "-".as_ref()),
            ("RABBITMQ_CONFIG_FILE", conf_path.as_ref()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".as_ref()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", plugins.as_ref()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("{erl_flags} +sbwt none +sbwtdcpu none").as_ref(),
            ),
            // Makes the script become the server, so that its process is the one we started.
            ("RUNNING_UNDER_SYSTEMD", "true".as_ref()),
        ]
        .map(|(key, value)| (key.into(), value.to_owned()))
        .into();
        let recipe = |path: PathBuf, folder: PathBuf| Recipe { path, args: vec![], env: env.clone(), folder };
        let mapper = Program::run("epmd", recipe("epmd".into(), guard::folder("epmd")?))
            .context("Erlang is missing: `make deps` installs rabbitmq-server, which brings it")?;
        let server = Program::run("rabbitmq-server", recipe(scripts.join("rabbitmq-server"), folder))?;
        Ok(Self { scripts, env, port, vhosts: AtomicU32::new(0), server, _mapper: mapper })
    }

    /// The address of the default vhost.
    pub fn url(&self) -> String {
        self.url_of("%2f")
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A program that is `rabbitmqctl` for this server, for those that want to call it themselves.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn ctl_program(&self) -> PathBuf {
        or_give_up(self.write_ctl())
    }

    fn write_ctl(&self) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let mut text = "#!/bin/sh\n".to_owned();
        for (key, value) in &self.env {
            let value = value.to_string_lossy().replace('\'', r"'\''");
            text.push_str(&format!("export {}='{value}'\n", key.to_string_lossy()));
        }
        text.push_str(&format!("exec '{}' \"$@\"\n", self.scripts.join("rabbitmqctl").display()));
        let path = guard::folder("rabbitmqctl")?.join("rabbitmqctl");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The server process, for its log and pid.
    pub fn process(&self) -> &Program {
        &self.server
    }

    /// Creates an empty vhost whose name begins with `name`, and returns its address.
    ///
    /// # Panics
    /// When RabbitMQ refuses.
    pub async fn vhost(&self, name: &str) -> String {
        let vhost = format!("{name}-{}", self.vhosts.fetch_add(1, Ordering::Relaxed));
        self.ctl(&["add_vhost", &vhost]).await;
        self.ctl(&["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"]).await;
        self.url_of(&vhost)
    }

    fn url_of(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.port)
    }

    /// Runs `rabbitmqctl` against this server and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with what it printed.
    pub async fn ctl(&self, args: &[&str]) -> String {
        or_give_up(self.try_ctl(args).await)
    }

    async fn try_ctl(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(self.scripts.join("rabbitmqctl"))
            .arg("-q")
            .args(args)
            .env_clear()
            .envs(config::inherited())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), output)
            .await
            .with_context(|| format!("rabbitmqctl {args:?} gave no answer in 60 s"))??;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "rabbitmqctl {args:?} failed:\n{stdout}{stderr}");
        Ok(stdout.into_owned())
    }

    /// All queues of the vhost at `url`, an address that [`vhost`](Self::vhost) or [`url`](Self::url) gave.
    ///
    /// # Panics
    /// When RabbitMQ does not answer.
    pub async fn queues(&self, url: &str) -> Vec<QueueState> {
        let vhost = url.rsplit('/').next().unwrap_or_default().replace("%2f", "/");
        let columns = ["name", "messages_ready", "messages_unacknowledged", "consumers"];
        let list =
            self.ctl(&[&["list_queues", "--formatter", "json", "-p", &vhost][..], &columns].concat()).await;
        or_give_up(serde_json::from_str(&list).with_context(|| format!("list_queues printed {list}")))
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

    /// Starts the server on its data again (stopping it first if it runs) and waits until it accepts.
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
        let outcome = wait::attempt(BOOT, async || match greeting(self.port).await {
            Ok(()) => Ok(Ok(())),
            Err(err) => self.server.still_running().map_or_else(|ended| Ok(Err(ended)), |()| Err(err)),
        });
        match outcome.await {
            Ok(outcome) => outcome,
            Err(err) => Err(err.context(format!("RabbitMQ did not come up\n{}", self.server.log_tail()))),
        }
    }
}

/// Asks for AMQP and waits for the server's first frame: a listening port alone is not a broker.
async fn greeting(port: u16) -> anyhow::Result<()> {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        anyhow::ensure!(stream.read_u8().await? == 1, "not a method frame");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await?
}

fn scripts() -> anyhow::Result<PathBuf> {
    let dirs = config::rabbitmq_dirs();
    let complete = |dir: &&PathBuf| dir.join("rabbitmq-server").exists() && dir.join("rabbitmqctl").exists();
    dirs.iter().find(complete).cloned().with_context(|| {
        let places: Vec<_> = dirs.iter().map(|dir: &PathBuf| Path::display(dir).to_string()).collect();
        format!(
            "RabbitMQ is not installed (looked in {}): run `make deps`, which installs Debian's package \
             rabbitmq-server, or set CELERIAC_RABBITMQ_DIR",
            places.join(", ")
        )
    })
}

fn base_conf(port: u16) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nnum_acceptors.tcp = 2\nloopback_users = none\n\
         log.console = true\nlog.console.level = warning\ndisk_free_limit.absolute = 10MB\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn survives_kill_and_restart_with_its_data() {
        let rabbit = Rabbit::start().await;
        let url = rabbit.vhost("kept").await;
        assert_eq!(rabbit.queues(&url).await, []);
        rabbit.kill();
        assert!(greeting(rabbit.port()).await.is_err());
        rabbit.restart().await;
        assert!(rabbit.ctl(&["list_vhosts"]).await.contains("kept-0"));

        rabbit.pause();
        assert!(greeting(rabbit.port()).await.is_err());
        rabbit.resume();
        greeting(rabbit.port()).await.unwrap();
        rabbit.stop().await;
        rabbit.restart().await;
    }

    #[tokio::test]
    async fn shared_server_gives_each_caller_a_vhost() {
        let (one, two) = (Rabbit::shared().await.vhost("a").await, Rabbit::shared().await.vhost("a").await);
        assert_ne!(one, two);
    }
}
