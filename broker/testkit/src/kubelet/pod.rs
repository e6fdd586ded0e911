//! One pod: its volumes as folders, its container as a process, its probes, its end.

use super::image::Sandbox;
use super::manifest::{Container, Probe, Workload};
use super::probe::{self, Target};
use crate::program::Program;
use crate::wait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the stand-in looks whether a process still runs.
const GLANCE: Duration = Duration::from_millis(100);
/// Before a container that has ended is started again.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How a pod is doing.
#[derive(Clone, Debug, Default)]
pub struct PodStatus {
    /// It gets requests, and counts in a rollout.
    pub ready: bool,
    /// Since when it is ready.
    pub ready_since: Option<Instant>,
    /// How often its container was started again.
    pub restarts: u32,
    /// It was told to go.
    pub terminating: bool,
    /// How it ended, once it has.
    pub end: Option<End>,
    /// What went wrong last: a probe's answer, or an exit.
    pub trouble: Option<String>,
}

/// How a pod ended that was told to go.
#[derive(Clone, Debug)]
pub struct End {
    /// The exit status of its process.
    pub status: Option<ExitStatus>,
    /// It had not ended within its grace period.
    pub killed: bool,
    /// How long it took.
    pub took: Duration,
}

/// One pod.
#[derive(Debug)]
pub struct Pod {
    /// Its name, which is also its host name.
    pub name: String,
    /// The workload that it belongs to.
    pub workload: String,
    /// Which template it was made from; a new one with each rollout.
    pub revision: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ports: BTreeMap<String, u16>,
    pub(crate) container: Container,
    pub(crate) grace: Duration,
    pub(crate) body: Body,
    status: watch::Sender<PodStatus>,
    stop: watch::Sender<bool>,
}

/// What there is behind a pod.
#[derive(Debug)]
pub(crate) enum Body {
    /// A process of ours.
    Process { sandbox: Sandbox, command: Vec<String>, folder: PathBuf, program: Mutex<Option<Arc<Program>>> },
    /// A server that the testkit runs.
    Server,
}

enum Attended {
    Asked,
    Exited(String),
    Unhealthy(String),
}

impl Pod {
    pub(crate) fn new(
        name: String,
        revision: u32,
        workload: &Workload,
        container: Container,
        ports: BTreeMap<String, u16>,
        body: Body,
    ) -> Self {
        Self {
            name,
            workload: workload.name.clone(),
            revision,
            labels: workload.template.metadata.labels.clone(),
            ports,
            container,
            grace: Duration::from_secs(workload.template.spec.termination_grace_period_seconds),
            body,
            status: watch::Sender::default(),
            stop: watch::Sender::default(),
        }
    }

    /// How it is doing.
    pub fn status(&self) -> PodStatus {
        self.status.borrow().clone()
    }

    /// What its container has written.
    pub fn log(&self) -> String {
        self.program().map(|program| program.log()).unwrap_or_default()
    }

    /// The process of its container; none for the servers that the testkit runs.
    pub fn program(&self) -> Option<Arc<Program>> {
        match &self.body {
            Body::Process { program, .. } => program.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Body::Server => None,
        }
    }

    /// Asks it to go, as deleting it does.
    pub(crate) fn delete(&self) {
        self.status.send_modify(|status| {
            status.terminating = true;
            status.ready = false;
        });
        self.stop.send_replace(true);
    }

    /// The life of the pod, from its start to its end.
    pub(crate) async fn live(self: Arc<Self>) {
        loop {
            let outcome = match self.start() {
                Ok(()) => self.attend().await,
                Err(error) => Attended::Exited(format!("{error:#}")),
            };
            self.status.send_modify(|status| status.ready = false);
            match outcome {
                Attended::Asked => break,
                Attended::Exited(why) | Attended::Unhealthy(why) => {
                    self.end_process().await;
                    self.status.send_modify(|status| {
                        status.restarts += 1;
                        status.trouble = Some(why);
                    });
                }
            }
            if self.asked_within(BACK_OFF).await {
                break;
            }
        }
        let end = self.end_process().await;
        self.status.send_modify(|status| status.end = Some(end));
    }

    fn start(&self) -> anyhow::Result<()> {
        let Body::Process { sandbox, command, folder, program } = &self.body else { return Ok(()) };
        let started = Arc::new(sandbox.start_in(folder, command)?);
        *program.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        Ok(())
    }

