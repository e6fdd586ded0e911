//! Raw JSON values made from text that this crate has scanned itself.
//!
//! `RawValue::from_string` scans again, and refuses `NaN`, which must survive being passed on. So a `RawValue` is made
//! here the way `serde_json` makes one: by asking it to deserialize from something that offers the text under its
//! private field name. A test holds that name in place.

use std::{marker::PhantomData, sync::LazyLock};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, Visitor, value::BorrowedStrDeserializer, value::StringDeserializer},
};
use serde_json::value::RawValue;

use super::Error;

/// The name that `serde_json` gives a raw value when it passes through serde.
const TOKEN: &str = "$serde_json::private::RawValue";

/// The JSON text `null`.
pub static NULL: LazyLock<Box<RawValue>> = LazyLock::new(null);

/// The JSON text `null`, owned.
pub fn null() -> Box<RawValue> {
    raw_owned("null".to_owned())
}

/// `text` as a raw value, without looking at it: it must be one JSON value (as Python writes it).
pub fn raw(text: &str) -> &RawValue {
    match <&RawValue>::deserialize(Offer(Text::Borrowed(text))) {
        Ok(value) => value,
        Err(_) => RawValue::NULL,
    }
}

/// `text` as an owned raw value, without looking at it: it must be one JSON value (as Python writes it).
pub fn raw_owned(text: String) -> Box<RawValue> {
    match <Box<RawValue>>::deserialize(Offer(Text::Owned(text))) {
        Ok(value) => value,
        Err(_) => RawValue::NULL.to_owned(),
    }
}

/// Hands `visitor` (of a raw value) the text of one.
pub(crate) fn offer<'de, V: Visitor<'de>, E: serde::de::Error>(
    text: &'de str,
    visitor: V,
) -> Result<V::Value, E> {
    visitor.visit_map(Fields(Some(Text::Borrowed(text)), PhantomData))
}

/// Whether a newtype of this name is a raw value.
pub(crate) fn is_raw(name: &str) -> bool {
    name == TOKEN
}

enum Text<'de> {
    Borrowed(&'de str),
    Owned(String),
}

struct Offer<'de>(Text<'de>);

impl<'de> Deserializer<'de> for Offer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields(Some(self.0), PhantomData))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Fields<'de, E>(Option<Text<'de>>, PhantomData<E>);

impl<'de, E: serde::de::Error> MapAccess<'de> for Fields<'de, E> {
    type Error = E;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, E> {
        if self.0.is_none() {
            return Ok(None);
        }
        seed.deserialize(BorrowedStrDeserializer::new(TOKEN)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, E> {
        match self.0.take() {
            Some(Text::Borrowed(text)) => seed.deserialize(BorrowedStrDeserializer::new(text)),
            Some(Text::Owned(text)) => seed.deserialize(StringDeserializer::new(text)),
            None => Err(serde::de::Error::custom("a raw value has one field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_json_still_makes_raw_values_this_way() {
        for text in ["NaN", "[1, -Infinity]", "123456789012345678901234567890", "\"\\ud800\"", "1"] {
            assert_eq!(raw(text).get(), text);
            assert_eq!(raw_owned(text.to_owned()).get(), text);
            assert_eq!(serde_json::to_string(raw(text)).unwrap(), text);
        }
    }
}
