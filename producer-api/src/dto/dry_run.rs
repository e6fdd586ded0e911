//! The answer to `?dry_run=true`: the message that would be published, byte for byte.

use base64::Engine;
use celery_broker::Route;
use celery_protocol::RawMessage;
use celery_protocol::message::Properties;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::plan::Plan;

/// A message that was not published.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Always true: what is not valid is answered with 422.
    pub valid: bool,
    /// The exchange; `""` is the default exchange.
    pub exchange: String,
    /// The routing key; on the default exchange the queue.
    #[schema(example = "celery")]
    pub routing_key: String,
    /// The message.
    pub message: DryMessage,
}

/// The parts of an AMQP message.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryMessage {
    /// The basic properties that are set.
    #[schema(value_type = Object)]
    pub properties: Map<String, Value>,
    /// The header table.
    #[schema(value_type = Object)]
    pub headers: Map<String, Value>,
    /// How `body` is shown: `json` as it is, or `base64` of the bytes if it is anything else.
    #[schema(example = "json")]
    pub body_encoding: &'static str,
    /// The body.
    #[schema(value_type = serde_json::Value)]
    pub body: Box<RawValue>,
}

impl DryRun {
    /// Shows a plan.
    pub fn of(plan: &Plan) -> Self {
        DryRun::show(&plan.route, &plan.message)
    }

    /// Shows a message.
    pub fn show(route: &Route, message: &RawMessage) -> Self {
        let text = std::str::from_utf8(&message.body)
            .ok()
            .and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let (body_encoding, body) = match text {
            Some(raw) => ("json", raw),
            None => ("base64", base64(&message.body)),
        };
        DryRun {
            valid: true,
            exchange: route.exchange.clone(),
            routing_key: route.routing_key.clone(),
            message: DryMessage {
                properties: properties(&message.properties),
                headers: message.headers.clone(),
                body_encoding,
                body,
            },
        }
    }
}

fn base64(bytes: &[u8]) -> Box<RawValue> {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    serde_json::value::to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn properties(properties: &Properties) -> Map<String, Value> {
    let texts = [
        ("content_type", &properties.content_type),
        ("content_encoding", &properties.content_encoding),
        ("correlation_id", &properties.correlation_id),
        ("reply_to", &properties.reply_to),
        ("expiration", &properties.expiration),
    ];
    let numbers = [("delivery_mode", properties.delivery_mode), ("priority", properties.priority)];
    let texts = texts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into())));
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    texts.chain(numbers).collect()
}