    /// SIGTERM, the grace period, SIGKILL.
    async fn end_process(&self) -> End {
        let began = Instant::now();
        let Some(program) = self.program() else {
            return End { status: None, killed: false, took: Duration::ZERO };
        };
        program.term();
        let ended = wait::polled(self.grace, || match program.try_exit() {
            Ok(None) => Err(()),
            // An error: somebody else has killed it.
            Ok(status) => Ok(status),
            Err(_) => Ok(None),
        });
        let ended = ended.await;
        program.kill();
        End { status: ended.unwrap_or_default(), killed: ended.is_err(), took: began.elapsed() }
    }

    /// Probes the container until it is to go, has gone, or has to be started again.
    async fn attend(&self) -> Attended {
        if let Some(startup) = &self.container.startup_probe
            && let Some(outcome) = self.until_started(startup).await
        {
            return outcome;
        }
        let mut ready = Rhythm::new(self.container.readiness_probe.as_ref());
        let mut live = Rhythm::new(self.container.liveness_probe.as_ref());
        if self.container.readiness_probe.is_none() {
            self.set_ready(true);
        }
        loop {
            if let Some(answer) = self.ask(&mut ready).await {
                match answer {
                    Ok(()) => self.set_ready(true),
                    Err(why) if ready.failed_for_good() => {
                        self.note(&why);
                        self.set_ready(false);
                    }
                    Err(why) => self.note(&why),
                }
            }
            if let Some(Err(why)) = self.ask(&mut live).await
                && live.failed_for_good()
            {
                return Attended::Unhealthy(format!("liveness: {why}"));
            }
            if let Some(outcome) = self.glance(GLANCE).await {
                return outcome;
            }
        }
    }

    async fn until_started(&self, probe: &Probe) -> Option<Attended> {
        let mut rhythm = Rhythm::new(Some(probe));
        loop {
            match self.ask(&mut rhythm).await {
                Some(Ok(())) => return None,
                Some(Err(why)) if rhythm.failed_for_good() => {
                    return Some(Attended::Unhealthy(format!("startup: {why}")));
                }
                Some(Err(why)) => self.note(&why),
                None => {}
            }
            if let Some(outcome) = self.glance(GLANCE).await {
                return Some(outcome);
            }
        }
    }

    /// Runs the probe if its time has come.
    async fn ask(&self, rhythm: &mut Rhythm<'_>) -> Option<Result<(), String>> {
        let probe = rhythm.due()?;
        // The servers' own tools are not asked: they would ask the machine's server, not the test's.
        if matches!(self.body, Body::Server) && probe.exec.is_some() {
            return Some(Ok(()));
        }
        let (pid, user, env) = match &self.body {
            Body::Process { sandbox, .. } => (self.program()?.pid(), sandbox.user, &sandbox.env),
            Body::Server => (0, (0, 0), const { &BTreeMap::new() }),
        };
        let target = Target { pid, user, ports: &self.ports, env };
        let answer = probe::run(probe, &target).await.map_err(|error| format!("{error:#}"));
        rhythm.took(answer.is_ok());
        Some(answer)
    }

    async fn glance(&self, span: Duration) -> Option<Attended> {
        if self.asked_within(span).await {
            return Some(Attended::Asked);
        }
        match self.program()?.still_running() {
            Ok(()) => None,
            Err(error) => Some(Attended::Exited(format!("{error:#}"))),
        }
    }

    /// Waits for the wish that it may go, but not longer than `span`.
    async fn asked_within(&self, span: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        let asked = stop.wait_for(|asked| *asked);
        tokio::time::timeout(span, asked).await.is_ok()
    }

    fn set_ready(&self, ready: bool) {
        self.status.send_if_modified(|status| {
            let ready = ready && !status.terminating;
            let changed = status.ready != ready;
            if changed {
                status.ready = ready;
                status.ready_since = ready.then(Instant::now);
            }
            changed
        });
    }

    fn note(&self, why: &str) {
        self.status.send_modify(|status| status.trouble = Some(why.to_owned()));
    }
}

/// When a probe is due, and how often in a row it failed.
struct Rhythm<'a> {
    probe: Option<&'a Probe>,
    next: Instant,
    failures: u32,
}

impl<'a> Rhythm<'a> {
    fn new(probe: Option<&'a Probe>) -> Self {
        Self { probe, next: Instant::now(), failures: 0 }
    }

    fn due(&mut self) -> Option<&'a Probe> {
        let probe = self.probe.filter(|_| Instant::now() >= self.next)?;
        self.next = Instant::now() + Duration::from_secs(probe.period_seconds);
        Some(probe)
    }

    fn took(&mut self, fine: bool) {
        self.failures = if fine { 0 } else { self.failures + 1 };
    }

    fn failed_for_good(&self) -> bool {
        self.probe.is_some_and(|probe| self.failures >= probe.failure_threshold)
    }
}
