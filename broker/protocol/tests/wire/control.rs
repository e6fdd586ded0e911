//! Remote control: requests and replies of `app.control`.

use celery_protocol::control::{Command, Reply, Request};
use serde::Deserialize;
use serde_json::Value;

use crate::golden::{self, Published};

#[derive(Deserialize)]
struct Case {
    case: String,
    requests: Vec<Published>,
    replies: Vec<Published>,
}

/// The same JSON, whatever the order of keys.
fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_request_is_encoded_as_it_was() {
    for case in golden::read::<Vec<Case>>("control") {
        for message in &case.requests {
            let request =
                Request::decode(&message.body()).unwrap_or_else(|err| panic!("{}: {err}", case.case));
            assert_eq!(value(&request.encode().unwrap()), value(&message.body()), "{}", case.case);
        }
    }
}

#[test]
fn every_reply_is_encoded_as_it_was() {
    let mut count = 0;
    for case in golden::read::<Vec<Case>>("control") {
        for message in &case.replies {
            let replies = Reply::decode(&message.body()).unwrap();
            let [reply] = replies.as_slice() else { panic!("one node answers at a time") };
            assert_eq!(reply.node, "golden@host");
            assert_eq!(value(&reply.encode().unwrap()), value(&message.body()), "{}", case.case);
            count += 1;
        }
    }
    assert!(count > 25, "only {count} replies");
}

#[test]
fn every_command_is_understood() {
    for case in golden::read::<Vec<Case>>("control") {
        for message in &case.requests {
            let request = Request::decode(&message.body()).unwrap();
            let command = Command::parse(&request);
            match case.case.as_str() {
                "unknown" => assert!(command.is_err(), "{command:?}"),
                "unexpected argument" | "rate_limit, bad" => {}
                name => assert!(command.is_ok(), "{name}: {command:?}"),
            }
        }
    }
}
