//! The states of one watched task on their way to a watcher: bounded, and the newest are kept.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use celery_protocol::ResultMeta;
use futures_util::Stream;

/// A watcher that does not read gets the newest states only.
const CAPACITY: usize = 64;

/// The sending end.
#[derive(Debug, Clone)]
pub(super) struct Mailbox(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<ResultMeta>,
    /// The last state put in, encoded: announcements and look-ups overlap and must not show twice.
    last: Option<Vec<u8>>,
    /// A final state was put in.
    finished: bool,
    /// The watcher is gone.
    closed: bool,
    waker: Option<Waker>,
}

/// The watching end; runs `on_drop` when the watcher goes.
pub(super) struct Watch {
    state: Arc<Mutex<State>>,
    on_drop: Option<Box<dyn FnOnce() + Send>>,
}

impl Mailbox {
    pub(super) fn new(on_drop: impl FnOnce() + Send + 'static) -> (Self, Watch) {
        let state = Arc::new(Mutex::new(State::default()));
        (Self(Arc::clone(&state)), Watch { state, on_drop: Some(Box::new(on_drop)) })
    }

    /// The watcher is gone, or has all it wants.
    pub(super) fn is_closed(&self) -> bool {
        let state = lock(&self.0);
        state.closed || state.finished
    }

    /// Puts a state in; `false`: no more are wanted.
    pub(super) fn put(&self, meta: ResultMeta, encoded: &[u8]) -> bool {
        let mut state = lock(&self.0);
        if state.finished || state.closed {
            return false;
        }
        if state.last.as_deref() == Some(encoded) {
            return true;
        }
        state.last = Some(encoded.to_owned());
        state.finished = meta.status.is_ready();
        if state.waiting.len() == CAPACITY {
            state.waiting.pop_front();
        }
        state.waiting.push_back(meta);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        !state.finished
    }
}

impl Stream for Watch {
    type Item = ResultMeta;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ResultMeta>> {
        let mut state = lock(&self.state);
        match state.waiting.pop_front() {
            Some(meta) => Poll::Ready(Some(meta)),
            None if state.finished => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.state).closed = true;
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use celery_protocol::{TaskId, TaskState, WireTime};
    use futures_util::StreamExt;
    use serde_json::value::RawValue;

    use super::*;

    fn progress(step: usize) -> ResultMeta {
        let result = RawValue::from_string(step.to_string()).unwrap();
        ResultMeta::new(TaskId::parse("t").unwrap(), TaskState::from("PROGRESS"), result)
    }

    fn put(mailbox: &Mailbox, meta: ResultMeta) -> bool {
        let bytes = meta.encode();
        mailbox.put(meta, &bytes)
    }

    #[tokio::test]
    async fn the_same_state_shows_once_and_a_final_one_ends_the_stream() {
        let (mailbox, watch) = Mailbox::new(|| {});
        assert!(put(&mailbox, progress(1)));
        assert!(put(&mailbox, progress(1)));
        let done = ResultMeta::success(
            TaskId::parse("t").unwrap(),
            RawValue::from_string("5".into()).unwrap(),
            WireTime::from(std::time::UNIX_EPOCH),
        );
        assert!(!put(&mailbox, done));
        assert!(!put(&mailbox, progress(2)));
        let states: Vec<String> = watch.map(|meta| meta.status.to_string()).collect().await;
        assert_eq!(states, ["PROGRESS", "SUCCESS"]);
    }

    #[tokio::test]
    async fn a_watcher_that_does_not_read_costs_a_bounded_amount() {
        let (mailbox, mut watch) = Mailbox::new(|| {});
        for step in 0..1000 {
            put(&mailbox, progress(step));
        }
        let first = watch.next().await.unwrap();
        assert_eq!(first.result.get(), (1000 - CAPACITY).to_string());
        drop(watch);
        assert!(!put(&mailbox, progress(0)));
    }
}
