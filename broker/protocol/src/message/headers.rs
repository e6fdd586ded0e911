//! The headers of protocol 2: the one list of them, with both directions.
//!
//! What decides about the run is strict: a wrong type or an impossible value refuses the message. What is only shown
//! (`argsrepr`, `origin`, `shadow`, …) is coerced to text, and unknown headers are kept as they are.

use std::{borrow::Cow, time::Duration};

use serde_json::{Map, Number, Value};

use super::{HeaderMap, Malformed, Reason};
use crate::{GroupId, TaskId, TaskName, WireTime};

/// Longer representations of arguments are cut to [`REPR`] characters; Celery's own go slightly beyond 1,024.
const REPR_TOLERATED: usize = 2048;
const REPR: usize = 1024;
/// The longest other display text that is kept, in characters.
const DISPLAY: usize = 1024;

/// After how long a run is told to stop, and after how long it is stopped. On the wire `[hard, soft]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// The run is ended. `None`: the task's own limit.
    pub hard: Option<Duration>,
    /// The run is asked to end. `None`: the task's own limit.
    pub soft: Option<Duration>,
}

/// The headers of a task message of protocol 2.
#[derive(Debug, Clone, PartialEq)]
pub struct Headers {
    /// The language of the sender; informational. Celery sends `py`.
    pub lang: Cow<'static, str>,
    /// The task to run.
    pub task: TaskName,
    /// The id of this call; a retry keeps it.
    pub id: TaskId,
    /// A name to show instead of `task`. Never used to look anything up.
    pub shadow: Option<String>,
    /// Not to be run before.
    pub eta: Option<WireTime>,
    /// Not to be run after.
    pub expires: Option<WireTime>,
    /// The group, or chord, that this call is a member of; on a chord's body the id of the chord.
    pub group: Option<GroupId>,
    /// Position in the group.
    pub group_index: Option<u32>,
    /// How often it was retried already.
    pub retries: u32,
    /// Limits that override the task's own.
    pub time_limits: TimeLimits,
    /// The first call of the workflow.
    pub root_id: Option<TaskId>,
    /// The call that sent this one; a retry names itself.
    pub parent_id: Option<TaskId>,
    /// Python's representation of the positional arguments, shortened; for display.
    pub argsrepr: Option<String>,
    /// Python's representation of the keyword arguments, shortened; for display.
    pub kwargsrepr: Option<String>,
    /// The node that sent the first version of this message.
    pub origin: Option<String>,
    /// `None`: the task's own setting holds.
    pub ignore_result: Option<bool>,
    /// How many `replace` calls led here.
    pub replaced_task_nesting: u32,
    /// The names in `stamps` that are stamps.
    pub stamped_headers: Option<Vec<String>>,
    /// Stamps by name.
    pub stamps: HeaderMap,
    /// How the body is compressed, as a MIME type; the header is left out without.
    pub compression: Option<String>,
    /// Headers that this crate does not model; they are sent again unchanged.
    pub extra: HeaderMap,
}

impl Headers {
    /// The headers of protocol 2.
    pub const NAMES: [&str; 20] = [
        "lang",
        "task",
        "id",
        "shadow",
        "eta",
        "expires",
        "group",
        "group_index",
        "retries",
        "timelimit",
        "root_id",
        "parent_id",
        "argsrepr",
        "kwargsrepr",
        "origin",
        "ignore_result",
        "replaced_task_nesting",
        "stamped_headers",
        "stamps",
        "compression",
    ];

    /// The headers of a new call.
    pub fn new(task: TaskName, id: TaskId) -> Self {
        Self {
            lang: Cow::Borrowed("rust"),
            task,
            id,
            shadow: None,
            eta: None,
            expires: None,
            group: None,
            group_index: None,
            retries: 0,
            time_limits: TimeLimits::default(),
            root_id: None,
            parent_id: None,
            argsrepr: None,
            kwargsrepr: None,
            origin: None,
            ignore_result: None,
            replaced_task_nesting: 0,
            stamped_headers: None,
            stamps: Map::new(),
            compression: None,
            extra: Map::new(),
        }
    }

    /// The name to show: `shadow` if set, else `task`.
    pub fn display_name(&self) -> &str {
        self.shadow.as_deref().filter(|shadow| !shadow.is_empty()).unwrap_or(self.task.as_str())
    }

    /// The root of the workflow: `root_id`, or this call itself.
    pub fn root(&self) -> &TaskId {
        self.root_id.as_ref().unwrap_or(&self.id)
    }

