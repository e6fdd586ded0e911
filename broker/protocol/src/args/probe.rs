//! Which parameters a type requires. Serde says so only one at a time, by failing; so the type is deserialised again and
//! again from neutral values until it no longer fails. Asked only when a call has failed already, to tell it in Python's
//! words.

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess,
        VariantAccess, Visitor,
        value::{SeqDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::BindError;

/// Values within values are made up to this depth; a type that needs more is not understood.
const DEPTH: u8 = 16;

/// The fields that `T` requires, in order; as far as can be seen.
pub(super) fn required<T: DeserializeOwned>() -> Vec<&'static str> {
    let mut required = Vec::new();
    while let Err(error) = T::deserialize(Probe { given: &required })
        && let Some(field) = error.missing
        && !required.contains(&field)
    {
        required.push(field);
    }
    required
}

/// A call with a neutral value for each of `given`, and for `*name` and `**name`.
struct Probe<'a> {
    given: &'a [&'static str],
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = BindError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        let stars = fields.iter().copied().filter(|field| field.starts_with('*'));
        visitor.visit_map(Given { fields: self.given.iter().copied().chain(stars).collect(), depth: DEPTH })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, BindError> {
        Err(BindError::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Fields that each get a neutral value.
struct Given {
    fields: Vec<&'static str>,
    depth: u8,
}

impl<'de> MapAccess<'de> for Given {
    type Error = BindError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, BindError> {
        match self.fields.last() {
            Some(field) => {
                let field: StrDeserializer<'_, BindError> = (*field).into_deserializer();
                seed.deserialize(field).map(Some)
            }
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, BindError> {
        self.fields.pop();
        seed.deserialize(Neutral { depth: self.depth })
    }
}

/// A value of whatever type is asked for: zero, empty, nothing.
#[derive(Clone, Copy)]
struct Neutral {
    depth: u8,
}

impl Neutral {
    fn inner(self) -> Result<Self, BindError> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(BindError::custom("too deep")),
        }
    }
}

macro_rules! neutral {
    ($($method:ident $visit:ident($value:expr),)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Neutral {
    type Error = BindError;

    neutral! {
        deserialize_bool visit_bool(false),
        deserialize_i8 visit_i8(0),
        deserialize_i16 visit_i16(0),
        deserialize_i32 visit_i32(0),
        deserialize_i64 visit_i64(0),
        deserialize_i128 visit_i128(0),
        deserialize_u8 visit_u8(0),
        deserialize_u16 visit_u16(0),
        deserialize_u32 visit_u32(0),
        deserialize_u64 visit_u64(0),
        deserialize_u128 visit_u128(0),
        deserialize_f32 visit_f32(0.0),
        deserialize_f64 visit_f64(0.0),
        deserialize_char visit_char('0'),
        deserialize_str visit_borrowed_str(""),
        deserialize_string visit_borrowed_str(""),
        deserialize_identifier visit_borrowed_str(""),
        deserialize_bytes visit_borrowed_bytes(b""),
        deserialize_byte_buf visit_borrowed_bytes(b""),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BindError> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, BindError> {
        if crate::pyjson::is_raw(name) {
            return crate::pyjson::offer_raw("null", visitor);
        }
        visitor.visit_newtype_struct(self.inner()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BindError> {
        visitor.visit_seq(SeqDeserializer::<_, BindError>::new(std::iter::empty::<u8>()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, BindError> {
        let inner = self.inner()?;
        visitor.visit_seq(SeqDeserializer::new(std::iter::repeat_n(inner, len)))
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
        visitor.visit_map(Given { fields: Vec::new(), depth: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        visitor.visit_map(Given { fields: fields.to_vec(), depth: self.inner()?.depth })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        let first = variants.first().ok_or_else(|| BindError::custom("no variant"))?;
        visitor.visit_enum(First { name: first, value: self.inner()? })
    }
}

impl IntoDeserializer<'_, BindError> for Neutral {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The first variant of an enum, with neutral content.
struct First {
    name: &'static str,
    value: Neutral,
}

impl<'de> EnumAccess<'de> for First {
    type Error = BindError;
    type Variant = Neutral;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Neutral), BindError> {
        let name: StrDeserializer<'_, BindError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.value))
    }
}

impl<'de> VariantAccess<'de> for Neutral {
    type Error = BindError;

    fn unit_variant(self) -> Result<(), BindError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, BindError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, BindError> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BindError> {
        visitor.visit_map(Given { fields: fields.to_vec(), depth: self.depth })
    }
}
