//! Reading the golden files.

use base64::Engine as _;
use celery_protocol::{Properties, RawMessage};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A body: text where it is UTF-8, else base64.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Bytes {
    Text(String),
    Base64 { base64: String },
}

/// A published message.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Published {
    pub(crate) routing_key: String,
    properties: Map<String, Value>,
    headers: Map<String, Value>,
    body: Bytes,
}

/// A named list of messages.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) case: String,
    pub(crate) messages: Vec<Published>,
}

/// The content of `tests/golden/<name>.json`.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path}: {err}"));
    let mut file: Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(file["versions"]["celery"], "5.7.0", "{path} was captured from another Celery");
    serde_json::from_value(file.remove(name).unwrap()).unwrap_or_else(|err| panic!("{path}: {err}"))
}

impl Bytes {
    pub(crate) fn get(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64 { base64 } => base64::engine::general_purpose::STANDARD.decode(base64).unwrap(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Base64 { .. } => panic!("not text"),
        }
    }
}

impl Published {
    pub(crate) fn body(&self) -> Vec<u8> {
        self.body.get()
    }

    pub(crate) fn headers(&self) -> &Map<String, Value> {
        &self.headers
    }

    /// As it would be delivered.
    pub(crate) fn raw(&self) -> RawMessage {
        let text = |name: &str| self.properties.get(name).map(|value| value.as_str().unwrap().to_owned());
        let small = |name: &str| {
            self.properties.get(name).map(|value| u8::try_from(value.as_u64().unwrap()).unwrap())
        };
        let known = [
            "content_type",
            "content_encoding",
            "delivery_mode",
            "priority",
            "correlation_id",
            "reply_to",
            "expiration",
        ];
        assert!(self.properties.keys().all(|name| known.contains(&name.as_str())), "{:?}", self.properties);
        RawMessage {
            properties: Properties {
                content_type: text("content_type"),
                content_encoding: text("content_encoding"),
                delivery_mode: small("delivery_mode"),
                priority: small("priority"),
                correlation_id: text("correlation_id"),
                reply_to: text("reply_to"),
                expiration: text("expiration"),
                ..Properties::default()
            },
            headers: self.headers.clone(),
            body: self.body().into(),
        }
    }
}
