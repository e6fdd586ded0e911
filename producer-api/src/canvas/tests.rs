//! Workflows as a table: what is refused and where, and what the rest become.

#![expect(clippy::needless_pass_by_value, reason = "tables read better without references")]

use celery_broker::Celery;
use celery_broker::route::Router;
use celery_protocol::{QueueName, WireTime};
use serde_json::{Value, json};

use super::plan::{Act, Planned, plan};
use super::read::{self, MAX_CALLS};
use crate::idempotency::Ids;
use crate::plan::Context;
use crate::plan::tests::limits;
use crate::policy::Policy;
use crate::problem::{Kind, Problem};

fn under(policy: &Policy, body: &Value) -> Result<Planned, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let _inside = runtime.enter();
    let (celery, _outbox) = Celery::builder("test").offline().expect("offline");
    let limits = limits();
    let mut router = Router::new(QueueName::parse("celery").expect("name"));
    router.add("mail.*", QueueName::parse("mail").expect("name")).expect("a pattern");
    let context = Context {
        now: WireTime::parse("2026-11-24T02:51:34.920842+00:00").expect("time"),
        origin: "api@here",
        router: &router,
        policy,
        limits: &limits,
        trace: None,
        raw_priority: false,
    };
    plan(read::read(&body.to_string(), &context)?, &celery, &context, &Ids::RANDOM)
}

fn planned(canvas: Value) -> Result<Planned, Problem> {
    under(&Policy::default(), &json!({ "canvas": canvas }))
}

/// The published messages: task, queue and body.
fn messages(planned: &Planned) -> Vec<(String, String, Value)> {
    let publishes = planned.acts.iter().filter_map(|act| match act {
        Act::Publish { route, message, .. } => {
            let task = message.headers["task"].as_str().unwrap_or_default().to_owned();
            Some((task, route.routing_key.clone(), serde_json::from_slice(&message.body).expect("JSON")))
        }
        _ => None,
    });
    publishes.collect()
}

fn task(name: &str, args: Value) -> Value {
    json!({"task": name, "args": args})
}

#[test]
fn a_chain_is_its_first_message_and_all_its_ids() {
    let canvas = json!({"chain": [task("demo.add", json!([1, 2])), task("mail.send", json!([3])), {"group": [task("demo.a", json!([])), task("demo.b", json!([]))]}]});
    let planned = planned(canvas).expect("valid");
    let messages = messages(&planned);
    assert_eq!(messages.len(), 1);
    let (name, queue, body) = &messages[0];
    assert_eq!((name.as_str(), queue.as_str(), &body[0]), ("demo.add", "celery", &json!([1, 2])));
    let chain = body[2]["chain"].as_array().expect("a chain");
    assert_eq!((chain.len(), &chain[1]["task"]), (2, &json!("mail.send")));
    let names: Vec<&str> = planned.records.iter().map(|(_, record)| record.task.as_str()).collect();
    assert_eq!(names, ["demo.add", "mail.send", "demo.a", "demo.b"]);
    assert!(planned.records.iter().all(|(_, record)| record.root_id == planned.records[0].1.root_id));
    assert_eq!((planned.groups.len(), planned.groups[0].1.len()), (1, 2));
}

#[test]
fn a_chord_says_its_size_before_its_last_member() {
    let canvas = json!({"chord": {"header": [task("a", json!([])), task("b", json!([])), task("c", json!([]))], "body": task("total", json!([]))}});
    let planned = planned(canvas).expect("valid");
    let shape: Vec<&str> = planned
        .acts
        .iter()
        .map(|act| match act {
            Act::Publish { .. } => "publish",
            Act::ChordSize(_, 3) => "size 3",
            _ => "other",
        })
        .collect();
    assert_eq!(shape, ["publish", "publish", "size 3", "publish"]);
    let (_, members, body) = &planned.groups[0];
    assert_eq!((members.len(), body.as_ref()), (3, Some(&planned.result.id)));
}

