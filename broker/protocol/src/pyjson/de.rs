//! A serde deserializer for JSON as Python writes it.
//!
//! It differs from `serde_json`'s in what happens to the odd values: an integer beyond 64 bits can be bound to `i128`,
//! `u128` or a raw value and to nothing else (in particular it does not become a float); a number that is not finite
//! only to a raw value; a string with half of a surrogate pair only to a raw value.

use serde::{
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor},
    forward_to_deserialize_any,
};

use super::{
    Error, ErrorKind, MAX_DEPTH,
    cursor::{Cursor, Number, NumberText},
    raw,
};

/// Reads one JSON value from text.
#[derive(Debug)]
pub struct Deserializer<'de> {
    cursor: Cursor<'de>,
    depth: usize,
}

impl<'de> Deserializer<'de> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'de str) -> Self {
        Self { cursor: Cursor::new(text), depth: MAX_DEPTH }
    }

    /// Nothing but white space may be left.
    ///
    /// # Errors
    /// Something is left.
    pub fn end(&mut self) -> Result<(), Error> {
        self.cursor.end()
    }

    /// Passes one value and gives its text.
    fn skip(&mut self) -> Result<&'de str, Error> {
        self.cursor.skip_value(self.depth)
    }

    fn string(&mut self) -> Result<std::borrow::Cow<'de, str>, Error> {
        let string = self.cursor.string()?;
        string.unescape().map_err(|kind| self.cursor.error(kind))
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == 0 {
            return Err(self.cursor.error(ErrorKind::TooDeep));
        }
        self.depth -= 1;
        let value = read(self)?;
        self.depth += 1;
        Ok(value)
    }

    fn seq<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        self.cursor.at += 1;
        self.deeper(|de| {
            let mut first = true;
            let value = visitor.visit_seq(Items { de, first: &mut first })?;
            if !de.cursor.eat(b']') {
                let what =
                    if de.cursor.peek() == Some(b',') { "fewer elements" } else { "the end of an array" };
                return Err(de.cursor.expected(what));
            }
            Ok(value)
        })
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        self.cursor.at += 1;
        self.deeper(|de| {
            let mut first = true;
            let value = visitor.visit_map(Items { de, first: &mut first })?;
            if !de.cursor.eat(b'}') {
                return Err(de.cursor.expected("the end of an object"));
            }
            Ok(value)
        })
    }

    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let start = self.cursor.at;
        let NumberText { text, kind } = self.cursor.number()?;
        let at = |kind| Error::new(kind, start);
        match kind {
            Number::Int => {
                if let Ok(number) = text.parse::<u64>() {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_i64(text.parse().map_err(|_| at(ErrorKind::IntegerRange))?)
                }
            }
            Number::Float => visitor.visit_f64(text.parse().map_err(|_| at(ErrorKind::NonFinite))?),
            Number::BigInt => Err(at(ErrorKind::IntegerRange)),
            Number::NonFinite => Err(at(ErrorKind::NonFinite)),
        }
    }

    fn wide<T: std::str::FromStr>(&mut self) -> Result<Option<T>, Error> {
        if !matches!(self.cursor.peek(), Some(b'-' | b'0'..=b'9')) {
            return Ok(None);
        }
        let start = self.cursor.at;
        let NumberText { text, kind } = self.cursor.number()?;
        if matches!(kind, Number::Int | Number::BigInt) {
            return text.parse().map(Some).map_err(|_| Error::new(ErrorKind::IntegerRange, start));
        }
        self.cursor.at = start;
        Ok(None)
    }
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.cursor.peek() {
            Some(b'"') => match self.string()? {
                std::borrow::Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                std::borrow::Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'[') => self.seq(visitor),
            Some(b'{') => self.map(visitor),
            Some(b't') => {
                self.cursor.word("true")?;
                visitor.visit_bool(true)
            }
            Some(b'f') => {
                self.cursor.word("false")?;
                visitor.visit_bool(false)
            }
            Some(b'n') => {
                self.cursor.word("null")?;
                visitor.visit_unit()
            }
            _ => self.number(visitor),
        }
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.wide()? {
            Some(number) => visitor.visit_i128(number),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.wide()? {
            Some(number) => visitor.visit_u128(number),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.cursor.peek() == Some(b'n') {
            self.cursor.word("null")?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if raw::is_raw(name) { raw::offer(self.skip()?, visitor) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.cursor.peek() {
            Some(b'"') => visitor.visit_enum(UnitVariant(self)),
            Some(b'{') => {
                self.cursor.at += 1;
                self.deeper(|de| {
                    let value = visitor.visit_enum(KeyedVariant(de))?;
                    if !de.cursor.eat(b'}') {
                        return Err(de.cursor.expected("the end of an object"));
                    }
                    Ok(value)
                })
            }
            _ => Err(self.cursor.expected("a string or an object")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier
    }
}

/// The elements of the array, or the pairs of the object, that has been entered.
struct Items<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    first: &'a mut bool,
}

impl Items<'_, '_> {
    fn next(&mut self, end: u8) -> Result<bool, Error> {
        if self.de.cursor.peek() == Some(end) {
            return Ok(false);
        }
        if !std::mem::take(self.first) && !self.de.cursor.eat(b',') {
            return Err(self.de.cursor.expected("a comma or the end of the container"));
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.next(b']')? { seed.deserialize(&mut *self.de).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.next(b'}')? { seed.deserialize(Key(self.de)).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        if !self.de.cursor.eat(b':') {
            return Err(self.de.cursor.expected("a colon"));
        }
        seed.deserialize(&mut *self.de)
    }
}

/// A key of an object: a string, also where the map's key type is a number or a bool.
struct Key<'a, 'de>(&'a mut Deserializer<'de>);

macro_rules! parsed_key {
    ($($method:ident $visit:ident $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let key = self.0.string()?;
            match key.parse::<$type>() {
                Ok(key) => visitor.$visit(key),
                Err(_) => Err(de::Error::invalid_type(Unexpected::Str(&key), &visitor)),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Key<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.string()? {
            std::borrow::Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            std::borrow::Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    parsed_key! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(UnitVariant(self.0))
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A variant written as its bare name.
struct UnitVariant<'a, 'de>(&'a mut Deserializer<'de>);

impl<'a, 'de> EnumAccess<'de> for UnitVariant<'a, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(&mut *self.0)?, self))
    }
}

impl<'de> VariantAccess<'de> for UnitVariant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Error> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"newtype variant"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Error> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"tuple variant"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"struct variant"))
    }
}

/// A variant written as `{"Name": content}`.
struct KeyedVariant<'a, 'de>(&'a mut Deserializer<'de>);

impl<'a, 'de> EnumAccess<'de> for KeyedVariant<'a, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let variant = seed.deserialize(&mut *self.0)?;
        if !self.0.cursor.eat(b':') {
            return Err(self.0.cursor.expected("a colon"));
        }
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for KeyedVariant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        de::Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self.0, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_struct(self.0, "", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;
    use serde_json::{Value, value::RawValue};

    use crate::pyjson::{ErrorKind, from_str};

    #[derive(Debug, Deserialize, PartialEq)]
    enum Shape {
        Dot,
        Circle(f64),
        Line { from: i8, to: i8 },
        Pair(u8, String),
    }

    #[test]
    fn serde_types() {
        let shapes: Vec<Shape> =
            from_str(r#"["Dot", {"Circle": 1}, {"Line": {"from": -1, "to": 2}}, {"Pair": [1, "\u00e9"]}]"#)
                .unwrap();
        let pair = Shape::Pair(1, "é".to_owned());
        assert_eq!(shapes, [Shape::Dot, Shape::Circle(1.0), Shape::Line { from: -1, to: 2 }, pair]);
        assert_eq!(
            from_str::<HashMap<u8, Option<()>>>(r#"{"7": null}"#).unwrap(),
            HashMap::from([(7, None)])
        );
        assert_eq!(from_str::<(i64, f64, Option<char>)>(" [1, 2, \"x\" ] ").unwrap(), (1, 2.0, Some('x')));
        assert!(from_str::<(i64, i64)>("[1]").is_err());
        assert!(from_str::<(i64, i64)>("[1, 2, 3]").is_err());
        assert!(from_str::<i64>("1 2").is_err());
        assert!(from_str::<i64>("1.0").is_err());
    }

    #[test]
    fn odd_numbers_are_kept_or_refused_but_never_changed() {
        let big = "100000000000000000000000000000000000000";
        assert_eq!(from_str::<Box<RawValue>>(big).unwrap().get(), big);
        assert_eq!(from_str::<i128>(big).unwrap().to_string(), big);
        assert_eq!(from_str::<u128>("7").unwrap(), 7);
        for wrong in
            [from_str::<f64>(big).map(drop), from_str::<Value>(big).map(drop), from_str::<i64>(big).map(drop)]
        {
            assert_eq!(wrong.unwrap_err().kind(), &ErrorKind::IntegerRange);
        }
        for text in ["NaN", "Infinity", "-Infinity", "1e400"] {
            assert_eq!(from_str::<Box<RawValue>>(text).unwrap().get(), text);
            assert_eq!(from_str::<f64>(text).unwrap_err().kind(), &ErrorKind::NonFinite);
            assert_eq!(from_str::<Value>(text).unwrap_err().kind(), &ErrorKind::NonFinite);
        }
        assert_eq!(from_str::<String>(r#""\ud800""#).unwrap_err().kind(), &ErrorKind::LoneSurrogate);
        assert_eq!(from_str::<Vec<Box<RawValue>>>(r#"["\ud800"]"#).unwrap()[0].get(), r#""\ud800""#);
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(from_str::<Value>(&nested(512)).is_ok());
        assert_eq!(from_str::<Value>(&nested(513)).unwrap_err().kind(), &ErrorKind::TooDeep);
        assert_eq!(from_str::<Box<RawValue>>(&nested(513)).unwrap_err().kind(), &ErrorKind::TooDeep);
    }
}
