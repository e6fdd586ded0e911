//! Everything that is announced in the result backend, for all who wait for many tasks at once: one subscription for the
//! process, fanned out in memory.
//!
//! It begins with the first who asks. What was said lately is kept, so that a stream that breaks off goes on where it
//! was. Everything is bounded: whoever does not keep up is told how much was missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use celery_broker::Celery;
use celery_protocol::TaskId;
use celery_protocol::result::{ResultMeta, TaskState};
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::dto::stream::StateChange;
use crate::problem::{Kind, Problem};
use crate::submission::Record;
use crate::submit::within;

/// Announcements that are handled in one go.
const TOGETHER: usize = 256;
/// Announcements that one listener may be behind.
const BEHIND: usize = 4096;
/// Announcements that are kept for those who come back, and their bytes.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 16 << 20;
/// For the first subscription.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts to subscribe.
const PAUSE: Duration = Duration::from_secs(1);

/// Hands out subscriptions.
#[derive(Debug)]
pub struct Hub {
    /// Tells numbers of this process from those of another.
    epoch: String,
    wanted: watch::Sender<bool>,
    standing: watch::Sender<bool>,
    said: broadcast::Sender<Arc<Said>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    bytes: usize,
    said: VecDeque<Arc<Said>>,
}

/// One thing that was said.
#[derive(Debug)]
pub struct Said {
    /// Its number.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What was said.
#[derive(Debug)]
pub enum What {
    /// A task has a new state.
    State(Box<Change>),
    /// The subscription was interrupted: whoever needs to know everything reads again.
    Gap,
}

/// A new state of a task, ready to be sent.
#[derive(Debug)]
pub struct Change {
    /// The task.
    pub id: TaskId,
    /// Its name, if known.
    pub task: Option<String>,
    /// Its queue, if known.
    pub queue: Option<String>,
    /// The state.
    pub state: String,
    /// Whether it has ended.
    pub ready: bool,
    /// The name of the event.
    pub event: &'static str,
    /// As JSON.
    pub data: String,
}

/// A listener.
#[derive(Debug)]
pub struct Subscription {
    /// What was said since the number that the listener knows; first in line.
    pub missed: VecDeque<Arc<Said>>,
    /// Whether more than that was missed.
    pub lost: bool,
    /// What is said from now on.
    pub said: broadcast::Receiver<Arc<Said>>,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            epoch: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
            wanted: watch::Sender::new(false),
            standing: watch::Sender::new(false),
            said: broadcast::Sender::new(BEHIND),
            kept: Mutex::default(),
        }
    }
}

impl Hub {
    /// Listens from now on, or from behind the event `after`, as far as that is kept. When this returns, nothing that is
    /// announced can be missed.
    ///
    /// # Errors
    /// `result-backend-unavailable`.
    pub async fn subscribe(&self, after: Option<&str>) -> Result<Subscription, Problem> {
        self.wanted.send_replace(true);
        let mut standing = self.standing.subscribe();
        let stands = tokio::time::timeout(PATIENCE, standing.wait_for(|standing| *standing)).await;
        if !matches!(stands, Ok(Ok(_))) {
            let detail = "what is announced there cannot be followed at the moment";
            return Err(Problem::new(Kind::ResultBackendUnavailable, detail).retry_after(2));
        }
        let kept = self.lock();
        let said = self.said.subscribe();
        let Some(after) = after else {
            return Ok(Subscription { missed: VecDeque::new(), lost: false, said });
        };
        let number =
            after.strip_prefix(&self.epoch).and_then(|rest| rest.strip_prefix('-')?.parse::<u64>().ok());
        let oldest = kept.said.front().map_or(kept.last + 1, |said| said.number);
        match number.filter(|number| *number <= kept.last) {
            Some(number) => {
                let missed = kept.said.iter().filter(|said| said.number > number).cloned().collect();
                Ok(Subscription { missed, lost: number + 1 < oldest, said })
            }
            None => Ok(Subscription { missed: VecDeque::new(), lost: true, said }),
        }
    }

    /// The id of an event.
    pub fn event_id(&self, said: &Said) -> String {
        format!("{}-{}", self.epoch, said.number)
    }

