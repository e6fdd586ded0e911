//! The run queue between the consumer and the lanes: who sleeps, and who is woken when.
//!
//! A tiny task costs less than waking a thread. So pushing a hundred jobs wakes as many lanes as there are threads
//! to run them, not a hundred, and a lane whose job turns out to wait ([`Queue::suspend`]) wakes a successor. That
//! keeps every slot usable and the hot path free of needless wake-ups.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Jobs that may start, in order, shared by all lanes of one pool.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    jobs: Mutex<VecDeque<J>>,
    wake: Notify,
    /// Lanes waiting in [`Queue::ready`].
    idle: AtomicUsize,
    /// Lanes on a thread: neither idle nor waiting for a suspended job.
    polling: AtomicUsize,
    /// How many lanes can make progress at once.
    threads: usize,
}

impl<J> Queue<J> {
    /// An empty queue for lanes that share `threads` threads.
    pub(crate) fn new(threads: usize) -> Queue<J> {
        Queue {
            jobs: Mutex::new(VecDeque::new()),
            wake: Notify::new(),
            idle: AtomicUsize::new(0),
            polling: AtomicUsize::new(0),
            threads: threads.max(1),
        }
    }

    /// Adds jobs at the end.
    pub(crate) fn push(&self, jobs: impl IntoIterator<Item = J>) {
        let length = {
            let mut queue = self.lock();
            queue.extend(jobs);
            queue.len()
        };
        let free_threads = self.threads.saturating_sub(self.polling.load(Ordering::SeqCst));
        for _ in 0..length.min(free_threads.max(1)).min(self.idle.load(Ordering::SeqCst)) {
            self.wake.notify_one();
        }
    }

    /// The next job.
    pub(crate) fn pop(&self) -> Option<J> {
        self.lock().pop_front()
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes out the jobs for which `unwanted` holds, in order.
    pub(crate) fn take(&self, unwanted: impl FnMut(&J) -> bool) -> Vec<J> {
        let mut queue = self.lock();
        let (out, keep): (Vec<J>, Vec<J>) = std::mem::take(&mut *queue).into_iter().partition(unwanted);
        *queue = keep.into();
        out
    }

    /// Looks at all waiting jobs, in order.
    pub(crate) fn with_jobs<R>(&self, look: impl FnOnce(&VecDeque<J>) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until there may be a job. A lane calls it after [`Queue::pop`] gave nothing.
    pub(crate) async fn ready(&self) {
        let woken = self.wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        self.idle.fetch_add(1, Ordering::SeqCst);
        let _idle = Decrement(&self.idle);
        if self.len() == 0 {
            woken.await;
        }
    }

    /// Passes on a wake-up that the caller does not use.
    pub(crate) fn wake_one(&self) {
        self.wake.notify_one();
    }

    /// Counts the caller as being on a thread until the guard is dropped.
    pub(crate) fn polling(&self) -> impl Drop + use<'_, J> {
        self.polling.fetch_add(1, Ordering::SeqCst);
        Decrement(&self.polling)
    }

    /// The caller's job waits for something: lets another lane take over if there is work.
    pub(crate) fn suspend(&self) {
        if self.idle.load(Ordering::SeqCst) > 0 && self.len() > 0 {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<J>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Decrement<'a>(&'a AtomicUsize);

impl Drop for Decrement<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_push_between_pop_and_ready_is_not_lost() {
        let queue = Queue::new(1);
        assert_eq!(queue.pop(), None);
        queue.push([1]);
        tokio::time::timeout(Duration::from_secs(5), queue.ready()).await.unwrap();
        assert_eq!(queue.pop(), Some(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_job_is_taken_once_whatever_suspends() {
        let queue = Arc::new(Queue::new(2));
        let taken = Arc::new(AtomicUsize::new(0));
        let mut lanes = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (queue, taken) = (queue.clone(), taken.clone());
            lanes.spawn(async move {
                while taken.load(Ordering::SeqCst) < 1_000 {
                    let Some(job) = queue.pop() else {
                        let _ = tokio::time::timeout(Duration::from_millis(20), queue.ready()).await;
                        continue;
                    };
                    let polling = queue.polling();
                    if job % 3 == 0 {
                        drop(polling);
                        queue.suspend();
                        tokio::task::yield_now().await;
                    }
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for start in (0..1_000).step_by(10) {
            queue.push(start..start + 10);
            tokio::task::yield_now().await;
        }
        while lanes.join_next().await.is_some() {}
        assert_eq!(taken.load(Ordering::SeqCst), 1_000);
    }

    #[tokio::test]
    async fn jobs_can_be_taken_back() {
        let queue = Queue::new(1);
        queue.push(0..6);
        assert_eq!(queue.take(|n| n % 2 == 0), [0, 2, 4]);
        assert_eq!(queue.with_jobs(|jobs| jobs.iter().copied().collect::<Vec<_>>()), [1, 3, 5]);
    }
}
