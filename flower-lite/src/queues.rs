//! How deep queues are, who reads them, and how long it will take to work them off.
//!
//! The broker tells a queue's length and its consumers. How fast it is worked off follows from what its readers have
//! lately ended; a worker that reads several queues is taken to spend its time on them alike.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use celery_broker::Celery;
use celery_protocol::{QueueName, TaskState};

use crate::inspect::{Answers, Reader};
use crate::state::ClusterState;
use crate::state::mark::Kind;
use crate::state::order::Order;
use crate::state::time::UnixTime;

/// How many queues are watched.
const MAX_QUEUES: usize = 1_000;
/// Seconds over which the speed of workers is taken.
const WINDOW: f64 = 60.0;
/// How long the broker may take for all of them.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many waiting tasks are looked at for the age of the oldest one.
const LOOKED_AT: usize = 10_000;

/// One queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    /// Messages that wait; `None` if the broker could not be asked, or does not have it.
    pub ready: Option<u32>,
    /// Consumers, as the broker counts them.
    pub consumers: Option<u32>,
    /// Workers that say they read it.
    pub workers: usize,
    /// Their processes.
    pub processes: usize,
    /// Tasks per second that its readers ended lately.
    pub rate: f64,
    /// Seconds since the oldest task was sent that no worker has received; only with `task_send_sent_event`.
    pub oldest: Option<f64>,
}

impl Queue {
    /// Seconds until it is empty if nothing more comes: 0 for an empty queue, infinite if nobody works it off.
    #[must_use]
    pub fn time_to_drain(&self) -> Option<f64> {
        let ready = f64::from(self.ready?);
        Some(match (ready > 0.0, self.rate > 0.0) {
            (false, _) => 0.0,
            (true, true) => ready / self.rate,
            (true, false) => f64::INFINITY,
        })
    }
}

/// All queues, as last looked at.
#[derive(Debug, Default)]
pub struct Queues {
    queues: Mutex<BTreeMap<String, Queue>>,
    ended: Mutex<HashMap<String, Vec<(UnixTime, u64)>>>,
}

impl Queues {
    /// What is known of each queue.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Queue> {
        lock(&self.queues).clone()
    }

    /// Looks at every queue that workers read, at the default one, and at those seen before. While the broker can't be
    /// asked, what was seen last stays.
    pub async fn look(&self, celery: &Celery, answers: &Answers, judge: impl Fn() -> Snapshot) {
        if !celery.health().connected {
            return;
        }
        if tokio::time::timeout(DEADLINE, self.look_at_all(celery, answers, judge)).await.is_err() {
            tracing::warn!("the broker did not tell the lengths of all queues in time");
        }
    }

    async fn look_at_all(&self, celery: &Celery, answers: &Answers, judge: impl Fn() -> Snapshot) {
        let readers = answers.readers();
        let mut names: Vec<String> = readers.keys().cloned().collect();
        names.push(celery.default_queue().as_str().to_owned());
        names.extend(lock(&self.queues).keys().cloned());
        names.sort();
        names.dedup();
        names.truncate(MAX_QUEUES);
        let Snapshot { now, ended, oldest } = judge();
        let rates = self.rates(now, ended);
        let mut found = BTreeMap::new();
        for name in names {
            let depth = match QueueName::parse(name.clone()) {
                Ok(queue) => celery.queue_depth(&queue).await.ok().flatten(),
                Err(_) => None,
            };
            let own: &[Reader] = readers.get(&name).map_or(&[], Vec::as_slice);
            if depth.is_none() && own.is_empty() {
                continue;
            }
            let mut queue = Queue {
                ready: depth.as_ref().map(|depth| depth.ready),
                consumers: depth.as_ref().map(|depth| depth.consumers),
                workers: own.len(),
                processes: own.iter().map(|reader| reader.processes).sum(),
                rate: own.iter().map(|reader| share(&rates, reader)).sum(),
                oldest: None,
            };
            queue.oldest = oldest.get(&name).copied();
            found.insert(name, queue);
        }
        *lock(&self.queues) = found;
    }

    /// Tasks that each worker ends per second.
    fn rates(&self, now: UnixTime, ended: HashMap<String, u64>) -> HashMap<String, f64> {
        let mut history = lock(&self.ended);
        history.retain(|worker, _| ended.contains_key(worker));
        let mut rates = HashMap::new();
        for (worker, count) in ended {
            let samples = history.entry(worker.clone()).or_default();
            samples.push((now, count));
            // One sample from before the window stays: the rate is taken from there.
            while samples.len() > 2 && now.since(samples[1].0) > WINDOW {
                samples.remove(0);
            }
            let (since, before) = samples[0];
            let seconds = now.since(since);
            #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
            let rate = if seconds > 0.0 { count.saturating_sub(before) as f64 / seconds } else { 0.0 };
            rates.insert(worker, rate);
        }
        rates
    }
}

