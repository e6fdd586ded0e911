//! Options of one call, and what they come to.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Serializer, TaskOptions};
use crate::{
    GroupId, HeaderMap, QueueName, RawMap, Signature, SignatureError, SignatureOptions, TaskId, TimeLimits,
    WireTime, content::Compression,
};

/// When a call is no longer to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// This long after it is sent.
    After(Duration),
    /// At this moment.
    At(WireTime),
}

/// What a call, or a signature, says about how to send it. `None` leaves it to the next place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SendOptions {
    /// The id of the call. Default: a random one.
    pub task_id: Option<TaskId>,
    /// The queue. Default: as routes say.
    pub queue: Option<QueueName>,
    /// The exchange. Default: that of the queue.
    pub exchange: Option<String>,
    /// The routing key. Default: that of the queue.
    pub routing_key: Option<String>,
    /// Priority, higher is more urgent. Default: none.
    pub priority: Option<u8>,
    /// How long not to run it; wins over `eta`. Default: run at once.
    pub countdown: Option<Duration>,
    /// Until when not to run it. Default: run at once.
    pub eta: Option<WireTime>,
    /// When it is no longer to be run. Default: never.
    pub expires: Option<Expiry>,
    /// After how long the run is ended. Default: as the task says.
    pub time_limit: Option<Duration>,
    /// After how long the run is asked to end. Default: as the task says.
    pub soft_time_limit: Option<Duration>,
    /// Whether the result is thrown away. Default: as the task says.
    pub ignore_result: Option<bool>,
    /// How the call is written. Default: JSON.
    pub serializer: Option<Serializer>,
    /// How the body is packed. Default: not at all.
    pub compression: Option<Compression>,
    /// Headers of the caller's own.
    pub headers: HeaderMap,
    /// A name to show instead of the task's. Default: none.
    pub shadow: Option<String>,
    /// Queue for the result, with the RPC backend. Default: none.
    pub reply_to: Option<String>,
    /// 1: lost when the broker restarts; 2: kept. Default: 2.
    pub delivery_mode: Option<u8>,
    /// The first call of the workflow. Default: this one.
    pub root_id: Option<TaskId>,
    /// The call that sends this one. Default: none.
    pub parent_id: Option<TaskId>,
    /// The group that it is a member of. Default: none.
    pub group_id: Option<GroupId>,
    /// The position in the group. Default: none.
    pub group_index: Option<u32>,
    /// Called with the result. Default: nothing.
    pub link: Vec<Signature>,
    /// Called on failure. Default: nothing.
    pub link_error: Vec<Signature>,
    /// Remaining steps of the chain, last one first. Default: none.
    pub chain: Option<Vec<Signature>>,
    /// Body of the chord that it is a header member of. Default: none.
    pub chord: Option<Box<Signature>>,
    /// The names in `stamps`. Default: none.
    pub stamped_headers: Option<Vec<String>>,
    /// Stamps by name.
    pub stamps: HeaderMap,
    /// How often it was retried before. Default: 0.
    pub retries: Option<u32>,
    /// How many `replace` calls led to it. Default: 0.
    pub replaced_task_nesting: Option<u32>,
    /// Whether it becomes a child of the task that sends it. Default: yes.
    pub add_to_parent: Option<bool>,
}

/// Options for sending, all decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effective {
    /// Where to; each part that is `None` is for the routes to say.
    pub queue: Option<QueueName>,
    /// The exchange, if one was named.
    pub exchange: Option<String>,
    /// The routing key, if one was named.
    pub routing_key: Option<String>,
    /// Priority.
    pub priority: Option<u8>,
    /// Until when not to run it.
    pub eta: Option<WireTime>,
    /// When it is no longer to be run.
    pub expires: Option<WireTime>,
    /// Time until `expires` when it was decided; the broker is told so. Zero if it is past.
    pub expires_in: Option<Duration>,
    /// Limits of the run.
    pub time_limits: TimeLimits,
    /// Whether the result is thrown away; `None` leaves it to the worker.
    pub ignore_result: Option<bool>,
    /// How the call is written.
    pub serializer: Serializer,
    /// How the body is packed.
    pub compression: Option<Compression>,
    /// Everything else as the call said, or else the signature.
    pub rest: SendOptions,
}

