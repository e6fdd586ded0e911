//! The slow way to deserialise a value that holds an integer beyond 64 bits.
//!
//! serde_json would hand such an integer to a `Value` as a float. This deserializer refuses instead, and keeps the number
//! where the target can hold it: `RawValue`, 128-bit integers, explicit floats. Used only for values in which
//! [`holds_wide_integer`] finds one.

use std::borrow::Cow;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Error, value::RawValue};

/// The name by which serde_json recognises a request for raw JSON.
const RAW: &str = "$serde_json::private::RawValue";

/// True when a number literal without fraction and exponent in `json` does not fit `i64` or `u64`.
pub(super) fn holds_wide_integer(json: &str) -> bool {
    // Shorter than any such number, which has at least 19 digits.
    if json.len() < 19 {
        return false;
    }
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let end = at + number_length(bytes.get(at..).unwrap_or_default());
                if is_wide(json.get(at..end).unwrap_or_default()) {
                    return true;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    false
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn number_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        .count()
        .max(1)
}

fn is_wide(number: &str) -> bool {
    number.len() >= 19
        && !number.contains(['.', 'e', 'E'])
        && number.parse::<i64>().is_err()
        && number.parse::<u64>().is_err()
}

/// A piece of JSON text whose numbers are not lost.
pub(super) struct Careful<'de> {
    text: &'de str,
}

impl<'de> Careful<'de> {
    pub(super) fn new(text: &'de str) -> Self {
        Self { text: text.trim_ascii() }
    }

    fn plain(self) -> Plain<'de> {
        let mut inner = serde_json::Deserializer::from_str(self.text);
        inner.disable_recursion_limit();
        inner
    }
}

type Plain<'de> = serde_json::Deserializer<serde_json::de::StrRead<'de>>;

macro_rules! plain {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.plain().$method(visitor)
        })*
    };
}

macro_rules! structured {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Error> {
            $(let _ = $arg;)*
            self.deserialize_any(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Careful<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text.as_bytes().first() {
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(self.text)?;
                visitor.visit_seq(Items(items.into_iter()))
            }
            Some(b'{') => {
                let pairs: Pairs<'de> = serde_json::from_str(self.text)?;
                visitor.visit_map(Entries { pairs: pairs.0.into_iter(), value: None })
            }
            _ if is_wide(self.text) => Err(Error::custom(format_args!(
                "integer {} does not fit 64 bits; take it as a RawValue to keep it",
                abbreviated(self.text)
            ))),
            _ => self.plain().deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.text == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == RAW {
            self.plain().deserialize_newtype_struct(name, visitor)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom(
            "an integer beyond 64 bits inside an enum; take the value as a RawValue to keep it",
        ))
    }

    plain! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    structured! {
        deserialize_unit_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }
}

fn abbreviated(number: &str) -> Cow<'_, str> {
    match number.get(..40) {
        Some(start) if number.len() > 43 => Cow::Owned(format!("{start}...")),
        _ => Cow::Borrowed(number),
    }
}

struct Items<'de>(std::vec::IntoIter<&'de RawValue>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|raw| seed.deserialize(Careful::new(raw.get()))).transpose()
    }
}

struct Entries<'de> {
    pairs: std::vec::IntoIter<(Cow<'de, str>, &'de RawValue)>,
    value: Option<&'de RawValue>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.pairs.next() else { return Ok(None) };
        self.value = Some(value);
        match key {
            Cow::Borrowed(key) => seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(key)),
            Cow::Owned(key) => seed.deserialize(serde::de::value::StringDeserializer::new(key)),
        }
        .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let raw = self.value.take().ok_or_else(|| Error::custom("value asked for before its key"))?;
        seed.deserialize(Careful::new(raw.get()))
    }
}

/// An object's entries in their order, keys unescaped only where needed.
struct Pairs<'de>(Vec<(Cow<'de, str>, &'de RawValue)>);

impl<'de> serde::Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    pairs.push((key.0, map.next_value()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
