//! Orders to workers, and what they say to them.

use std::time::Duration;

use celery_broker::control::Destination;
use celery_protocol::control::{Command, NewQueue};
use serde::Deserialize;
use serde_json::Value;

use super::{Doing, Done, broker, read};
use crate::access::Action;
use crate::error::Problem;

/// How long workers may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most workers that one order is for.
const MAX_WORKERS: usize = 1_000;
/// The most slots that a pool is grown or shrunk by at a time.
const MAX_STEP: u32 = 1_000;

/// Whatever an order may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    workers: Vec<String>,
    n: Option<u32>,
    min: Option<u32>,
    max: Option<u32>,
    queue: Option<String>,
    name: Option<String>,
    rate_limit: Option<String>,
    soft: Option<f64>,
    hard: Option<f64>,
}

impl Order {
    /// The names of the fields that are there.
    fn given(&self) -> Vec<&'static str> {
        [
            ("n", self.n.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("queue", self.queue.is_some()),
            ("name", self.name.is_some()),
            ("rate_limit", self.rate_limit.is_some()),
            ("soft", self.soft.is_some()),
            ("hard", self.hard.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

/// Whom an order may be for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// All that are online, unless some are named.
    All,
    /// Those that are named.
    Named,
}

pub(super) async fn order(doing: &Doing<'_>, body: &[u8]) -> Result<(String, Vec<Done>), Problem> {
    let order: Order = read(body)?;
    let (command, whom) = command(doing.action, &order)?;
    let workers = addressed(doing, order.workers, whom)?;
    if command == Command::Shutdown {
        // A worker that shuts down says nothing.
        let to = Destination::Nodes(workers.clone());
        doing.celery.control().cast(&command, to).await.map_err(|error| broker(&error))?;
        let message = format!("Told {} to shut down", counted(workers.len()));
        return Ok((message, workers.into_iter().map(Done::ok).collect()));
    }
    let results = tell(doing, &command, workers).await?;
    let did = results.iter().filter(|done| done.ok).count();
    Ok((format!("{did} of {} did it", counted(results.len())), results))
}

fn counted(workers: usize) -> String {
    if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") }
}

/// Tells workers to do something, and gives what each of them said.
pub(super) async fn tell(
    doing: &Doing<'_>,
    command: &Command,
    workers: Vec<String>,
) -> Result<Vec<Done>, Problem> {
    if workers.is_empty() {
        return Ok(Vec::new());
    }
    let to = Destination::Nodes(workers.clone());
    let mut replies =
        doing.celery.control().call(command, to, PATIENCE).await.map_err(|error| broker(&error))?;
    let answer = |worker: String| {
        let place = replies.iter().position(|reply| reply.node == worker);
        let Some(reply) = place.map(|place| replies.swap_remove(place)) else {
            return Done::failed(worker, format!("no answer within {} seconds", PATIENCE.as_secs()));
        };
        match (reply.value.get("ok"), reply.value.get("error")) {
            (Some(said), _) => Done { said: Some(words(said)), ..Done::ok(worker) },
            (None, Some(error)) => Done::failed(worker, words(error)),
            (None, None) => Done::failed(worker, "an answer that says neither yes nor no"),
        }
    };
    Ok(workers.into_iter().map(answer).collect())
}

fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn addressed(doing: &Doing<'_>, mut workers: Vec<String>, whom: Whom) -> Result<Vec<String>, Problem> {
    let state = doing.monitor.state();
    if workers.is_empty() {
        if whom == Whom::Named {
            return Err(Problem::bad_parameter("workers", "must name the workers"));
        }
        let online = state.workers().into_iter().filter(|worker| worker.is_online());
        workers = online.map(|worker| worker.name().to_string()).collect();
        if workers.is_empty() {
            return Err(Problem::not_found("no worker is online"));
        }
    }
    if workers.len() > MAX_WORKERS {
        return Err(Problem::bad_parameter("workers", format!("more than {MAX_WORKERS}")));
    }
    workers.sort();
    workers.dedup();
    for worker in &workers {
        if state.worker(worker).is_none() && !doing.monitor.answers().knows(worker) {
            return Err(Problem::not_found(format!("no worker {worker} has been heard of")));
        }
    }
    Ok(workers)
}

/// The command of an order: pure.
fn command(action: Action, order: &Order) -> Result<(Command, Whom), Problem> {
    let text = |name: &str, value: &Option<String>| {
        let value = value.clone().filter(|value| !value.is_empty());
        value.ok_or_else(|| Problem::bad_parameter(name, "is missing"))
    };
    let step = || match order.n.unwrap_or(1) {
        n @ 1..=MAX_STEP => Ok(n),
        _ => Err(Problem::bad_parameter("n", format!("must be from 1 to {MAX_STEP}"))),
    };
    let limit = |name: &str, value: Option<f64>| match value {
        Some(seconds) if !(seconds > 0.0 && seconds.is_finite()) => {
            Err(Problem::bad_parameter(name, "must be a number of seconds above 0, or null for none"))
        }
        value => Ok(value),
    };
    let (fields, made): (&[&str], _) = match action {
        Action::WorkerShutdown => (&[], (Command::Shutdown, Whom::Named)),
        Action::PoolRestart => (&[], (Command::PoolRestart, Whom::Named)),
        Action::PoolGrow => (&["n"], (Command::PoolGrow { n: step()? }, Whom::Named)),
        Action::PoolShrink => (&["n"], (Command::PoolShrink { n: step()? }, Whom::Named)),
        Action::Autoscale => {
            let (Some(min), Some(max)) = (order.min, order.max) else {
                return Err(Problem::bad_parameter("min", "and max must both be given"));
            };
            if min > max || max == 0 {
                return Err(Problem::bad_parameter("max", "must be 1 or more, and not below min"));
            }
            (&["min", "max"], (Command::Autoscale { max: Some(max), min: Some(min) }, Whom::Named))
        }
        Action::AddConsumer => {
            let queue = text("queue", &order.queue)?;
            (&["queue"], (Command::AddConsumer(plain_queue(queue)), Whom::All))
        }
        Action::CancelConsumer => {
            (&["queue"], (Command::CancelConsumer { queue: text("queue", &order.queue)? }, Whom::All))
        }
        Action::TaskRateLimit => {
            let task_name = text("name", &order.name)?;
            let rate_limit = Some(text("rate_limit", &order.rate_limit)?);
            (&["name", "rate_limit"], (Command::RateLimit { task_name, rate_limit }, Whom::All))
        }
        Action::TaskTimeLimit => {
            let (soft, hard) = (limit("soft", order.soft)?, limit("hard", order.hard)?);
            let task_name = text("name", &order.name)?;
            (&["name", "soft", "hard"], (Command::TimeLimit { task_name, hard, soft }, Whom::All))
        }
        _ => return Err(Problem::not_found(format!("{} is no order to workers", action.name()))),
    };
    match order.given().into_iter().find(|given| !fields.contains(given)) {
        Some(unknown) => Err(Problem::bad_parameter(unknown, format!("{} has no such field", action.name()))),
        None => Ok(made),
    }
}

/// A queue by its name alone: what else it is, workers know.
pub(super) fn plain_queue(queue: String) -> NewQueue {
    NewQueue { queue, exchange: None, exchange_type: "direct".into(), routing_key: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(action: Action, body: &str) -> String {
        let order: Result<Order, _> = read(body.as_bytes());
        match order.and_then(|order| command(action, &order)) {
            Ok((command, whom)) => format!("{command:?} {}", if whom == Whom::All { "all" } else { "named" }),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn orders_become_commands() {
        for (action, body, expected) in [
            (Action::PoolGrow, "", "PoolGrow { n: 1 } named"),
            (Action::PoolShrink, r#"{"n": 2}"#, "PoolShrink { n: 2 } named"),
            (Action::Autoscale, r#"{"min": 1, "max": 4}"#, "Autoscale { max: Some(4), min: Some(1) } named"),
            (Action::CancelConsumer, r#"{"queue": "q"}"#, r#"CancelConsumer { queue: "q" } all"#),
            (
                Action::TaskTimeLimit,
                r#"{"name": "t", "soft": null, "hard": 2}"#,
                r#"TimeLimit { task_name: "t", hard: Some(2.0), soft: None } all"#,
            ),
            (Action::WorkerShutdown, r#"{"workers": ["a"]}"#, "Shutdown named"),
        ] {
            assert_eq!(told(action, body), expected);
        }
    }

    #[test]
    fn a_mistake_names_its_field() {
        for (action, body, field) in [
            (Action::PoolGrow, r#"{"n": 0}"#, "n: "),
            (Action::PoolGrow, r#"{"n": 100000}"#, "n: "),
            (Action::PoolGrow, r#"{"queue": "q"}"#, "queue: worker.pool_grow has no such field"),
            (Action::PoolGrow, r#"{"m": 1}"#, "body: unknown field `m`"),
            (Action::Autoscale, r#"{"min": 5, "max": 4}"#, "max: "),
            (Action::Autoscale, r#"{"min": 5}"#, "min: "),
            (Action::AddConsumer, "{}", "queue: is missing"),
            (Action::TaskRateLimit, r#"{"name": "t"}"#, "rate_limit: is missing"),
            (Action::TaskTimeLimit, r#"{"name": "t", "soft": -1}"#, "soft: "),
            (Action::AddConsumer, "[", "body: "),
        ] {
            let told = told(action, body);
            assert!(told.contains(field), "{body}: {told}");
        }
    }
}
