//! The only conversion between AMQP's values and JSON: header tables and basic properties, both ways.

use bytes::Bytes;
use celery_protocol::{HeaderMap, Properties, RawMessage};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use serde_json::{Number, Value};

use crate::error::{BrokerError, BrokerErrorKind};

/// Headers must fit into one frame; RabbitMQ closes the whole connection when they do not.
pub(crate) const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Deeper nesting in headers is refused on the way out and cut off on the way in.
const MAX_DEPTH: usize = 32;

/// A message in lapin's terms, checked so that the broker will not close the channel over it.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

/// Text of an AMQP short string, at most 255 bytes.
pub(super) fn short(field: &str, text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| {
        let length = text.len();
        BrokerError::new(BrokerErrorKind::Encode, format!("{field} is {length} bytes long, AMQP allows 255"))
    })
}

/// Checks and converts a message to publish.
pub(super) fn encode(message: RawMessage) -> Result<Encoded, BrokerError> {
    let RawMessage { properties: from, headers, body } = message;
    let mut to = BasicProperties::default();
    if let Some(text) = &from.content_type {
        to = to.with_content_type(short("content_type", text)?);
    }
    if let Some(text) = &from.content_encoding {
        to = to.with_content_encoding(short("content_encoding", text)?);
    }
    if let Some(mode) = from.delivery_mode {
        to = to.with_delivery_mode(mode);
    }
    if let Some(priority) = from.priority {
        to = to.with_priority(priority);
    }
    if let Some(text) = &from.correlation_id {
        to = to.with_correlation_id(short("correlation_id", text)?);
    }
    if let Some(text) = &from.reply_to {
        to = to.with_reply_to(short("reply_to", text)?);
    }
    if let Some(text) = &from.expiration {
        to = to.with_expiration(expiration(text)?);
    }
    if let Some(text) = &from.message_id {
        to = to.with_message_id(short("message_id", text)?);
    }
    if let Some(seconds) = from.timestamp {
        to = to.with_timestamp(seconds);
    }
    if let Some(text) = &from.type_ {
        to = to.with_type(short("type", text)?);
    }
    if let Some(text) = &from.app_id {
        to = to.with_app_id(short("app_id", text)?);
    }
    // user_id stays unset: the broker closes the channel unless it names the connection's own user.
    Ok(Encoded { properties: to.with_headers(table(&headers)?), body })
}

/// RabbitMQ closes the channel unless this is an unsigned number of at most 32 bits. A negative one, an expiry that has
/// passed, means "at once".
fn expiration(text: &str) -> Result<ShortString, BrokerError> {
    let millis = text.trim().parse::<i64>().map_err(|err| {
        let context = format!("expiration `{text}` is no number of milliseconds");
        BrokerError::new(BrokerErrorKind::Encode, context).caused_by(err)
    })?;
    short("expiration", &millis.clamp(0, i64::from(u32::MAX)).to_string())
}

/// Converts headers, keeping to the size and depth that the broker can take.
pub(super) fn table(headers: &HeaderMap) -> Result<FieldTable, BrokerError> {
    let mut size = 0;
    let table = object(headers, &mut size, 0)?;
    Ok(table)
}

fn object(map: &HeaderMap, size: &mut usize, depth: usize) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (key, value) in map {
        grow(size, key.len() + 2)?;
        table.insert(short("the name of a header", key)?, outward(value, size, depth + 1)?);
    }
    Ok(table)
}

fn outward(value: &Value, size: &mut usize, depth: usize) -> Result<AMQPValue, BrokerError> {
    if depth > MAX_DEPTH {
        let context = format!("headers are nested deeper than {MAX_DEPTH} levels");
        return Err(BrokerError::new(BrokerErrorKind::Encode, context));
    }
    grow(size, 9)?;
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        Value::Number(number) => self::number(number)?,
        Value::String(text) => {
            grow(size, text.len())?;
            AMQPValue::LongString(LongString::from(text.as_bytes()))
        }
        Value::Array(items) => {
            let mut array = FieldArray::default();
            for item in items {
                array.push(outward(item, size, depth + 1)?);
            }
            AMQPValue::FieldArray(array)
        }
        Value::Object(map) => AMQPValue::FieldTable(object(map, size, depth)?),
    })
}

fn number(number: &Number) -> Result<AMQPValue, BrokerError> {
    if let Some(integer) = number.as_i64() {
        // As py-amqp does: `I` where it fits, else `l`.
        return Ok(i32::try_from(integer).map_or(AMQPValue::LongLongInt(integer), AMQPValue::LongInt));
    }
    match number.as_f64() {
        Some(float) if number.is_f64() => Ok(AMQPValue::Double(float)),
        _ => {
            let context = format!("the number {number} in a header does not fit into 64 bits");
            Err(BrokerError::new(BrokerErrorKind::Encode, context))
        }
    }
}

fn grow(size: &mut usize, by: usize) -> Result<(), BrokerError> {
    *size += by;
    if *size > MAX_HEADER_BYTES {
        let context = format!("headers take more than {MAX_HEADER_BYTES} bytes");
        return Err(BrokerError::new(BrokerErrorKind::MessageTooLarge, context));
    }
    Ok(())
}