#[test]
fn map_starmap_and_chunks_are_celerys() {
    let map = planned(json!({"map": {"task": "mail.one", "it": [1, 2.50]}})).expect("valid");
    let (name, queue, body) = &messages(&map)[0];
    assert_eq!((name.as_str(), queue.as_str()), ("celery.map", "mail"));
    assert_eq!((&body[1]["task"]["task"], &body[1]["it"]), (&json!("mail.one"), &json!([1, 2.5])));
    let starmap =
        json!({"starmap": {"task": task("t", json!([])), "it": [[1, 2]]}, "options": {"queue": "q"}});
    assert_eq!(messages(&planned(starmap).expect("valid"))[0].1, "q");
    let chunks = planned(json!({"chunks": {"task": "t", "it": [[1], [2], [3]], "n": 2}})).expect("valid");
    let sent = messages(&chunks);
    assert_eq!(sent.len(), 2);
    assert_eq!((&sent[0].2[1]["it"], &sent[1].2[1]["it"]), (&json!([[1], [2]]), &json!([[3]])));
}

#[test]
fn celerys_own_dictionaries_mean_the_same() {
    let readable =
        json!({"chain": [{"group": [task("a", json!([1])), task("b", json!([]))]}, task("c", json!([]))]});
    let celerys = json!({"task": "celery.chain", "args": [], "options": {}, "subtask_type": "chain", "immutable": false, "kwargs": {"tasks": [
        {"task": "celery.group", "args": [], "options": {}, "subtask_type": "group", "immutable": false, "kwargs": {"tasks": [
            {"task": "a", "args": [1], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}, task("b", json!([]))]}},
        task("c", json!([]))]}});
    let (one, other) = (planned(readable).expect("valid"), planned(celerys).expect("valid"));
    let shape = |planned: &Planned| -> Vec<_> {
        messages(planned).into_iter().map(|(task, queue, body)| (task, queue, body[0].clone())).collect()
    };
    assert_eq!(shape(&one), shape(&other));
    assert_eq!((one.acts.len(), one.groups.len()), (3, 1));
}

#[test]
fn defaults_links_and_stamps_reach_every_call() {
    let body = json!({
        "canvas": {"chain": [task("a", json!([])), {"task": "b", "options": {"queue": "own"}}]},
        "defaults": {"queue": "hi", "priority": 3}, "stamps": {"tenant": "x"},
        "link": [task("done", json!([]))], "link_error": [task("oops", json!([]))], "meta": {"order": 1}
    });
    let planned = under(&Policy::default(), &body).expect("valid");
    let sent = messages(&planned);
    assert_eq!(sent[0].1, "hi");
    let next = &sent[0].2[2]["chain"][0];
    assert_eq!((&next["options"]["queue"], &next["options"]["priority"]), (&json!("own"), &json!(3)));
    assert_eq!(next["options"]["tenant"], "x");
    assert_eq!(next["options"]["link"][0]["task"], "done");
    assert_eq!(sent[0].2[2]["errbacks"][0]["task"], "oops");
    assert_eq!(planned.records[0].1.meta["order"], 1);
}

