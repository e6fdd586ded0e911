//! The request message: who is asked, what, and where the answer goes.

use serde_json::{Map, Value, json};

use crate::{ids::Nodename, pyjson};

/// Destinations in one request.
const MAX_DESTINATIONS: usize = 10_000;
/// Texts in a request: method, pattern, ticket, keys.
const MAX_TEXT: usize = 1024;

/// Why a message on the control exchange is not a request, or a pattern no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control request: {0}")]
pub struct ControlError(String);

impl ControlError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// A request to some or all workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Name of the command.
    pub method: String,
    /// Its keyword arguments.
    pub arguments: Map<String, Value>,
    /// The nodes that are meant; `None` is all.
    pub destination: Option<Vec<String>>,
    /// The nodes that are meant, by pattern; ignored when there is a destination.
    pub pattern: Option<Pattern>,
    /// Marks the replies that belong to this request.
    pub ticket: Option<String>,
    /// Where replies go; `None` when none is wanted.
    pub reply_to: Option<ReplyTo>,
}

/// Where replies go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// Exchange.
    pub exchange: String,
    /// Routing key: the client's object id.
    pub routing_key: String,
}

/// A pattern over node names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern's text.
    pub pattern: String,
    /// Its language: `glob` or `pcre`.
    pub matcher: String,
}

impl Request {
    /// A request to all nodes that wants no answer.
    pub fn new(method: impl Into<String>, arguments: Map<String, Value>) -> Self {
        Self {
            method: method.into(),
            arguments,
            destination: None,
            pattern: None,
            ticket: None,
            reply_to: None,
        }
    }

    /// Reads the body of a request message.
    ///
    /// # Errors
    /// The body is no JSON object, or a part has the wrong shape; says which.
    pub fn decode(body: &[u8]) -> Result<Self, ControlError> {
        let mut map: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| ControlError::new(error.to_string()))?;
        let method = text(&mut map, "method")?.ok_or_else(|| ControlError::new("method is missing"))?;
        let arguments = match map.remove("arguments") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(ControlError::new("arguments must be an object")),
        };
        let destination = match map.remove("destination") {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) if items.len() > MAX_DESTINATIONS => {
                return Err(ControlError::new(format!("{} destinations", items.len())));
            }
            Some(Value::Array(items)) => Some(
                items
                    .into_iter()
                    .map(|item| match item {
                        Value::String(node) => Ok(node),
                        _ => Err(ControlError::new("destination must hold node names")),
                    })
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            // kombu would look for the node's name inside such a text.
            Some(_) => return Err(ControlError::new("destination must be an array of node names")),
        };
        let pattern = match (text(&mut map, "pattern")?, text(&mut map, "matcher")?) {
            (Some(pattern), Some(matcher)) => Some(Pattern { pattern, matcher }),
            _ => None,
        };
        let ticket = text(&mut map, "ticket")?;
        let reply_to = match map.remove("reply_to") {
            Some(Value::Object(mut reply_to)) => {
                match (text(&mut reply_to, "exchange")?, text(&mut reply_to, "routing_key")?) {
                    (Some(exchange), Some(routing_key)) => Some(ReplyTo { exchange, routing_key }),
                    _ => return Err(ControlError::new("reply_to needs exchange and routing_key")),
                }
            }
            None | Some(Value::Null) => None,
            Some(_) => return Err(ControlError::new("reply_to must be an object")),
        };
        Ok(Self { method, arguments, destination, pattern, ticket, reply_to })
    }

    /// The body of the request message, keys as kombu writes them.
    ///
    /// # Errors
    /// A float that JSON can't hold.
    pub fn encode(&self) -> Result<Vec<u8>, pyjson::EncodeError> {
        let mut map = Map::new();
        map.insert("method".into(), json!(self.method));
        map.insert("arguments".into(), Value::Object(self.arguments.clone()));
        map.insert("destination".into(), json!(self.destination));
        map.insert("pattern".into(), json!(self.pattern.as_ref().map(|p| &p.pattern)));
        map.insert("matcher".into(), json!(self.pattern.as_ref().map(|p| &p.matcher)));
        if let Some(ticket) = &self.ticket {
            map.insert("ticket".into(), json!(ticket));
        }
        if let Some(to) = &self.reply_to {
            map.insert("reply_to".into(), json!({ "exchange": to.exchange, "routing_key": to.routing_key }));
        }
        pyjson::to_vec(&map)
    }

    /// Whether `node` is meant.
    ///
    /// # Errors
    /// The pattern can't be used: an unknown matcher or a bad regular expression.
    pub fn selects(&self, node: &Nodename) -> Result<bool, ControlError> {
        if let Some(destination) = &self.destination {
            return Ok(destination.iter().any(|name| name == node.as_str()));
        }
        match &self.pattern {
            Some(pattern) => pattern.matches(node.as_str()),
            None => Ok(true),
        }
    }
}

impl Pattern {
    /// Whether `name` fits; a glob must fit as a whole, a regular expression from the start.
    ///
    /// # Errors
    /// An unknown matcher, or an expression that does not compile. Expressions are run by an engine whose time is linear
    /// in the length of the name, so none can stall the worker.
    pub fn matches(&self, name: &str) -> Result<bool, ControlError> {
        match self.matcher.as_str() {
            "glob" => Ok(crate::glob::matches(&self.pattern, name)),
            "pcre" => regex_lite::RegexBuilder::new(&format!("^(?:{})", self.pattern))
                .size_limit(1 << 16)
                .build()
                .map(|regex| regex.is_match(name))
                .map_err(|error| ControlError::new(format!("pattern: {error}"))),
            other => Err(ControlError::new(format!("unknown matcher {other:?}; use glob or pcre"))),
        }
    }
}

fn text(map: &mut Map<String, Value>, key: &str) -> Result<Option<String>, ControlError> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > MAX_TEXT => {
            Err(ControlError::new(format!("{key} is longer than {MAX_TEXT} bytes")))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ControlError::new(format!("{key} must be a string"))),
    }
}
