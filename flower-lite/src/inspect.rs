//! What workers answer when they are asked: their queues, pools, settings and registered tasks. Events tell none of it.
//!
//! Answers are kept with the time they came at, and asked for anew when a worker appears and once a minute. The lists of
//! single tasks can be huge; they are asked for only when one worker is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use celery_broker::control::Destination;
use celery_broker::{BrokerError, Celery};
use celery_protocol::control::Command;
use futures_util::future::join_all;
use serde_json::{Map, Value};

use crate::clock;
use crate::redact::Redactor;

/// How long a worker may take to answer; Flower's.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many workers' answers are kept.
const MAX_WORKERS: usize = 5_000;

/// What is asked, by the name that Flower shows the answer under.
fn questions(one: bool) -> Vec<(&'static str, Command)> {
    let mut asked = vec![
        ("stats", Command::Stats),
        ("active_queues", Command::ActiveQueues),
        ("registered", Command::Registered { taskinfoitems: Vec::new(), builtins: false }),
        ("conf", Command::Conf { with_defaults: false }),
    ];
    if one {
        asked.extend([
            ("scheduled", Command::Scheduled),
            ("active", Command::Active { safe: true }),
            ("reserved", Command::Reserved),
            ("revoked", Command::Revoked),
        ]);
    }
    asked
}

/// The answers of all workers.
#[derive(Debug, Default)]
pub struct Answers {
    redactor: Redactor,
    workers: Mutex<BTreeMap<String, Map<String, Value>>>,
}

impl Answers {
    /// None yet; values are taken out of them before they are kept.
    #[must_use]
    pub fn new(redactor: Redactor) -> Answers {
        Answers { redactor, workers: Mutex::default() }
    }

    /// Asks one worker everything, or all of them what is cheap, and keeps the answers.
    ///
    /// # Errors
    /// When they could not be asked. That nobody answers is no error.
    pub async fn refresh(&self, celery: &Celery, worker: Option<&str>) -> Result<(), BrokerError> {
        let control = celery.control();
        let asked = questions(worker.is_some()).into_iter().map(async |(name, command)| {
            let to = worker.map_or(Destination::All, |worker| Destination::Nodes(vec![worker.to_owned()]));
            Ok::<_, BrokerError>((name, control.call(&command, to, PATIENCE).await?))
        });
        for outcome in join_all(asked).await {
            let (name, replies) = outcome?;
            for reply in replies {
                // Celery's `inspect` tells of an error in the same place as of an answer.
                if reply.value.get("error").is_none() || name == "conf" {
                    self.keep(reply.node, name, reply.value);
                }
            }
        }
        Ok(())
    }

    /// Keeps one answer.
    pub(crate) fn keep(&self, worker: String, question: &str, mut answer: Value) {
        if let Some(Value::Object(broker)) = answer.get_mut("broker") {
            // May hold the addresses of other brokers, with passwords.
            broker.remove("alternates");
        }
        if matches!(question, "active" | "reserved" | "scheduled") {
            self.redactor.json(&mut answer);
        }
        let mut workers = self.lock();
        if workers.len() >= MAX_WORKERS && !workers.contains_key(&worker) {
            let oldest = workers.iter().min_by(|(_, a), (_, b)| time_of(a).total_cmp(&time_of(b)));
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                workers.remove(&oldest);
            }
        }
        let info = workers.entry(worker).or_default();
        info.insert(question.to_owned(), answer);
        info.insert("timestamp".to_owned(), clock::now().seconds().into());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Map<String, Value>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is known, by worker.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Map<String, Value>> {
        self.lock().clone()
    }

    /// What one worker answered.
    #[must_use]
    pub fn of(&self, worker: &str) -> Option<Map<String, Value>> {
        self.lock().get(worker).cloned()
    }

    /// Whether a worker has ever answered.
    #[must_use]
    pub fn knows(&self, worker: &str) -> bool {
        self.lock().contains_key(worker)
    }

    /// Forgets the workers that are not among `known` and have not answered since `limit`.
    pub fn forget(&self, known: &BTreeSet<String>, limit: f64) {
        self.lock().retain(|name, info| known.contains(name) || time_of(info) >= limit);
    }

    /// Whether some worker has registered this task.
    #[must_use]
    pub fn registers(&self, task: &str) -> bool {
        self.lock().values().any(|info| {
            let tasks = info.get("registered").and_then(Value::as_array);
            tasks.is_some_and(|tasks| {
                // A registered task may be listed with some of its settings: `name [rate_limit=…]`.
                tasks.iter().filter_map(Value::as_str).any(|text| text.split(' ').next() == Some(task))
            })
        })
    }

    /// For each queue that workers read: who they are, and how many processes they have.
    #[must_use]
    pub fn readers(&self) -> BTreeMap<String, Vec<Reader>> {
        let mut queues: BTreeMap<String, Vec<Reader>> = BTreeMap::new();
        for (worker, info) in &*self.lock() {
            let own: Vec<&str> = info
                .get("active_queues")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|queue| queue.get("name")?.as_str())
                .collect();
            let pool = info.get("stats").and_then(|stats| stats.get("pool"));
            let processes =
                pool.and_then(|pool| pool.get("processes")).and_then(Value::as_array).map(Vec::len);
            let slots = pool.and_then(|pool| pool.get("max-concurrency")).and_then(Value::as_u64);
            for queue in &own {
                queues.entry((*queue).to_owned()).or_default().push(Reader {
                    worker: worker.clone(),
                    processes: processes.or(slots.and_then(|slots| usize::try_from(slots).ok())).unwrap_or(0),
                    queues: own.len(),
                });
            }
        }
        queues
    }
}

/// A worker that reads a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its name.
    pub worker: String,
    /// How many processes or slots it has.
    pub processes: usize,
    /// How many queues it reads.
    pub queues: usize,
}

fn time_of(info: &Map<String, Value>) -> f64 {
    info.get("timestamp").and_then(Value::as_f64).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_say_who_reads_what_and_who_can_run_what() {
        let answers = Answers::default();
        let queues = json!([{ "name": "celery" }, { "name": "slow" }]);
        answers.keep("a@1".into(), "active_queues", queues);
        answers.keep("a@1".into(), "stats", json!({ "pool": { "max-concurrency": 4, "processes": [1, 2] } }));
        answers.keep("b@2".into(), "active_queues", json!([{ "name": "slow" }]));
        answers.keep(
            "b@2".into(),
            "stats",
            json!({ "pool": { "max-concurrency": 8 }, "broker": { "alternates": [] } }),
        );
        answers.keep("b@2".into(), "registered", json!(["demo.add", "demo.mul [rate_limit=1/s]"]));
        let readers = answers.readers();
        assert_eq!(readers["celery"], [Reader { worker: "a@1".into(), processes: 2, queues: 2 }]);
        assert_eq!(readers["slow"].iter().map(|reader| reader.processes).collect::<Vec<_>>(), [2, 8]);
        assert!(answers.registers("demo.add") && answers.registers("demo.mul") && !answers.registers("demo"));
        let stats = answers.of("b@2").expect("it answered").get("stats").cloned().expect("with this");
        assert_eq!(stats["broker"], json!({}));
    }
}
