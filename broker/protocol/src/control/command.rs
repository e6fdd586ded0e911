//! The commands by name, with their arguments checked.

use std::fmt;

use serde_json::{Map, Value, json};

use super::Request;

/// Ids in one command.
const MAX_IDS: usize = 10_000;

/// What a worker can be asked to do or tell.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "names and arguments are Celery's own")]
pub enum Command {
    Ping,
    Clock,
    Report,
    Conf { with_defaults: bool },
    Stats,
    Active { safe: bool },
    Reserved,
    Scheduled,
    Revoked,
    Registered { taskinfoitems: Vec<String>, builtins: bool },
    QueryTask { ids: Vec<String> },
    ActiveQueues,
    Revoke { ids: Vec<String>, terminate: bool, signal: Option<String> },
    Terminate { ids: Vec<String>, signal: String },
    RevokeByStampedHeaders { headers: Map<String, Value>, terminate: bool, signal: Option<String> },
    RateLimit { task_name: String, rate_limit: Option<String> },
    TimeLimit { task_name: String, hard: Option<f64>, soft: Option<f64> },
    EnableEvents,
    DisableEvents,
    Heartbeat,
    Election(Election),
    Hello { from_node: String, revoked: Vec<String> },
    PoolGrow { n: u32 },
    PoolShrink { n: u32 },
    PoolRestart,
    Autoscale { max: Option<u32>, min: Option<u32> },
    AddConsumer(NewQueue),
    CancelConsumer { queue: String },
    Shutdown,
    Memsample,
    Memdump { samples: u32 },
    Objgraph,
}

/// The arguments of `election`.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "names and arguments are Celery's own")]
pub struct Election {
    pub id: String,
    pub topic: String,
    pub action: Value,
}

/// The arguments of `add_consumer`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "names and arguments are Celery's own")]
pub struct NewQueue {
    pub queue: String,
    pub exchange: Option<String>,
    pub exchange_type: String,
    pub routing_key: Option<String>,
}

/// Why a request can't be carried out; `Display` is the text of `{"error": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(String);

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CommandError {}

impl Command {
    /// The command that a request stands for. Celery's aliases (`dump_active`) are understood.
    ///
    /// # Errors
    /// An unknown command (`KeyError('name')`, as Celery says it) or an argument of a wrong type.
    pub fn parse(request: &Request) -> Result<Self, CommandError> {
        let mut args = Arguments { method: &request.method, map: &request.arguments };
        Ok(match request.method.as_str() {
            "ping" => Self::Ping,
            "clock" => Self::Clock,
            "report" => args.nothing(Self::Report)?,
            "conf" | "dump_conf" => Self::Conf { with_defaults: args.flag("with_defaults")? },
            "stats" => Self::Stats,
            "active" | "dump_active" => Self::Active { safe: args.flag("safe")? },
            "reserved" | "dump_reserved" => Self::Reserved,
            "scheduled" | "dump_schedule" => Self::Scheduled,
            "revoked" | "dump_revoked" => Self::Revoked,
            "registered" | "dump_tasks" => Self::Registered {
                taskinfoitems: args.texts("taskinfoitems")?,
                builtins: args.flag("builtins")?,
            },
            "query_task" => Self::QueryTask { ids: args.texts("ids")? },
            "active_queues" => args.nothing(Self::ActiveQueues)?,
            "revoke" => Self::Revoke {
                ids: args.required_texts("task_id")?,
                terminate: args.flag("terminate")?,
                signal: args.signal()?,
            },
            "terminate" => Self::Terminate {
                ids: args.required_texts("task_id")?,
                signal: args.signal()?.unwrap_or_else(|| "SIGTERM".to_owned()),
            },
            "revoke_by_stamped_headers" => Self::RevokeByStampedHeaders {
                headers: args.headers()?,
                terminate: args.flag("terminate")?,
                signal: args.signal()?,
            },
            "rate_limit" => Self::RateLimit {
                task_name: args.required_text("task_name")?,
                rate_limit: args.number_or_text("rate_limit")?,
            },
            "time_limit" => Self::TimeLimit {
                task_name: args.required_text("task_name")?,
                hard: args.seconds("hard")?,
                soft: args.seconds("soft")?,
            },
            "enable_events" => args.nothing(Self::EnableEvents)?,
            "disable_events" => args.nothing(Self::DisableEvents)?,
            "heartbeat" => args.nothing(Self::Heartbeat)?,
            "election" if args.get("id").is_none() && args.get("topic").is_none() => {
                return Err(args.missing_two("id", "topic"));
            }
            "election" => Self::Election(Election {
                id: args.required_text("id")?,
                topic: args.required_text("topic")?,
                action: args.map.get("action").cloned().unwrap_or_default(),
            }),
            "hello" => Self::Hello { from_node: args.required_text("from_node")?, revoked: args.revoked()? },
            "pool_grow" => Self::PoolGrow { n: args.count("n", 1)? },
            "pool_shrink" => Self::PoolShrink { n: args.count("n", 1)? },
            "pool_restart" => Self::PoolRestart,
            "autoscale" => {
                args.only(&["max", "min"])?;
                Self::Autoscale { max: args.optional_count("max")?, min: args.optional_count("min")? }
            }
            "add_consumer" => Self::AddConsumer(NewQueue {
                queue: args.required_text("queue")?,
                exchange: args.text("exchange")?,
                exchange_type: args.text("exchange_type")?.unwrap_or_else(|| "direct".to_owned()),
                routing_key: args.text("routing_key")?,
            }),
            "cancel_consumer" => Self::CancelConsumer { queue: args.required_text("queue")? },
            "shutdown" => Self::Shutdown,
            "memsample" => Self::Memsample,
            "memdump" => Self::Memdump { samples: args.count("samples", 10)? },
            "objgraph" => Self::Objgraph,
            unknown => {
                let shown: String = unknown.chars().take(100).collect();
                return Err(CommandError(format!("KeyError({})", crate::repr::quoted(&shown, 128))));
            }
        })
    }

