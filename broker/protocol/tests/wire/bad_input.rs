//! Bad task messages, row by row: what is refused and why, what is taken as it is. Nothing here may panic or hang.
//!
//! `Refused` is to be rejected without requeue. Rows that only a running worker can decide (an unknown task, a task that
//! is due in 8,000 years) show here what the worker gets to decide on.

use std::io::Write;

use bytes::Bytes;
use celery_protocol::{
    Body, HeaderMap, Limits, Malformed, Message, Properties, RawMessage, Reason,
    args::{BindErrorKind, bind},
    content::Accept,
};
use serde_json::{Value, json, value::RawValue};

const NO_EMBED: &str = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}"#;

/// A good message, `add(2, 3)`.
fn good() -> RawMessage {
    let Value::Object(headers) = json!({
        "lang": "py", "task": "app.add", "id": "8a58afff-0000-4000-8000-000000000000", "shadow": null, "eta": null,
        "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null],
        "root_id": "8a58afff-0000-4000-8000-000000000000", "parent_id": null, "argsrepr": "(2, 3)", "kwargsrepr": "{}",
        "origin": "gen1@h", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}
    }) else {
        panic!("an object")
    };
    let properties = Properties {
        content_type: Some("application/json".to_owned()),
        content_encoding: Some("utf-8".to_owned()),
        correlation_id: Some("8a58afff-0000-4000-8000-000000000000".to_owned()),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    RawMessage { properties, headers, body: format!("[[2, 3], {{}}, {NO_EMBED}]").into() }
}

/// Decodes headers and body, as a worker does.
fn decode(raw: RawMessage) -> Result<(Message, Body), Malformed> {
    let message = Message::decode(raw, &Limits::DEFAULT)?;
    let body = message.body(&Limits::DEFAULT)?;
    Ok((message, body))
}

fn with_body(body: impl Into<Bytes>) -> RawMessage {
    RawMessage { body: body.into(), ..good() }
}

fn with_args(args: &str) -> RawMessage {
    with_body(format!("[{args}, {{}}, {NO_EMBED}]"))
}

fn with_embed(embed: &str) -> RawMessage {
    with_body(format!("[[], {{}}, {embed}]"))
}

fn with_header(name: &str, value: Value) -> RawMessage {
    let mut raw = good();
    raw.headers.insert(name.to_owned(), value);
    raw
}

fn without_header(name: &str) -> RawMessage {
    let mut raw = good();
    raw.headers.remove(name);
    raw
}

fn with_content(content_type: Option<&str>, encoding: &str) -> RawMessage {
    let mut raw = good();
    raw.properties.content_type = content_type.map(ToOwned::to_owned);
    raw.properties.content_encoding = Some(encoding.to_owned());
    raw
}