impl SendOptions {
    /// Reads the options of a signature.
    ///
    /// # Errors
    /// A known option has a value that it can't have.
    pub fn from_signature(options: &SignatureOptions) -> Result<Self, SignatureError> {
        let stamped_headers = options.read::<Vec<String>>("stamped_headers")?;
        let mut stamps = Map::new();
        for name in stamped_headers.iter().flatten() {
            if let Some(value) = options.read::<Value>(name)? {
                stamps.insert(name.clone(), value);
            }
        }
        let compression = match options.read::<String>("compression")? {
            None => None,
            Some(name) => match Compression::parse(&name) {
                Some(compression) => Some(compression),
                None => return Err(SignatureError(format!("option compression: unknown method {name:?}"))),
            },
        };
        let serializer = match options.read::<String>("serializer")? {
            None => None,
            Some(name) => match Serializer::parse(&name) {
                Some(serializer) => Some(serializer),
                None => return Err(SignatureError(format!("option serializer: no writer for {name:?}"))),
            },
        };
        Ok(Self {
            task_id: options.task_id()?,
            queue: queue(options)?,
            exchange: options.read("exchange")?,
            routing_key: options.read("routing_key")?,
            priority: options.read("priority")?,
            countdown: seconds(options, "countdown")?,
            eta: options.read("eta")?,
            expires: expiry(options)?,
            time_limit: seconds(options, "time_limit")?,
            soft_time_limit: seconds(options, "soft_time_limit")?,
            ignore_result: options.read("ignore_result")?,
            serializer,
            compression,
            headers: options.read("headers")?.unwrap_or_default(),
            shadow: options.read("shadow")?,
            reply_to: options.read("reply_to")?,
            delivery_mode: delivery_mode(options)?,
            root_id: options.root_id()?,
            parent_id: options.read("parent_id")?,
            group_id: options.group_id()?,
            group_index: options.group_index()?,
            link: options.link()?,
            link_error: options.link_error()?,
            chain: options.chain()?,
            chord: options.chord()?.map(Box::new),
            stamped_headers,
            stamps,
            retries: options.read("retries")?,
            replaced_task_nesting: options.read("replaced_task_nesting")?,
            add_to_parent: options.read("add_to_parent")?,
        })
    }

    /// These options, and where they say nothing those of `signature`; but a group and stamps of the signature stay,
    /// as in Celery.
    #[must_use]
    pub fn over(self, signature: SendOptions) -> Self {
        let longer = |call: Vec<Signature>, own: Vec<Signature>| if call.is_empty() { own } else { call };
        let mut headers = signature.headers;
        headers.extend(self.headers);
        let mut stamps = self.stamps;
        stamps.extend(signature.stamps);
        Self {
            task_id: self.task_id.or(signature.task_id),
            queue: self.queue.or(signature.queue),
            exchange: self.exchange.or(signature.exchange),
            routing_key: self.routing_key.or(signature.routing_key),
            priority: self.priority.or(signature.priority),
            countdown: self.countdown.or(signature.countdown),
            eta: self.eta.or(signature.eta),
            expires: self.expires.or(signature.expires),
            time_limit: self.time_limit.or(signature.time_limit),
            soft_time_limit: self.soft_time_limit.or(signature.soft_time_limit),
            ignore_result: self.ignore_result.or(signature.ignore_result),
            serializer: self.serializer.or(signature.serializer),
            compression: self.compression.or(signature.compression),
            headers,
            shadow: self.shadow.or(signature.shadow),
            reply_to: self.reply_to.or(signature.reply_to),
            delivery_mode: self.delivery_mode.or(signature.delivery_mode),
            root_id: self.root_id.or(signature.root_id),
            parent_id: self.parent_id.or(signature.parent_id),
            group_id: signature.group_id.or(self.group_id),
            group_index: self.group_index.or(signature.group_index),
            link: longer(self.link, signature.link),
            link_error: longer(self.link_error, signature.link_error),
            chain: self.chain.or(signature.chain),
            chord: self.chord.or(signature.chord),
            stamped_headers: signature.stamped_headers.or(self.stamped_headers),
            stamps,
            retries: self.retries.or(signature.retries),
            replaced_task_nesting: self.replaced_task_nesting.or(signature.replaced_task_nesting),
            add_to_parent: self.add_to_parent.or(signature.add_to_parent),
        }
    }
}