/// A delivered message; nothing is validated and nothing is lost that JSON can express.
pub(super) fn decode(from: &BasicProperties, body: Vec<u8>) -> RawMessage {
    let text = |field: &Option<ShortString>| field.as_ref().map(|text| text.as_str().to_owned());
    let properties = Properties {
        content_type: text(from.content_type()),
        content_encoding: text(from.content_encoding()),
        delivery_mode: *from.delivery_mode(),
        priority: *from.priority(),
        correlation_id: text(from.correlation_id()),
        reply_to: text(from.reply_to()),
        expiration: text(from.expiration()),
        message_id: text(from.message_id()),
        timestamp: *from.timestamp(),
        type_: text(from.kind()),
        user_id: text(from.user_id()),
        app_id: text(from.app_id()),
    };
    let headers = from.headers().as_ref().map_or_else(HeaderMap::new, |headers| map(headers, 0));
    RawMessage { properties, headers, body: Bytes::from(body) }
}

fn map(table: &FieldTable, depth: usize) -> HeaderMap {
    table.into_iter().map(|(key, value)| (key.as_str().to_owned(), inward(value, depth + 1))).collect()
}

fn inward(value: &AMQPValue, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    match value {
        AMQPValue::Boolean(flag) => Value::Bool(*flag),
        AMQPValue::ShortShortInt(n) => Value::from(*n),
        AMQPValue::ShortShortUInt(n) => Value::from(*n),
        AMQPValue::ShortInt(n) => Value::from(*n),
        AMQPValue::ShortUInt(n) => Value::from(*n),
        AMQPValue::LongInt(n) => Value::from(*n),
        AMQPValue::LongUInt(n) => Value::from(*n),
        AMQPValue::LongLongInt(n) => Value::from(*n),
        AMQPValue::Timestamp(n) => Value::from(*n),
        AMQPValue::Float(n) => Value::from(*n),
        AMQPValue::Double(n) => Value::from(*n),
        AMQPValue::DecimalValue(n) => Value::from(f64::from(n.value) / 10_f64.powi(i32::from(n.scale))),
        AMQPValue::ShortString(text) => Value::String(text.as_str().to_owned()),
        AMQPValue::LongString(text) => Value::String(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ByteArray(bytes) => Value::String(String::from_utf8_lossy(bytes.as_slice()).into_owned()),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(|item| inward(item, depth + 1)).collect(),
        AMQPValue::FieldTable(table) => Value::Object(map(table, depth)),
        AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "called with json!")]
    fn message(headers: Value) -> RawMessage {
        RawMessage {
            properties: Properties {
                content_type: Some("application/json".into()),
                content_encoding: Some("utf-8".into()),
                delivery_mode: Some(2),
                priority: Some(0),
                correlation_id: Some("id".into()),
                reply_to: Some("reply".into()),
                ..Properties::default()
            },
            headers: headers.as_object().cloned().unwrap_or_default(),
            body: Bytes::from_static(b"[[], {}, {}]"),
        }
    }

    #[test]
    fn there_and_back_again() {
        let original = message(json!({
            "task": "tasks.add", "retries": 0, "timelimit": [null, 1.5], "big": 1_i64 << 40, "flag": true,
            "stamps": {"job": ["a", "b"]}, "none": null,
        }));
        let encoded = encode(original.clone()).unwrap();
        assert_eq!(decode(&encoded.properties, encoded.body.to_vec()), original);
    }

    #[test]
    fn types_on_the_wire_are_those_python_reads() {
        let table = table(&message(json!({"s": "x", "i": 1, "l": 1_i64 << 33, "n": null})).headers).unwrap();
        let kinds: Vec<char> = table.into_iter().map(|(_, value)| value.get_type().get_id()).collect();
        assert_eq!(kinds, ['I', 'l', 'V', 'S']); // by name: i l n s
    }

    /// lapin panics on a short string of more than 255 bytes, RabbitMQ drops the connection for large headers.
    #[test]
    fn what_would_break_the_connection_is_refused() {
        let long = "x".repeat(256);
        let mut bad_id = message(json!({}));
        bad_id.properties.correlation_id = Some(long.clone());
        let mut bad_expiration = message(json!({}));
        bad_expiration.properties.expiration = Some("soon".into());
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        for (what, wrong, kind) in [
            ("key", message(json!({long: 1})), BrokerErrorKind::Encode),
            ("id", bad_id, BrokerErrorKind::Encode),
            ("expiration", bad_expiration, BrokerErrorKind::Encode),
            ("depth", message(json!({"deep": deep})), BrokerErrorKind::Encode),
            ("integer", message(json!({"n": u64::MAX})), BrokerErrorKind::Encode),
            ("size", message(json!({"text": "x".repeat(70_000)})), BrokerErrorKind::MessageTooLarge),
        ] {
            assert_eq!(*encode(wrong).unwrap_err().kind(), kind, "{what}");
        }
    }

    #[test]
    fn expiration_is_made_safe() {
        for (given, sent) in [("60000", "60000"), ("-5", "0"), ("99999999999", "4294967295")] {
            let mut raw = message(json!({}));
            raw.properties.expiration = Some(given.into());
            let encoded = encode(raw).unwrap();
            assert_eq!(encoded.properties.expiration().as_ref().unwrap().as_str(), sent);
        }
    }

    #[test]
    fn a_foreign_user_id_is_not_sent() {
        let mut raw = message(json!({}));
        raw.properties.user_id = Some("someone".into());
        assert_eq!(*encode(raw).unwrap().properties.user_id(), None);
    }
}
