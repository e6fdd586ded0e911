//! Which tasks may be submitted and where to, and which names nobody may publish to.

use celery_protocol::{Signature, glob};
use serde_json::Value;

use crate::problem::{FieldError, Kind, Problem};

/// How many signatures one submission may embed, counted through all levels.
pub const MAX_SIGNATURES: usize = 1000;

/// The server's allow-lists; an empty list allows everything.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    tasks: Vec<String>,
    queues: Vec<String>,
}

impl Policy {
    /// Allow-lists of globs, as [`glob::matches`] reads them.
    pub fn new(tasks: Vec<String>, queues: Vec<String>) -> Self {
        Policy { tasks, queues }
    }

    /// Whether a task of this name may be submitted.
    pub fn allows_task(&self, name: &str) -> bool {
        self.tasks.is_empty() || self.tasks.iter().any(|pattern| glob::matches(pattern, name))
    }

    /// Whether messages may be sent to this queue. For an exchange that is not the default one the name of the exchange
    /// counts as the queue.
    pub fn allows_queue(&self, name: &str) -> bool {
        self.queues.is_empty() || self.queues.iter().any(|pattern| glob::matches(pattern, name))
    }

    /// Judges an embedded signature and everything inside it, wherever Celery would look for a signature: a callback
    /// that escaped the lists would be a way around them.
    ///
    /// # Errors
    /// `task-forbidden`, `queue-forbidden` or `invalid-option`, at `pointer` or below.
    pub fn judge(&self, signature: &Signature, pointer: &str, budget: &mut usize) -> Result<(), Problem> {
        let value = serde_json::to_value(signature)
            .map_err(|err| Problem::field(Kind::InvalidOption, pointer, err.to_string()))?;
        self.walk(&value, pointer, budget)
    }

    fn walk(&self, value: &Value, pointer: &str, budget: &mut usize) -> Result<(), Problem> {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(item, &format!("{pointer}/{index}"), budget)?;
                }
            }
            Value::Object(map) => {
                if let Some(Value::String(task)) = map.get("task") {
                    if *budget == 0 {
                        let detail = format!("more than {MAX_SIGNATURES} signatures are embedded");
                        return Err(Problem::field(Kind::InvalidOption, pointer, detail));
                    }
                    *budget -= 1;
                    if !self.allows_task(task) {
                        return Err(Problem::field(
                            Kind::TaskForbidden,
                            format!("{pointer}/task"),
                            task.clone(),
                        ));
                    }
                    self.judge_options(map.get("options"), pointer)?;
                }
                for (key, item) in map {
                    self.walk(item, &format!("{pointer}/{key}"), budget)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge_options(&self, options: Option<&Value>, pointer: &str) -> Result<(), Problem> {
        for name in ["queue", "exchange", "routing_key"] {
            let Some(Value::String(target)) = options.and_then(|options| options.get(name)) else { continue };
            let pointer = format!("{pointer}/options/{name}");
            if let Some(fault) = name_fault(target) {
                return Err(Problem::fields(Kind::InvalidOption, vec![FieldError::new(pointer, fault)]));
            }
            if name == "queue" && !self.allows_queue(target) {
                return Err(Problem::field(Kind::QueueForbidden, pointer, target.clone()));
            }
            // Without a queue an exchange or key may lead anywhere, so a list of queues excludes them.
            if name != "queue" && !target.is_empty() && !self.allows_queue(target) {
                return Err(Problem::field(Kind::QueueForbidden, pointer, target.clone()));
            }
        }
        Ok(())
    }
}

/// What is wrong with a name that a message is to be published to, if anything.
///
/// Besides AMQP's own rules, Celery's channels between workers are closed: through them a submission could order workers
/// about or invent events.
pub fn name_fault(name: &str) -> Option<String> {
    if name.len() > 255 {
        return Some(format!("is {} bytes long; AMQP takes 255", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Some("has a control character".to_owned());
    }
    if name.starts_with("amq.") {
        return Some("names beginning with amq. belong to the broker".to_owned());
    }
    let of_celery = name == "celeryev"
        || name.starts_with("celeryev.")
        || name.ends_with(".pidbox")
        || name.contains(".pidbox.")
        || name.starts_with("celery_delayed_")
        || name.starts_with("celery_delivery");
    of_celery.then(|| "belongs to Celery's own remote control, events or delays".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(text: &str) -> Signature {
        serde_json::from_str(text).expect(text)
    }

    #[test]
    fn names_that_nobody_may_publish_to() {
        for name in [
            "amq.topic",
            "celeryev",
            "celeryev.x",
            "celery.pidbox",
            "w@h.celery.pidbox",
            "reply.celery.pidbox",
            "a\nb",
            "celery_delayed_27",
            &"x".repeat(256),
        ] {
            assert!(name_fault(name).is_some(), "{name}");
        }
        for name in ["celery", "", "pidbox", "events", "größe"] {
            assert_eq!(name_fault(name), None, "{name}");
        }
    }

    #[test]
    fn an_embedded_signature_cannot_escape_the_lists() {
        let policy = Policy::new(vec!["demo.*".into()], vec!["celery".into()]);
        let judge = |text: &str| {
            policy
                .judge(&signature(text), "/link/0", &mut 3)
                .map_err(|problem| (problem.kind(), problem.body().errors[0].pointer.clone()))
        };
        assert_eq!(
            judge(r#"{"task":"demo.add","args":[1],"kwargs":{},"options":{"queue":"celery"}}"#),
            Ok(())
        );
        assert_eq!(
            judge(r#"{"task":"os.system","args":[],"kwargs":{},"options":{}}"#),
            Err((Kind::TaskForbidden, "/link/0/task".into()))
        );
        let nested = r#"{"task":"demo.add","args":[],"kwargs":{},"options":{"link":[{"task":"os.system","args":[],"kwargs":{},"options":{}}]}}"#;
        assert_eq!(judge(nested).map_err(|(kind, _)| kind), Err(Kind::TaskForbidden));
        let queue = r#"{"task":"demo.add","args":[],"kwargs":{},"options":{"queue":"other"}}"#;
        assert_eq!(judge(queue), Err((Kind::QueueForbidden, "/link/0/options/queue".into())));
        let control = r#"{"task":"demo.add","args":[],"kwargs":{},"options":{"exchange":"celery.pidbox"}}"#;
        assert_eq!(judge(control).map_err(|(kind, _)| kind), Err(Kind::InvalidOption));
        let many = r#"{"task":"demo.add","args":[{"task":"demo.a"},{"task":"demo.b"},{"task":"demo.c"}],"kwargs":{},"options":{}}"#;
        assert_eq!(judge(many), Err((Kind::InvalidOption, "/link/0/args/2".into())));
    }
}