/// Decides how a call is sent at the moment `now`: the call wins over its signature, the signature over the task, the
/// task over the app.
pub fn resolve(
    call: SendOptions,
    signature: SendOptions,
    task: &TaskOptions,
    app: &TaskOptions,
    now: WireTime,
) -> Effective {
    let rest = call.over(signature);
    let expires = rest.expires.or(task.expires.or(app.expires).map(Expiry::After));
    let expires = expires.and_then(|expiry| match expiry {
        Expiry::After(delay) => now.checked_add(delay),
        Expiry::At(moment) => Some(moment),
    });
    let default_queue = || task.queue.or(app.queue).and_then(|queue| QueueName::parse(queue).ok());
    let routed = rest.queue.is_some() || rest.exchange.is_some() || rest.routing_key.is_some();
    Effective {
        queue: rest.queue.clone().or_else(|| if routed { None } else { default_queue() }),
        exchange: rest.exchange.clone(),
        routing_key: rest.routing_key.clone(),
        priority: rest.priority.or(task.priority).or(app.priority),
        eta: match rest.countdown.filter(|delay| !delay.is_zero()) {
            Some(delay) => now.checked_add(delay),
            None => rest.eta,
        },
        expires,
        expires_in: expires.map(|moment| moment.duration_since(now).unwrap_or_default()),
        time_limits: TimeLimits {
            hard: rest.time_limit.or(task.time_limit).or(app.time_limit),
            soft: rest.soft_time_limit.or(task.soft_time_limit).or(app.soft_time_limit),
        },
        ignore_result: rest.ignore_result.or(task.ignore_result).or(app.ignore_result),
        serializer: rest.serializer.or(task.serializer).or(app.serializer).unwrap_or_default(),
        compression: rest.compression.or(task.compression).or(app.compression),
        rest,
    }
}

/// A number of seconds; a negative one is none left.
fn seconds(options: &SignatureOptions, name: &str) -> Result<Option<Duration>, SignatureError> {
    match options.read::<f64>(name)? {
        None => Ok(None),
        Some(seconds) => match Duration::try_from_secs_f64(seconds.max(0.0)) {
            Ok(duration) => Ok(Some(duration)),
            Err(err) => Err(SignatureError(format!("option {name}: {err}"))),
        },
    }
}

/// A number of seconds or a moment.
fn expiry(options: &SignatureOptions) -> Result<Option<Expiry>, SignatureError> {
    match options.get("expires") {
        Some(value) if value.get().starts_with('"') => Ok(options.read("expires")?.map(Expiry::At)),
        _ => Ok(seconds(options, "expires")?.map(Expiry::After)),
    }
}

/// The name of a queue, or an object that has one.
fn queue(options: &SignatureOptions) -> Result<Option<QueueName>, SignatureError> {
    match options.get("queue") {
        Some(value) if value.get().starts_with('{') => {
            let object = options.read::<RawMap>("queue")?.unwrap_or_default();
            SignatureOptions::from(object).read("name")
        }
        _ => options.read("queue"),
    }
}

