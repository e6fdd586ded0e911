//! Identifiers and names as newtypes: what has passed `parse` is safe to log, to use as a Redis key and to put on the wire.
//!
//! Ids are strings and not `Uuid`, because Celery lets a caller choose any task id. All of them are cheap to clone
//! (`Arc<str>`), and all of them validate when deserialised.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The longest id that is accepted, in bytes.
pub const MAX_ID: usize = 200;
/// The longest task, queue or node name that is accepted, in bytes.
pub const MAX_NAME: usize = 255;

/// Why a text is not an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct IdError {
    what: &'static str,
    problem: &'static str,
}

/// What `parse` demands of one kind of identifier: `Ok` or the problem in words.
type Check = fn(&str) -> Result<(), &'static str>;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates `text`.
            ///
            /// # Errors
            /// Says in words which rule of this kind of name the text breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                Self::check(&text.into())
            }

            fn check(text: &str) -> Result<Self, IdError> {
                const CHECK: Check = $check;
                match CHECK(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(problem) => Err(IdError { what: $what, problem }),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::check(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;

            fn try_from(text: &str) -> Result<Self, IdError> {
                Self::check(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::check(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

macro_rules! from_uuid {
    ($($name:ident),*) => {
        $(impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                let mut buffer = Uuid::encode_buffer();
                Self(Arc::from(&*uuid.hyphenated().encode_lower(&mut buffer)))
            }
        })*
    };
}

identifier!(
    /// Identifies one task call: 1 to 200 characters of `A-Z a-z 0-9 . _ ~ : @ + -`.
    TaskId,
    "task id",
    check_id
);
identifier!(
    /// Identifies a group of calls; also the key of a chord. Same characters as a [`TaskId`].
    GroupId,
    "group id",
    check_id
);
identifier!(
    /// Ties the replies of a remote control command to its request. Same characters as a [`TaskId`].
    Ticket,
    "ticket",
    check_id
);
identifier!(
    /// The registered name of a task, `module.function` by custom: 1 to 255 bytes without control characters.
    TaskName,
    "task name",
    check_name
);
identifier!(
    /// The name of an AMQP queue: 1 to 255 bytes, no control characters, not in the broker's own `amq.` space.
    QueueName,
    "queue name",
    check_queue
);
identifier!(
    /// The name of a worker, `name@host`: 1 to 255 bytes without control characters.
    Nodename,
    "node name",
    check_name
);

from_uuid!(TaskId, GroupId, Ticket);

impl TaskName {
    /// One of Celery's own tasks: `celery.<name>`.
    #[must_use]
    pub fn builtin(name: &'static str) -> Self {
        Self(format!("celery.{name}").into())
    }

    /// What Python would call the function: the part behind the last dot.
    pub fn function(&self) -> &str {
        function_name(&self.0)
    }
}

/// The part of a task name behind its last dot.
pub(crate) fn function_name(task: &str) -> &str {
    task.rsplit('.').next().unwrap_or(task)
}

impl From<TaskId> for GroupId {
    /// A group that is run takes the id that its signature was frozen with; both have the same rules.
    fn from(id: TaskId) -> Self {
        Self(id.0)
    }
}

impl From<GroupId> for TaskId {
    /// A frozen group keeps its id under the option `task_id`; both have the same rules.
    fn from(id: GroupId) -> Self {
        Self(id.0)
    }
}

fn check_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > MAX_ID {
        return Err("is longer than 200 characters");
    }
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:@+-".contains(&byte);
    if !text.bytes().all(fine) {
        return Err("has a character other than A-Z a-z 0-9 . _ ~ : @ + -");
    }
    Ok(())
}

fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > MAX_NAME {
        return Err("is longer than 255 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character");
    }
    Ok(())
}

fn check_queue(text: &str) -> Result<(), &'static str> {
    check_name(text)?;
    if text.starts_with("amq.") {
        return Err("starts with \"amq.\", which the broker keeps for itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_what_redis_and_logs_can_carry() {
        for good in ["a", "8a58afff-0000-4000-8000-000000000000", "order:1@eu+x~y_z.2", &"x".repeat(200)] {
            assert_eq!(TaskId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", " ", "../../etc/passwd", "a b", "a*", "a\r\n", "é", &"x".repeat(201)] {
            assert!(TaskId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_exclude_control_characters_and_excess() {
        assert_eq!(TaskName::parse("a.b.add").unwrap().function(), "add");
        assert_eq!(TaskName::parse("add").unwrap().function(), "add");
        assert!(TaskName::parse("größe <script>").is_ok());
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(TaskName::parse(bad).is_err());
        }
        assert!(QueueName::parse("amq.gen-1").is_err());
        assert!(QueueName::parse("amqp").is_ok());
    }

    #[test]
    fn deserialising_validates() {
        assert!(serde_json::from_str::<TaskId>("\"a/b\"").is_err());
        assert!(serde_json::from_str::<TaskId>("1").is_err());
        let id: TaskId = Uuid::nil().into();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00000000-0000-0000-0000-000000000000\"");
        assert_eq!(
            TaskId::parse("a/b").unwrap_err().to_string(),
            "task id has a character other than A-Z a-z 0-9 . _ ~ : @ + -"
        );
    }
}
