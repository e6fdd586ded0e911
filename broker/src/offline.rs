//! A client without servers, for people's unit tests: publishes are kept instead of sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use celery_protocol::{Event, RawMessage};

use crate::amqp::Route;

/// What an [offline](crate::CeleryBuilder::offline) client would have sent; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<(Route, RawMessage)>,
    events: Vec<Event>,
}

impl Outbox {
    /// Takes the messages that were published so far.
    pub fn take(&self) -> Vec<(Route, RawMessage)> {
        std::mem::take(&mut self.lock().messages)
    }

    /// Takes the events that were emitted so far.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    pub(crate) fn put(&self, route: Route, message: RawMessage) {
        self.lock().messages.push((route, message));
    }

    pub(crate) fn put_event(&self, event: Event) {
        self.lock().events.push(event);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
