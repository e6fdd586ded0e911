//! Arguments and other values that are only passed on, as raw JSON: nothing in them is parsed, so nothing can be changed.
//!
//! Binding arguments to a task's parameters is the business of [`args`](crate::args).

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::pyjson::{self, EncodeError, Error, ErrorKind, Scanner, raw_owned};

/// Positional arguments.
#[derive(Clone, Default)]
pub struct RawArgs(Vec<Box<RawValue>>);

/// An object whose values are raw JSON, in the order in which they came. Of two equal keys the last one wins.
#[derive(Clone, Default)]
pub struct RawMap(Vec<(String, Box<RawValue>)>);

/// Keyword arguments.
pub type RawKwargs = RawMap;

impl RawArgs {
    /// No arguments.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends one argument.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.0.push(pyjson::to_raw(value)?);
        Ok(())
    }

    /// Appends one argument that is JSON already.
    pub fn push_raw(&mut self, value: Box<RawValue>) {
        self.0.push(value);
    }

    /// Puts `before` in front of these arguments, as Celery does with the result of the task before.
    pub fn prepend(&mut self, before: impl IntoIterator<Item = Box<RawValue>>) {
        self.0.splice(0..0, before);
    }

    /// The arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &RawValue> + Clone {
        self.0.iter().map(|value| &**value)
    }

    /// The arguments as a slice.
    pub fn as_slice(&self) -> &[Box<RawValue>] {
        &self.0
    }

    /// The argument at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<&RawValue> {
        self.0.get(index).map(|value| &**value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The arguments as one JSON array.
    pub fn to_raw(&self) -> Box<RawValue> {
        to_raw(|out| self.write(out))
    }

    /// Appends the JSON array to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b']');
    }

    /// Passes an array and takes its elements.
    pub(crate) fn scan(scanner: &mut Scanner<'_>, limit: usize) -> Result<Self, Error> {
        let mut array = scanner.array()?;
        let mut args = Vec::new();
        while scanner.next_element(&mut array)? {
            if args.len() == limit {
                return Err(Error::new(ErrorKind::TooMany, 0));
            }
            args.push(raw_owned(scanner.value()?.to_owned()));
        }
        Ok(Self(args))
    }
}

impl RawMap {
    /// An empty object.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets `key`; a new key goes to the end, an old one keeps its place.
    ///
    /// # Errors
    /// The value has no JSON form.
    pub fn insert<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), EncodeError> {
        self.insert_raw(key, pyjson::to_raw(value)?);
        Ok(())
    }

    /// Sets `key` to what is JSON already; a new key goes to the end, an old one keeps its place.
    pub fn insert_raw(&mut self, key: impl Into<String> + AsRef<str>, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(name, _)| name == key.as_ref()) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.into(), value)),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// The value of `key`, unless it is missing or `null`.
    pub fn get_some(&self, key: &str) -> Option<&RawValue> {
        self.get(key).filter(|value| value.get() != "null")
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Box<RawValue>> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// Sets everything that `other` has, as Python's `dict.update`.
    pub fn update(&mut self, other: RawMap) {
        for (key, value) in other.0 {
            self.insert_raw(key, value);
        }
    }

    /// The pairs as a slice.
    pub fn as_slice(&self) -> &[(String, Box<RawValue>)] {
        &self.0
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &RawValue)> + Clone {
        self.0.iter().map(|(key, value)| (key.as_str(), &**value))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The object as one JSON value.
    pub fn to_raw(&self) -> Box<RawValue> {
        to_raw(|out| self.write(out))
    }

    /// Appends the JSON object to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_pairs(out, true);
        out.push(b'}');
    }

    /// Appends the pairs without braces; unless `first`, each is preceded by a comma.
    pub(crate) fn write_pairs(&self, out: &mut Vec<u8>, mut first: bool) {
        for (key, value) in &self.0 {
            if !std::mem::take(&mut first) {
                out.extend_from_slice(b", ");
            }
            pyjson::write_str(out, key);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.get().as_bytes());
        }
    }

    /// Passes an object and takes its pairs.
    pub(crate) fn scan(scanner: &mut Scanner<'_>, limit: usize) -> Result<Self, Error> {
        let mut object = scanner.object()?;
        let mut map = Builder::default();
        while let Some(key) = scanner.next_key(&mut object)? {
            if map.pairs.len() == limit {
                return Err(Error::new(ErrorKind::TooMany, 0));
            }
            map.push(key.into_owned(), raw_owned(scanner.value()?.to_owned()));
        }
        Ok(map.finish())
    }
}

