//! Requests as kombu sends them, and requests as nobody should.

use serde_json::json;

use super::*;

const HELLO: &str = r#"{"method": "hello", "arguments": {"from_node": "w1@vm", "revoked": []}, "destination": null, "pattern": null, "matcher": null, "ticket": "8f68", "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "6df2"}}"#;

fn node(name: &str) -> Nodename {
    Nodename::parse(name).unwrap()
}

#[test]
fn flags_may_be_numbers_as_flower_sends_them() {
    let terminate = |value: Value| {
        let arguments = json!({"task_id": ["a"], "terminate": value}).as_object().cloned().unwrap();
        match Command::parse(&Request::new("revoke", arguments)) {
            Ok(Command::Revoke { terminate, .. }) => Some(terminate),
            _ => None,
        }
    };
    assert_eq!(
        [json!(1), json!(0), json!(true), json!(null)].map(terminate),
        [Some(true), Some(false), Some(true), Some(false)]
    );
    assert_eq!(terminate(json!("false")), None);
}

#[test]
fn kombus_request_is_understood() {
    let request = Request::decode(HELLO.as_bytes()).unwrap();
    assert_eq!(
        Command::parse(&request).unwrap(),
        Command::Hello { from_node: "w1@vm".into(), revoked: vec![] }
    );
    assert_eq!(request.reply_to.as_ref().unwrap().routing_key, "6df2");
    let again = Request::decode(&request.encode().unwrap()).unwrap();
    assert_eq!(again, request);
}

#[test]
fn replies_round_trip() {
    let reply = Reply { node: "w2@vm".into(), value: json!({"revoked": ["zz1"], "clock": 10}) };
    assert_eq!(Reply::decode(&reply.encode().unwrap()).unwrap(), [reply]);
    assert!(Reply::decode(b"[]").is_err());
}

#[test]
fn nodes_are_selected_by_name_and_by_pattern() {
    let mut request = Command::Ping.to_request();
    assert!(request.selects(&node("w1@vm")).unwrap());
    request.destination = Some(vec!["w2@vm".into()]);
    assert!(!request.selects(&node("w1@vm")).unwrap());
    request.destination = None;
    for (pattern, matcher, want) in
        [("w*@vm", "glob", true), ("w", "pcre", true), ("1", "pcre", false), ("x*", "glob", false)]
    {
        request.pattern = Some(Pattern { pattern: pattern.into(), matcher: matcher.into() });
        assert_eq!(request.selects(&node("w1@vm")).unwrap(), want, "{pattern} {matcher}");
    }
    for (pattern, matcher) in [("(", "pcre"), ("a{1000}{1000}{1000}", "pcre"), ("x", "perl")] {
        request.pattern = Some(Pattern { pattern: pattern.into(), matcher: matcher.into() });
        assert!(request.selects(&node("w1@vm")).is_err(), "{pattern} {matcher}");
    }
}

#[test]
fn every_command_survives_its_own_request() {
    let commands = [
        Command::Ping,
        Command::Conf { with_defaults: true },
        Command::Active { safe: true },
        Command::Registered { taskinfoitems: vec!["rate_limit".into()], builtins: false },
        Command::QueryTask { ids: vec!["a".into()] },
        Command::Revoke {
            ids: vec!["a".into(), "b".into()],
            terminate: true,
            signal: Some("SIGKILL".into()),
        },
        Command::RevokeByStampedHeaders {
            headers: Map::from_iter([("job".to_owned(), json!(["j1"]))]),
            terminate: false,
            signal: Some("SIGTERM".into()),
        },
        Command::RateLimit { task_name: "t".into(), rate_limit: Some("10/m".into()) },
        Command::TimeLimit { task_name: "t".into(), hard: Some(2.0), soft: None },
        Command::PoolGrow { n: 2 },
        Command::Autoscale { max: Some(3), min: None },
        Command::CancelConsumer { queue: "q".into() },
        Command::Shutdown,
    ];
    for command in commands {
        assert_eq!(Command::parse(&command.to_request()).unwrap(), command);
    }
}

#[test]
fn wrong_requests_are_told_in_pythons_words() {
    let cases = [
        (json!({"method": "bogus"}), "KeyError('bogus')"),
        (
            json!({"method": "enable_events", "arguments": {"zz": 1}}),
            "TypeError(\"enable_events() got an unexpected keyword argument 'zz'\")",
        ),
        (
            json!({"method": "revoke"}),
            "TypeError(\"revoke() missing 1 required positional argument: 'task_id'\")",
        ),
        (
            json!({"method": "pool_grow", "arguments": {"n": -1}}),
            "TypeError(\"pool_grow() argument 'n' must be a number that is not negative\")",
        ),
    ];
    for (body, want) in cases {
        let request = Request::decode(body.to_string().as_bytes()).unwrap();
        assert_eq!(Command::parse(&request).unwrap_err().to_string(), want);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"method": []}"#,
        r#"{"method": "ping", "arguments": []}"#,
        r#"{"method": "ping", "destination": "w1@vm"}"#,
        r#"{"method": "ping", "destination": [1]}"#,
        r#"{"method": "ping", "reply_to": "x"}"#,
        r#"{"method": "ping", "reply_to": {}}"#,
    ] {
        assert!(Request::decode(body.as_bytes()).is_err(), "{body}");
    }
}
