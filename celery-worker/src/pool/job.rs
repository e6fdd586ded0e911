//! One admitted delivery on its way through the worker.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use celery_broker::{Called, Requeue, Token};
use celery_protocol::TimeLimits;

use crate::context::{Interrupts, Request};
use crate::worker::catalog::{Entry, Rules};

/// A call, the task that serves it, and the right to settle its message.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Arc<Request>,
    pub(crate) entry: Arc<Entry>,
    /// The task's rules with the message's say in them.
    pub(crate) rules: Rules,
    pub(crate) limits: TimeLimits,
    pub(crate) interrupts: Interrupts,
    /// When it started; unset while it waits.
    started: OnceLock<SystemTime>,
    /// `None` once the message is settled.
    token: Mutex<Option<Token>>,
    /// Whoever waits for the result is remembered as long as this job is, however it leaves the worker.
    _called: Called,
    /// If it is terminated, its process is to be killed at once.
    pub(crate) kill: AtomicBool,
    /// The child process that runs it; 0 is this process.
    pid: AtomicU32,
    /// Other workers have been told that it runs.
    leased: AtomicBool,
}

impl Job {
    pub(crate) fn new(request: Arc<Request>, entry: Arc<Entry>, token: Token, called: Called) -> Job {
        let job = Job::without_message(request, entry, called);
        *job.lock() = Some(token);
        job
    }

    /// A job whose message is settled elsewhere.
    pub(crate) fn without_message(request: Arc<Request>, entry: Arc<Entry>, called: Called) -> Job {
        let headers = request.headers();
        let rules = Rules::new(&entry.options, headers);
        let limits = entry.time_limits(headers);
        Job {
            request,
            entry,
            rules,
            limits,
            interrupts: Interrupts::new(),
            started: OnceLock::new(),
            token: Mutex::new(None),
            _called: called,
            kill: AtomicBool::new(false),
            pid: AtomicU32::new(0),
            leased: AtomicBool::new(false),
        }
    }

    /// Other workers are told that it runs.
    pub(super) fn lease(&self) {
        self.leased.store(true, Ordering::SeqCst);
    }

    /// Whether they have been.
    pub(crate) fn has_lease(&self) -> bool {
        self.leased.load(Ordering::SeqCst)
    }

    /// It runs in this child process.
    pub(crate) fn set_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::SeqCst);
    }

    /// The process that runs it.
    pub(crate) fn pid(&self) -> u32 {
        match self.pid.load(Ordering::SeqCst) {
            0 => std::process::id(),
            pid => pid,
        }
    }

    /// Marks the start; false if it was marked before.
    pub(crate) fn start(&self, at: SystemTime) -> bool {
        self.started.set(at).is_ok()
    }

    pub(crate) fn started(&self) -> Option<SystemTime> {
        self.started.get().copied()
    }

    /// Whether the message has been settled.
    pub(crate) fn is_settled(&self) -> bool {
        self.lock().is_none()
    }

    /// Whether settling would still reach the broker.
    pub(crate) fn is_live(&self) -> bool {
        self.lock().as_ref().is_some_and(Token::is_live)
    }

    /// Acks the message, once; nothing if it is settled.
    pub(crate) fn ack(&self) {
        if let Some(token) = self.lock().take() {
            token.ack();
        }
    }

    /// Rejects the message, once; nothing if it is settled.
    pub(crate) fn reject(&self, requeue: Requeue) {
        if let Some(token) = self.lock().take() {
            token.reject(requeue);
        }
    }

    /// The broker delivered the message again, as `other`, because the connection was lost, and it still runs here:
    /// from now on the new delivery is the one to settle. False if the old one is still good, or was used.
    pub(crate) fn adopt_from(&self, other: &Job) -> bool {
        let mut own = self.lock();
        let stale = own.as_ref().is_some_and(|token| !token.is_live());
        if stale {
            *own = other.lock().take();
        }
        stale
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
