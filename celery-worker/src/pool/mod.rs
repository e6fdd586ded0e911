//! Concurrency slots: `n` lanes, each runs one task at a time and takes the next from the shared queue.
//!
//! A lane polls a task where it stands and only waits for it if it has to, so a short task costs neither a spawn nor a
//! wake-up. What ended is handed on in batches: when 64 have gathered, when the queue is empty, or when the next task
//! waits. Lanes live on a runtime of their own: a task that blocks its thread stops neither acks nor heartbeats.

pub(crate) mod autoscale;
pub(crate) mod crashes;
mod job;
pub(crate) mod leases;
pub(crate) mod process;
mod queue;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio_util::sync::CancellationToken;

pub(crate) use job::Job;
use queue::Queue;

/// How many ended tasks a lane gathers at most before it hands them on.
const BATCH: usize = 64;

/// What a pool does with a job and with what came of it.
pub(crate) trait Work: Send + Sync + 'static {
    /// What a job becomes.
    type Done: Send + 'static;

    /// Runs a job to its end.
    fn run(&self, job: Arc<Job>) -> impl Future<Output = Self::Done> + Send;

    /// Takes over what ended; waits when there is too much of it.
    fn hand_on(&self, done: Vec<Self::Done>) -> impl Future<Output = ()> + Send;
}

/// The lanes and their queue.
#[derive(Debug)]
pub(crate) struct Pool {
    queue: Queue<Arc<Job>>,
    lanes: Mutex<Vec<Arc<Lane>>>,
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Lane {
    current: Mutex<Option<Arc<Job>>>,
    stop: CancellationToken,
    /// It is no slot any more; it is here only until its current task ends.
    leaving: AtomicBool,
}

impl Pool {
    /// A pool without lanes for a runtime of `threads` threads.
    pub(crate) fn new(threads: usize) -> Pool {
        Pool { queue: Queue::new(threads), lanes: Mutex::new(Vec::new()) }
    }

    /// Adds a lane. The caller runs it with [`Pool::run_lane`].
    pub(crate) fn add_lane(&self) -> Arc<Lane> {
        let (current, stop) = (Mutex::new(None), CancellationToken::new());
        let lane = Arc::new(Lane { current, stop, leaving: AtomicBool::new(false) });
        self.lock().push(lane.clone());
        lane
    }

    /// Lets `count` lanes end, idle ones first, the others after their current task, which can be seen until then; one always
    /// stays. How many will end.
    pub(crate) fn remove_lanes(&self, count: usize) -> usize {
        let lanes = self.lock();
        let (idle, busy): (Vec<&Arc<Lane>>, Vec<_>) =
            lanes.iter().filter(|lane| !lane.is_leaving()).partition(|lane| lane.current().is_none());
        let count = count.min((idle.len() + busy.len()).saturating_sub(1));
        for lane in idle.into_iter().chain(busy).take(count) {
            lane.leaving.store(true, Ordering::SeqCst);
            lane.stop.cancel();
        }
        count
    }

    /// Lets all lanes end after their current task.
    pub(crate) fn close(&self) {
        for lane in self.lock().iter() {
            lane.stop.cancel();
        }
    }

    /// How many slots there are.
    pub(crate) fn size(&self) -> usize {
        self.lock().iter().filter(|lane| !lane.is_leaving()).count()
    }

    /// Queues jobs to be started in order.
    pub(crate) fn start(&self, jobs: impl IntoIterator<Item = Arc<Job>>) {
        self.queue.push(jobs);
    }

    /// The jobs that run now.
    pub(crate) fn running(&self) -> Vec<Arc<Job>> {
        self.lock().iter().filter_map(|lane| lane.current()).collect()
    }

    /// The jobs that wait for a slot, in order.
    pub(crate) fn waiting(&self) -> Vec<Arc<Job>> {
        self.queue.with_jobs(|jobs| jobs.iter().cloned().collect())
    }

    /// Takes back the waiting jobs for which `unwanted` holds.
    pub(crate) fn take_back(&self, unwanted: impl FnMut(&Arc<Job>) -> bool) -> Vec<Arc<Job>> {
        self.queue.take(unwanted)
    }

    /// The life of one lane.
    pub(crate) async fn run_lane<W: Work>(&self, lane: Arc<Lane>, work: &W) {
        let mut done = Vec::new();
        while !lane.stop.is_cancelled() {
            self.run_queued(&lane, work, &mut done).await;
            tokio::select! {
                () = self.queue.ready() => {}
                () = lane.stop.cancelled() => {}
            }
        }
        self.lock().retain(|other| !Arc::ptr_eq(other, &lane));
        // A successor may have been woken through this lane.
        self.queue.wake_one();
    }

    /// Runs jobs until the queue is empty or the lane is told to stop.
    async fn run_queued<W: Work>(&self, lane: &Lane, work: &W, done: &mut Vec<W::Done>) {
        let mut polling = self.queue.polling();
        let mut since_yield = 0;
        while !lane.stop.is_cancelled() {
            let Some(job) = self.queue.pop() else { break };
            lane.set(Some(job.clone()));
            {
                let mut run = pin!(work.run(job));
                let ended = match poll_once(run.as_mut()).await {
                    Poll::Ready(ended) => ended,
                    Poll::Pending => {
                        drop(polling);
                        self.queue.suspend();
                        hand_on(work, done).await;
                        let ended = run.await;
                        polling = self.queue.polling();
                        ended
                    }
                };
                done.push(ended);
            }
            lane.set(None);
            since_yield += 1;
            if done.len() >= BATCH {
                hand_on(work, done).await;
            }
            if since_yield >= BATCH {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
        hand_on(work, done).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn current(&self) -> Option<Arc<Job>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    fn set(&self, job: Option<Arc<Job>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }
}

/// Polls a future once, with the waker of the lane.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

async fn hand_on<W: Work>(work: &W, done: &mut Vec<W::Done>) {
    if !done.is_empty() {
        work.hand_on(std::mem::take(done)).await;
    }
}