    /// The request that asks all nodes for this command, as Celery's own client would send it.
    pub fn to_request(&self) -> Request {
        let (method, arguments) = self.parts();
        let arguments = match arguments {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Request::new(method, arguments)
    }

    fn parts(&self) -> (&'static str, Value) {
        match self {
            Self::Ping => ("ping", json!({})),
            Self::Clock => ("clock", json!({})),
            Self::Report => ("report", json!({})),
            Self::Conf { with_defaults } => ("conf", json!({ "with_defaults": with_defaults })),
            Self::Stats => ("stats", json!({})),
            Self::Active { safe } => ("active", json!({ "safe": safe })),
            Self::Reserved => ("reserved", json!({})),
            Self::Scheduled => ("scheduled", json!({})),
            Self::Revoked => ("revoked", json!({})),
            Self::Registered { taskinfoitems, builtins } => {
                ("registered", json!({ "taskinfoitems": taskinfoitems, "builtins": builtins }))
            }
            Self::QueryTask { ids } => ("query_task", json!({ "ids": ids })),
            Self::ActiveQueues => ("active_queues", json!({})),
            Self::Revoke { ids, terminate, signal } => (
                "revoke",
                json!({ "task_id": ids, "terminate": terminate, "signal": signal.as_deref().unwrap_or("SIGTERM") }),
            ),
            Self::Terminate { ids, signal } => ("terminate", json!({ "task_id": ids, "signal": signal })),
            Self::RevokeByStampedHeaders { headers, terminate, signal } => {
                let signal = signal.as_deref().unwrap_or("SIGTERM");
                (
                    "revoke_by_stamped_headers",
                    json!({ "headers": headers, "terminate": terminate, "signal": signal }),
                )
            }
            Self::RateLimit { task_name, rate_limit } => {
                ("rate_limit", json!({ "task_name": task_name, "rate_limit": rate_limit }))
            }
            Self::TimeLimit { task_name, hard, soft } => {
                ("time_limit", json!({ "task_name": task_name, "hard": hard, "soft": soft }))
            }
            Self::EnableEvents => ("enable_events", json!({})),
            Self::DisableEvents => ("disable_events", json!({})),
            Self::Heartbeat => ("heartbeat", json!({})),
            Self::Election(election) => {
                ("election", json!({ "id": election.id, "topic": election.topic, "action": election.action }))
            }
            Self::Hello { from_node, revoked } => {
                ("hello", json!({ "from_node": from_node, "revoked": revoked }))
            }
            Self::PoolGrow { n } => ("pool_grow", json!({ "n": n })),
            Self::PoolShrink { n } => ("pool_shrink", json!({ "n": n })),
            Self::PoolRestart => ("pool_restart", json!({})),
            Self::Autoscale { max, min } => ("autoscale", json!({ "max": max, "min": min })),
            Self::AddConsumer(new) => (
                "add_consumer",
                json!({
                    "queue": new.queue, "exchange": new.exchange, "exchange_type": new.exchange_type,
                    "routing_key": new.routing_key,
                }),
            ),
            Self::CancelConsumer { queue } => ("cancel_consumer", json!({ "queue": queue })),
            Self::Shutdown => ("shutdown", json!({})),
            Self::Memsample => ("memsample", json!({})),
            Self::Memdump { samples } => ("memdump", json!({ "samples": samples })),
            Self::Objgraph => ("objgraph", json!({})),
        }
    }
}

/// A request's arguments, with Python's errors for what does not fit.
struct Arguments<'a> {
    method: &'a str,
    map: &'a Map<String, Value>,
}

