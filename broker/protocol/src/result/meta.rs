//! The record of a task in the result backend, in Celery's order of keys.
//!
//! Writing is one pass into a `Vec`; reading is tolerant, since any version of Celery may have written it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{RemoteException, ResultTuple, TaskState, tuple};
use crate::{
    GroupId, Limits, RawArgs, RawKwargs, RawMap, TaskId, WireTime, content,
    pyjson::{self, MAX_DEPTH, Scanner, null, raw_owned, write_str},
};

/// What stands before a compressed value, the method, another zero byte and the data.
const COMPRESSED: &[u8] = b"\x00celery-compressed\x00";

/// What the backend keeps of a task.
#[derive(Debug, Clone)]
pub struct ResultMeta {
    /// The task.
    pub task_id: TaskId,
    /// Its state.
    pub status: TaskState,
    /// SUCCESS: the value. FAILURE, RETRY, REVOKED: an exception. STARTED: `{pid, hostname}`. Custom: anything.
    pub result: Box<RawValue>,
    /// Traceback as text.
    pub traceback: Option<String>,
    /// What the task has sent; `None` if the writer did not know.
    pub children: Option<Vec<ResultTuple>>,
    /// When it was done; set in ready states only.
    pub date_done: Option<WireTime>,
    /// The group that it is a member of.
    pub group_id: Option<GroupId>,
    /// The task that sent it.
    pub parent_id: Option<TaskId>,
    /// More about the call, with `result_extended`.
    pub extended: Option<Extended>,
    /// Stamps, and whatever else the record has.
    pub extra: RawMap,
}

/// What `result_extended` adds. Each part is `null` where the writer did not know it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extended {
    /// The task's name.
    pub name: Option<String>,
    /// Positional arguments.
    pub args: Option<RawArgs>,
    /// Keyword arguments.
    pub kwargs: Option<RawKwargs>,
    /// The node that ran it.
    pub worker: Option<String>,
    /// How often it was retried before.
    pub retries: Option<u32>,
    /// The routing key that it was delivered with.
    pub queue: Option<String>,
}

/// Why bytes in the backend are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a task's record: {0}")]
pub struct MetaError(String);

impl ResultMeta {
    /// A record with nothing but state and result.
    pub fn new(task_id: TaskId, status: TaskState, result: Box<RawValue>) -> Self {
        Self {
            task_id,
            status,
            result,
            traceback: None,
            children: None,
            date_done: None,
            group_id: None,
            parent_id: None,
            extended: None,
            extra: RawMap::new(),
        }
    }

    /// What a missing record means.
    pub fn pending(task_id: TaskId) -> Self {
        Self::new(task_id, TaskState::Pending, null())
    }

    /// The record of a value.
    pub fn success(task_id: TaskId, result: Box<RawValue>, done: WireTime) -> Self {
        Self {
            children: Some(Vec::new()),
            date_done: Some(done),
            ..Self::new(task_id, TaskState::Success, result)
        }
    }

    /// The record of an exception.
    pub fn failure(
        task_id: TaskId,
        exception: &RemoteException,
        traceback: Option<String>,
        done: WireTime,
    ) -> Self {
        Self {
            traceback,
            children: Some(Vec::new()),
            date_done: Some(done),
            ..Self::new(task_id, TaskState::Failure, exception.to_raw())
        }
    }

    /// The exception, if the state has one and the result is one.
    pub fn exception(&self) -> Option<RemoteException> {
        if self.status.is_exception() { RemoteException::from_raw(&self.result).ok() } else { None }
    }

