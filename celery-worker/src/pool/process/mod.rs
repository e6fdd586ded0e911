//! The pool of child processes (`--pool prefork`), for tasks that must be killable or may take their process with them.
//!
//! The worker starts its own program again, as often as it has slots. The children run the tasks and do what follows;
//! messages stay with the worker, which acks them when a child says so. It kills a child whose task runs into its hard
//! limit or does not end when it is terminated, and replaces those that die, have run `max_tasks_per_child` tasks or have
//! grown beyond `max_memory_per_child`.

mod child;
mod frame;
mod lost;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::process::{Child as Process, Command};
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) use child::run as run_child;
use frame::{Run, ToChild, ToWorker, Wire};

use crate::config::CHILD_MARKER;
use crate::context::Interrupt;
use crate::pool::{Job, crashes};
use crate::task::{Failure, Outcome};
use crate::trace::log;
use crate::trace::settle::{self, Disposition, Ended, Settlement};
use crate::worker::engine::Engine;

/// How long a new child may take until it takes calls.
const BOOT: Duration = Duration::from_secs(60);
/// How long a child has to end a task that was terminated, before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long a child may take to take a call. It waits for nothing else.
const HAND_OVER: Duration = Duration::from_secs(10);
/// How long the system may take to tell how a child ended.
const REAP: Duration = Duration::from_secs(5);
/// The pause after a child that could not be started.
const PAUSE: Duration = Duration::from_secs(1);

/// The child processes of one worker.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    idle: Mutex<Vec<Child>>,
    /// The processes there are, idle or not.
    pids: Mutex<Vec<u32>>,
}

/// One child process.
#[derive(Debug)]
struct Child {
    process: Process,
    wire: Wire,
    pid: u32,
    /// How many tasks it has run.
    done: u32,
}

/// How a call in a child ended.
enum How {
    /// It did not begin: the child did not take it.
    Unstarted,
    /// The child did all that follows.
    Done(Disposition),
    /// It ran into its hard limit.
    HardLimit(Duration),
    /// It was told to end and did not; or it could not be told.
    Killed(Interrupt),
    /// The child is gone.
    Lost(Option<ExitStatus>),
}

impl Processes {
    /// The ids of the processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        lock(&self.pids).clone()
    }

    /// Starts `count` children ahead of their tasks.
    pub(crate) async fn warm_up(&self, count: usize) {
        for _ in 0..count {
            match self.spawn().await {
                Ok(child) => lock(&self.idle).push(child),
                Err(err) => return tracing::error!(%err, "a child process could not be started"),
            }
        }
    }

    /// Ends the idle children, which are all when the lanes have ended.
    pub(crate) async fn close(&self) {
        let children = std::mem::take(&mut *lock(&self.idle));
        for child in children {
            self.retire(child).await;
        }
    }

    /// Runs a job that has begun in a child; what follows from it here. `lost_before`: how often it was lost already.
    pub(crate) async fn run(&self, engine: &Engine, job: &Arc<Job>, lost_before: Option<u64>) -> Settlement {
        let mut child = match self.acquire().await {
            Ok(child) => child,
            Err(err) => return unstarted(engine, job, &err.to_string()).await,
        };
        job.set_pid(child.pid);
        let begin = Instant::now();
        let how = attend(&mut child, engine, job).await;
        let runtime = begin.elapsed();
        engine.stats.ended(runtime);
        child.done += 1;
        if !matches!(how, How::Lost(_)) {
            crashes::end(engine, job).await;
        }
        match how {
            How::Unstarted => {
                self.kill(child).await;
                unstarted(engine, job, "the child process did not take it").await
            }
            How::Done(disposition) => {
                self.release(engine, child).await;
                nothing_more(job, disposition)
            }
            How::HardLimit(limit) => {
                self.kill(child).await;
                tracing::error!(
                    "Hard time limit ({}s) exceeded for {}[{}]",
                    limit.as_secs_f64(),
                    job.request.task(),
                    job.request.id()
                );
                let outcome = Outcome::Failure { failure: Failure::time_limit(limit), expected: false };
                settled(engine, job, outcome, true, runtime)
            }
            How::Killed(interrupt) => {
                self.kill(child).await;
                settled(engine, job, Outcome::Interrupted(interrupt), false, runtime)
            }
            How::Lost(status) => {
                self.kill(child).await;
                lost::settlement(engine, job, lost_before, &ending(status), runtime).await
            }
        }
    }

    /// An idle child, or a new one.
    async fn acquire(&self) -> io::Result<Child> {
        loop {
            let Some(mut child) = lock(&self.idle).pop() else { return self.spawn().await };
            match child.process.try_wait() {
                Ok(None) => return Ok(child),
                _ => self.forget(child.pid),
            }
        }
    }

    /// Keeps a child for the next task, unless it has done its share.
    async fn release(&self, engine: &Engine, child: Child) {
        let settings = &engine.settings;
        let worn_out = settings.max_tasks_per_child.is_some_and(|max| child.done >= max);
        let kib = if settings.max_memory_per_child.is_some() { memory(child.pid) } else { None };
        let too_large = settings.max_memory_per_child.zip(kib).is_some_and(|(max, kib)| kib > max);
        let too_many = lock(&self.pids).len() > engine.pool.size();
        if worn_out || too_large || too_many {
            tracing::debug!(pid = child.pid, worn_out, too_large, too_many, "a child process is replaced");
            return self.retire(child).await;
        }
        lock(&self.idle).push(child);
    }

    async fn spawn(&self) -> io::Result<Child> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(std::env::args_os().skip(1))
            .env(CHILD_MARKER, std::process::id().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .kill_on_drop(true);
        let process = command.spawn()?;
        // The command holds the other end of the socket as long as it lives.
        drop(command);
        let pid = process.id().unwrap_or_default();
        let mut child = Child { process, wire: Wire::new(ours)?, pid, done: 0 };
        match timeout(BOOT, child.wire.recv::<ToWorker>()).await {
            Ok(Ok(Some((ToWorker::Ready, _)))) => {
                lock(&self.pids).push(pid);
                Ok(child)
            }
            Ok(Ok(_)) => Err(io::Error::other("it ended before it took calls")),
            Ok(Err(err)) => Err(err),
            Err(_) => Err(io::Error::other("it did not get ready in a minute")),
        }
    }

    /// Lets a child end by itself.
    async fn retire(&self, child: Child) {
        let Child { mut process, wire, pid, .. } = child;
        drop(wire);
        if timeout(REAP, process.wait()).await.is_err() {
            let _ = process.kill().await;
        }
        self.forget(pid);
    }

    async fn kill(&self, mut child: Child) {
        let _ = timeout(REAP, child.process.kill()).await;
        self.forget(child.pid);
    }

    fn forget(&self, pid: u32) {
        lock(&self.pids).retain(|known| *known != pid);
    }
}

