//! Binding a call's arguments to a Rust struct by Python's calling rules.
//!
//! Python callers mix positional and keyword arguments freely. The struct's field names, which serde hands to the
//! deserializer, play the part of Python's parameter names: the i-th positional argument goes to the i-th field, a
//! keyword to the field of that name. Mismatches are told in Python's words, since they reach the caller as a
//! `TypeError`. Called by the task layer for each run; no IO, no tree of values in between.

mod error;
mod probe;
mod signature;

pub use error::{BindError, BindErrorKind};

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use crate::pyjson;

use signature::{Parameters, Slot};

/// Binds `(args, kwargs)` of a call of `task` to `T`.
///
/// `T` is usually a struct with one field per parameter; `#[serde(default)]` makes a parameter optional, and so does the
/// type `Option`. A field renamed to `*name` takes the remaining positional arguments, one renamed to `**name` the
/// remaining keywords; fields after `*name` can be given by keyword only. A unit takes no arguments, a tuple or sequence
/// positional ones only, a map keywords only. `#[serde(alias)]` and `#[serde(flatten)]` hide the field names and are not
/// supported.
///
/// What a type can't hold is an error and never another value: an integer beyond 64 bits binds to `RawValue` or to a
/// 128-bit integer, a number that is not finite and a string with half of a surrogate pair bind to `RawValue` only.
///
/// # Errors
/// [`BindError`] in Python's wording: missing, unexpected, repeated or too many arguments, or one of a wrong type.
pub fn bind<T: DeserializeOwned>(
    task: &str,
    args: &[Box<RawValue>],
    kwargs: &[(String, Box<RawValue>)],
) -> Result<T, BindError> {
    let call = Call { function: function_name(task), args, kwargs };
    T::deserialize(call).map_err(|error| error.in_full(&call, probe::required::<T>))
}

/// `proj.tasks.add` → `add`: what Python's messages call the function.
fn function_name(task: &str) -> &str {
    task.rsplit_once('.').map_or(task, |(_, last)| last)
}

/// One call as a deserializer.
#[derive(Clone, Copy)]
struct Call<'de> {
    function: &'de str,
    args: &'de [Box<RawValue>],
    kwargs: &'de [(String, Box<RawValue>)],
}

impl Call<'_> {
    fn refuse_keywords(&self) -> Result<(), BindError> {
        match self.kwargs.first() {
            Some((name, _)) => Err(BindError::unexpected(self.function, name)),
            None => Ok(()),
        }
    }

    fn refuse_positionals(&self, taken: usize) -> Result<(), BindError> {
        if self.args.len() > taken {
            return Err(BindError::too_many(self.function, taken, self.args.len()));
        }
        Ok(())
    }
}

impl<'de> Deserializer<'de> for Call<'de> {
    type Error = BindError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        let parameters = Parameters::new(fields);
        let slots = match parameters.assign(self.function, self.args, self.kwargs) {
            Ok(slots) => slots,
            Err(error) => return Err(error.among(parameters)),
        };
        visitor.visit_map(Fields { call: self, slots, next: 0 }).map_err(|error| error.among(parameters))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        self.refuse_keywords()?;
        self.refuse_positionals(0)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BindError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BindError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        self.refuse_keywords()?;
        visitor.visit_seq(Positionals { function: self.function, values: self.args, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, BindError> {
        self.refuse_keywords()?;
        self.refuse_positionals(len)?;
        if self.args.len() < len {
            return Err(BindError::too_few(self.function, len - self.args.len()));
        }
        visitor.visit_seq(Positionals { function: self.function, values: self.args, next: 0 })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, BindError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        self.refuse_positionals(0)?;
        visitor.visit_map(Keywords::all(self.function, self.kwargs))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        if self.kwargs.is_empty() { self.deserialize_seq(visitor) } else { self.deserialize_map(visitor) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option enum identifier
        ignored_any
    }
}

/// The assigned fields of a struct, in the order of assignment.
struct Fields<'de> {
    call: Call<'de>,
    slots: Vec<(&'static str, Slot<'de>)>,
    next: usize,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = BindError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, BindError> {
        match self.slots.get(self.next) {
            Some((field, _)) => seed.deserialize(IntoDeserializer::into_deserializer(*field)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, BindError> {
        let Some((field, slot)) = self.slots.get_mut(self.next) else {
            return Err(serde::de::Error::custom("value asked for before its key"));
        };
        self.next += 1;
        let function = self.call.function;
        match slot {
            Slot::One(raw) => value(raw, seed).map_err(|problem| BindError::value(function, field, &problem)),
            Slot::Rest(values) => seed.deserialize(RestDeserializer { function, values }),
            Slot::RestKeywords(pairs) => {
                seed.deserialize(serde::de::value::MapAccessDeserializer::new(Keywords {
                    function,
                    pairs: std::mem::take(pairs),
                    next: 0,
                }))
            }
        }
    }
}

/// One raw value into the wanted type.
fn value<'de, S: DeserializeSeed<'de>>(raw: &'de RawValue, seed: S) -> Result<S::Value, String> {
    seed.deserialize(&mut pyjson::Deserializer::new(raw.get())).map_err(|error| error.kind().to_string())
}

/// Positional arguments as a sequence.
struct Positionals<'de> {
    function: &'de str,
    values: &'de [Box<RawValue>],
    next: usize,
}

impl<'de> SeqAccess<'de> for Positionals<'de> {
    type Error = BindError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, BindError> {
        let Some(raw) = self.values.get(self.next) else { return Ok(None) };
        self.next += 1;
        value(raw, seed)
            .map(Some)
            .map_err(|problem| BindError::value(self.function, &self.next.to_string(), &problem))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len() - self.next)
    }
}

/// The `*name` parameter: the remaining positionals, possibly none.
struct RestDeserializer<'de> {
    function: &'de str,
    values: &'de [Box<RawValue>],
}

impl<'de> Deserializer<'de> for RestDeserializer<'de> {
    type Error = BindError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_seq(Positionals { function: self.function, values: self.values, next: 0 })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Keyword arguments as a map.
struct Keywords<'de> {
    function: &'de str,
    pairs: Vec<(&'de str, &'de RawValue)>,
    next: usize,
}

impl<'de> Keywords<'de> {
    fn all(function: &'de str, kwargs: &'de [(String, Box<RawValue>)]) -> Self {
        let pairs = kwargs.iter().map(|(name, raw)| (name.as_str(), &**raw)).collect();
        Self { function, pairs, next: 0 }
    }
}

impl<'de> MapAccess<'de> for Keywords<'de> {
    type Error = BindError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, BindError> {
        match self.pairs.get(self.next) {
            Some((name, _)) => seed.deserialize(IntoDeserializer::into_deserializer(*name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, BindError> {
        let Some((name, raw)) = self.pairs.get(self.next) else {
            return Err(serde::de::Error::custom("value asked for before its key"));
        };
        self.next += 1;
        value(raw, seed).map_err(|problem| BindError::value(self.function, name, &problem))
    }
}

#[cfg(test)]
mod tests;
