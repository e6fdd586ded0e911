//! kombu's extended JSON types as Rust types (kombu/utils/json.py).
//!
//! On the wire each is an object of exactly two keys, `{"__type__": "uuid", "__value__": {"hex": "…"}}`. As a parameter
//! or result of a task these types read and write that form, so that Python sees a real `datetime`, `UUID`, `Decimal` or
//! `bytes`. They also read the plain text that a client in another language would send. Values that are only passed on
//! need none of this: they stay raw JSON.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::time::WireTime;

/// Python's `datetime.datetime`. A text without offset is UTC, as everywhere in Celery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime(pub WireTime);

/// Python's `datetime.date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    date: jiff::civil::Date,
}

/// Python's `datetime.time`, without offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    time: jiff::civil::Time,
}

/// Python's `decimal.Decimal`: its digits exactly as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal(String);

/// Python's `uuid.UUID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub uuid::Uuid);

/// Python's `bytes`: as text where they are UTF-8, else in base64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Date {
    /// A date of the proleptic Gregorian calendar; `None` when there is no such day.
    pub fn new(year: i16, month: i8, day: i8) -> Option<Self> {
        jiff::civil::Date::new(year, month, day).ok().map(|date| Self { date })
    }

    /// Year, month 1–12, day 1–31.
    pub fn ymd(self) -> (i16, i8, i8) {
        (self.date.year(), self.date.month(), self.date.day())
    }
}

impl Time {
    /// A time of day; `None` when out of range. `micros` is 0–999,999.
    pub fn new(hour: i8, minute: i8, second: i8, micros: i32) -> Option<Self> {
        jiff::civil::Time::new(hour, minute, second, micros.checked_mul(1000)?).ok().map(|time| Self { time })
    }

    /// Hour, minute, second, microseconds.
    pub fn hms_micros(self) -> (i8, i8, i8, i32) {
        (self.time.hour(), self.time.minute(), self.time.second(), self.time.subsec_nanosecond() / 1000)
    }
}

impl Decimal {
    /// Takes digits as Python's `Decimal()` does: sign, digits, fraction, exponent, or `NaN`, `Infinity`.
    ///
    /// # Errors
    /// The text is no decimal number.
    pub fn parse(text: &str) -> Result<Self, ExtError> {
        let body = text.trim().trim_start_matches(['+', '-']);
        let special = ["nan", "snan", "inf", "infinity"].iter().any(|word| body.eq_ignore_ascii_case(word));
        let (digits, exponent) = match body.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, Some(exponent.trim_start_matches(['+', '-']))),
            None => (body, None),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let number = !(whole.is_empty() && fraction.is_empty())
            && all_digits(whole)
            && all_digits(fraction)
            && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent));
        let signs = text.trim().len() - body.len();
        if (number || special) && signs <= 1 {
            Ok(Self(text.trim().to_owned()))
        } else {
            Err(ExtError { kind: "decimal", detail: "not a decimal number" })
        }
    }

    /// The digits as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a value is not what its `__type__` says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct ExtError {
    kind: &'static str,
    detail: &'static str,
}

#[derive(Serialize)]
struct Tagged<T> {
    #[serde(rename = "__type__")]
    kind: &'static str,
    #[serde(rename = "__value__")]
    value: T,
}

/// The inner value of `{"__type__": kind, "__value__": …}`, or the plain value itself.
fn untag<'de, D: Deserializer<'de>>(
    deserializer: D,
    kinds: &[&'static str],
) -> Result<(Option<String>, Value), D::Error> {
    let value = Value::deserialize(deserializer)?;
    match value {
        Value::Object(mut map) if map.len() == 2 && map.contains_key("__value__") => {
            match map.remove("__type__") {
                Some(Value::String(kind)) if kinds.contains(&kind.as_str()) => {
                    Ok((Some(kind), map.remove("__value__").unwrap_or_default()))
                }
                Some(kind) => {
                    Err(D::Error::custom(format_args!("expected {}, got {kind}", kinds.join(" or "))))
                }
                None => Err(D::Error::custom(format_args!("expected {}, got an object", kinds.join(" or ")))),
            }
        }
        plain => Ok((None, plain)),
    }
}

fn text<E: serde::de::Error>(value: &Value, kind: &str) -> Result<String, E> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(E::custom(format_args!("{kind}: expected a text, got {other}"))),
    }
}

