//! Result tuples: the tree of tasks that a task has sent, `[[id, parent], members]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use crate::{
    GroupId, TaskId,
    pyjson::{self, MAX_DEPTH, Scanner},
};

/// A task or group by its id, with what came before it and, for a group, with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultTuple {
    /// The id of the task or group.
    pub id: TaskId,
    /// What ran before it in the workflow.
    pub parent: Option<Box<ResultTuple>>,
    /// The members of a group; `None` for a task.
    pub members: Option<Vec<ResultTuple>>,
}

/// Why JSON is not a result tuple.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a result tuple: {0}")]
pub struct TupleError(String);

impl ResultTuple {
    /// One task.
    pub fn task(id: TaskId) -> Self {
        Self { id, parent: None, members: None }
    }

    /// A group.
    pub fn group(id: GroupId, members: Vec<ResultTuple>) -> Self {
        Self { id: id.into(), parent: None, members: Some(members) }
    }

    /// With what ran before.
    #[must_use]
    pub fn after(mut self, parent: ResultTuple) -> Self {
        self.parent = Some(Box::new(parent));
        self
    }

    /// With `before` as what ran before the first of what is here.
    #[must_use]
    pub fn behind(mut self, before: ResultTuple) -> Self {
        let mut node = &mut self.parent;
        while let Some(parent) = node {
            node = &mut parent.parent;
        }
        *node = Some(Box::new(before));
        self
    }

    /// Appends the JSON form to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"[[");
        pyjson::write_str(out, self.id.as_str());
        out.extend_from_slice(b", ");
        match &self.parent {
            Some(parent) => parent.write(out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"], ");
        match &self.members {
            Some(members) => write_list(out, members),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b']');
    }

    /// Reads the JSON form. An id alone, or `[id, members]`, which old versions wrote, is read too.
    ///
    /// # Errors
    /// It is something else, or an id in it is not one.
    pub fn from_json(text: &str) -> Result<Self, TupleError> {
        let mut scanner = Scanner::new(text.as_bytes(), MAX_DEPTH)?;
        let tuple = Self::scan(&mut scanner, MAX_DEPTH)?;
        scanner.end()?;
        Ok(tuple)
    }

    fn scan(scanner: &mut Scanner<'_>, depth: usize) -> Result<Self, TupleError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(TupleError("nested too deeply".to_owned()));
        };
        if scanner.peek() == Some(b'"') {
            return Ok(Self::task(id(scanner)?));
        }
        scanner.expect(b'[', "a list")?;
        let (id, parent) = if scanner.peek() == Some(b'[') {
            scanner.expect(b'[', "a list")?;
            let id = id(scanner)?;
            scanner.expect(b',', "the parent")?;
            let parent = if scanner.peek() == Some(b'n') {
                scanner.value()?;
                None
            } else {
                Some(Box::new(Self::scan(scanner, depth)?))
            };
            scanner.expect(b']', "the end of a list")?;
            (id, parent)
        } else {
            (id(scanner)?, None)
        };
        scanner.expect(b',', "the members")?;
        let members = if scanner.peek() == Some(b'[') {
            let mut array = scanner.array()?;
            let mut members = Vec::new();
            while scanner.next_element(&mut array)? {
                members.push(Self::scan(scanner, depth)?);
            }
            Some(members)
        } else if scanner.value()? == "null" {
            None
        } else {
            return Err(TupleError("the members are not a list".to_owned()));
        };
        scanner.expect(b']', "the end of a list")?;
        Ok(Self { id, parent, members })
    }
}

/// Appends a JSON array of tuples to `out`.
pub(super) fn write_list(out: &mut Vec<u8>, tuples: &[ResultTuple]) {
    out.push(b'[');
    for (index, tuple) in tuples.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        tuple.write(out);
    }
    out.push(b']');
}

fn id(scanner: &mut Scanner<'_>) -> Result<TaskId, TupleError> {
    let text = scanner.value()?;
    pyjson::from_str(text).map_err(|_| TupleError("an id that is not one".to_owned()))
}

impl From<pyjson::Error> for TupleError {
    fn from(err: pyjson::Error) -> Self {
        Self(err.to_string())
    }
}

impl Serialize for ResultTuple {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::with_capacity(64);
        self.write(&mut out);
        let text = String::from_utf8(out).unwrap_or_else(|_| "null".to_owned());
        pyjson::raw_owned(text).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ResultTuple {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        Self::from_json(raw.get()).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_round_trip() {
        for text in [
            r#"[["a", null], null]"#,
            r#"[["g", null], [[["a", null], null], [["b", null], null]]]"#,
            r#"[["c", [["b", [["a", null], null]], null]], [[["d", null], null]]]"#,
            r#"[["g", null], []]"#,
        ] {
            let tuple = ResultTuple::from_json(text).unwrap();
            assert_eq!(pyjson::to_string(&tuple).unwrap(), text);
        }
        assert_eq!(
            ResultTuple::from_json("\"a\"").unwrap(),
            ResultTuple::from_json(r#"["a", null]"#).unwrap()
        );
        for bad in [
            "[]",
            "[[1, null], null]",
            "null",
            "[[\"a\"], null]",
            "[[\"a\", null], 1]",
            "[[\"a/b\", null], null]",
        ] {
            assert!(ResultTuple::from_json(bad).is_err(), "{bad}");
        }
    }
}