#[test]
fn what_makes_no_sense_is_refused_at_its_place() {
    let deep = (0..40).fold(task("t", json!([])), |inner, _| json!({ "chain": [inner] }));
    let many: Vec<Value> = (0..=MAX_CALLS).map(|_| task("t", json!([]))).collect();
    let one = |node: Value| json!({"chain": [task("t", json!([])), {"group": [node]}]});
    for (canvas, kind, place) in [
        (json!([]), Kind::CanvasInvalid, "/canvas"),
        (json!({}), Kind::CanvasInvalid, "/canvas"),
        (json!({"chain": []}), Kind::CanvasInvalid, "/canvas/chain"),
        (json!({"group": {}}), Kind::CanvasInvalid, "/canvas/group"),
        (json!({"chain": [task("t", json!([]))], "group": []}), Kind::CanvasInvalid, "/canvas"),
        (json!({"chain": [task("t", json!([]))], "extra": 1}), Kind::UnknownField, "/canvas/extra"),
        (json!({"chord": {"header": [task("t", json!([]))]}}), Kind::InvalidOption, "/canvas/chord/body"),
        (json!({"chunks": {"task": "t", "it": [], "n": 0}}), Kind::InvalidOption, "/canvas/chunks/n"),
        (
            json!({"map": {"task": {"chain": [task("t", json!([]))]}, "it": []}}),
            Kind::CanvasInvalid,
            "/canvas/map/task",
        ),
        (one(json!({"task": ""})), Kind::CanvasInvalid, "/canvas/chain/1/group/0"),
        (one(json!({"task": "t", "qeue": "x"})), Kind::UnknownField, "/canvas/chain/1/group/0/qeue"),
        (
            one(json!({"task": "t", "options": {"coutdown": 1}})),
            Kind::UnknownField,
            "/canvas/chain/1/group/0/options/coutdown",
        ),
        (
            one(json!({"task": "t", "options": {"countdown": -1}})),
            Kind::InvalidOption,
            "/canvas/chain/1/group/0/options/countdown",
        ),
        (
            one(json!({"task": "t", "options": {"queue": "celeryev"}})),
            Kind::InvalidOption,
            "/canvas/chain/1/group/0/options/queue",
        ),
        (
            one(json!({"task": "t", "options": {"headers": {"id": "x"}}})),
            Kind::InvalidOption,
            "/canvas/chain/1/group/0/options/headers/id",
        ),
        (
            one(json!({"task": "t", "options": {"args": [1]}})),
            Kind::UnknownField,
            "/canvas/chain/1/group/0/options/args",
        ),
        (
            one(json!({"task": "t", "options": {"serializer": "pickle"}})),
            Kind::InvalidOption,
            "/canvas/chain/1/group/0/options/serializer",
        ),
        (
            json!({"chord": {"header": [{"task": "t", "options": {"ignore_result": true}}], "body": task("b", json!([]))}}),
            Kind::CanvasInvalid,
            "/canvas/chord/header/0",
        ),
        (json!({ "group": many }), Kind::CanvasInvalid, "/canvas/group/1000"),
    ] {
        let problem = planned(canvas.clone()).expect_err(&canvas.to_string());
        let pointer = problem.body().errors.first().map(|error| error.pointer.clone());
        assert_eq!((problem.kind(), pointer.as_deref()), (kind, Some(place)), "{canvas}");
    }
    assert_eq!(planned(deep).expect_err("too deep").kind(), Kind::CanvasInvalid);
    for (body, place) in [
        (json!({}), "/canvas"),
        (json!({"canvas": task("t", json!([])), "defaults": {"task_id": "x"}}), "/defaults"),
        (json!({"canvas": task("t", json!([])), "stamps": {"": 1}}), "/stamps/"),
        (json!({"canvas": task("t", json!([])), "publish": {"timeout": 0}}), "/publish/timeout"),
        (json!({"canvas": task("t", json!([])), "qeue": 1}), "/qeue"),
    ] {
        let problem = under(&Policy::default(), &body).expect_err(&body.to_string());
        assert_eq!(problem.body().errors[0].pointer, place, "{body}");
    }
}

#[test]
fn the_allow_lists_hold_for_every_call() {
    let policy = Policy::new(vec!["demo.*".into()], vec!["celery".into()]);
    let kind = |canvas: Value| {
        under(&policy, &json!({ "canvas": canvas })).map(drop).map_err(|problem| problem.kind())
    };
    assert_eq!(
        kind(json!({"chain": [task("demo.a", json!([])), {"group": [task("demo.b", json!([]))]}]})),
        Ok(())
    );
    assert_eq!(
        kind(json!({"chain": [task("demo.a", json!([])), task("os.system", json!([]))]})),
        Err(Kind::TaskForbidden)
    );
    assert_eq!(kind(json!({"map": {"task": "os.system", "it": []}})), Err(Kind::TaskForbidden));
    assert_eq!(kind(json!({"map": {"task": "demo.a", "it": [1]}})), Ok(()));
    let raw = json!({"task": "celery.starmap", "kwargs": {"task": {"task": "os.system"}, "it": []}});
    assert_eq!(kind(raw), Err(Kind::TaskForbidden));
    assert_eq!(kind(json!({"task": "demo.a", "options": {"queue": "other"}})), Err(Kind::QueueForbidden));
    assert_eq!(
        kind(json!({"task": "demo.a", "options": {"link": {"task": "os.system"}}})),
        Err(Kind::TaskForbidden)
    );
    assert_eq!(kind(json!({"task": "mail.x"})), Err(Kind::TaskForbidden));
}