/// Collects pairs of which the last of equal keys shall win, in less than quadratic time.
#[derive(Default)]
struct Builder {
    pairs: Vec<(String, Box<RawValue>)>,
}

impl Builder {
    /// Up to this many pairs are compared with each other; more are sorted.
    const FEW: usize = 16;

    fn push(&mut self, key: String, value: Box<RawValue>) {
        if self.pairs.len() < Self::FEW
            && let Some((_, old)) = self.pairs.iter_mut().find(|(name, _)| *name == key)
        {
            *old = value;
            return;
        }
        self.pairs.push((key, value));
    }

    fn finish(self) -> RawMap {
        if self.pairs.len() <= Self::FEW {
            return RawMap(self.pairs);
        }
        let mut places = std::collections::HashMap::with_capacity(self.pairs.len());
        let mut pairs: Vec<(String, Box<RawValue>)> = Vec::with_capacity(self.pairs.len());
        for (key, value) in self.pairs {
            match places.get(&key) {
                Some(&place) => {
                    let pair: &mut (String, Box<RawValue>) = &mut pairs[place];
                    pair.1 = value;
                }
                None => {
                    places.insert(key.clone(), pairs.len());
                    pairs.push((key, value));
                }
            }
        }
        RawMap(pairs)
    }
}

fn to_raw(write: impl FnOnce(&mut Vec<u8>)) -> Box<RawValue> {
    let mut out = Vec::with_capacity(64);
    write(&mut out);
    String::from_utf8(out).map_or_else(|_| pyjson::null(), raw_owned)
}

impl From<Vec<Box<RawValue>>> for RawArgs {
    fn from(values: Vec<Box<RawValue>>) -> Self {
        Self(values)
    }
}

impl IntoIterator for RawArgs {
    type Item = Box<RawValue>;
    type IntoIter = std::vec::IntoIter<Box<RawValue>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(String, Box<RawValue>)> for RawMap {
    fn from_iter<I: IntoIterator<Item = (String, Box<RawValue>)>>(pairs: I) -> Self {
        let mut builder = Builder::default();
        for (key, value) in pairs {
            builder.push(key, value);
        }
        builder.finish()
    }
}

impl IntoIterator for RawMap {
    type Item = (String, Box<RawValue>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl PartialEq for RawArgs {
    /// Equal if the JSON texts of the arguments are.
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(RawValue::get).eq(other.iter().map(RawValue::get))
    }
}

impl PartialEq for RawMap {
    /// Equal if keys, order and JSON texts are.
    fn eq(&self, other: &Self) -> bool {
        let text = |(key, value): (&'_ str, &'_ RawValue)| (key.to_owned(), value.get().to_owned());
        self.len() == other.len() && self.iter().map(text).eq(other.iter().map(text))
    }
}

impl fmt::Debug for RawArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_raw().get())
    }
}

impl fmt::Debug for RawMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_raw().get())
    }
}

impl Serialize for RawArgs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for RawArgs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl Serialize for RawMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RawMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = RawMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawMap, A::Error> {
                let mut map = Builder::default();
                while let Some((key, value)) = access.next_entry()? {
                    map.push(key, value);
                }
                Ok(map.finish())
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_keys_wins() {
        let map: RawMap = pyjson::from_str(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(map.to_raw().get(), r#"{"a": 3, "b": 2}"#);
        let many: String = (0..100).map(|index| format!("\"k{}\": {index}, ", index % 50)).collect();
        let map: RawMap = pyjson::from_str(&format!("{{{many}\"z\": 0}}")).unwrap();
        assert_eq!(map.len(), 51);
        assert_eq!(map.get("k7").unwrap().get(), "57");
        assert_eq!(map.iter().next().unwrap().0, "k0");
    }

    #[test]
    fn values_pass_unchanged() {
        let text = r#"[NaN, 100000000000000000000000000, "\ud800", {"a":1}]"#;
        let args: RawArgs = pyjson::from_str(text).unwrap();
        assert_eq!(args.to_raw().get(), text);
        assert_eq!(pyjson::to_string(&args).unwrap(), text);
        let mut args = args;
        args.prepend([pyjson::to_raw(&1).unwrap()]);
        assert_eq!(args.len(), 5);
        assert_eq!(args.get(0).unwrap().get(), "1");
    }
}