    /// The bytes that Celery stores.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.result.get().len());
        self.write(&mut out);
        out
    }

    /// Appends the bytes that Celery stores to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"status\": ");
        write_str(out, self.status.as_str());
        out.extend_from_slice(b", \"result\": ");
        out.extend_from_slice(self.result.get().as_bytes());
        out.extend_from_slice(b", \"traceback\": ");
        write_option(out, self.traceback.as_deref());
        out.extend_from_slice(b", \"children\": ");
        match &self.children {
            Some(children) => tuple::write_list(out, children),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b", \"date_done\": ");
        match self.date_done {
            Some(done) => {
                out.push(b'"');
                out.extend_from_slice(done.text().as_slice());
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        if let Some(group) = &self.group_id {
            out.extend_from_slice(b", \"group_id\": ");
            write_str(out, group.as_str());
        }
        if let Some(parent) = &self.parent_id {
            out.extend_from_slice(b", \"parent_id\": ");
            write_str(out, parent.as_str());
        }
        if let Some(extended) = &self.extended {
            extended.write(out);
        }
        self.extra.write_pairs(out, false);
        out.extend_from_slice(b", \"task_id\": ");
        write_str(out, self.task_id.as_str());
        out.push(b'}');
    }

    /// Reads a record, also a compressed one (`result_compression`). `status`, `result` and `task_id` must be there, as Celery's own client demands.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let bytes = unpack(bytes)?;
        let mut scanner = Scanner::new(&bytes, MAX_DEPTH)?;
        let mut object = scanner.object()?;
        let (mut task_id, mut status, mut result) = (None, None, None);
        let (mut traceback, mut children, mut date_done) = (None, None, None);
        let (mut group_id, mut parent_id, mut extra) = (None, None, RawMap::new());
        let (mut extended, mut is_extended) = (Extended::default(), false);
        while let Some(key) = scanner.next_key(&mut object)? {
            let value = scanner.value()?;
            let set = value != "null";
            match &*key {
                "task_id" => task_id = Some(read::<TaskId>("task_id", value)?),
                "status" => status = Some(TaskState::from(&*read::<String>("status", value)?)),
                "result" => result = Some(raw_owned(value.to_owned())),
                "traceback" if set => traceback = Some(text(value)),
                "children" if set => children = Some(read("children", value)?),
                "date_done" if set => date_done = pyjson::from_str(value).ok(),
                "group_id" if set => group_id = Some(read("group_id", value)?),
                "parent_id" if set => parent_id = Some(read("parent_id", value)?),
                "traceback" | "children" | "date_done" | "group_id" | "parent_id" => {}
                "name" | "args" | "kwargs" | "worker" | "retries" | "queue" => {
                    is_extended = true;
                    match &*key {
                        _ if !set => {}
                        "name" => extended.name = Some(text(value)),
                        "args" => extended.args = pyjson::from_str(value).ok(),
                        "kwargs" => extended.kwargs = pyjson::from_str(value).ok(),
                        "worker" => extended.worker = Some(text(value)),
                        "retries" => extended.retries = pyjson::from_str(value).ok(),
                        _ => extended.queue = Some(text(value)),
                    }
                }
                _ => extra.insert_raw(key.into_owned(), raw_owned(value.to_owned())),
            }
        }
        scanner.end()?;
        let missing = |name: &str| MetaError(format!("no {name}"));
        Ok(Self {
            task_id: task_id.ok_or_else(|| missing("task_id"))?,
            status: status.ok_or_else(|| missing("status"))?,
            result: result.ok_or_else(|| missing("result"))?,
            traceback,
            children,
            date_done,
            group_id,
            parent_id,
            extended: is_extended.then_some(extended),
            extra,
        })
    }
}

/// The JSON of a value in the backend: itself, or what it unpacks to if it is marked as compressed.
///
/// # Errors
/// It is packed in a way that has no reader here, or breaks a limit.
pub fn unpack(stored: &[u8]) -> Result<Cow<'_, [u8]>, MetaError> {
    let Some(packed) = stored.strip_prefix(COMPRESSED) else {
        return Ok(stored.into());
    };
    let end = packed.iter().position(|byte| *byte == 0).filter(|end| *end <= 64);
    let method = end.and_then(|end| std::str::from_utf8(&packed[..end]).ok());
    match (method, end) {
        (Some(method), Some(end)) => content::decompress(method, &packed[end + 1..], &Limits::DEFAULT)
            .map(Cow::Owned)
            .map_err(|(reason, detail)| MetaError(format!("{reason}: {detail}"))),
        _ => Err(MetaError("marked as compressed, without a method".to_owned())),
    }
}