/// Gives the job to the child and waits for its end, one way or another.
async fn attend(child: &mut Child, engine: &Engine, job: &Arc<Job>) -> How {
    let (run, body) = Run::of(&job.request, job.limits.soft, job.limits.hard, engine.wants_events());
    let start = Instant::now();
    let hard = job.limits.hard.map(|limit| start + limit);
    // Of a frame that is not whole nothing is run.
    match timeout(HAND_OVER, child.wire.send(&ToChild::Run(Box::new(run)), &body)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return How::Unstarted,
    }
    let mut told: Option<(Interrupt, Instant)> = None;
    let mut running = true;
    loop {
        tokio::select! {
            biased;
            frame = child.wire.recv::<ToWorker>() => match frame {
                Ok(Some((ToWorker::Done { disposition }, _))) => return How::Done(disposition.into()),
                Ok(Some((ToWorker::Ended, _))) => {
                    running = false;
                    told = told.filter(|(interrupt, _)| *interrupt != Interrupt::Terminated);
                }
                Ok(Some((ToWorker::Ready, _))) => {}
                Ok(None) | Err(_) => return match told {
                    Some((interrupt, _)) => How::Killed(interrupt),
                    None => How::Lost(reap(child).await),
                },
            },
            () = at(hard.filter(|_| running)) => return How::HardLimit(job.limits.hard.unwrap_or_default()),
            () = at(told.map(|(_, until)| until)) => return How::Killed(told.map_or(Interrupt::Shutdown, |(why, _)| why)),
            interrupt = end_wanted(job, running), if told.is_none() => {
                let end = ToChild::End { terminated: interrupt == Interrupt::Terminated };
                let now = job.kill.load(Ordering::SeqCst);
                if now || !matches!(timeout(GRACE, child.wire.send(&end, &[])).await, Ok(Ok(()))) {
                    return How::Killed(interrupt);
                }
                told = Some((interrupt, Instant::now() + GRACE));
            }
        }
    }
}

/// Waits until the call's end is wanted. A task that has ended cannot be terminated any more, but what follows from it can
/// be cut off.
async fn end_wanted(job: &Job, running: bool) -> Interrupt {
    match job.interrupts.end_wanted().await {
        Interrupt::Terminated if !running => std::future::pending().await,
        interrupt => interrupt,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn reap(child: &mut Child) -> Option<ExitStatus> {
    timeout(REAP, child.process.wait()).await.ok()?.ok()
}

/// How billiard tells of a process that ended.
fn ending(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("signal {signal} ({})", signal_name(signal)),
        Some((None, Some(code))) => format!("exitcode {code}"),
        _ => "exitcode unknown".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => "unknown signal",
    }
}

/// Resident memory of a process in KiB.
fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// No child has taken the job: its message is given back, or, where it was acked before, the task fails.
async fn unstarted(engine: &Engine, job: &Job, problem: &str) -> Settlement {
    tracing::error!(id = %job.request.id(), task = %job.request.task(), problem, "no child process for this task");
    crashes::end(engine, job).await;
    tokio::time::sleep(PAUSE).await;
    if job.rules.acks_late {
        return nothing_more(job, Disposition::Requeue);
    }
    let text = format!("No child process could run this task, and its message was acked before: {problem}");
    let outcome = Outcome::Failure { failure: Failure::worker_lost(&text), expected: false };
    settled(engine, job, outcome, false, Duration::ZERO)
}

/// The child has done everything but settling the message.
fn nothing_more(job: &Job, disposition: Disposition) -> Settlement {
    Settlement { task_id: Some(job.request.id().clone()), steps: Vec::new(), disposition }
}

fn settled(engine: &Engine, job: &Job, outcome: Outcome, timed_out: bool, runtime: Duration) -> Settlement {
    log::ended(&job.request, &outcome, runtime);
    settle::settle(Ended {
        request: &job.request,
        rules: job.rules,
        outcome,
        timed_out,
        children: Vec::new(),
        runtime,
        now: SystemTime::now(),
        new_style: engine.catalog.new_style(),
        wants: engine.wants(job.rules),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
