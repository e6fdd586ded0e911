//! Task messages: what a producer puts on the broker and a worker takes off it.
//!
//! [`RawMessage`] is what AMQP delivers, nothing validated. [`Message::decode`] makes a [`Message`] of it (protocol 2;
//! protocol 1 and the hybrid of both are upgraded), or says why not. The body stays bytes until [`Message::body`] is
//! called, and arguments stay raw JSON after that.

mod body;
mod build;
mod headers;
mod malformed;
mod properties;
mod v1;

use bytes::Bytes;

pub use body::{Body, Embed, Signatures};
pub use build::NewCall;
pub use headers::{Headers, TimeLimits};
pub use malformed::{Malformed, Reason};
pub use properties::{HeaderMap, Properties, RawMessage};

use crate::{Limits, content::ContentType};

/// A task message of protocol 2, its headers validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// AMQP's properties, kept for answering and for sending again.
    pub properties: Properties,
    /// What the call is.
    pub headers: Headers,
    /// `[args, kwargs, embed]` in the content type and compression that properties and headers name.
    pub body: Bytes,
}

impl Message {
    /// A message with a JSON body.
    pub fn new(headers: Headers, body: &Body) -> Self {
        let properties = Properties {
            content_type: Some(ContentType::JSON.to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            delivery_mode: Some(Properties::PERSISTENT),
            correlation_id: Some(headers.id.to_string()),
            ..Properties::default()
        };
        Self { properties, headers, body: body.encode_json() }
    }

    /// Validates sizes and headers; upgrades protocol 1 and hybrid messages. The body of a protocol 2 message is not
    /// looked at beyond its first byte.
    ///
    /// # Errors
    /// What is wrong with the message, and its id and task if these can be read.
    pub fn decode(raw: RawMessage, limits: &Limits) -> Result<Message, Malformed> {
        let RawMessage { properties, headers, body } = raw;
        if body.len() > limits.body {
            let detail = format!("a body of {} bytes", body.len());
            return Err(Malformed::of(&headers, Reason::TooLarge, detail));
        }
        let size = properties::size(&headers);
        if size > limits.headers {
            return Err(Malformed::of(&headers, Reason::TooLarge, format!("headers of about {size} bytes")));
        }
        if v1::applies(&properties, &headers, &body, limits) {
            return v1::upgrade(properties, headers, &body, limits);
        }
        let headers = Headers::from_map(headers)?;
        Ok(Message { properties, headers, body })
    }

    /// The message as AMQP takes it: all 19 headers of protocol 2 (`null` where unset) and the unknown ones beside them.
    pub fn encode(&self) -> RawMessage {
        RawMessage {
            properties: self.properties.clone(),
            headers: self.headers.to_map(),
            body: self.body.clone(),
        }
    }

    /// As [`encode`](Self::encode), without copying the parts.
    pub fn into_raw(self) -> RawMessage {
        RawMessage { properties: self.properties, headers: self.headers.into_map(), body: self.body }
    }

    /// Arguments and embedded workflow.
    ///
    /// # Errors
    /// The body is not `[args, kwargs, embed]` in a content type that is read, or breaks a limit.
    pub fn body(&self, limits: &Limits) -> Result<Body, Malformed> {
        Body::decode(
            self.properties.content_type.as_deref(),
            self.properties.content_encoding.as_deref(),
            self.headers.compression.as_deref(),
            &self.body,
            limits,
        )
        .map_err(|malformed| malformed.naming(&self.headers))
    }
}
