//! One started process: its output in a file, signals by pid, and its end.

use crate::{config, guard, wait};
use anyhow::Context as _;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A running program of ours, a server, or a Python peer.
///
/// It leads a process group of its own, writes its output to a file, and inherits no setting of the
/// programs under test from the environment. Dropping it kills the group; if a test is panicking, the end
/// of the output is printed. It also ends when the test process ends, however that happens.
#[derive(Debug)]
pub struct Program {
    name: String,
    log: PathBuf,
    command: Recipe,
    child: Mutex<Option<Child>>,
}

#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) folder: PathBuf,
}

impl Program {
    /// Starts the program at `path`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(path: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Self {
        or_give_up(Self::try_start(path.as_ref(), args, env))
    }

    fn try_start(path: &Path, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let name = path.file_name().map_or("program".into(), |name| name.to_string_lossy().into_owned());
        let folder = guard::folder(&name)?;
        Self::run(
            &name,
            Recipe {
                path: path.to_owned(),
                args: args.iter().map(Into::into).collect(),
                env: env.iter().map(|(key, value)| (key.into(), value.into())).collect(),
                folder,
            },
        )
    }

    pub(crate) fn run(name: &str, command: Recipe) -> anyhow::Result<Self> {
        let log = command.folder.join("output.log");
        Self::run_logging(name, command, log)
    }

    /// As `run`, with the output in another file than that of its folder.
    pub(crate) fn run_logging(name: &str, command: Recipe, log: PathBuf) -> anyhow::Result<Self> {
        let program = Self { name: name.to_owned(), log, command, child: Mutex::new(None) };
        program.spawn()?;
        Ok(program)
    }

    /// Starts the process again after it has ended; the output file goes on.
    pub(crate) fn spawn(&self) -> anyhow::Result<()> {
        let Recipe { path, args, env, folder } = &self.command;
        let output = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(path)
            .args(args)
            .env_clear()
            .envs(config::inherited())
            .envs(env.iter().map(|(key, value)| (key, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        guard::adopt(child.id())?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    /// The process id; 0 once its end has been seen.
    pub fn pid(&self) -> u32 {
        self.with_child(|child| child.as_ref().map_or(0, Child::id))
    }

    /// Everything the program has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of the output, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.len().saturating_sub(60);
        format!("--- the last lines of {} ---\n{}\n---", self.name, lines[shown..].join("\n"))
    }

    /// Waits until the output contains `text`.
    ///
    /// # Panics
    /// When the deadline passes or the program ends first, with the end of its output.
    pub async fn wait_for_log(&self, text: &str, deadline: Duration) {
        let seen = wait::attempt(deadline, async || {
            if self.log().contains(text) {
                Ok(Ok(()))
            } else {
                self.still_running().map_or_else(|err| Ok(Err(err)), Err)
            }
        })
        .await;
        match seen {
            Ok(Ok(())) => {}
            Ok(Err(err)) => give_up(&format!("{err:#} before it wrote {text:?}")),
            Err(()) => {
                give_up(&format!("{} did not write {text:?} in {deadline:?}\n{}", self.name, self.log_tail()))
            }
        }
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// It has ended: how, and the end of its output.
    pub fn still_running(&self) -> anyhow::Result<()> {
        match self.try_exit()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} has ended: {status}\n{}", self.name, self.log_tail()),
        }
    }

    /// SIGTERM to the process, as an orchestrator sends it.
    pub fn term(&self) {
        self.signal("TERM");
    }

    /// Sends a signal (`"INT"`, `"QUIT"`, `"HUP"`, …) to the process.
    pub fn signal(&self, name: &str) {
        let pid = self.pid();
        if pid != 0 {
            signal(name, &pid.to_string());
        }
    }

    /// SIGKILL to the process and its children; returns when it is gone.
    pub fn kill(&self) {
        self.with_child(|slot| {
            if let Some(child) = slot {
                signal("KILL", &format!("-{}", child.id()));
                let _ = child.kill();
                let _ = child.wait();
                guard::release(child.id());
            }
            *slot = None;
        });
    }

    /// Freezes the process and its children.
    pub fn pause(&self) {
        signal("STOP", &format!("-{}", self.pid()));
    }

    /// Lets a frozen process go on.
    pub fn resume(&self) {
        signal("CONT", &format!("-{}", self.pid()));
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// When it has not ended in time, with the end of its output.
    pub async fn wait_exit(&self, deadline: Duration) -> ExitStatus {
        let ended = wait::attempt(deadline, async || match self.try_exit() {
            Ok(Some(status)) => Ok(status),
            _ => Err(()),
        });
        match ended.await {
            Ok(status) => status,
            Err(()) => give_up(&format!("{} has not ended in {deadline:?}\n{}", self.name, self.log_tail())),
        }
    }

    /// The exit status, once it has ended.
    pub(crate) fn try_exit(&self) -> anyhow::Result<Option<ExitStatus>> {
        self.with_child(|child| match child {
            Some(child) => Ok(child.try_wait()?),
            None => anyhow::bail!("{} was killed", self.name),
        })
    }

    fn with_child<T>(&self, act: impl FnOnce(&mut Option<Child>) -> T) -> T {
        act(&mut self.child.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// The path of one of the project's own programs, built in the profile of the running test.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let path = config::bin_dir().join(name);
    if !path.is_file() {
        give_up(&format!("{} is not built: run `make build` first", path.display()));
    }
    path
}

fn signal(name: &str, target: &str) {
    // The shell's own `kill`: it is everywhere, and knows the names.
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$0\" -- \"$1\"", name, target])
        .stderr(Stdio::null())
        .status();
}

/// Ends the test with a message.
#[track_caller]
#[expect(clippy::panic, reason = "the helpers of tests fail the test that calls them")]
pub(crate) fn give_up(message: &str) -> ! {
    panic!("{message}")
}

/// The value, or the end of the test with the whole chain of causes.
#[track_caller]
pub(crate) fn or_give_up<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|err| give_up(&format!("{err:#}")))
}
