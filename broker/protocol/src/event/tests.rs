//! Events as Celery 5.7.0 puts them on the wire, and events as nobody should.

use super::*;

const SUCCEEDED: &str = r#"[{"hostname": "w1@vm", "utcoffset": 0.0, "pid": 27438, "clock": 53, "uuid": "e4c9", "result": "5", "runtime": 0.0069, "timestamp": 1795486684.34, "type": "task-succeeded"}]"#;
const HEARTBEAT: &str = r#"{"hostname": "w1@vm", "utcoffset": -1.0, "pid": 25215, "clock": 2, "freq": 2.0, "active": 0, "processed": 0, "loadavg": [1.61, 0.92, 0.38], "sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux", "timestamp": 1795486575.5, "type": "worker-heartbeat"}"#;

fn events(body: &str) -> Vec<Event> {
    decode(body.as_bytes()).unwrap().into_iter().map(Result::unwrap).collect()
}

#[test]
fn celerys_bytes_come_back_byte_for_byte() {
    assert_eq!(String::from_utf8(encode_multi(&events(SUCCEEDED)).unwrap()).unwrap(), SUCCEEDED);
    assert_eq!(String::from_utf8(encode(&events(HEARTBEAT)[0]).unwrap()).unwrap(), HEARTBEAT);
}

#[test]
fn types_and_routing_keys() {
    let event = &events(SUCCEEDED)[0];
    assert_eq!(event.body.routing_key(), "task.succeeded");
    assert_eq!((event.body.group(), event.clock), ("task", 53));
    let other = r#"{"hostname": "a", "timestamp": 1, "type": "deploy-done", "version": 3, "uuid": "x"}"#;
    let EventBody::Other { kind, fields } = &events(other)[0].body else { panic!("not other") };
    assert_eq!((kind.as_str(), fields["version"].as_u64()), ("deploy-done", Some(3)));
    assert_eq!(fields["uuid"], "x");
    let custom = r#"{"hostname": "a", "timestamp": 1, "type": "task-half", "uuid": "x", "percent": 50}"#;
    let EventBody::Task(task) = &events(custom)[0].body else { panic!("not a task event") };
    assert_eq!(task.kind, TaskEventKind::Custom("half".into()));
    assert_eq!(task.fields.extra["percent"], 50);
}

#[test]
fn one_bad_event_costs_the_others_nothing() {
    let body = r#"[5, {"hostname": "a", "timestamp": 1, "type": "task-started", "uuid": "x"}, {}]"#;
    let outcomes: Vec<bool> = decode(body.as_bytes()).unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [false, true, false]);
}

#[test]
fn hostile_fields_are_dropped_or_cut() {
    let long = "h".repeat(100_000);
    let body = format!(
        r#"{{"hostname": "{long}", "timestamp": 1, "clock": -5, "utcoffset": "x", "pid": [], "type": "worker-heartbeat",
           "freq": 1e999, "loadavg": "no", "active": -1, "processed": 1.5}}"#
    );
    let event = &events(&body)[0];
    assert_eq!((event.hostname.len(), event.clock, event.utcoffset, event.pid), (255, 0, 0.0, None));
    let EventBody::Worker(worker) = &event.body else { panic!("not a worker event") };
    assert_eq!(worker.status, WorkerStatus::default());
}

#[test]
fn a_bad_timestamp_does_not_lose_the_event() {
    for time in ["\"soon\"", "-1", "null", "1e999"] {
        let body = format!(r#"{{"type": "task-started", "uuid": "x", "timestamp": {time}}}"#);
        assert!(events(&body)[0].timestamp.is_nan(), "{time}");
    }
}

#[test]
fn what_is_no_event_is_refused() {
    for body in [
        "",
        "null",
        "\"x\"",
        "{",
        r#"{"type": "task-started", "timestamp": 1}"#,
        r#"{"type": "", "uuid": "x", "timestamp": 1}"#,
        r#"{"type": null, "uuid": "x", "timestamp": 1}"#,
    ] {
        let refused = match decode(body.as_bytes()) {
            Err(_) => true,
            Ok(events) => events.iter().all(Result::is_err),
        };
        assert!(refused, "{body}");
    }
}
