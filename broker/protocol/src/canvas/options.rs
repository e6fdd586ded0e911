//! The options inside a signature: kept as they came, with typed access to the ones that Celery gives a meaning.
//!
//! Order, nulls and unknown keys survive, because a signature is mostly passed on.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Signature, SignatureError};
use crate::{GroupId, RawMap, TaskId, pyjson};

/// Options of a signature by Celery's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SignatureOptions(RawMap);

impl SignatureOptions {
    /// No options.
    pub const fn new() -> Self {
        Self(RawMap::new())
    }

    /// All options, in order.
    pub fn as_map(&self) -> &RawMap {
        &self.0
    }

    /// All options, in order.
    pub fn as_map_mut(&mut self) -> &mut RawMap {
        &mut self.0
    }

    /// All options, in order.
    pub fn into_map(self) -> RawMap {
        self.0
    }

    /// The raw value of an option, unless it is missing or `null`.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get_some(name)
    }

    /// The value of an option; `None` if it is missing or `null`.
    ///
    /// # Errors
    /// The value is not a `T`.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SignatureError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match pyjson::from_str(value.get()) {
                Ok(value) => Ok(Some(value)),
                Err(err) => Err(SignatureError(format!("option {name}: {err}"))),
            },
        }
    }

    /// Sets an option. A value without JSON form (none of Celery's options has such) sets it to `null`.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.0.insert_raw(name, pyjson::to_raw(value).unwrap_or_else(|_| pyjson::null()));
    }

    /// Sets an option to raw JSON.
    pub fn set_raw(&mut self, name: &str, value: Box<RawValue>) {
        self.0.insert_raw(name, value);
    }

    /// Takes an option out.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.0.remove(name)
    }

    /// The id that the call will have.
    ///
    /// # Errors
    /// The option is set to something else than an id.
    pub fn task_id(&self) -> Result<Option<TaskId>, SignatureError> {
        self.read("task_id")
    }

    /// The group that the call belongs to.
    ///
    /// # Errors
    /// The option is set to something else than an id.
    pub fn group_id(&self) -> Result<Option<GroupId>, SignatureError> {
        self.read("group_id")
    }

    /// The position in the group.
    ///
    /// # Errors
    /// The option is set to something else than a small whole number.
    pub fn group_index(&self) -> Result<Option<u32>, SignatureError> {
        self.read("group_index")
    }

    /// The root of the workflow.
    ///
    /// # Errors
    /// The option is set to something else than an id.
    pub fn root_id(&self) -> Result<Option<TaskId>, SignatureError> {
        self.read("root_id")
    }

    /// The body of the chord that the call is a member of.
    ///
    /// # Errors
    /// The option is set to something else than a signature.
    pub fn chord(&self) -> Result<Option<Signature>, SignatureError> {
        self.read("chord")
    }

    /// The remaining steps of the chain, last one first.
    ///
    /// # Errors
    /// The option is set to something else than a list of signatures.
    pub fn chain(&self) -> Result<Option<Vec<Signature>>, SignatureError> {
        self.read("chain")
    }

    /// What is called with the result.
    ///
    /// # Errors
    /// The option is set to something else than a signature or a list of them.
    pub fn link(&self) -> Result<Vec<Signature>, SignatureError> {
        self.signatures("link")
    }

    /// What is called on failure.
    ///
    /// # Errors
    /// The option is set to something else than a signature or a list of them.
    pub fn link_error(&self) -> Result<Vec<Signature>, SignatureError> {
        self.signatures("link_error")
    }

    /// Adds to `link` (Celery's callbacks), unless the same signature is there already.
    ///
    /// # Errors
    /// What is there is not a signature or a list of them.
    pub fn add_link(&mut self, signature: &Signature) -> Result<(), SignatureError> {
        self.add("link", signature)
    }

    /// Adds to `link_error` (Celery's errbacks), unless the same signature is there already.
    ///
    /// # Errors
    /// What is there is not a signature or a list of them.
    pub fn add_link_error(&mut self, signature: &Signature) -> Result<(), SignatureError> {
        self.add("link_error", signature)
    }

    /// The names of the stamps among the options.
    ///
    /// # Errors
    /// The option is set to something else than a list of texts.
    pub fn stamped_headers(&self) -> Result<Vec<String>, SignatureError> {
        Ok(self.read("stamped_headers")?.unwrap_or_default())
    }

    fn signatures(&self, name: &str) -> Result<Vec<Signature>, SignatureError> {
        match self.get(name) {
            Some(one) if one.get().starts_with('{') => Ok(vec![Signature::from_json(one.get())?]),
            _ => Ok(self.read(name)?.unwrap_or_default()),
        }
    }

    fn add(&mut self, name: &str, signature: &Signature) -> Result<(), SignatureError> {
        let mut list = self.signatures(name)?;
        if !list.contains(signature) {
            list.push(signature.clone());
            self.set(name, &list);
        }
        Ok(())
    }
}

impl From<RawMap> for SignatureOptions {
    fn from(map: RawMap) -> Self {
        Self(map)
    }
}

impl Serialize for SignatureOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SignatureOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawMap::deserialize(deserializer).map(Self)
    }
}
