//! Which queue a task goes to. Pure.
//!
//! Celery's rules: a queue named in the call wins; else `task_routes`, exact names before patterns, patterns in order;
//! else the default queue. And a queue is reached through the default exchange, with its name as the routing key, unless
//! the call names an exchange.

use std::collections::HashMap;

use celery_protocol::control::{ControlError, Pattern};
use celery_protocol::{QueueName, TaskName, glob};

use crate::amqp::Route;

/// Where tasks of a name go when the call does not say.
#[derive(Debug, Clone)]
pub struct Router {
    default_queue: QueueName,
    exact: HashMap<String, Target>,
    patterns: Vec<(Rule, Target)>,
}

/// What names of tasks are compared with.
#[derive(Debug, Clone)]
enum Rule {
    /// A glob over the whole name.
    Glob(String),
    /// A regular expression that fits from the start, as Python's `re.match`.
    Regex(Pattern),
}

impl Rule {
    fn fits(&self, task: &str) -> bool {
        match self {
            Self::Glob(pattern) => glob::matches(pattern, task),
            // Refused when it was added, if it cannot be used.
            Self::Regex(pattern) => pattern.matches(task).unwrap_or(false),
        }
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
    /// Priority for tasks that do not say.
    pub priority: Option<u8>,
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
        Self { default_queue, exact: HashMap::new(), patterns: Vec::new() }
    }

    /// Tasks whose name matches `pattern` go to `target`. A pattern that begins with `^` is a regular expression that must
    /// fit from the start of the name, one with `*` is a glob over the whole name.
    ///
    /// # Errors
    /// The regular expression cannot be used; says why.
    pub fn add(&mut self, pattern: &str, target: impl Into<Target>) -> Result<(), ControlError> {
        if pattern.starts_with('^') {
            let regex = Pattern { pattern: pattern.to_owned(), matcher: "pcre".to_owned() };
            regex.matches("")?;
            self.patterns.push((Rule::Regex(regex), target.into()));
        } else if pattern.contains('*') {
            self.patterns.push((Rule::Glob(pattern.to_owned()), target.into()));
        } else {
            self.exact.insert(pattern.to_owned(), target.into());
        }
        Ok(())
    }

    /// The queue of tasks that nothing else names.
    pub fn default_queue(&self) -> &QueueName {
        &self.default_queue
    }

    /// Where a call of `task` goes; `call` is what the call itself says.
    pub fn route(&self, task: &TaskName, call: &Target) -> Destination {
        let routed = self.lookup(task.as_str());
        // A queue or exchange named in the call makes the routes irrelevant, priority apart.
        let named = call.queue.is_some() || call.exchange.is_some();
        let from = if named { call } else { routed.unwrap_or(call) };
        let priority = call.priority.or_else(|| routed.and_then(|target| target.priority));
        let routing_key = call.routing_key.as_ref().or(from.routing_key.as_ref());
        let queue = from.queue.clone();
        match (&from.exchange, routing_key) {
            (Some(exchange), key) if !exchange.is_empty() => {
                let key = key.cloned().or_else(|| queue.as_ref().map(ToString::to_string));
                let routing_key = key.unwrap_or_else(|| self.default_queue.to_string());
                Destination { route: Route { exchange: exchange.clone(), routing_key }, queue, priority }
            }
            // A key alone is meant for the default exchange, as the queue is.
            (_, key) => {
                let queue = queue.or_else(|| key.and_then(|key| QueueName::parse(key.as_str()).ok()));
                let queue = queue.unwrap_or_else(|| self.default_queue.clone());
                Destination { route: Route::queue(queue.as_str()), queue: Some(queue), priority }
            }
        }
    }

    fn lookup(&self, task: &str) -> Option<&Target> {
        self.exact
            .get(task)
            .or_else(|| self.patterns.iter().find(|(rule, _)| rule.fits(task)).map(|(_, target)| target))
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
        assert_eq!(seen("tasks.add", &call), ("y".to_owned(), "q".to_owned()));
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
}
