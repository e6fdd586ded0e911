//! Which queue a task goes to. Pure.
//!
//! Celery's rules: what the call says wins, option by option; else `task_routes`, one router after the other, in each exact
//! names before patterns, patterns in order; else the default queue. And a queue is reached through the default exchange,
//! with its name as the routing key, unless both an exchange and a key are named, or the exchange is no direct one.
//!
//! Three rules are not Celery's, which would drop what is said: a queue named in the call is not overruled by a route's
//! exchange and key; a key alone names a queue; an exchange without a key gets the queue's name for one.

use std::collections::HashMap;

use celery_protocol::content::Compression;
use celery_protocol::options::{SendOptions, Serializer};
use celery_protocol::{QueueName, TaskName, glob};
use regex_lite::Regex;

use crate::amqp::Route;

/// The most that an expression may take once it is compiled.
const REGEX_SIZE: usize = 1 << 16;

/// Where tasks of a name go when the call does not say.
#[derive(Debug, Clone)]
pub struct Router {
    default_queue: QueueName,
    /// The first in which a name is found decides.
    maps: Vec<Map>,
}

/// Routes by name: a router of `task_routes`.
#[derive(Debug, Clone, Default)]
struct Map {
    exact: HashMap<String, Target>,
    patterns: Vec<(Rule, Target)>,
}

/// What names of tasks are compared with.
#[derive(Debug, Clone)]
enum Rule {
    /// A glob over the whole name.
    Glob(String),
    /// A regular expression that fits from the start, as Python's `re.match`.
    Regex(Regex),
}

/// A pattern that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no regular expression: {problem}")]
pub struct PatternError {
    pattern: String,
    problem: String,
}

impl Rule {
    fn fits(&self, task: &str) -> bool {
        match self {
            Self::Glob(pattern) => glob::matches(pattern, task),
            Self::Regex(regex) => regex.is_match(task),
        }
    }
}

impl Map {
    fn add(&mut self, pattern: &str, target: Target) -> Result<(), PatternError> {
        if pattern.starts_with('^') {
            let built =
                regex_lite::RegexBuilder::new(&format!("^(?:{pattern})")).size_limit(REGEX_SIZE).build();
            let problem = |err: regex_lite::Error| PatternError {
                pattern: pattern.to_owned(),
                problem: err.to_string(),
            };
            self.patterns.push((Rule::Regex(built.map_err(problem)?), target));
        } else if pattern.contains('*') {
            self.patterns.push((Rule::Glob(pattern.to_owned()), target));
        } else {
            self.exact.insert(pattern.to_owned(), target);
        }
        Ok(())
    }

    fn lookup(&self, task: &str) -> Option<&Target> {
        self.exact
            .get(task)
            .or_else(|| self.patterns.iter().find(|(rule, _)| rule.fits(task)).map(|(_, target)| target))
    }
}

/// What a route names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// The queue.
    pub queue: Option<QueueName>,
    /// An exchange instead of the default one.
    pub exchange: Option<String>,
    /// The key on that exchange.
    pub routing_key: Option<String>,
    /// The type of that exchange. Default: direct.
    pub exchange_type: Option<String>,
    /// Priority for tasks that do not say.
    pub priority: Option<u8>,
    /// How calls are written that do not say.
    pub serializer: Option<Serializer>,
    /// How bodies are packed of calls that do not say.
    pub compression: Option<Compression>,
    /// 1: lost when the broker restarts; 2: kept.
    pub delivery_mode: Option<u8>,
}

impl From<QueueName> for Target {
    fn from(queue: QueueName) -> Self {
        Self { queue: Some(queue), ..Self::default() }
    }
}

/// Where one message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// For the broker.
    pub route: Route,
    /// The queue, when it is known.
    pub queue: Option<QueueName>,
    /// From the route, if the call had none.
    pub priority: Option<u8>,
}

impl Router {
    /// Everything goes to `default_queue`.
    pub fn new(default_queue: QueueName) -> Self {
        Self { default_queue, maps: vec![Map::default()] }
    }

    /// Tasks whose name matches `pattern` go to `target`. A pattern that begins with `^` is a regular expression that must
    /// fit from the start of the name, one with `*` is a glob over the whole name.
    ///
    /// # Errors
    /// The regular expression cannot be used; says why.
    pub fn add(&mut self, pattern: &str, target: impl Into<Target>) -> Result<(), PatternError> {
        match self.maps.first_mut() {
            Some(map) => map.add(pattern, target.into()),
            None => Ok(()),
        }
    }