impl Serialize for DateTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Tagged { kind: "datetime", value: self.0.isoformat() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DateTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, value) = untag(deserializer, &["datetime"])?;
        WireTime::parse(&text(&value, "datetime")?).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Tagged { kind: "date", value: self.date.to_string() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, value) = untag(deserializer, &["date"])?;
        let text = text::<D::Error>(&value, "date")?;
        text.parse().map(|date| Self { date }).map_err(|_| D::Error::custom("date: expected YYYY-MM-DD"))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (hour, minute, second, micros) = self.hms_micros();
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        Tagged { kind: "time", value: format!("{hour:02}:{minute:02}:{second:02}{fraction}") }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, value) = untag(deserializer, &["time"])?;
        let text = text::<D::Error>(&value, "time")?;
        text.parse()
            .map(|time| Self { time })
            .map_err(|_| D::Error::custom("time: expected HH:MM[:SS[.ffffff]]"))
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Tagged { kind: "decimal", value: &self.0 }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, value) = untag(deserializer, &["decimal"])?;
        let text = match &value {
            Value::Number(number) => number.to_string(),
            other => text::<D::Error>(other, "decimal")?,
        };
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Hex {
            hex: String,
        }
        Tagged { kind: "uuid", value: Hex { hex: self.0.simple().to_string() } }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, value) = untag(deserializer, &["uuid"])?;
        let hex = value.get("hex").unwrap_or(&value);
        let hex = text::<D::Error>(hex, "uuid")?;
        uuid::Uuid::parse_str(&hex)
            .map(Self)
            .map_err(|_| D::Error::custom("uuid: expected 32 hexadecimal digits"))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Tagged { kind: "bytes", value: text }.serialize(serializer),
            Err(_) => {
                Tagged { kind: "base64", value: STANDARD.encode(&self.0).as_str() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, value) = untag(deserializer, &["bytes", "base64"])?;
        let text = text::<D::Error>(&value, "bytes")?;
        if kind.as_deref() == Some("base64") {
            return STANDARD
                .decode(text.trim())
                .map(Self)
                .map_err(|_| D::Error::custom("base64: not base64"));
        }
        Ok(Self(text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// `json` reads as a `T` that writes itself as `json` again.
    fn round_trip<T: Serialize + DeserializeOwned>(json: &str) -> T {
        let value: T = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        value
    }

    #[test]
    fn kombus_forms_round_trip() {
        round_trip::<DateTime>(r#"{"__type__":"datetime","__value__":"2026-11-24T02:15:46.588462+00:00"}"#);
        assert_eq!(
            round_trip::<Date>(r#"{"__type__":"date","__value__":"2026-11-24"}"#).ymd(),
            (2026, 11, 24)
        );
        let time = round_trip::<Time>(r#"{"__type__":"time","__value__":"02:15:46.000462"}"#);
        assert_eq!(time.hms_micros(), (2, 15, 46, 462));
        round_trip::<Time>(r#"{"__type__":"time","__value__":"02:15:46"}"#);
        assert_eq!(
            round_trip::<Decimal>(r#"{"__type__":"decimal","__value__":"-1.50E+3"}"#).as_str(),
            "-1.50E+3"
        );
        round_trip::<Uuid>(r#"{"__type__":"uuid","__value__":{"hex":"8a58afffbe8c4d5e8d3a2f1c0b9a8d7e"}}"#);
        assert_eq!(round_trip::<Bytes>(r#"{"__type__":"bytes","__value__":"abc"}"#).0, b"abc");
        assert_eq!(round_trip::<Bytes>(r#"{"__type__":"base64","__value__":"/wA="}"#).0, [0xff, 0x00]);
    }

    #[test]
    fn plain_values_of_other_clients_are_read_too() {
        assert!(serde_json::from_str::<DateTime>(r#""2026-11-24T02:15:46Z""#).is_ok());
        assert!(serde_json::from_str::<Uuid>(r#""8a58afff-be8c-4d5e-8d3a-2f1c0b9a8d7e""#).is_ok());
        assert_eq!(serde_json::from_str::<Decimal>("12").unwrap().as_str(), "12");
        assert_eq!(serde_json::from_str::<Bytes>(r#""x""#).unwrap().0, b"x");
    }

    #[test]
    fn wrong_values_are_refused_in_words() {
        let cases: [(Result<(), serde_json::Error>, &str); 6] = [
            (
                serde_json::from_str::<Decimal>(r#"{"__type__":"decimal","__value__":"zz"}"#).map(drop),
                "not a decimal",
            ),
            (serde_json::from_str::<Decimal>(r#""--1""#).map(drop), "not a decimal"),
            (
                serde_json::from_str::<Uuid>(r#"{"__type__":"decimal","__value__":"1"}"#).map(drop),
                "expected uuid",
            ),
            (
                serde_json::from_str::<Date>(r#"{"__type__":"date","__value__":"soon"}"#).map(drop),
                "YYYY-MM-DD",
            ),
            (
                serde_json::from_str::<Bytes>(r#"{"__type__":"base64","__value__":"?"}"#).map(drop),
                "not base64",
            ),
            (serde_json::from_str::<DateTime>("5").map(drop), "expected a text"),
        ];
        for (got, want) in cases {
            let message = got.unwrap_err().to_string();
            assert!(message.contains(want), "{message} lacks {want}");
        }
    }
}
