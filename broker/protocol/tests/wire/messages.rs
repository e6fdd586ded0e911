//! Task messages: decode∘encode is the identity on everything that Celery sends.

use celery_protocol::{
    Limits, Message, RawMessage, Reason, Sig, WireTime,
    args::bind,
    content::Accept,
    ext,
    options::{SendOptions, TaskOptions, resolve},
    repr,
};
use serde_json::{Value, value::RawValue};

use crate::golden::{self, Case};

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = golden::read("messages");
    cases.extend(golden::read::<Vec<Case>>("canvas"));
    cases
}

fn case(name: &str) -> RawMessage {
    cases().into_iter().find(|case| case.case == name).unwrap().messages[0].raw()
}

fn decode(raw: RawMessage) -> Message {
    Message::decode(raw, &Limits::DEFAULT).unwrap()
}

fn protocol_2(raw: &RawMessage) -> bool {
    raw.headers.contains_key("task")
}

#[test]
fn every_message_is_encoded_as_it_was() {
    let mut count = 0;
    for case in cases() {
        for published in &case.messages {
            let raw = published.raw();
            if !protocol_2(&raw) {
                continue;
            }
            assert!(raw.headers.len() >= 19, "{}", case.case);
            let message = decode(raw.clone());
            assert_eq!(message.encode(), raw, "{}", case.case);
            assert_eq!(message.clone().into_raw(), raw, "{}", case.case);
            count += 1;
        }
    }
    assert!(count > 100, "only {count} messages");
}

#[test]
fn every_json_body_is_encoded_as_it_was() {
    for case in cases() {
        for published in &case.messages {
            let raw = published.raw();
            let json = raw.properties.content_type.as_deref() == Some("application/json");
            if !protocol_2(&raw) || !json || raw.headers.contains_key("compression") {
                continue;
            }
            let message = decode(raw.clone());
            let body = message.body(&Limits::DEFAULT).unwrap_or_else(|err| panic!("{}: {err}", case.case));
            assert_eq!(body.encode_json(), raw.body, "{}", case.case);
        }
    }
}

#[test]
fn representations_are_those_of_celery() {
    for case in cases() {
        for published in &case.messages {
            let raw = published.raw();
            if !protocol_2(&raw) || raw.properties.content_type.as_deref() != Some("application/json") {
                continue;
            }
            let message = decode(raw);
            let Ok(body) = message.body(&Limits::DEFAULT) else { continue };
            let args = body.args.to_raw();
            // values of extended types are objects here and had a repr of their own in the sender; what is not changed by
            // the worker on its way is a list there
            let shown = message.headers.argsrepr.as_deref().unwrap();
            if !args.get().contains("__type__") && !shown.starts_with('[') && !args.get().contains("ud800") {
                assert_eq!(repr::argsrepr(body.args.as_slice()), shown, "{}", case.case);
            }
            if body.args.is_empty() || !args.get().contains("__type__") {
                let shown = message.headers.kwargsrepr.as_deref().unwrap();
                if !shown.contains("golden.") {
                    assert_eq!(repr::kwargsrepr(body.kwargs.as_slice()), shown, "{}", case.case);
                }
            }
        }
    }
}

#[test]
fn the_headers_mean_what_the_caller_said() {
    let message = decode(case("countdown, expires, limits, headers, priority"));
    let headers = &message.headers;
    assert_eq!(headers.display_name(), "shown");
    assert_eq!(headers.time_limits.hard.unwrap().as_secs_f64(), 30.0);
    assert_eq!(headers.time_limits.soft.unwrap().as_secs_f64(), 20.5);
    assert_eq!(headers.ignore_result, Some(true));
    assert_eq!(headers.extra["x-nested"], serde_json::json!({"a": [1, null, true]}));
    assert!(headers.expires.unwrap() > headers.eta.unwrap());
    assert_eq!(message.properties.priority, Some(7));
    assert_eq!(message.properties.reply_to.as_deref(), Some("replies"));
    assert_eq!(decode(case("unregistered")).headers.ignore_result, None);
    let same = WireTime::parse("2030-01-02T03:04:05").unwrap();
    for name in ["eta with offset", "naive eta"] {
        assert_eq!(decode(case(name)).headers.eta, Some(same));
    }
    assert_eq!(decode(case("own id")).headers.id.as_str(), "order:1@eu");
}

