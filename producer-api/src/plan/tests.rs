//! Submissions as a table: what is refused and where, and what the rest become on the wire.

use std::time::Duration;

use celery_broker::route::Router;
use celery_protocol::{Limits as WireLimits, Message, QueueName, TaskId, WireTime};
use serde_json::{Value, json};

use super::{Context, Plan};
use crate::config::Limits;
use crate::dto::submit::SubmitTask;
use crate::policy::Policy;
use crate::problem::{Kind, Outcome, Problem};
use crate::trace_context::TraceContext;

const NOW: &str = "2026-11-24T02:51:34.920842+00:00";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) fn limits() -> Limits {
    Limits {
        body: 1 << 20,
        batch: 8 << 20,
        body_timeout: Duration::from_secs(10),
        json_depth: 64,
        headers: 65_536,
        in_flight: 1000,
        waits: 1000,
        wait: Duration::from_secs(30),
        eta: Duration::from_secs(30 * 86_400),
        publish: Duration::from_secs(5),
        submission: Duration::from_secs(86_400),
    }
}

fn router() -> Router {
    let mut router = Router::new(QueueName::parse("celery").expect("name"));
    router.add("mail.*", QueueName::parse("mail").expect("name")).expect("pattern");
    router
}

fn plan_under(policy: &Policy, body: &Value) -> Result<Plan, Problem> {
    let (limits, router) = (limits(), router());
    let context = Context {
        now: WireTime::parse(NOW).expect("time"),
        origin: "api@here",
        router: &router,
        policy,
        limits: &limits,
        trace: TraceContext::from_headers(Some(TRACE), None),
        raw_priority: false,
    };
    Plan::make(SubmitTask::parse(&body.to_string())?, &TaskId::parse("id-1").expect("id"), &context)
}

fn plan(body: &Value) -> Result<Plan, Problem> {
    plan_under(&Policy::default(), body)
}

/// Plans `demo.add` with these members besides.
fn with(members: Value) -> Result<Plan, Problem> {
    let mut body = json!({"task": "demo.add"});
    if let (Value::Object(body), Value::Object(members)) = (&mut body, members) {
        body.extend(members);
    }
    plan(&body)
}

#[test]
fn the_smallest_submission_is_what_celery_sends() {
    let plan = plan(&json!({"task": "demo.add", "args": [2, 3]})).expect("valid");
    assert_eq!((plan.route.exchange.as_str(), plan.route.routing_key.as_str()), ("", "celery"));
    assert_eq!(plan.timeout, Duration::from_secs(5));
    let message = &plan.message;
    assert_eq!(
        &message.body[..],
        br#"[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#
    );
    let expected = json!({
        "lang": "rust", "task": "demo.add", "id": "id-1", "shadow": null, "eta": null, "expires": null, "group": null,
        "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "id-1", "parent_id": null,
        "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "api@here", "ignore_result": null,
        "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}, "traceparent": TRACE
    });
    assert_eq!(Value::Object(message.headers.clone()), expected);
    let properties = &message.properties;
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!((properties.delivery_mode, properties.priority), (Some(2), Some(0)));
    assert_eq!(properties.correlation_id.as_deref(), Some("id-1"));
    assert_eq!(properties.expiration, None);
}