impl Extended {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b", \"name\": ");
        write_option(out, self.name.as_deref());
        out.extend_from_slice(b", \"args\": ");
        match &self.args {
            Some(args) => args.write(out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b", \"kwargs\": ");
        match &self.kwargs {
            Some(kwargs) => kwargs.write(out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b", \"worker\": ");
        write_option(out, self.worker.as_deref());
        out.extend_from_slice(b", \"retries\": ");
        match self.retries {
            Some(retries) => out.extend_from_slice(retries.to_string().as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b", \"queue\": ");
        write_option(out, self.queue.as_deref());
    }
}

impl PartialEq for ResultMeta {
    /// Equal if the encoded bytes are.
    fn eq(&self, other: &Self) -> bool {
        self.encode() == other.encode()
    }
}

impl From<pyjson::Error> for MetaError {
    fn from(err: pyjson::Error) -> Self {
        Self(err.to_string())
    }
}

fn read<T: serde::de::DeserializeOwned>(name: &str, value: &str) -> Result<T, MetaError> {
    pyjson::from_str(value).map_err(|err| MetaError(format!("{name}: {err}")))
}

/// A text, or the JSON of what should have been one.
fn text(value: &str) -> String {
    pyjson::from_str(value).unwrap_or_else(|_| value.to_owned())
}

fn write_option(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_str(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_byte_for_byte() {
        for text in [
            r#"{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": "2026-11-24T02:18:04.340421+00:00", "task_id": "a"}"#,
            r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["boom", 1], "exc_module": "builtins"}, "traceback": "x\n", "children": null, "date_done": "2026-11-24T02:18:04+00:00", "group_id": "g", "parent_id": "p", "name": "t", "args": [1, 2], "kwargs": {"a": NaN}, "worker": "w@h", "retries": 0, "queue": null, "stamped_headers": ["s"], "s": 42, "task_id": "a"}"#,
            r#"{"status": "PROGRESS", "result": {"done": 1}, "traceback": null, "children": [[["b", null], null]], "date_done": null, "task_id": "a"}"#,
        ] {
            let meta = ResultMeta::decode(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(meta.encode()).unwrap(), text);
        }
    }

    #[test]
    fn only_three_keys_are_needed() {
        let meta = ResultMeta::decode(br#"{"task_id":"a","result":null,"status":"SUCCESS"}"#).unwrap();
        assert_eq!((meta.children, meta.date_done), (None, None));
        for bad in [
            "",
            "[]",
            r#"{"task_id": "a", "result": 1}"#,
            r#"{"task_id": "a", "status": "SUCCESS"}"#,
            r#"{"result": 1, "status": "SUCCESS"}"#,
            r#"{"task_id": 1, "result": 1, "status": "SUCCESS"}"#,
            r#"{"task_id": "a", "result": 1, "status": "SUCCESS", "children": 1}"#,
        ] {
            assert!(ResultMeta::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn compressed_records_are_read() {
        let json = br#"{"status": "SUCCESS", "result": 1, "task_id": "a"}"#;
        let packed = [
            b"\x00celery-compressed\x00application/x-gzip\x00",
            &*content::compress(content::Compression::Zlib, json).unwrap(),
        ]
        .concat();
        assert_eq!(ResultMeta::decode(&packed).unwrap(), ResultMeta::decode(json).unwrap());
        for bad in [
            &b"\x00celery-compressed\x00"[..],
            b"\x00celery-compressed\x00rar\x00x",
            &packed[..packed.len() - 8],
        ] {
            assert!(ResultMeta::decode(bad).is_err());
        }
    }

    #[test]
    fn a_failure_has_an_exception() {
        let done = WireTime::from_unix_micros(0).unwrap();
        let id = TaskId::parse("a").unwrap();
        let meta = ResultMeta::failure(id.clone(), &RemoteException::builtin("KeyError", "k"), None, done);
        assert_eq!(meta.exception().unwrap().repr(), "KeyError('k')");
        assert!(ResultMeta::success(id, null(), done).exception().is_none());
    }
}