fn compressed(method: &str, body: Vec<u8>) -> RawMessage {
    RawMessage { body: body.into(), ..with_header("compression", json!(method)) }
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn nested(depth: usize) -> String {
    format!("[{}1{}]", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn refused() {
    let rows: Vec<(&str, RawMessage, Reason)> = vec![
        ("M1 body is an object", with_body("{\"a\": 1}"), Reason::BadBody),
        ("M2 body of two", with_body("[[], {}]"), Reason::BadBody),
        ("M2 body of four", with_body("[[], {}, null, 1]"), Reason::BadBody),
        ("M3 empty body", with_body(""), Reason::BadBody),
        ("M4 not JSON", with_body("hello"), Reason::BadBody),
        ("M5 args a string", with_args("\"abc\""), Reason::BadBody),
        ("M6 args an object", with_args("{\"a\": 1}"), Reason::BadBody),
        ("M7 kwargs a list", with_body(format!("[[], [], {NO_EMBED}]")), Reason::BadBody),
        ("M12 an integer of 5,000 digits", with_args(&format!("[{}]", "1".repeat(5000))), Reason::BadBody),
        ("M14 invalid UTF-8", with_body(&b"[[\"\xff\"], {}, null]"[..]), Reason::BadBody),
        ("M17 byte order mark", with_body("\u{feff}[[], {}, null]"), Reason::BadBody),
        ("M18 an argument nested 513 deep", with_args(&nested(513)), Reason::BadBody),
        ("M19 nested 100,000 deep", with_args(&nested(100_000)), Reason::BadBody),
        ("M19 open brackets only", with_body("[".repeat(1_000_000)), Reason::BadBody),
        ("M21 trailing bytes", with_body("[[], {}, null] x"), Reason::BadBody),
        (
            "M24 pickle",
            with_content(Some("application/x-python-serialize"), "binary"),
            Reason::ContentDisallowed,
        ),
        (
            "M26 unknown content type",
            with_content(Some("application/x-unheard-of"), "utf-8"),
            Reason::ContentDisallowed,
        ),
        ("M26 text", with_content(Some("text/plain"), "utf-8"), Reason::ContentUnsupported),
        ("M27 no content type", with_content(None, "utf-8"), Reason::ContentMissing),
        (
            "M28 unknown encoding",
            with_content(Some("application/json"), "utf-16"),
            Reason::ContentUnsupported,
        ),
        (
            "M29 unknown compression",
            compressed("application/x-rar", b"x".to_vec()),
            Reason::UnknownCompression,
        ),
        ("M29 compression is a number", with_header("compression", json!(7)), Reason::UnknownCompression),
        ("M30 compressed in name only", with_header("compression", json!("gzip")), Reason::BadCompression),
        ("M31 zip bomb", compressed("zlib", zlib(&vec![b' '; 70_000_000])), Reason::TooLarge),
        ("M34 body of 20 MB", with_body(vec![b' '; 20_000_000]), Reason::TooLarge),
        ("M34 headers of 200 KB", with_header("x", json!("x".repeat(200_000))), Reason::TooLarge),
        (
            "M35 neither header nor body names a task",
            RawMessage { headers: HeaderMap::new(), ..with_body("{}") },
            Reason::BadTaskName,
        ),
        ("M36 task an int", with_header("task", json!(1)), Reason::BadTaskName),
        ("M36 task empty", with_header("task", json!("")), Reason::BadTaskName),
        ("M36 task of 10 KB", with_header("task", json!("a".repeat(10_000))), Reason::BadTaskName),
        ("M36 task with a newline", with_header("task", json!("a\nb")), Reason::BadTaskName),
        ("M38 id missing", without_header("id"), Reason::BadId),
        ("M39 id null", with_header("id", Value::Null), Reason::BadId),
        ("M39 id an int", with_header("id", json!(7)), Reason::BadId),
        ("M40 id a list", with_header("id", json!(["a"])), Reason::BadId),
        ("M40 id a table", with_header("id", json!({"a": 1})), Reason::BadId),
        ("M41 id a path", with_header("id", json!("../../etc/passwd")), Reason::BadId),
        ("M41 id with odd characters", with_header("id", json!("a:*\r\n b")), Reason::BadId),
        ("M42 id of 100 KB", with_header("id", json!("a".repeat(100_000))), Reason::BadId),
        ("M44 eta garbage", with_header("eta", json!("tomorrow")), Reason::InvalidEta),
        ("M44 eta an int", with_header("eta", json!(1_700_000_000)), Reason::InvalidEta),
        ("M44 eta in the year 0", with_header("eta", json!("0000-01-01T00:00:00")), Reason::InvalidEta),
        ("M48 eta with a leap second", with_header("eta", json!("2026-12-31T23:59:60Z")), Reason::InvalidEta),
        ("M50 expires garbage", with_header("expires", json!("never")), Reason::InvalidExpires),
        ("M50 expires an int", with_header("expires", json!(60)), Reason::InvalidExpires),
        ("M51 retries a string", with_header("retries", json!("3")), Reason::BadHeader),
        ("M51 retries negative", with_header("retries", json!(-5)), Reason::BadHeader),
        ("M52 timelimit a string", with_header("timelimit", json!("30")), Reason::BadHeader),
        ("M52 timelimit of one", with_header("timelimit", json!([1])), Reason::BadHeader),
        ("M52 timelimit of texts", with_header("timelimit", json!(["1", "2"])), Reason::BadHeader),
        ("M54 ignore_result a text", with_header("ignore_result", json!("no")), Reason::BadHeader),
        ("M55 callbacks garbage", with_embed("{\"callbacks\": \"x\"}"), Reason::BadEmbed),
        ("M55 a callback is a number", with_embed("{\"callbacks\": [1]}"), Reason::BadEmbed),
        ("M55 a callback without task", with_embed("{\"callbacks\": [{}]}"), Reason::BadEmbed),
        ("M55 chain garbage", with_embed("{\"chain\": {\"a\": 1}}"), Reason::BadEmbed),
        ("M55 chord garbage", with_embed("{\"chord\": [1]}"), Reason::BadEmbed),
        ("M55 embed a list", with_embed("[]"), Reason::BadEmbed),
        (
            "M55 a callback with args that are none",
            with_embed("{\"callbacks\": [{\"task\": \"t\", \"args\": 1}]}"),
            Reason::BadEmbed,
        ),
        (
            "M56 10,000 callbacks",
            with_embed(&format!("{{\"callbacks\": [{}]}}", vec!["{\"task\": \"t\"}"; 10_000].join(", "))),
            Reason::BadEmbed,
        ),
        ("parent_id an int", with_header("parent_id", json!(1)), Reason::BadHeader),
        ("group a path", with_header("group", json!("../x")), Reason::BadHeader),
        ("group_index negative", with_header("group_index", json!(-1)), Reason::BadHeader),
        ("100,000 arguments", with_args(&format!("[{}1]", "1,".repeat(100_000))), Reason::TooLarge),
    ];
    for (name, raw, reason) in rows {
        let id =
            raw.headers.get("id").and_then(Value::as_str).filter(|id| id.len() == 36).map(ToOwned::to_owned);
        let malformed = decode(raw).err().unwrap_or_else(|| panic!("{name}: taken"));
        assert_eq!(malformed.reason, reason, "{name}: {malformed}");
        // a FAILURE can be stored wherever the id can be read
        assert_eq!(malformed.task_id.map(|id| id.to_string()), id, "{name}");
        // fit for one line of a log
        assert!(malformed.detail.len() < 300, "{name}: {}", malformed.detail);
        assert!(!malformed.detail.contains(char::is_control), "{name}: {:?}", malformed.detail);
    }
}

#[test]
fn every_compression_and_content_type_is_checked() {
    for method in ["application/x-bz2", "application/x-lzma", "application/zstd", "application/x-brotli"] {
        let malformed = decode(compressed(method, b"garbage".to_vec())).unwrap_err();
        // M32: bombs in these are tested beside their readers
        assert_eq!(malformed.reason, Reason::BadCompression, "{method}: {malformed}");
    }
    let all = Limits { accept: Accept::ALL, ..Limits::DEFAULT };
    for (content_type, body) in [
        ("application/x-msgpack", &b"\x93\x90\x80\xc1"[..]),
        ("application/x-yaml", b"!!python/object/apply:os.system ['true']"),
        ("application/x-yaml", b"[[], {}, !!python/name:os.system x]"),
        ("application/x-yaml", b"a: [1"),
    ] {
        let raw = || RawMessage {
            body: Bytes::copy_from_slice(body),
            ..with_content(Some(content_type), "binary")
        };
        assert_eq!(decode(raw()).unwrap_err().reason, Reason::ContentDisallowed, "not accepted by default");
        // M25: where it is accepted, no tag makes an object
        let message = Message::decode(raw(), &all).unwrap();
        assert_eq!(message.body(&all).unwrap_err().reason, Reason::BadBody, "{content_type}");
    }
    assert!(Accept::parse(["json", "pickle"]).is_err());
    assert_eq!(Accept::parse(["json"]), Ok(Accept::JSON));
    assert_eq!(Accept::parse(["json", "application/x-msgpack", "yaml"]), Ok(Accept::ALL));
}

#[test]
fn taken() {
    let long = "x".repeat(10_000_000);
    let deep: String = nested(512);
    let rows: Vec<(&str, RawMessage)> = vec![
        ("the good message", good()),
        ("only task and id", {
            let mut raw = good();
            raw.headers.retain(|name, _| name == "task" || name == "id");
            raw
        }),
        ("M8 embed null", with_embed("null")),
        ("M8 embed without keys", with_embed("{}")),
        ("M9 NaN", with_args("[NaN, Infinity, -Infinity]")),
        ("M10 1e400", with_args("[1e400]")),
        ("M11 10^40", with_args(&format!("[1{}]", "0".repeat(40)))),
        ("M13 beyond 64 bits", with_args("[18446744073709551616, -9223372036854775809]")),
        ("M15 lone surrogate", with_args("[\"\\ud800\"]")),
        ("M16 NUL", with_args("[\"\\u0000\"]")),
        ("M18 an argument nested 512 deep", with_args(&deep)),
        ("M20 duplicate keys", with_body("[[], {\"a\": 1, \"a\": 2}, {\"chain\": [], \"chain\": null}]")),
        ("M22 an unknown extended type", with_args("[{\"__type__\": \"evil\", \"__value__\": 1}]")),
        ("M28 JSON called binary", with_content(Some("application/json; charset=utf-8"), "binary")),
        ("M33 10 MB of arguments", with_args(&format!("[\"{long}\"]"))),
        ("M36 a name like a path", with_header("task", json!("../<script>"))),
        ("M45 eta in the year 9999", with_header("eta", json!("9999-12-31T23:59:59.999999+00:00"))),
        ("M46 eta in the past", with_header("eta", json!("1970-01-01T00:00:00"))),
        ("M47 eta without offset", with_header("eta", json!("2030-01-02T03:04:05"))),
        ("M49 expires in the past", with_header("expires", json!("1970-01-01T00:00:00Z"))),
        ("M51 a billion retries", with_header("retries", json!(1_000_000_000))),
        ("M52 limits that are none", with_header("timelimit", json!([-1, 0]))),
        ("M52 huge limits", with_header("timelimit", json!([1e300, 1e18]))),
        ("M53 argsrepr an int", with_header("argsrepr", json!(7))),
        ("M53 argsrepr of 100 KB", with_header("argsrepr", json!("x".repeat(100_000)))),
        ("M53 argsrepr with escapes", with_header("argsrepr", json!("\u{1b}[31m\r\n"))),
        ("M56 a callback of an unknown task", with_embed("{\"callbacks\": [{\"task\": \"no.such.task\"}]}")),
        ("M58 headers of all types", with_header("x", json!([1.5, null, {"a": [true, {"b": "c"}]}]))),
        ("M59 x-death", with_header("x-death", json!([{"count": 9, "reason": "rejected"}]))),
        ("M61 odd stamps", with_header("stamps", json!([1]))),
        ("M61 odd names of stamps", with_header("stamped_headers", json!({"a": 1}))),
        ("M62 odd traceparent", with_header("traceparent", json!("0".repeat(10_000)))),
        ("M63 shadow with HTML", with_header("shadow", json!("<b>x</b>"))),
        ("M63 lang a list", with_header("lang", json!(["rust"]))),
    ];
    for (name, raw) in rows {
        let (message, _) = decode(raw).unwrap_or_else(|err| panic!("{name}: {err}"));
        // and what was taken can be sent again
        decode(message.encode()).unwrap_or_else(|err| panic!("{name}, again: {err}"));
    }
}

#[test]
fn what_is_taken_means() {
    let (message, _) = decode(with_header("timelimit", json!([-1, 1e300]))).unwrap();
    assert_eq!((message.headers.time_limits.hard, message.headers.time_limits.soft), (None, None));
    let (message, _) = decode(with_header("timelimit", json!([2.5, 1]))).unwrap();
    assert_eq!(message.headers.time_limits.hard.unwrap().as_millis(), 2500);
    let (message, _) = decode(with_header("argsrepr", json!("x".repeat(100_000)))).unwrap();
    assert_eq!(message.headers.argsrepr.unwrap().len(), 1024);
    let (message, _) = decode(with_header("argsrepr", json!([7]))).unwrap();
    assert_eq!(message.headers.argsrepr.as_deref(), Some("[7]"));
    let (message, _) = decode(with_header("stamps", json!("x"))).unwrap();
    assert!(message.headers.stamps.is_empty());
    let (message, _) = decode(with_header("x-death", json!([1]))).unwrap();
    assert!(message.headers.extra.contains_key("x-death"));
    assert!(message.headers.extra_to_resend().is_empty());
    let (_, body) = decode(with_body("[[], {\"a\": 1, \"a\": 2}, null]")).unwrap();
    assert_eq!(body.kwargs.to_raw().get(), "{\"a\": 2}");
}

#[test]
fn values_that_a_type_cannot_hold_are_a_failure_of_the_task_and_never_another_value() {
    for args in ["[NaN]", "[1e400]", "[100000000000000000000000]", "[-9223372036854775809]", "[\"\\ud800\"]"]
    {
        let (_, body) = decode(with_args(args)).unwrap();
        let error = bind::<(Value,)>("app.add", body.args.as_slice(), &[]).unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::Value, "{args}: {error}");
        assert!(bind::<(f64,)>("app.add", body.args.as_slice(), &[]).is_err(), "{args}");
        let (raw,): (Box<RawValue>,) = bind("app.add", body.args.as_slice(), &[]).unwrap();
        assert_eq!(format!("[{}]", raw.get()), args);
    }
}

#[test]
fn extended_types_are_read_strictly_where_a_type_asks_for_them() {
    use celery_protocol::ext;
    let bound = |json: &str| {
        let (_, body) = decode(with_args(&format!("[{json}]"))).unwrap();
        bind::<(ext::Decimal,)>("t", body.args.as_slice(), &[]).is_ok()
    };
    assert!(bound("{\"__type__\": \"decimal\", \"__value__\": \"1.10\"}"));
    // M23 and M22
    assert!(!bound("{\"__type__\": \"decimal\", \"__value__\": \"zz\"}"));
    assert!(!bound("{\"__type__\": \"evil\", \"__value__\": \"1\"}"));
    let (_, body) = decode(with_args("[{\"__type__\": \"evil\", \"__value__\": 1}]")).unwrap();
    assert!(bind::<(Value,)>("t", body.args.as_slice(), &[]).is_ok(), "nobody asks what it is");
}

#[test]
fn the_way_to_a_bomb_is_bounded_in_memory() {
    // 1 MiB is always fine, more only up to 200 times the compressed size
    let fine = format!("[[\"{}\"], {{}}, null]", " ".repeat(1_000_000));
    decode(compressed("application/x-gzip", zlib(fine.as_bytes()))).unwrap();
    let dense = format!("[[\"{}\"], {{}}, null]", " ".repeat(3_000_000));
    let malformed = decode(compressed("application/x-gzip", zlib(dense.as_bytes()))).unwrap_err();
    assert_eq!(malformed.reason, Reason::TooLarge);
}

#[test]
fn old_and_hybrid_messages() {
    let old = |body: &str| RawMessage { headers: HeaderMap::new(), ..with_body(body.to_owned()) };
    let (message, body) =
        decode(old(r#"{"task": "t", "id": "a", "args": [1], "kwargs": {"b": 2}, "taskset": "g"}"#)).unwrap();
    assert_eq!(message.headers.group.unwrap().as_str(), "g");
    assert_eq!(message.headers.argsrepr.as_deref(), Some("(1,)"));
    assert_eq!((body.args.len(), body.kwargs.len()), (1, 1));
    decode(old(r#"{"task": "t", "id": "a", "args": null, "kwargs": null, "eta": null}"#)).unwrap();
    for (body, reason) in [
        (r#"{"task": "t"}"#, Reason::BadId),
        (r#"{"id": "a"}"#, Reason::BadTaskName),
        (r#"{"task": "t", "id": "a", "kwargs": [1]}"#, Reason::BadBody),
        (r#"{"task": "t", "id": "a", "args": "x"}"#, Reason::BadBody),
        (r#"{"task": "t", "id": "a", "eta": "x"}"#, Reason::InvalidEta),
        (r#"{"task": "t", "id": "a", "callbacks": 1}"#, Reason::BadEmbed),
        ("[]", Reason::BadBody),
        ("", Reason::BadBody),
    ] {
        assert_eq!(decode(old(body)).unwrap_err().reason, reason, "{body}");
    }
    // the header wins over the body
    let hybrid = with_body(r#"{"task": "other", "id": "b", "args": [7], "retries": 5, "eta": "2030-01-01"}"#);
    let (message, body) = decode(hybrid).unwrap();
    assert_eq!((message.headers.task.as_str(), message.headers.retries), ("app.add", 0));
    assert_eq!(body.args.to_raw().get(), "[7]");
}
