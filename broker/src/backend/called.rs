//! Who waits for the result of a call, remembered for as long as its message is here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use celery_protocol::{Properties, TaskId};

/// Calls whose caller is remembered, each until its message is settled.
const CALLS: usize = 100_000;

/// That somebody waits for the result of a call. When it is dropped, no more states of this message follow, and the caller
/// is forgotten with its last message.
#[derive(Default)]
#[must_use = "the caller is forgotten when this is dropped"]
pub struct Called(Option<(Callers, TaskId)>);

/// All callers that are remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Callers(Arc<Mutex<HashMap<TaskId, Waiting>>>);

/// Who waits for a result.
#[derive(Debug)]
struct Waiting {
    caller: Caller,
    /// Messages of this call that are here: a retry may arrive before the first one is settled.
    messages: u32,
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) queue: String,
    pub(super) correlation_id: String,
}

impl Callers {
    /// Remembers who is named in a message as waiting for an answer, if anybody is.
    pub(super) fn remember(&self, id: &TaskId, properties: &Properties) -> Called {
        let Some(queue) = properties.reply_to.clone().filter(|queue| !queue.is_empty()) else {
            return Called::default();
        };
        let mut calls = self.lock();
        if let Some(waiting) = calls.get_mut(id) {
            waiting.messages += 1;
        } else if calls.len() < CALLS {
            let correlation_id = properties.correlation_id.clone().unwrap_or_else(|| id.to_string());
            calls.insert(id.clone(), Waiting { caller: Caller { queue, correlation_id }, messages: 1 });
        } else {
            tracing::warn!(%id, "too many calls wait for their result: this one's goes nowhere");
            return Called::default();
        }
        drop(calls);
        Called(Some((self.clone(), id.clone())))
    }

    /// Where the result of a call goes.
    pub(super) fn get(&self, id: &TaskId) -> Option<Caller> {
        self.lock().get(id).map(|waiting| waiting.caller.clone())
    }

    fn forget_one(&self, id: &TaskId) {
        let mut calls = self.lock();
        let Some(waiting) = calls.get_mut(id) else { return };
        waiting.messages -= 1;
        if waiting.messages == 0 {
            calls.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if let Some((callers, id)) = self.0.take() {
            callers.forget_one(&id);
        }
    }
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Called").field(&self.0.as_ref().map(|(_, id)| id.as_str())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_remembered_until_the_last_message_of_its_call_is_gone() {
        let callers = Callers::default();
        let id = TaskId::parse("a").unwrap();
        let properties = Properties { reply_to: Some("answers".into()), ..Properties::default() };
        let caller = Some(Caller { queue: "answers".into(), correlation_id: "a".into() });
        let first = callers.remember(&id, &properties);
        let retry = callers.remember(&id, &properties);
        drop(first);
        assert_eq!(callers.get(&id), caller);
        drop(retry);
        assert_eq!(callers.get(&id), None);
        assert!(callers.lock().is_empty());
        // Nobody waits: nothing is remembered.
        let _nobody = callers.remember(&id, &Properties::default());
        assert_eq!(callers.get(&id), None);
    }
}