/// What of the state the queues' numbers follow from.
#[derive(Debug)]
pub struct Snapshot {
    now: UnixTime,
    /// Tasks that each worker has ended since the start.
    ended: HashMap<String, u64>,
    /// Age of the oldest task that waits in each queue.
    oldest: HashMap<String, f64>,
}

impl Snapshot {
    /// Takes it.
    #[must_use]
    pub fn of(state: &ClusterState, now: UnixTime) -> Snapshot {
        let ended = state.workers().into_iter().map(|worker| {
            let ended =
                [Kind::Succeeded, Kind::Failed, Kind::Retried].iter().map(|kind| worker.counted(*kind));
            (worker.name().to_string(), ended.sum())
        });
        let ended = ended.collect();
        let mut oldest = HashMap::new();
        let waiting =
            state.tasks().in_state(&TaskState::Pending).into_iter().flat_map(Order::iter).take(LOOKED_AT);
        for task in waiting.filter_map(|place| state.tasks().at(place)) {
            let call = task.call();
            if let Some(queue) = task.queue() {
                // A task that is to wait is not late before its time.
                let due = call.and_then(|call| call.eta).unwrap_or_else(|| task.listed_at());
                let age = now.since(due.max(task.listed_at())).max(0.0);
                let known = oldest.entry(queue.to_string()).or_insert(age);
                *known = known.max(age);
            }
        }
        Snapshot { now, ended, oldest }
    }
}

fn share(rates: &HashMap<String, f64>, reader: &Reader) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a worker reads few queues")]
    let queues = reader.queues.max(1) as f64;
    rates.get(&reader.worker).copied().unwrap_or(0.0) / queues
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_reads_never_drains() {
        let queue = |ready, rate| Queue { ready, rate, ..Queue::default() };
        assert_eq!(queue(Some(0), 0.0).time_to_drain(), Some(0.0));
        assert_eq!(queue(Some(30), 2.0).time_to_drain(), Some(15.0));
        assert_eq!(queue(Some(30), 0.0).time_to_drain(), Some(f64::INFINITY));
        assert_eq!(queue(None, 2.0).time_to_drain(), None);
    }

    #[tokio::test]
    async fn without_a_broker_what_was_seen_last_stays() {
        let queue = Queue { ready: Some(3), ..Queue::default() };
        let queues =
            Queues { queues: Mutex::new(BTreeMap::from([("math".to_owned(), queue)])), ..Queues::default() };
        let nobody = format!("amqp://guest:guest@127.0.0.1:{}//", celery_testkit::ports::free());
        let celery = Celery::builder("test").broker(&nobody).start().expect("right settings");
        queues
            .look(&celery, &Answers::default(), || Snapshot {
                now: UnixTime::EPOCH,
                ended: HashMap::new(),
                oldest: HashMap::new(),
            })
            .await;
        assert_eq!(queues.all().get("math").and_then(|queue| queue.ready), Some(3));
    }

    #[test]
    fn rates_are_of_the_last_minute() {
        let queues = Queues::default();
        let at = |seconds| UnixTime::EPOCH.plus(seconds);
        let ended = |count| HashMap::from([("a@1".to_owned(), count)]);
        assert_eq!(queues.rates(at(0.0), ended(100))["a@1"], 0.0);
        assert_eq!(queues.rates(at(10.0), ended(150))["a@1"], 5.0);
        queues.rates(at(70.0), ended(150));
        assert_eq!(queues.rates(at(140.0), ended(150))["a@1"], 0.0);
    }
}
