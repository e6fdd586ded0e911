//! Runs a task's body: catches its panic, holds it to its time limits, and lets it be interrupted.
//!
//! An async body is dropped when its time is up. A blocking one cannot be: it is told through its context, and a body
//! that does not listen is abandoned to its thread, which is counted and reported.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use celery_protocol::TimeLimits;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::context::{Context, Interrupt, Interrupts, Request};
use crate::task::{ErasedTask, Failure, Outcome, TaskError, TaskResult};

/// How long a body that listens for interrupts may take to end after one.
const WIND_DOWN: Duration = Duration::from_secs(10);

/// How a body ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What its answer means.
    pub(crate) outcome: Outcome,
    /// It was ended by its hard time limit.
    pub(crate) timed_out: bool,
}

type Answer = std::thread::Result<TaskResult<Box<RawValue>>>;
type Body = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Runs `task` for `request`. `abandoned` counts blocking bodies that were given up but still hold a thread.
pub(crate) async fn execute(
    task: &Arc<ErasedTask>,
    request: &Request,
    context: Context,
    interrupts: &Interrupts,
    limits: TimeLimits,
    abandoned: &Arc<AtomicU64>,
) -> Ending {
    let body: Body = if task.blocking {
        Box::pin(on_a_thread(task.clone(), context, abandoned.clone()))
    } else {
        // Called inside the guarded block: making the future is user code too.
        let task = task.clone();
        Box::pin(AssertUnwindSafe(async move { task.call(context).await }).catch_unwind())
    };
    let (outcome, timed_out) = match within(body, task.blocking, interrupts, limits).await {
        Ended::Answered(Ok(answer)) => {
            let dice = if answer.is_err() { dice() } else { 0.0 };
            (Outcome::decide(answer, task, request, SystemTime::now(), dice), false)
        }
        Ended::Answered(Err(panic)) => (unexpected(Failure::panicked(&*panic)), false),
        Ended::Interrupted(interrupt) => {
            let answer = Err(TaskError::Interrupted(interrupt));
            (Outcome::decide(answer, task, request, SystemTime::now(), dice()), false)
        }
        Ended::HardLimit(limit) => (unexpected(Failure::time_limit(limit)), true),
    };
    Ending { outcome, timed_out }
}

fn unexpected(failure: Failure) -> Outcome {
    Outcome::Failure { failure, expected: false }
}

enum Ended {
    Answered(Answer),
    HardLimit(Duration),
    Interrupted(Interrupt),
}

/// Polls the body until it answers or somebody ends it. The body comes first, so a short task pays for no timer.
async fn within(mut body: Body, blocking: bool, interrupts: &Interrupts, limits: TimeLimits) -> Ended {
    let start = Instant::now();
    let mut soft = limits.soft.map(|limit| start + limit);
    let hard = limits.hard.map(|limit| start + limit);
    let mut winding_down: Option<(Interrupt, Instant)> = None;
    loop {
        tokio::select! {
            biased;
            answer = &mut body => return Ended::Answered(answer),
            () = at(hard) => return Ended::HardLimit(limits.hard.unwrap_or_default()),
            () = at(soft) => {
                soft = None;
                interrupts.raise(Interrupt::SoftTimeLimit);
                // A thread is only given up at its hard limit: until then it may still answer.
                if !blocking && !interrupts.watched() {
                    return Ended::Interrupted(Interrupt::SoftTimeLimit);
                }
            }
            interrupt = interrupts.end_wanted(), if winding_down.is_none() => {
                if !interrupts.watched() {
                    return Ended::Interrupted(interrupt);
                }
                winding_down = Some((interrupt, Instant::now() + WIND_DOWN));
            }
            interrupt = over(winding_down) => return Ended::Interrupted(interrupt),
        }
    }
}

/// Resolves at `moment`; never when there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn over(winding_down: Option<(Interrupt, Instant)>) -> Interrupt {
    let Some((interrupt, until)) = winding_down else { return std::future::pending().await };
    sleep_until(until).await;
    interrupt
}

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const ABANDONED: u8 = 2;

/// Tells whether a thread's body was given up: whoever comes second knows.
struct Watch {
    state: Arc<AtomicU8>,
    abandoned: Arc<AtomicU64>,
}

impl Watch {
    fn first(&self, state: u8) -> bool {
        self.state.compare_exchange(RUNNING, state, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.first(ABANDONED) {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs a blocking body on the runtime's pool for such. Dropping this future does not end the body.
async fn on_a_thread(task: Arc<ErasedTask>, context: Context, abandoned: Arc<AtomicU64>) -> Answer {
    let runtime = Handle::current();
    let state = Arc::new(AtomicU8::new(RUNNING));
    let watch = Watch { state: state.clone(), abandoned: abandoned.clone() };
    let thread = tokio::task::spawn_blocking(move || {
        let call = AssertUnwindSafe(|| runtime.block_on(async { task.call(context).await }));
        let answer = std::panic::catch_unwind(call);
        if state.swap(ENDED, Ordering::SeqCst) == ABANDONED {
            abandoned.fetch_sub(1, Ordering::Relaxed);
        }
        answer
    });
    let answer = thread.await;
    drop(watch);
    answer.unwrap_or_else(|err| Err(Box::new(err.to_string())))
}

/// A number in 0..1 for jitter.
fn dice() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    (high >> 11) as f64 / (1u64 << 53) as f64
}