    /// Routes that are looked at when all before them know nothing of a task.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_map(&mut self, routes: Vec<(String, Target)>) -> Result<(), PatternError> {
        let mut map = Map::default();
        for (pattern, target) in routes {
            map.add(&pattern, target)?;
        }
        self.maps.push(map);
        Ok(())
    }

    /// The queue of tasks that nothing else names.
    pub fn default_queue(&self) -> &QueueName {
        &self.default_queue
    }

    /// Where a call of `task` goes; `call` is what the call itself says.
    pub fn route(&self, task: &TaskName, call: &Target) -> Destination {
        let none = Target::default();
        let routed = self.lookup(task).unwrap_or(&none);
        let place = if call.queue.is_some() && call.exchange.is_none() { &none } else { routed };
        let queue = call.queue.as_ref().or(routed.queue.as_ref());
        let exchange = call.exchange.as_ref().or(place.exchange.as_ref()).filter(|name| !name.is_empty());
        let key = call.routing_key.as_ref().or(place.routing_key.as_ref());
        let kind = call.exchange_type.as_ref().or(place.exchange_type.as_ref());
        let direct = kind.is_none_or(|kind| kind == "direct");
        let priority = call.priority.or(routed.priority);
        match (exchange, key, queue) {
            (Some(exchange), Some(key), _) => {
                let route = Route { exchange: exchange.clone(), routing_key: key.clone() };
                Destination { route, queue: queue.cloned(), priority }
            }
            (Some(exchange), None, queue) if !direct || queue.is_none() => {
                let routing_key = queue.unwrap_or(&self.default_queue).to_string();
                let route = Route { exchange: exchange.clone(), routing_key };
                Destination { route, queue: queue.cloned(), priority }
            }
            (_, key, queue) => {
                let named = || key.and_then(|key| QueueName::parse(key.as_str()).ok());
                let queue = queue.cloned().or_else(named).unwrap_or_else(|| self.default_queue.clone());
                Destination { route: Route::queue(queue.as_str()), queue: Some(queue), priority }
            }
        }
    }

    /// What a route says of how calls of a task are written and kept.
    pub(crate) fn writing(&self, task: &TaskName) -> SendOptions {
        let routed = self.lookup(task);
        SendOptions {
            serializer: routed.and_then(|target| target.serializer),
            compression: routed.and_then(|target| target.compression),
            delivery_mode: routed.and_then(|target| target.delivery_mode),
            ..SendOptions::default()
        }
    }

    fn lookup(&self, task: &TaskName) -> Option<&Target> {
        self.maps.iter().find_map(|map| map.lookup(task.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    fn router() -> Router {
        let mut router = Router::new(queue("celery"));
        router.add("mail.*", queue("mail")).unwrap();
        router.add("*.slow", Target { priority: Some(1), ..queue("slow").into() }).unwrap();
        router.add("mail.bounce", queue("bounces")).unwrap();
        router.add(r"^(video|image)\.\d+", queue("media")).unwrap();
        router
            .add(
                "topic.*",
                Target { exchange: Some("x".into()), routing_key: Some("a.b".into()), ..Target::default() },
            )
            .unwrap();
        router
    }

    fn seen(task: &str, call: &Target) -> (String, String) {
        let route = router().route(&TaskName::parse(task).unwrap(), call).route;
        (route.exchange, route.routing_key)
    }

    #[test]
    fn celerys_order_of_rules() {
        let none = Target::default();
        for (task, key) in [
            ("tasks.add", "celery"),
            ("mail.send", "mail"),
            ("mail.bounce", "bounces"),
            ("mail.slow", "mail"),
            ("x.slow", "slow"),
            ("video.7.cut", "media"),
            ("a.video.7", "celery"),
        ] {
            assert_eq!(seen(task, &none), (String::new(), key.to_owned()), "{task}");
        }
        assert_eq!(seen("mail.send", &queue("mine").into()), (String::new(), "mine".to_owned()));
    }

    #[test]
    fn an_exchange_leaves_the_default_exchange() {
        assert_eq!(seen("topic.a", &Target::default()), ("x".to_owned(), "a.b".to_owned()));
        let call = Target { exchange: Some("y".into()), ..queue("q").into() };
        assert_eq!(seen("tasks.add", &call), (String::new(), "q".to_owned()), "as Celery's");
        let call = Target { exchange_type: Some("topic".into()), ..call };
        assert_eq!(seen("tasks.add", &call), ("y".to_owned(), "q".to_owned()));
        assert_eq!(seen("topic.a", &queue("mine").into()), (String::new(), "mine".to_owned()));
    }

    #[test]
    fn priority_of_the_call_beats_that_of_the_route() {
        let task = TaskName::parse("x.slow").unwrap();
        assert_eq!(router().route(&task, &Target::default()).priority, Some(1));
        let call = Target { priority: Some(9), ..Target::default() };
        assert_eq!(router().route(&task, &call).priority, Some(9));
    }

    #[test]
    fn a_bad_expression_is_refused() {
        assert!(router().add("^(", queue("q")).is_err());
    }

    #[derive(serde::Deserialize)]
    struct Case {
        routes: Box<serde_json::value::RawValue>,
        task: String,
        call: serde_json::Map<String, serde_json::Value>,
        exchange: String,
        /// Where Celery names none, we do.
        routing_key: Option<String>,
        priority: Option<u8>,
        serializer: String,
        compression: Option<String>,
        delivery_mode: u8,
    }

    #[test]
    fn tasks_go_where_celery_sends_them() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/golden/routes.json")).unwrap();
        for case in cases {
            let what = format!("{} of {} with {:?}", case.task, case.routes, case.call);
            let mut router = Router::new(queue("celery"));
            for map in crate::config::routes::parse(case.routes.get()).unwrap() {
                router.add_map(map).unwrap();
            }
            let text = |name: &str| case.call.get(name).and_then(|value| value.as_str()).map(str::to_owned);
            let call = Target {
                queue: text("queue").map(|name| queue(&name)),
                exchange: text("exchange"),
                routing_key: text("routing_key"),
                exchange_type: text("exchange_type"),
                priority: case.call.get("priority").and_then(|value| u8::try_from(value.as_u64()?).ok()),
                ..Target::default()
            };
            let task = TaskName::parse(case.task.as_str()).unwrap();
            let seen = router.route(&task, &call);
            let Route { exchange, routing_key } = seen.route;
            let expected = case.routing_key.unwrap_or_else(|| routing_key.clone());
            assert_eq!((exchange, routing_key), (case.exchange, expected), "{what}");
            assert_eq!(seen.priority, case.priority, "{what}");
            let writing = router.writing(&task);
            assert_eq!(writing.delivery_mode.unwrap_or(2), case.delivery_mode, "{what}");
            assert_eq!(writing.serializer.unwrap_or_default().name(), case.serializer, "{what}");
            assert_eq!(writing.compression.map(|how| how.mime().to_owned()), case.compression, "{what}");
        }
    }
}
