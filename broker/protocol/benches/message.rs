//! How long it takes to read and write what a worker reads and writes for each task: `cargo bench -p celery-protocol`.
//!
//! Prints nanoseconds per call, the best of several rounds. No framework: the numbers are compared by eye, between two
//! commits on one machine.

#![expect(clippy::panic, reason = "a bench that cannot start says why")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use celery_protocol::{
    Limits, Message, NewCall, RawMessage, ResultMeta, SendOptions, TaskId, TaskName, TaskOptions, WireTime,
    args::bind,
    options::{Effective, resolve},
    pyjson,
};

fn main() {
    let message = call().into_message().unwrap_or_else(|err| panic!("{err}"));
    let raw = message.encode();
    let body = message.body(&Limits::DEFAULT).unwrap_or_else(|err| panic!("{err}"));
    let done = WireTime::from_unix_micros(1_795_486_684_340_421).unwrap_or_else(|| panic!("a moment"));
    let meta = ResultMeta::success(message.headers.id.clone(), pyjson::raw_owned("5".to_owned()), done);
    let stored = meta.encode();

    measure("clone a raw message (part of the next)", || raw.clone());
    measure("Message::decode", || decode(raw.clone()));
    measure("Message::body", || message.body(&Limits::DEFAULT).is_ok());
    measure("args::bind, two integers", || bind::<(i64, i64)>("app.add", body.args.as_slice(), &[]).is_ok());
    measure("Message::encode", || message.encode());
    measure("decode, body, bind, encode a result", || {
        let message = decode(raw.clone());
        let body = message.as_ref().and_then(|message| message.body(&Limits::DEFAULT).ok());
        let sum = body.and_then(|body| bind::<(i64, i64)>("app.add", body.args.as_slice(), &[]).ok());
        let sum = sum.map_or(0, |(x, y)| x + y);
        let id = message.map(|message| message.headers.id);
        id.zip(pyjson::to_raw(&sum).ok()).map(|(id, result)| ResultMeta::success(id, result, done).encode())
    });
    measure("ResultMeta::encode", || meta.encode());
    measure("ResultMeta::decode", || ResultMeta::decode(&stored).is_ok());
    measure("NewCall::into_message", || call().into_message().is_ok());
}

fn decode(raw: RawMessage) -> Option<Message> {
    Message::decode(raw, &Limits::DEFAULT).ok()
}

fn call() -> NewCall {
    let now = WireTime::from_unix_micros(0).unwrap_or_else(|| panic!("a moment"));
    let nothing = SendOptions::default();
    let options: Effective =
        resolve(nothing.clone(), nothing, &TaskOptions::DEFAULT, &TaskOptions::DEFAULT, now);
    let mut args = celery_protocol::RawArgs::new();
    for number in [2, 3] {
        args.push(&number).unwrap_or_else(|err| panic!("{err}"));
    }
    NewCall {
        task: TaskName::parse("app.add").unwrap_or_else(|err| panic!("{err}")),
        id: TaskId::parse("8a58afff-0000-4000-8000-000000000000").unwrap_or_else(|err| panic!("{err}")),
        args,
        kwargs: celery_protocol::RawKwargs::new(),
        options,
        origin: "gen1@host".to_owned(),
    }
}

fn measure<T>(what: &str, mut run: impl FnMut() -> T) {
    const ROUND: u32 = 20_000;
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..ROUND {
            black_box(run());
        }
        best = best.min(start.elapsed() / ROUND);
    }
    println!("{:>7} ns  {what}", best.as_nanos());
}
