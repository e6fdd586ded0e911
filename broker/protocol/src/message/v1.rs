//! Protocol 1, where the body is the call: upgraded to protocol 2. So is the hybrid, protocol 2's headers over a body
//! of protocol 1; there the headers win.
//!
//! A time in a message that says `utc: false` is still taken as UTC; Celery would take it in the app's time zone, which
//! the message does not name.

use bytes::Bytes;
use serde_json::Value;

use super::{HeaderMap, Headers, Malformed, Message, Properties, Reason};
use crate::{
    Limits, RawArgs,
    content::{self, ContentType},
    pyjson::{self, Scanner},
    repr,
};

/// What a body of protocol 1 has that are headers in protocol 2.
const HEADERS: [&str; 10] =
    ["task", "id", "eta", "expires", "retries", "timelimit", "taskset", "group", "group_index", "shadow"];

/// Whether a message is of protocol 1 or hybrid: without the header `task`, or with a body that is an object.
pub(super) fn applies(properties: &Properties, headers: &HeaderMap, body: &Bytes, limits: &Limits) -> bool {
    if !headers.contains_key("task") {
        return true;
    }
    let compressed = headers.get("compression").is_some_and(|value| !value.is_null());
    if compressed {
        return unpack(properties, headers, body, limits).is_ok_and(|json| object(&json));
    }
    object(body)
}

fn object(json: &[u8]) -> bool {
    json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

fn unpack<'a>(
    properties: &Properties,
    headers: &HeaderMap,
    body: &'a Bytes,
    limits: &Limits,
) -> Result<std::borrow::Cow<'a, [u8]>, content::Refusal> {
    let compression = headers.get("compression").and_then(Value::as_str);
    content::json(
        properties.content_type.as_deref(),
        properties.content_encoding.as_deref(),
        compression,
        body,
        limits,
    )
}

/// Reads the call from the body and makes a message of protocol 2 of it.
pub(super) fn upgrade(
    mut properties: Properties,
    mut headers: HeaderMap,
    body: &Bytes,
    limits: &Limits,
) -> Result<Message, Malformed> {
    let hybrid = headers.contains_key("task");
    let json = unpack(&properties, &headers, body, limits)
        .map_err(|(reason, detail)| Malformed::of(&headers, reason, detail))?;
    let call = match read(&json, limits) {
        Ok(call) => call,
        Err(err) => return Err(Malformed::of(&headers, Reason::BadBody, err.to_string())),
    };
    if hybrid && call.args.is_none() {
        return Err(Malformed::of(&headers, Reason::BadBody, "the body is not a list of three"));
    }
    if !hybrid && !call.headers.contains_key("task") {
        return Err(Malformed::of(
            &headers,
            Reason::BadTaskName,
            "neither a header nor the body names a task",
        ));
    }
    headers.remove("compression");
    for (name, value) in call.headers {
        // in a hybrid the header wins, in protocol 1 the body
        if !hybrid || !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
    let args = call.args.unwrap_or("[]");
    let kwargs = call.kwargs.unwrap_or("{}");
    let mut headers = Headers::from_map(headers)?;
    headers.argsrepr.get_or_insert_with(|| match pyjson::from_str::<RawArgs>(args) {
        Ok(args) => repr::argsrepr(args.as_slice()),
        Err(_) => repr::repr(args, repr::DEFAULT_BUDGET),
    });
    headers.kwargsrepr.get_or_insert_with(|| repr::repr(kwargs, repr::DEFAULT_BUDGET));
    let [callbacks, errbacks, chord] = call.embed.map(|part| part.unwrap_or("null"));
    let body = format!(
        "[{args}, {kwargs}, {{\"callbacks\": {callbacks}, \"errbacks\": {errbacks}, \"chain\": null, \"chord\": {chord}}}]"
    );
    properties.content_type = Some(ContentType::JSON.to_owned());
    properties.content_encoding = Some("utf-8".to_owned());
    Ok(Message { properties, headers, body: body.into() })
}

/// What a body of protocol 1 says.
#[derive(Default)]
struct Call<'a> {
    headers: HeaderMap,
    args: Option<&'a str>,
    kwargs: Option<&'a str>,
    /// callbacks, errbacks, chord
    embed: [Option<&'a str>; 3],
}

fn read<'a>(json: &'a [u8], limits: &Limits) -> Result<Call<'a>, pyjson::Error> {
    let mut scanner = Scanner::new(json, limits.depth)?;
    let mut object = scanner.object()?;
    let mut call = Call::default();
    let mut taskset = None;
    while let Some(key) = scanner.next_key(&mut object)? {
        let value = scanner.value()?;
        match &*key {
            "args" => call.args = Some(value),
            "kwargs" => call.kwargs = Some(value),
            "callbacks" => call.embed[0] = Some(value),
            "errbacks" => call.embed[1] = Some(value),
            "chord" => call.embed[2] = Some(value),
            "taskset" => taskset = Some(pyjson::from_str::<Value>(value)?).filter(|value| !value.is_null()),
            name if HEADERS.contains(&name) => {
                call.headers.insert(key.into_owned(), pyjson::from_str(value)?);
            }
            _ => {}
        }
    }
    scanner.end()?;
    if let Some(taskset) = taskset {
        call.headers.insert("group".to_owned(), taskset);
    }
    // null arguments are none
    call.args = call.args.map(|args| if args == "null" { "[]" } else { args });
    call.kwargs = call.kwargs.map(|kwargs| if kwargs == "null" { "{}" } else { kwargs });
    Ok(call)
}
