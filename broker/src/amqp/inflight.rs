//! A set of futures that can be drained completely.
//!
//! Like `FuturesUnordered`, with one difference that exact returns need ([`returns`](super::returns)): when
//! [`poll_ready`](InFlight::poll_ready) yields, *every* future that was ready at that moment has been taken.
//! (`FuturesUnordered` may stop early to be fair.) Slots and wakers are reused.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Futures in flight.
pub(super) struct InFlight<F: Future> {
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    scratch: Vec<usize>,
}

struct Slot<F> {
    future: Option<Pin<Box<F>>>,
    signal: Arc<Signal>,
    waker: Waker,
}

#[derive(Default)]
struct Woken {
    list: Mutex<Vec<usize>>,
    parent: AtomicWaker,
}

struct Signal {
    index: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.woken.list.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
            self.woken.parent.wake();
        }
    }
}

impl<F: Future> InFlight<F> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), woken: Arc::new(Woken::default()), scratch: Vec::new() }
    }

    /// How many futures have not completed.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a future and polls it once, so that what it sends goes out in the order of the calls.
    pub(super) fn push(&mut self, future: F, done: &mut Vec<F::Output>) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            let signal =
                Arc::new(Signal { index, queued: AtomicBool::new(false), woken: Arc::clone(&self.woken) });
            let waker = Waker::from(Arc::clone(&signal));
            self.slots.push(Slot { future: None, signal, waker });
            index
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.future = Some(Box::pin(future));
        }
        self.poll_slot(index, done);
    }

    /// Takes the outputs of all futures that are ready; pending if there are none.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, done: &mut Vec<F::Output>) -> Poll<()> {
        self.woken.parent.register(cx.waker());
        loop {
            let mut indices = mem::take(&mut self.scratch);
            {
                let mut list = self.woken.list.lock().unwrap_or_else(PoisonError::into_inner);
                mem::swap(&mut *list, &mut indices);
            }
            if indices.is_empty() {
                self.scratch = indices;
                break;
            }
            for index in indices.drain(..) {
                self.poll_slot(index, done);
            }
            self.scratch = indices;
        }
        if done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_slot(&mut self, index: usize, done: &mut Vec<F::Output>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        // Before polling: a wake during the poll must be queued again.
        slot.signal.queued.store(false, Ordering::Release);
        let Some(future) = &mut slot.future else { return };
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
            slot.future = None;
            self.free.push(index);
            done.push(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn everything_that_is_ready_comes_at_once() {
        let mut set = InFlight::new();
        let mut senders = Vec::new();
        let mut done = Vec::new();
        for _ in 0..100 {
            let (tx, rx) = oneshot::channel::<usize>();
            senders.push(Some(tx));
            set.push(async move { rx.await.unwrap() }, &mut done);
        }
        assert!(done.is_empty());
        for (index, tx) in senders.iter_mut().enumerate().filter(|(index, _)| index % 2 == 0) {
            tx.take().unwrap().send(index).unwrap();
        }
        poll_fn(|cx| set.poll_ready(cx, &mut done)).await;
        assert_eq!((done.len(), set.len()), (50, 50));
    }

    #[tokio::test]
    async fn slots_are_reused_and_late_wakes_are_harmless() {
        let mut set = InFlight::new();
        for round in 0..10_usize {
            let (tx, rx) = oneshot::channel();
            let mut done = Vec::new();
            set.push(rx, &mut done);
            assert_eq!(set.len(), 1);
            tx.send(round).unwrap();
            poll_fn(|cx| set.poll_ready(cx, &mut done)).await;
            assert_eq!(done.pop().unwrap(), Ok(round));
            assert_eq!((set.len(), set.slots.len()), (0, 1));
        }
    }

    #[tokio::test]
    async fn a_future_that_is_ready_at_once_is_done_by_push() {
        let mut set = InFlight::new();
        let mut done = Vec::new();
        set.push(std::future::ready(7), &mut done);
        assert_eq!((done.as_slice(), set.len()), (&[7][..], 0));
    }
}