/// 1 or 2, or Python's names for them.
fn delivery_mode(options: &SignatureOptions) -> Result<Option<u8>, SignatureError> {
    match options.read::<Value>("delivery_mode")? {
        None => Ok(None),
        Some(Value::String(name)) if name == "transient" => Ok(Some(1)),
        Some(Value::String(name)) if name == "persistent" => Ok(Some(2)),
        Some(value) => match value.as_u64() {
            Some(1) => Ok(Some(1)),
            Some(2) => Ok(Some(2)),
            _ => Err(SignatureError("option delivery_mode: neither 1 nor 2".to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pyjson;

    fn now() -> WireTime {
        WireTime::from_unix_micros(0).unwrap()
    }

    fn read(json: &str) -> Result<SendOptions, SignatureError> {
        SendOptions::from_signature(&pyjson::from_str(json).unwrap())
    }

    #[test]
    fn the_nearest_place_wins() {
        // (call, signature, task, app) of the priority, and what it comes to
        for (places, expected) in [
            ([Some(1), Some(2), Some(3), Some(4)], Some(1)),
            ([None, Some(2), Some(3), Some(4)], Some(2)),
            ([None, None, Some(3), Some(4)], Some(3)),
            ([None, None, None, Some(4)], Some(4)),
            ([None; 4], None),
        ] {
            let send = |priority| SendOptions { priority, ..SendOptions::default() };
            let task = |priority| TaskOptions { priority, ..TaskOptions::DEFAULT };
            let [call, signature, own, app] = places;
            let effective = resolve(send(call), send(signature), &task(own), &task(app), now());
            assert_eq!(effective.priority, expected);
        }
    }

    #[test]
    fn group_and_stamps_of_the_signature_stay() {
        let signature =
            read(r#"{"group_id": "own", "stamped_headers": ["s"], "s": 1, "queue": "a"}"#).unwrap();
        let call =
            read(r#"{"group_id": "other", "stamped_headers": ["s", "t"], "s": 2, "t": 3, "queue": "b"}"#)
                .unwrap();
        let both = call.over(signature);
        assert_eq!(both.group_id.unwrap().as_str(), "own");
        assert_eq!(both.queue.unwrap().as_str(), "b");
        assert_eq!(both.stamped_headers.unwrap(), ["s"]);
        assert_eq!(both.stamps["s"], 1);
    }

    #[test]
    fn relative_times_count_from_now() {
        let options = read(r#"{"countdown": 1.5, "expires": 60, "eta": "2030-01-01"}"#).unwrap();
        let effective =
            resolve(options, SendOptions::default(), &TaskOptions::DEFAULT, &TaskOptions::DEFAULT, now());
        assert_eq!(effective.eta.unwrap().isoformat(), "1970-01-01T00:00:01.500000+00:00");
        assert_eq!(effective.expires_in, Some(Duration::from_secs(60)));
        let past = read(r#"{"expires": "1960-01-01T00:00:00", "countdown": -3}"#).unwrap();
        let effective =
            resolve(past, SendOptions::default(), &TaskOptions::DEFAULT, &TaskOptions::DEFAULT, now());
        assert_eq!((effective.eta, effective.expires_in), (None, Some(Duration::ZERO)));
    }

    #[test]
    fn wrong_values_are_told_by_name() {
        for (json, name) in [
            (r#"{"countdown": "x"}"#, "countdown"),
            (r#"{"eta": 5}"#, "eta"),
            (r#"{"priority": 300}"#, "priority"),
            (r#"{"compression": "rar"}"#, "compression"),
            (r#"{"serializer": "pickle"}"#, "serializer"),
            (r#"{"link": 3}"#, "link"),
            (r#"{"delivery_mode": 3}"#, "delivery_mode"),
            (r#"{"time_limit": 1e300}"#, "time_limit"),
        ] {
            assert!(read(json).unwrap_err().to_string().contains(name), "{json}");
        }
    }
}