impl Arguments<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn wrong<T>(&self, name: &str, wanted: &str) -> Result<T, CommandError> {
        Err(CommandError(format!(
            "TypeError({:?})",
            format!("{}() argument '{name}' must be {wanted}", self.method)
        )))
    }

    /// For the commands that Celery defines without `**kwargs`.
    fn only(&mut self, allowed: &[&str]) -> Result<(), CommandError> {
        match self.map.keys().find(|key| !allowed.contains(&key.as_str())) {
            Some(key) => Err(CommandError(format!(
                "TypeError({:?})",
                format!("{}() got an unexpected keyword argument '{key}'", self.method)
            ))),
            None => Ok(()),
        }
    }

    fn nothing(&mut self, command: Command) -> Result<Command, CommandError> {
        self.only(&[]).map(|()| command)
    }

    fn flag(&self, name: &str) -> Result<bool, CommandError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            // Flower sends 1. A text is refused: to Python, "false" is true.
            Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
            Some(_) => self.wrong(name, "a bool"),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, CommandError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => self.wrong(name, "a str"),
        }
    }

    fn required_text(&self, name: &str) -> Result<String, CommandError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> CommandError {
        CommandError(format!(
            "TypeError({:?})",
            format!("{}() missing 1 required positional argument: '{name}'", self.method)
        ))
    }

    fn missing_two(&self, first: &str, second: &str) -> CommandError {
        CommandError(format!(
            "TypeError({:?})",
            format!("{}() missing 2 required positional arguments: '{first}' and '{second}'", self.method)
        ))
    }

    fn number_or_text(&self, name: &str) -> Result<Option<String>, CommandError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => self.wrong(name, "a str or a number"),
        }
    }

    fn seconds(&self, name: &str) -> Result<Option<f64>, CommandError> {
        match self.get(name).map(|value| (value, value.as_f64())) {
            None => Ok(None),
            Some((_, Some(seconds))) if seconds >= 0.0 => Ok(Some(seconds)),
            Some((Value::String(text), _)) if text.parse::<f64>().is_ok_and(|seconds| seconds >= 0.0) => {
                Ok(text.parse().ok())
            }
            Some(_) => self.wrong(name, "a number of seconds"),
        }
    }

    fn optional_count(&self, name: &str) -> Result<Option<u32>, CommandError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
            {
                Some(count) => match u32::try_from(count) {
                    Ok(count) => Ok(Some(count)),
                    Err(_) => self.wrong(name, "a smaller number"),
                },
                None => self.wrong(name, "a number that is not negative"),
            },
        }
    }

    fn count(&self, name: &str, default: u32) -> Result<u32, CommandError> {
        Ok(self.optional_count(name)?.unwrap_or(default))
    }

    /// A text or an array of texts.
    fn texts(&self, name: &str) -> Result<Vec<String>, CommandError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(items)) if items.len() <= MAX_IDS => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    _ => self.wrong(name, "a list of str"),
                })
                .collect(),
            Some(Value::Array(_)) => self.wrong(name, "a list of at most 10000"),
            Some(_) => self.wrong(name, "a str or a list of str"),
        }
    }

    fn required_texts(&self, name: &str) -> Result<Vec<String>, CommandError> {
        match self.get(name) {
            None => Err(self.missing(name)),
            Some(_) => self.texts(name),
        }
    }

    fn signal(&self) -> Result<Option<String>, CommandError> {
        self.number_or_text("signal")
    }

    /// `hello`'s revoked ids: an array, or in older versions an object with the ids as keys.
    fn revoked(&self) -> Result<Vec<String>, CommandError> {
        match self.get("revoked") {
            Some(Value::Object(ids)) => Ok(ids.keys().take(MAX_IDS).cloned().collect()),
            Some(Value::Array(ids)) => {
                Ok(ids.iter().filter_map(Value::as_str).take(50_000).map(str::to_owned).collect())
            }
            None => Ok(Vec::new()),
            Some(_) => self.wrong("revoked", "a list of ids"),
        }
    }

    /// Stamps as an object of values, or as an array of `"name=value"`.
    /// An object of stamps with a value or a list of them, or a list of `name=value`.
    fn headers(&self) -> Result<Map<String, Value>, CommandError> {
        match self.get("headers") {
            None => Err(self.missing("headers")),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(Value::Array(_)) => self
                .texts("headers")?
                .into_iter()
                .map(|pair| match pair.split_once('=') {
                    Some((name, value)) => Ok((name.to_owned(), Value::from(value))),
                    None => self.wrong("headers", "\"name=value\""),
                })
                .collect(),
            Some(_) => self.wrong("headers", "an object or a list"),
        }
    }
}
