//! Celery's wire formats, pure: no IO, no clock, no randomness. `now` and new ids come in as arguments.
//!
//! # Layout
//!
//! | modules | what |
//! |---|---|
//! | [`ids`], [`time`], [`limits`] | identifiers that are safe to log and to use as keys; moments as Python writes them; bounds of all input |
//! | [`pyjson`], [`raw`], [`repr`], [`ext`] | JSON as Python writes it; values that are only passed on; how Python shows them; kombu's extended types |
//! | [`content`], [`message`], [`options`], [`task`] | bodies in JSON, msgpack, YAML, compressed or not; task messages of protocol 2 (1 is upgraded); how a call is sent and run |
//! | [`args`] | binding a call's arguments by Python's rules |
//! | [`canvas`] | chains, groups, chords: built, frozen, planned |
//! | [`result`], [`event`], [`control`] | what the result backend, the event exchange and remote control carry |
//!
//! # Decided on purpose
//!
//! * Values that are only passed on stay the text that came. Nothing is rounded, reordered or dropped.
//! * A type is given only what it can hold. `NaN`, `Infinity`, integers beyond 64 bits and halves of surrogate pairs bind
//!   to a raw value (integers also to `i128` and `u128`); bound to anything else they are a failure of the task.
//! * A float that is not finite is never written: it becomes `null`.
//! * Of duplicate keys the last one wins, as in Python; in a struct of the task's own, serde refuses them.
//! * An object with `__type__` is read as what it says where a type of [`ext`] is asked for, and is an object elsewhere.
//! * Headers that decide about the run are strict; those that are shown are coerced and cut; unknown ones are kept.
//! * A time without offset is UTC, also in protocol 1 with `utc: false`, whose time zone the message does not name.
//! * pickle is refused always. msgpack and YAML are read where [`Accept`](content::Accept) says so.

pub mod args;
pub mod canvas;
pub mod content;
pub mod control;
pub mod event;
pub mod ext;
pub mod glob;
pub mod ids;
pub mod limits;
pub mod message;
pub mod options;
pub mod pyjson;
pub mod raw;
pub mod repr;
pub mod result;
pub mod task;
pub mod time;
pub mod zone;

pub use crate::{
    args::{BindError, bind},
    canvas::{
        Canvas, Chain, Chord, Group, IntoCanvas, Sig, SigError, Signature, SignatureError, SignatureOptions,
        chain, chord, group,
    },
    event::Event,
    ids::{GroupId, IdError, Nodename, QueueName, TaskId, TaskName, Ticket},
    limits::Limits,
    message::{
        Body, Embed, HeaderMap, Headers, Malformed, Message, NewCall, Properties, RawMessage, Reason,
        Signatures, TimeLimits,
    },
    options::{SendOptions, TaskOptions},
    pyjson::EncodeError,
    raw::{RawArgs, RawKwargs, RawMap},
    result::{RemoteException, ResultMeta, ResultTuple, TaskState},
    task::TaskDef,
    time::{TimeError, WireTime},
};
