//! A struct's fields read as a Python function's parameters, and which argument goes where.

use serde_json::value::RawValue;

use super::BindError;

/// The parameters in their order; `*name` and `**name` as in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Those that may be given by position.
    pub(super) positional: &'static [&'static str],
    rest: Option<&'static str>,
    /// Those after `*name`.
    pub(super) keyword_only: &'static [&'static str],
    rest_keywords: Option<&'static str>,
}

/// What one field gets.
pub(super) enum Slot<'de> {
    One(&'de RawValue),
    Rest(&'de [Box<RawValue>]),
    RestKeywords(Vec<(&'de str, &'de RawValue)>),
}

impl Parameters {
    pub(super) fn new(fields: &'static [&'static str]) -> Self {
        let (fields, rest_keywords) = match fields.split_last() {
            Some((last, before)) if last.starts_with("**") => (before, Some(*last)),
            _ => (fields, None),
        };
        match fields.iter().position(|field| field.starts_with('*')) {
            Some(at) => Self {
                positional: fields.get(..at).unwrap_or_default(),
                rest: fields.get(at).copied(),
                keyword_only: fields.get(at + 1..).unwrap_or_default(),
                rest_keywords,
            },
            None => Self { positional: fields, rest: None, keyword_only: &[], rest_keywords },
        }
    }

    /// Gives each argument its field, refusing what Python would refuse, in Python's order.
    pub(super) fn assign<'de>(
        &self,
        function: &str,
        args: &'de [Box<RawValue>],
        kwargs: &'de [(String, Box<RawValue>)],
    ) -> Result<Vec<(&'static str, Slot<'de>)>, BindError> {
        let mut slots = Vec::with_capacity(args.len() + kwargs.len() + 1);
        for (field, raw) in self.positional.iter().zip(args) {
            slots.push((*field, Slot::One(raw)));
        }
        let mut extra = Vec::new();
        for (name, raw) in kwargs {
            if let Some(at) = self.positional.iter().position(|field| field == name) {
                if at < args.len() {
                    return Err(BindError::repeated(function, name));
                }
                slots.push((self.positional.get(at).copied().unwrap_or_default(), Slot::One(raw)));
            } else if let Some(field) = self.keyword_only.iter().find(|field| *field == name) {
                slots.push((*field, Slot::One(raw)));
            } else if self.rest_keywords.is_some() {
                extra.push((name.as_str(), &**raw));
            } else {
                return Err(BindError::unexpected(function, name));
            }
        }
        let beyond = args.get(self.positional.len()..).unwrap_or_default();
        match self.rest {
            Some(field) => slots.push((field, Slot::Rest(beyond))),
            None if !beyond.is_empty() => {
                return Err(BindError::too_many(function, self.positional.len(), args.len()));
            }
            None => {}
        }
        if let Some(field) = self.rest_keywords {
            slots.push((field, Slot::RestKeywords(extra)));
        }
        Ok(slots)
    }
}
