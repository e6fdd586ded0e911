//! A JSON object read member by member, so that every mistake in it is reported with its place, not only the first.

use celery_protocol::TaskId;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::{FieldError, Kind, Problem};

/// How many mistakes of one body are told.
const MAX_ERRORS: usize = 50;

/// The members of one object that have not been asked for yet, and the mistakes found so far.
#[derive(Debug)]
pub struct Form<'a> {
    members: Vec<(String, &'a RawValue)>,
    base: String,
    errors: Vec<FieldError>,
    unknown: Vec<FieldError>,
}

impl<'a> Form<'a> {
    /// Splits `text`, which must be an object.
    ///
    /// # Errors
    /// An `invalid-option` problem if it is something else.
    pub fn split(text: &'a str) -> Result<Self, Problem> {
        Form::split_at(text, "")
    }

    /// As [`split`](Self::split), for an object that stands at the place `base` of the body.
    ///
    /// # Errors
    /// An `invalid-option` problem if it is something else.
    pub fn split_at(text: &'a str, base: impl Into<String>) -> Result<Self, Problem> {
        let base = base.into();
        match serde_json::from_str::<Members<'a>>(text) {
            Ok(Members(members)) => Ok(Form { members, base, errors: Vec::new(), unknown: Vec::new() }),
            Err(err) => Err(Problem::field(Kind::InvalidOption, base, tidy(&err))),
        }
    }

    /// Adds the members of `defaults` that are not here.
    pub fn fill(&mut self, defaults: &[(String, &'a RawValue)]) {
        for (name, raw) in defaults {
            if !self.members.iter().any(|(member, _)| member == name) {
                self.members.push((name.clone(), raw));
            }
        }
    }

    /// The members that have not been asked for yet.
    pub fn rest(&self) -> &[(String, &'a RawValue)] {
        &self.members
    }

    /// Takes a member out; `null` counts as absent. A value of the wrong type is recorded and counts as absent too.
    pub fn optional<T: Deserialize<'a>>(&mut self, name: &str) -> Option<T> {
        let index = self.members.iter().position(|(member, _)| member == name)?;
        let (_, raw) = self.members.swap_remove(index);
        if raw.get() == "null" {
            return None;
        }
        match serde_json::from_str(raw.get()) {
            Ok(value) => Some(value),
            Err(err) => {
                self.refuse(name, tidy(&err));
                None
            }
        }
    }

    /// Takes out a member that is an array, and reads each element on its own, so that mistakes name their index.
    pub fn list<T: Deserialize<'a>>(&mut self, name: &str) -> Vec<T> {
        let elements: Vec<&'a RawValue> = self.optional(name).unwrap_or_default();
        let mut values = Vec::with_capacity(elements.len());
        for (index, raw) in elements.into_iter().enumerate() {
            match serde_json::from_str(raw.get()) {
                Ok(value) => values.push(value),
                Err(err) => {
                    let pointer = format!("{}/{name}/{index}", self.base);
                    self.errors.push(FieldError::new(pointer, tidy(&err)));
                }
            }
        }
        values
    }

    /// Takes a member out; its absence is recorded.
    pub fn required<T: Deserialize<'a>>(&mut self, name: &str) -> Option<T> {
        let present = self.members.iter().any(|(member, raw)| member == name && raw.get() != "null");
        if !present {
            self.refuse(name, "is required");
        }
        self.optional(name)
    }

    /// Takes `task_id` out. A bad id is a bad address of the task to be, so it is answered as in a path.
    ///
    /// # Errors
    /// `invalid-parameter`.
    pub fn task_id(&mut self) -> Result<Option<TaskId>, Problem> {
        let id = self.optional("task_id");
        let place = format!("{}/task_id", self.base);
        match self.errors.pop_if(|error| error.pointer == place) {
            Some(error) => Err(Problem::fields(Kind::InvalidParameter, vec![error])),
            None => Ok(id),
        }
    }

    /// Takes out a member that is itself an object, and reads it by `read`.
    pub fn nested<T>(&mut self, name: &str, read: impl FnOnce(&mut Form<'a>) -> T) -> Option<T> {
        let raw: &'a RawValue = self.optional(name)?;
        match serde_json::from_str::<Members<'a>>(raw.get()) {
            Ok(Members(members)) => {
                let base = format!("{}/{name}", self.base);
                let mut inner = Form { members, base, errors: Vec::new(), unknown: Vec::new() };
                let value = read(&mut inner);
                inner.close();
                self.errors.append(&mut inner.errors);
                self.unknown.append(&mut inner.unknown);
                Some(value)
            }
            Err(err) => {
                self.refuse(name, tidy(&err));
                None
            }
        }
    }

    /// Records a mistake at the member `name`.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = self.place(name);
        self.errors.push(FieldError::new(pointer, detail));
    }

    /// The JSON pointer of a member.
    pub fn place(&self, name: &str) -> String {
        format!("{}/{}", self.base, escaped(name))
    }

    fn close(&mut self) {
        for (name, _) in std::mem::take(&mut self.members) {
            let pointer = self.place(&name);
            self.unknown.push(FieldError::new(pointer, "is not a known member"));
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `invalid-option` with everything that was recorded, or `unknown-field` when all that is wrong is members nobody
    /// asked for.
    pub fn finish(mut self) -> Result<(), Problem> {
        self.close();
        let kind = if self.errors.is_empty() { Kind::UnknownField } else { Kind::InvalidOption };
        self.errors.append(&mut self.unknown);
        self.errors.truncate(MAX_ERRORS);
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(kind, self.errors)) }
    }
}

/// A key as a step of a JSON pointer.
pub fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The members of an object; none of anything else.
pub fn members(text: &str) -> Vec<(String, &RawValue)> {
    serde_json::from_str::<Members<'_>>(text).map(|Members(members)| members).unwrap_or_default()
}

/// serde_json's message without the position, which is relative to the member and would mislead.
pub fn tidy(err: &serde_json::Error) -> String {
    let text = err.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// An object as a list of its members.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_every_mistake_with_its_place() {
        let mut form =
            Form::split(r#"{"a":1,"b":"x","c":null,"d":{"e":true,"f/":0},"zz":[]}"#).expect("an object");
        assert_eq!(form.optional::<u8>("a"), Some(1));
        assert_eq!(form.optional::<u8>("b"), None);
        assert_eq!(form.required::<u8>("c"), None);
        assert_eq!(form.nested("d", |inner| inner.optional::<u8>("e")), Some(None));
        let body = form.finish().expect_err("mistakes").body();
        let pointers: Vec<&str> = body.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/b", "/c", "/d/e", "/d/f~1", "/zz"]);
        assert_eq!(body.errors[0].detail, "invalid type: string \"x\", expected u8");
        assert_eq!(body.errors[1].detail, "is required");
        assert_eq!(body.r#type, "/problems/invalid-option");
    }

    #[test]
    fn unknown_members_alone_have_their_own_kind() {
        let form = Form::split(r#"{"options":{}}"#).expect("an object");
        assert_eq!(form.finish().expect_err("unknown").kind(), Kind::UnknownField);
        assert_eq!(Form::split("[]").expect_err("no object").kind(), Kind::InvalidOption);
    }
}