    /// The unknown headers without those that RabbitMQ adds when it dead-letters (`x-death`, `x-first-death-…`,
    /// `x-last-death-…`). Sent again with them, the broker would take the message for one that runs in circles.
    pub fn extra_to_resend(&self) -> HeaderMap {
        let own = |name: &str| {
            !["x-death", "x-first-death-", "x-last-death-"].iter().any(|death| name.starts_with(death))
        };
        self.extra
            .iter()
            .filter(|(name, _)| own(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Reads a table of headers, taking its texts over without copying.
    ///
    /// # Errors
    /// The first header (in the table's order) that is not what it must be.
    pub fn from_map(map: HeaderMap) -> Result<Self, Malformed> {
        let bad_id = "the id is missing, not text, or not one that is taken";
        let bad_task = "the task name is missing, not text, empty, too long, or has control characters";
        let text = |name: &str| map.get(name).and_then(Value::as_str);
        let Some(id) = text("id").and_then(|id| id.parse().ok()) else {
            return Err(Malformed::of(&map, Reason::BadId, bad_id));
        };
        let Some(task) = text("task").and_then(|task| task.parse().ok()) else {
            return Err(Malformed::of(&map, Reason::BadTaskName, bad_task));
        };
        let mut reader = Reader::default();
        let mut headers = Headers { lang: Cow::Borrowed("py"), ..Headers::new(task, id) };
        for (name, value) in map {
            match name.as_str() {
                "lang" => headers.lang = language(value),
                "task" | "id" => {}
                "shadow" => headers.shadow = display(value, DISPLAY, DISPLAY),
                "eta" => headers.eta = reader.time(value, Reason::InvalidEta, "eta"),
                "expires" => headers.expires = reader.time(value, Reason::InvalidExpires, "expires"),
                "group" => headers.group = reader.id(value, "group").map(GroupId::from),
                "group_index" => headers.group_index = reader.count(&value, "group_index"),
                "retries" => headers.retries = reader.count(&value, "retries").unwrap_or(0),
                "timelimit" => headers.time_limits = reader.limits(&value),
                "root_id" => headers.root_id = reader.id(value, "root_id"),
                "parent_id" => headers.parent_id = reader.id(value, "parent_id"),
                "argsrepr" => headers.argsrepr = display(value, REPR_TOLERATED, REPR),
                "kwargsrepr" => headers.kwargsrepr = display(value, REPR_TOLERATED, REPR),
                "origin" => headers.origin = display(value, DISPLAY, DISPLAY),
                "ignore_result" => headers.ignore_result = reader.flag(&value, "ignore_result"),
                "replaced_task_nesting" => {
                    headers.replaced_task_nesting =
                        reader.count(&value, "replaced_task_nesting").unwrap_or(0);
                }
                "stamped_headers" => headers.stamped_headers = names(value),
                "stamps" => {
                    headers.stamps = if let Value::Object(stamps) = value { stamps } else { Map::new() }
                }
                "compression" => headers.compression = reader.compression(value),
                _ => {
                    headers.extra.insert(name, value);
                }
            }
        }
        match reader.fault {
            None => Ok(headers),
            Some((reason, detail)) => Err(Malformed::new(reason, detail).naming(&headers)),
        }
    }

    /// The table: all 19 headers of protocol 2, `compression` if set, and the unknown ones.
    pub fn to_map(&self) -> HeaderMap {
        self.clone().into_map()
    }

    /// As [`to_map`](Self::to_map), without copying texts.
    pub fn into_map(self) -> HeaderMap {
        let mut map = self.extra;
        let mut set = |name: &str, value: Value| map.insert(name.to_owned(), value);
        set("lang", Value::String(self.lang.into_owned()));
        set("task", text(self.task.as_str()));
        set("id", text(self.id.as_str()));
        set("shadow", optional(self.shadow));
        set("eta", optional(self.eta.map(WireTime::isoformat)));
        set("expires", optional(self.expires.map(WireTime::isoformat)));
        set("group", self.group.as_ref().map_or(Value::Null, |id| text(id.as_str())));
        set("group_index", self.group_index.map_or(Value::Null, Value::from));
        set("retries", Value::from(self.retries));
        set("timelimit", Value::Array(vec![seconds(self.time_limits.hard), seconds(self.time_limits.soft)]));
        set("root_id", self.root_id.as_ref().map_or(Value::Null, |id| text(id.as_str())));
        set("parent_id", self.parent_id.as_ref().map_or(Value::Null, |id| text(id.as_str())));
        set("argsrepr", optional(self.argsrepr));
        set("kwargsrepr", optional(self.kwargsrepr));
        set("origin", optional(self.origin));
        set("ignore_result", self.ignore_result.map_or(Value::Null, Value::Bool));
        set("replaced_task_nesting", Value::from(self.replaced_task_nesting));
        let names = |names: Vec<String>| names.into_iter().map(Value::String).collect();
        set("stamped_headers", self.stamped_headers.map_or(Value::Null, names));
        set("stamps", Value::Object(self.stamps));
        if let Some(compression) = self.compression {
            set("compression", Value::String(compression));
        }
        map
    }
}

/// Reads header values and remembers the first fault.
#[derive(Default)]
struct Reader {
    fault: Option<(Reason, String)>,
}

impl Reader {
    fn refuse(&mut self, reason: Reason, detail: impl Into<String>) {
        self.fault.get_or_insert_with(|| (reason, detail.into()));
    }

    fn time(&mut self, value: Value, reason: Reason, name: &str) -> Option<WireTime> {
        match value {
            Value::Null => None,
            Value::String(text) => {
                let time = WireTime::parse(&text).ok();
                if time.is_none() {
                    let shown: String = text
                        .chars()
                        .take(64)
                        .map(|char| if char.is_control() { '?' } else { char })
                        .collect();
                    self.refuse(reason, format!("{name} {shown:?} is not a time"));
                }
                time
            }
            _ => {
                self.refuse(reason, format!("{name} is not text"));
                None
            }
        }
    }

    fn id(&mut self, value: Value, name: &str) -> Option<TaskId> {
        match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => {
                let id = text.parse::<TaskId>();
                if let Err(err) = &id {
                    self.refuse(Reason::BadHeader, format!("{name}: {err}"));
                }
                id.ok()
            }
            _ => {
                self.refuse(Reason::BadHeader, format!("{name} is not text"));
                None
            }
        }
    }

    fn count(&mut self, value: &Value, name: &str) -> Option<u32> {
        if value.is_null() {
            return None;
        }
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            self.refuse(Reason::BadHeader, format!("{name} is not a whole number from 0 to {}", u32::MAX));
        }
        count
    }

    fn flag(&mut self, value: &Value, name: &str) -> Option<bool> {
        if value.is_null() {
            return None;
        }
        if !value.is_boolean() {
            self.refuse(Reason::BadHeader, format!("{name} is not true, false or null"));
        }
        value.as_bool()
    }

    /// `[hard, soft]` in seconds; a limit that is not positive is none.
    fn limits(&mut self, value: &Value) -> TimeLimits {
        let limits = match value {
            Value::Null => Some(TimeLimits::default()),
            Value::Array(pair) => match pair.as_slice() {
                [hard, soft] => {
                    duration(hard).zip(duration(soft)).map(|(hard, soft)| TimeLimits { hard, soft })
                }
                _ => None,
            },
            _ => None,
        };
        if limits.is_none() {
            self.refuse(Reason::BadHeader, "timelimit is not a pair of seconds");
        }
        limits.unwrap_or_default()
    }

    fn compression(&mut self, value: Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text),
            _ => {
                self.refuse(Reason::UnknownCompression, "compression is not text");
                None
            }
        }
    }
}