#[test]
fn odd_values_pass_unchanged_and_bind_to_nothing_that_changes_them() {
    let body = decode(case("large and odd numbers")).body(&Limits::DEFAULT).unwrap();
    let raw: Vec<Box<RawValue>> = bind("echo", body.args.as_slice(), &[]).unwrap();
    let texts: Vec<&str> = raw.iter().map(|value| value.get()).collect();
    assert_eq!(texts[..3], ["18446744073709551616", "-9223372036854775809", &format!("1{}", "0".repeat(40))]);
    assert_eq!(texts[3..6], ["NaN", "Infinity", "-Infinity"]);
    let error = bind::<Vec<Value>>("echo", body.args.as_slice(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("echo() "), "{error}");
    let body = decode(case("lone surrogate")).body(&Limits::DEFAULT).unwrap();
    assert!(bind::<(String,)>("echo", body.args.as_slice(), &[]).is_err());
    assert!(bind::<(Box<RawValue>,)>("echo", body.args.as_slice(), &[]).is_ok());
}

#[test]
fn extended_types_are_read() {
    type Types =
        (ext::DateTime, ext::DateTime, ext::Date, ext::Time, ext::Decimal, ext::Uuid, ext::Bytes, ext::Bytes);
    let body = decode(case("extended types")).body(&Limits::DEFAULT).unwrap();
    let values: Types = bind("echo", body.args.as_slice(), &[]).unwrap();
    assert_eq!(values.4.as_str(), "1.10");
    assert_eq!((values.6.0.as_slice(), values.7.0.as_slice()), (&b"text"[..], &b"\xff\x00"[..]));
    // and written as they were
    let text = celery_protocol::pyjson::to_string(&values).unwrap();
    assert_eq!(text, body.args.to_raw().get());
}

#[test]
fn packed_bodies_are_unpacked() {
    let mut count = 0;
    for case in cases().iter().filter(|case| case.case.starts_with("compressed with ")) {
        let body = decode(case.messages[0].raw()).body(&Limits::DEFAULT).unwrap();
        assert_eq!(bind::<(i64, i64)>("add", body.args.as_slice(), &[]).unwrap(), (1, 2), "{}", case.case);
        count += 1;
    }
    assert!(count >= 3, "only {count} kinds of compression were captured");
}

#[test]
fn msgpack_and_yaml_are_read() {
    let limits = Limits { accept: Accept::ALL, ..Limits::DEFAULT };
    for name in ["written in msgpack", "written in yaml"] {
        let body = decode(case(name)).body(&limits).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(body.args.to_raw().get(), r#"[1, "\u00fc", null, [1.5]]"#, "{name}");
        assert_eq!(body.kwargs.to_raw().get(), r#"{"k": {"n": 1}}"#, "{name}");
        assert!(body.embed.is_empty());
    }
}

#[test]
fn protocol_1_becomes_protocol_2() {
    let mut seen = 0;
    for case in cases() {
        for published in &case.messages {
            let raw = published.raw();
            if protocol_2(&raw) {
                continue;
            }
            seen += 1;
            let old: Value = serde_json::from_slice(&raw.body).unwrap();
            let message = decode(raw);
            let body = message.body(&Limits::DEFAULT).unwrap();
            assert_eq!(message.headers.id.as_str(), old["id"], "{}", case.case);
            assert_eq!(message.headers.task.as_str(), old["task"]);
            assert_eq!(serde_json::from_str::<Value>(body.args.to_raw().get()).unwrap(), old["args"]);
            assert_eq!(body.callbacks_len(), old["callbacks"].as_array().map_or(0, Vec::len));
            assert_eq!(body.embed.chord.is_some(), !old["chord"].is_null());
            assert_eq!(message.headers.group.as_ref().map(|group| group.as_str()), old["taskset"].as_str());
            // and is from now on a message of protocol 2
            let again = decode(message.encode());
            assert_eq!(again, message);
        }
    }
    assert!(seen >= 5, "only {seen} messages of protocol 1");
}

/// A short way to the callbacks in a body.
trait Callbacks {
    fn callbacks_len(&self) -> usize;
}

impl Callbacks for celery_protocol::Body {
    fn callbacks_len(&self) -> usize {
        self.embed.callbacks.len()
    }
}

#[test]
fn a_call_made_here_is_the_call_made_by_celery() {
    let golden = case("keywords and text");
    let celery = decode(golden.clone());
    let signature = Sig::<Value>::new("golden.echo")
        .arg("größe \"x\"\n")
        .kwarg("ключ", ())
        .kwarg("b", (true, 1.5, 1e100, 0.1))
        .option("reply_to", celery.properties.reply_to.clone())
        .option("ignore_result", false)
        .into_signature()
        .unwrap();
    let options = SendOptions::from_signature(&signature.options).unwrap();
    let now = WireTime::from_unix_micros(0).unwrap();
    let call = celery_protocol::NewCall {
        task: signature.task,
        id: celery.headers.id.clone(),
        args: signature.args,
        kwargs: signature.kwargs,
        options: resolve(SendOptions::default(), options, &TaskOptions::DEFAULT, &TaskOptions::DEFAULT, now),
        origin: celery.headers.origin.clone().unwrap(),
    };
    let mut ours = call.into_message().unwrap();
    assert_eq!(ours.headers.lang, "rust");
    ours.headers.lang = "py".into();
    assert_eq!(ours.encode(), golden);
}

#[test]
fn pickle_is_never_read() {
    let mut raw = case("plain");
    raw.properties.content_type = Some("application/x-python-serialize".to_owned());
    let error = decode(raw).body(&Limits::DEFAULT).unwrap_err();
    assert_eq!(error.reason, Reason::ContentDisallowed);
    assert!(error.task_id.is_some());
}