#[test]
fn every_option_reaches_its_place() {
    let plan = with(json!({
        "kwargs": {"x": 1.50}, "queue": "hi", "countdown": 10, "expires": 60.5, "priority": 5, "retries": 2,
        "time_limit": 60, "soft_time_limit": 50.5, "ignore_result": true, "shadow": "shown", "headers": {"x-tenant": "a"},
        "stamps": {"tenant": ["a"]}, "root_id": "r", "parent_id": "p", "group_id": "g", "group_index": 3,
        "reply_to": "answers", "delivery_mode": "transient", "origin": "me", "publish": {"timeout": 0.5},
        "link": [{"task": "demo.mul", "args": [2]}], "link_error": [{"task": "demo.oops"}],
        "chain": [{"task": "demo.last"}, {"task": "demo.next"}], "chord": {"task": "demo.total"},
        "store_args": true, "meta": {"order": 42}
    }))
    .expect("valid");
    assert_eq!(plan.route.routing_key, "hi");
    assert_eq!(plan.timeout, Duration::from_millis(500));
    assert_eq!(plan.keep, Duration::from_secs(86_410));
    let headers = &plan.message.headers;
    for (name, value) in [
        ("eta", json!("2026-11-24T02:51:44.920842+00:00")),
        ("expires", json!("2026-11-24T02:52:35.420842+00:00")),
        ("timelimit", json!([60, 50.5])),
        ("ignore_result", json!(true)),
        ("shadow", json!("shown")),
        ("x-tenant", json!("a")),
        ("stamped_headers", json!(["tenant"])),
        ("stamps", json!({"tenant": ["a"]})),
        ("root_id", json!("r")),
        ("parent_id", json!("p")),
        ("group", json!("g")),
        ("group_index", json!(3)),
        ("retries", json!(2)),
        ("origin", json!("me")),
        ("kwargsrepr", json!("{'x': 1.5}")),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let properties = &plan.message.properties;
    assert_eq!((properties.delivery_mode, properties.priority), (Some(1), Some(5)));
    assert_eq!(properties.reply_to.as_deref(), Some("answers"));
    assert_eq!(properties.expiration.as_deref(), Some("60500"));
    let message = Message::decode(plan.message.clone(), &WireLimits::DEFAULT).expect("decodes");
    let body = message.body(&WireLimits::DEFAULT).expect("a body");
    assert_eq!(body.embed.callbacks[0].task.as_str(), "demo.mul");
    assert_eq!(body.embed.errbacks[0].task.as_str(), "demo.oops");
    assert_eq!(body.embed.chain[1].task.as_str(), "demo.next");
    assert_eq!(body.embed.chord.as_ref().map(|body| body.task.as_str()), Some("demo.total"));
    assert_eq!(plan.record.args.as_ref().map(|raw| raw.get()), Some("[]"));
    assert_eq!(plan.record.kwargs.as_ref().map(|raw| raw.get()), Some("{\"x\": 1.5}"));
}

#[test]
fn routes_and_destinations() {
    let to = |body: Value| {
        plan(&body).map(|plan| (plan.route.exchange, plan.route.routing_key, plan.record.queue))
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(
        to(json!({"task": "mail.send"})).expect("valid"),
        (String::new(), "mail".into(), some("mail"))
    );
    assert_eq!(
        to(json!({"task": "mail.send", "queue": "q"})).expect("valid"),
        (String::new(), "q".into(), some("q"))
    );
    let named = json!({"task": "t", "exchange": "tasks", "routing_key": "a.b"});
    assert_eq!(to(named).expect("valid"), ("tasks".into(), "a.b".into(), None));
    // A queue that was named: Celery leaves the priority out.
    assert_eq!(with(json!({"queue": "q"})).expect("valid").message.properties.priority, None);
}

#[test]
fn a_zlib_body_is_announced_and_read_back() {
    let plan = with(json!({"args": ["x".repeat(1000)], "compression": "zlib"})).expect("valid");
    assert_eq!(plan.message.headers["compression"], "application/x-gzip");
    assert!(plan.message.body.len() < 200);
    let message = Message::decode(plan.message, &WireLimits::DEFAULT).expect("decodes");
    assert_eq!(message.body(&WireLimits::DEFAULT).expect("a body").args.len(), 1);
}

#[test]
fn a_body_may_be_msgpack_or_yaml() {
    for (name, mime) in [("msgpack", "application/x-msgpack"), ("yaml", "application/x-yaml")] {
        let plan = with(json!({"args": [1, "x"], "serializer": name})).expect("valid");
        assert_eq!(plan.message.properties.content_type.as_deref(), Some(mime));
    }
}

#[test]
fn what_makes_no_sense_is_refused_at_its_place() {
    let long = "x".repeat(256);
    for (members, pointer) in [
        (json!({"task": ""}), "/task"),
        (json!({"task": "a\nb"}), "/task"),
        (json!({"task": "a\u{0}b"}), "/task"),
        (json!({"countdown": 1, "eta": "2030-01-02T03:04:05Z"}), "/eta"),
        (json!({"countdown": -1}), "/countdown"),
        (json!({"countdown": 1e18}), "/countdown"),
        (json!({"countdown": "5"}), "/countdown"),
        (json!({"eta": "2026-11-24T03:00:00"}), "/eta"),
        (json!({"eta": "9999-01-01T00:00:00Z"}), "/eta"),
        (json!({"eta": "2026-11-25T00:00:00Z", "expires": "2026-11-24T23:00:00Z"}), "/expires"),
        (json!({"countdown": 100, "expires": 50}), "/expires"),
        (json!({"expires": 0}), "/expires"),
        (json!({"expires": -1}), "/expires"),
        (json!({"expires": 1e10}), "/expires"),
        (json!({"expires": "2020-01-01T00:00:00Z"}), "/expires"),
        (json!({"expires": true}), "/expires"),
        (json!({"queue": "a\nb"}), "/queue"),
        (json!({"queue": ""}), "/queue"),
        (json!({"queue": "amq.gen-x"}), "/queue"),
        (json!({"queue": "celeryev.1"}), "/queue"),
        (json!({"queue": "w@h.celery.pidbox"}), "/queue"),
        (json!({"exchange": "celeryev"}), "/exchange"),
        (json!({"exchange": "celery.pidbox"}), "/exchange"),
        (json!({"exchange": ""}), "/exchange"),
        (json!({"routing_key": "reply.celery.pidbox"}), "/routing_key"),
        (json!({"queue": "q", "exchange": "x"}), "/queue"),
        (json!({"priority": 10}), "/priority"),
        (json!({"priority": 256}), "/priority"),
        (json!({"time_limit": 0}), "/time_limit"),
        (json!({"time_limit": 10, "soft_time_limit": 20}), "/soft_time_limit"),
        (json!({"serializer": "pickle"}), "/serializer"),
        (json!({"serializer": "application/x-python-serialize"}), "/serializer"),
        (json!({"serializer": "xml"}), "/serializer"),
        (json!({"compression": "zstd"}), "/compression"),
        (json!({"headers": {"id": "other"}}), "/headers/id"),
        (json!({"headers": {"x-death": []}}), "/headers/x-death"),
        (json!({"headers": {"a\r\nb": 1}}), "/headers/a\r\nb"),
        (json!({"headers": []}), "/headers"),
        (json!({"group_index": 1}), "/group_index"),
        (json!({"reply_to": "amq.rabbitmq.reply-to"}), "/reply_to"),
        (json!({"publish": {"mandatory": false}}), "/publish/mandatory"),
        (json!({"publish": {"timeout": 0}}), "/publish/timeout"),
        (json!({"meta": {"x": "y".repeat(5000)}}), "/meta"),
        (json!({"link": [{"args": []}]}), "/link/0"),
        (json!({"link": [{"task": "t", "options": {"queue": "celery.pidbox"}}]}), "/link/0/options/queue"),
        (json!({"delivery_mode": "maybe"}), "/delivery_mode"),
        (json!({"args": {}}), "/args"),
        (json!({"kwargs": []}), "/kwargs"),
    ] {
        let problem = with(members.clone()).expect_err(&members.to_string());
        let body = problem.body();
        assert_eq!(body.errors.first().map(|error| error.pointer.as_str()), Some(pointer), "{members}");
        assert_eq!(problem.kind(), Kind::InvalidOption, "{members}");
    }
    for members in [json!({"queue": long}), json!({"task": long}), json!({"headers": {long.clone(): 1}})] {
        assert_eq!(with(members).expect_err("too long").kind(), Kind::NameTooLong);
    }
    let problem = with(json!({"headers": {"big": "x".repeat(70_000)}})).expect_err("too large");
    assert_eq!(
        (problem.kind(), problem.known_outcome()),
        (Kind::HeadersTooLarge, Some(Outcome::NotPublished))
    );
}

#[test]
fn the_allow_lists_hold_for_the_task_its_queue_and_its_callbacks() {
    let policy = Policy::new(vec!["demo.*".into()], vec!["celery".into()]);
    let kind = |body: Value| plan_under(&policy, &body).map(|_| ()).map_err(|problem| problem.kind());
    assert_eq!(kind(json!({"task": "demo.add"})), Ok(()));
    assert_eq!(kind(json!({"task": "mail.send", "queue": "celery"})), Err(Kind::TaskForbidden));
    assert_eq!(kind(json!({"task": "demo.add", "queue": "mail"})), Err(Kind::QueueForbidden));
    assert_eq!(kind(json!({"task": "demo.add", "link": [{"task": "mail.send"}]})), Err(Kind::TaskForbidden));
}
