//! Events: decode∘encode is the identity on everything on the exchange.

use celery_protocol::event::{self, EventBody};

use crate::golden::{self, Published};

#[test]
fn every_event_is_encoded_as_it_was() {
    let messages: Vec<Published> = golden::read("events");
    let mut types = Vec::new();
    for message in &messages {
        let body = message.body();
        let events: Vec<_> = event::decode(&body).unwrap().into_iter().map(Result::unwrap).collect();
        let again = if message.routing_key.ends_with(".multi") {
            event::encode_multi(&events).unwrap()
        } else {
            assert_eq!(events[0].body.routing_key(), message.routing_key);
            event::encode(&events[0]).unwrap()
        };
        if matches!(events[0].body, EventBody::Other { .. }) {
            // fields that have no meaning here are sorted by name
            let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
            assert_eq!(value(&again), value(&body));
        } else {
            assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(body).unwrap());
        }
        for event in events {
            assert_eq!(message.headers()["hostname"], event.hostname.as_str());
            types.push(event.body.type_name().into_owned());
            if let EventBody::Task(task) = &event.body {
                assert!(!task.uuid.is_empty());
            }
        }
    }
    for wanted in [
        "task-sent",
        "task-received",
        "task-started",
        "task-succeeded",
        "task-failed",
        "task-retried",
        "task-revoked",
        "worker-heartbeat",
        "golden-custom",
    ] {
        assert!(types.iter().any(|found| found == wanted), "{wanted} was not captured");
    }
}