/// Seconds as a duration: the outer `None` is a value that is not a number, the inner one no limit.
fn duration(value: &Value) -> Option<Option<Duration>> {
    if value.is_null() {
        return Some(None);
    }
    let seconds = value.as_f64()?;
    // more than 30 years is no limit, and a duration that clocks can't add
    Some((seconds > 0.0 && seconds < 1e9).then(|| Duration::from_secs_f64(seconds)))
}

/// A duration in seconds as Python would hold it: whole seconds are an integer.
fn seconds(limit: Option<Duration>) -> Value {
    match limit {
        None => Value::Null,
        Some(limit) if limit.subsec_nanos() == 0 => Value::from(limit.as_secs()),
        Some(limit) => Number::from_f64(limit.as_secs_f64()).map_or(Value::Null, Value::Number),
    }
}

fn language(value: Value) -> Cow<'static, str> {
    match display(value, DISPLAY, DISPLAY) {
        Some(lang) if lang == "py" => Cow::Borrowed("py"),
        Some(lang) => Cow::Owned(lang),
        None => Cow::Borrowed("py"),
    }
}

/// A text that is only shown: anything becomes text, and what is longer than `tolerated` is cut to `kept` characters.
fn display(value: Value, tolerated: usize, kept: usize) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text,
        other => other.to_string(),
    };
    if text.len() <= tolerated { Some(text) } else { Some(text.chars().take(kept).collect()) }
}

/// The names of stamps; anything but a list of texts is none.
fn names(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    items.into_iter().map(|item| if let Value::String(name) = item { Some(name) } else { None }).collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn optional(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::String)
}
