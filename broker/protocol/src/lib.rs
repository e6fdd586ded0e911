//! Celery wire formats, pure: no IO, no clock, no randomness.

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