    /// Follows the result backend until `stop`.
    pub async fn run(&self, celery: Celery, stop: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        tokio::select! {
            _ = wanted.wait_for(|wanted| *wanted) => {}
            () = stop.cancelled() => return,
        }
        loop {
            let following = async {
                match celery.backend().watch_all().await {
                    Ok(states) => {
                        self.say(What::Gap);
                        self.standing.send_replace(true);
                        let mut states = states.ready_chunks(TOGETHER);
                        while let Some(metas) = states.next().await {
                            self.announce(&celery, metas).await;
                        }
                        tracing::warn!("the subscription to all results has ended");
                    }
                    Err(err) => tracing::warn!("all results cannot be followed: {err}"),
                }
                self.standing.send_replace(false);
                tokio::time::sleep(PAUSE).await;
            };
            tokio::select! {
                () = following => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn announce(&self, celery: &Celery, metas: Vec<ResultMeta>) {
        let ids: Vec<TaskId> = metas.iter().map(|meta| meta.task_id.clone()).collect();
        let records = match celery.submissions() {
            Some(index) => within(index.get_many(&ids)).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut records = records.into_iter();
        for meta in metas {
            let record = records.next().flatten().and_then(|bytes| Record::decode(&bytes));
            self.say(What::State(Box::new(Change::of(&meta, record.as_ref()))));
        }
    }

    fn say(&self, what: What) {
        let mut kept = self.lock();
        kept.last += 1;
        let said = Arc::new(Said { number: kept.last, what });
        kept.bytes += said.size();
        kept.said.push_back(Arc::clone(&said));
        while kept.said.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.said.pop_front() else { break };
            kept.bytes -= oldest.size();
        }
        // Nobody may be listening.
        let _ = self.said.send(said);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn size(&self) -> usize {
        match &self.what {
            What::State(change) => size_of::<Change>() + change.data.len(),
            What::Gap => size_of::<Said>(),
        }
    }
}

impl Change {
    /// Shows a state.
    pub fn of(meta: &ResultMeta, record: Option<&Record>) -> Self {
        let shown = StateChange::of(meta, record);
        Change {
            id: meta.task_id.clone(),
            task: shown.task.clone(),
            queue: shown.queue.clone(),
            state: meta.status.to_string(),
            ready: meta.status.is_ready(),
            event: event_of(&meta.status),
            data: serde_json::to_string(&shown).unwrap_or_default(),
        }
    }
}

/// The name of the event that a state is.
fn event_of(state: &TaskState) -> &'static str {
    match state {
        TaskState::Success => "result",
        TaskState::Retry => "retry",
        TaskState::Custom(_) => "progress",
        state if state.is_exception() => "error",
        _ => "state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(hub: &Hub, text: &str) {
        let raw = serde_json::value::to_raw_value(text).expect("JSON");
        let now = crate::clock::now();
        let meta = ResultMeta::success(TaskId::parse("t").expect("id"), raw, now);
        hub.say(What::State(Box::new(Change::of(&meta, None))));
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_was_missed() {
        let hub = Hub::default();
        hub.standing.send_replace(true);
        for n in 0..5 {
            change(&hub, &n.to_string());
        }
        let after = |number: u64| format!("{}-{number}", hub.epoch);
        for (id, missed, lost) in [
            (None, 0, false),
            (Some(after(5)), 0, false),
            (Some(after(3)), 2, false),
            (Some(after(0)), 5, false),
            (Some(after(6)), 0, true),
            (Some("other-3".to_owned()), 0, true),
        ] {
            let subscription = hub.subscribe(id.as_deref()).await.expect("stands");
            assert_eq!((subscription.missed.len(), subscription.lost), (missed, lost), "{id:?}");
        }
        // What is kept is bounded in number and in bytes.
        for _ in 0..40 {
            change(&hub, &"x".repeat(1 << 20));
        }
        assert!(hub.lock().bytes <= KEPT_BYTES);
        (0..KEPT + 10).for_each(|_| change(&hub, "y"));
        assert_eq!(hub.lock().said.len(), KEPT);
        assert!(hub.subscribe(Some(&after(3))).await.expect("stands").lost);
    }
}
