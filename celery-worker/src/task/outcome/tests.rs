//! What the answers of tasks mean under their options.

use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use celery_protocol::{Body, Headers, Message, Nodename, TaskId, TaskName};
use expect_test::{Expect, expect};
use serde_json::Value;

use super::*;
use crate::context::DeliveryInfo;
use crate::prelude::*;
use crate::task::{Registry, Task};

const NOW: SystemTime = UNIX_EPOCH;

#[task(name = "t.plain")]
async fn plain(x: i64, y: Option<i64>, #[serde(default)] z: i64) -> TaskResult<i64> {
    Ok(x + y.unwrap_or(z))
}

#[task(
    name = "t.rules",
    max_retries = 2,
    retry_backoff = "1s",
    retry_backoff_max = "10s",
    autoretry_for(io::Error, "LookupError", "SoftTimeLimitExceeded"),
    dont_autoretry_for("IndexError"),
    throws("ValueError", std::num::ParseIntError)
)]
async fn rules() -> TaskResult<()> {
    Ok(())
}

fn erased<T: Task<()>>() -> Arc<ErasedTask> {
    let mut registry = Registry::new(());
    registry.task::<T>();
    let tasks = registry.build().unwrap();
    Arc::clone(tasks.get(&TaskName::parse(T::NAME).unwrap()).unwrap())
}

fn request(task: &str, retries: u32, args: &str, kwargs: &str) -> Request {
    let mut headers = Headers::new(TaskName::parse(task).unwrap(), TaskId::parse("id-1").unwrap());
    headers.retries = retries;
    let body = Body {
        args: celery_protocol::pyjson::from_str(args).unwrap(),
        kwargs: celery_protocol::pyjson::from_str(kwargs).unwrap(),
        ..Body::default()
    };
    let message = Message::new(headers, &body);
    let delivery = DeliveryInfo {
        exchange: String::new(),
        routing_key: "celery".into(),
        priority: None,
        redelivered: false,
        queue: QueueName::parse("celery").unwrap(),
    };
    Request::new(message, body, delivery, Nodename::parse("w@host").unwrap())
}

fn decide<T: Task<()>>(retries: u32, error: impl Into<TaskError>) -> Outcome {
    Outcome::decide(Err(error.into()), &erased::<T>(), &request(T::NAME, retries, "[1]", "{}"), NOW, 0.5)
}

/// One line for an outcome.
fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Success(value) => format!("success {value}"),
        Outcome::Failure { failure, expected } => {
            format!("failure {failure}{}", if *expected { ", expected" } else { "" })
        }
        Outcome::Retry(resend) => {
            assert_eq!(resend.due, NOW + resend.delay);
            let args = resend.args.as_ref().map(|args| args.to_raw().to_string());
            let kwargs = resend.kwargs.as_ref().map(|kwargs| kwargs.to_raw().to_string());
            format!("{:?} after {:?} with {args:?} {kwargs:?}", resend.reason, resend.delay)
        }
        other => format!("{other:?}"),
    }
}

fn check<T: Task<()>>(retries: u32, error: impl Into<TaskError>, expected: &Expect) {
    expected.assert_eq(&shown(&decide::<T>(retries, error)));
}

fn ask() -> Retry {
    Retry::new()
}

#[test]
fn a_task_that_asks_is_retried_three_times_after_three_minutes() {
    check::<plain>(0, ask(), &expect![[r#""Retry in 180s" after 180s with None None"#]]);
    check::<plain>(2, ask(), &expect![[r#""Retry in 180s" after 180s with None None"#]]);
    check::<plain>(
        3,
        ask(),
        &expect!["failure MaxRetriesExceededError: Can't retry t.plain[id-1] args:(1,) kwargs:{}"],
    );
    let because = || ask().because(Failure::new("KeyError", "k"));
    check::<plain>(0, because(), &expect![[r#""Retry in 180s: KeyError('k')" after 180s with None None"#]]);
    check::<plain>(3, because(), &expect!["failure KeyError: k"]);
}

#[test]
fn the_body_has_the_last_word_on_when_and_how_often() {
    let soon = || ask().countdown(Duration::from_millis(500));
    check::<plain>(0, soon(), &expect![[r#""Retry in 0.5s" after 500ms with None None"#]]);
    check::<plain>(9, soon().max_retries(10), &expect![[r#""Retry in 0.5s" after 500ms with None None"#]]);
    check::<plain>(
        0,
        soon().max_retries(0),
        &expect!["failure MaxRetriesExceededError: Can't retry t.plain[id-1] args:(1,) kwargs:{}"],
    );
    check::<plain>(u32::MAX, soon().unlimited(), &expect![[r#""Retry in 0.5s" after 500ms with None None"#]]);
    check::<plain>(
        0,
        ask().eta(NOW + Duration::from_secs(60)),
        &expect![[r#""Retry at 1970-01-01T00:01:00+00:00" after 60s with None None"#]],
    );
}

#[test]
fn back_off_doubles_up_to_its_maximum_and_is_jittered() {
    let io = || io::Error::other("no route");
    // The dice of these tests show one half.
    check::<rules>(0, io(), &expect![[r#""Retry in 0.5s: IoError('no route')" after 500ms with None None"#]]);
    check::<rules>(1, io(), &expect![[r#""Retry in 1s: IoError('no route')" after 1s with None None"#]]);
    check::<rules>(2, io(), &expect!["failure IoError: no route"]);
    // A retry that the body asks for backs off as well.
    check::<rules>(1, ask(), &expect![[r#""Retry in 1s" after 1s with None None"#]]);

    let options = erased::<rules>().options.resolve(&TaskOptions::DEFAULT);
    let no_jitter = Execution { retry_jitter: false, ..options };
    let delays: Vec<u64> =
        [0, 1, 2, 3, 4, 31, 32, u32::MAX].map(|n| delay(&no_jitter, n, 0.5).as_secs()).into();
    assert_eq!(delays, [1, 2, 4, 8, 10, 10, 10, 10]);
    for (dice, expected) in [(0.0, 0), (1.0, 4000), (0.25, 1000), (7.0, 4000)] {
        assert_eq!(delay(&options, 2, dice).as_millis(), expected);
    }
}

#[test]
fn failures_are_matched_by_type_and_by_pythons_class_tree() {
    let raised = |name: &str| Failure::new(name, "x");
    check::<rules>(
        0,
        raised("KeyError"),
        &expect![[r#""Retry in 0.5s: KeyError('x')" after 500ms with None None"#]],
    );
    check::<rules>(0, raised("IndexError"), &expect!["failure IndexError: x"]);
    check::<rules>(0, raised("UnicodeError"), &expect!["failure UnicodeError: x, expected"]);
    check::<rules>(0, raised("MyError"), &expect!["failure MyError: x"]);
    let parse = "x".parse::<i64>().unwrap_err();
    check::<rules>(0, parse, &expect!["failure ParseIntError: invalid digit found in string, expected"]);
    // By the type of the error behind it, whatever the exception is called.
    let hidden = raised("MyError").caused_by(io::Error::other("y"));
    check::<rules>(0, hidden, &expect![[r#""Retry in 0.5s: MyError('x')" after 500ms with None None"#]]);
}

#[test]
fn interrupts_and_refusals_pass_through() {
    check::<plain>(0, Interrupt::SoftTimeLimit, &expect!["failure SoftTimeLimitExceeded"]);
    check::<rules>(
        0,
        Interrupt::SoftTimeLimit,
        &expect![[r#""Retry in 0.5s: SoftTimeLimitExceeded()" after 500ms with None None"#]],
    );
    check::<rules>(0, Interrupt::Terminated, &expect!["Interrupted(Terminated)"]);
    check::<rules>(0, Interrupt::Shutdown, &expect!["Interrupted(Shutdown)"]);
    check::<plain>(0, TaskError::Ignore, &expect!["Ignore"]);
    check::<plain>(0, TaskError::Replaced, &expect!["Replaced"]);
    check::<plain>(0, TaskError::reject("no"), &expect![[r#"Reject { requeue: false, reason: "no" }"#]]);
    check::<plain>(
        0,
        TaskError::requeue("later"),
        &expect![[r#"Reject { requeue: true, reason: "later" }"#]],
    );
}

#[test]
fn new_arguments_replace_what_they_name() {
    let check = |args: &str, kwargs: &str, retry: Retry, expected: &Expect| {
        let request = request("t.plain", 0, args, kwargs);
        let outcome = Outcome::decide(Err(retry.into()), &erased::<plain>(), &request, NOW, 0.0);
        expected.assert_eq(shown(&outcome).split("with ").nth(1).unwrap());
    };
    check("[1, 2]", "{}", ask().args((5, 6)), &expect![[r#"Some("[5, 6]") None"#]]);
    check(
        "[]",
        r#"{"x": 1, "y": 2, "z": 3}"#,
        ask().args((5, 6)),
        &expect![[r#"Some("[5, 6]") Some("{\"z\": 3}")"#]],
    );
    check("[1, 2]", "{}", ask().kwargs(json!({"x": 5})), &expect![[r#"Some("[5, 2]") Some("{}")"#]]);
    check(
        "[1]",
        r#"{"y": 2}"#,
        ask().kwargs(json!({"x": 5, "z": 7})),
        &expect![[r#"Some("[5]") Some("{\"z\": 7}")"#]],
    );
    check(
        "[1]",
        "{}",
        ask().args([0; 0]).kwargs(json!({"x": 5})),
        &expect![[r#"Some("[]") Some("{\"x\": 5}")"#]],
    );
}

#[test]
fn arguments_that_cannot_be_written_are_a_failure_and_no_retry() {
    let bad: std::collections::HashMap<Vec<u8>, i64> = [(vec![1], 1)].into();
    let outcome = decide::<plain>(0, ask().kwargs(bad));
    assert!(shown(&outcome).starts_with("failure EncodeError: "), "{outcome:?}");
}

#[test]
fn a_value_stays_the_bytes_it_was() {
    let value = celery_protocol::pyjson::to_raw(&Value::from("ä")).unwrap();
    let outcome =
        Outcome::decide(Ok(value), &erased::<plain>(), &request("t.plain", 0, "[]", "{}"), NOW, 0.0);
    assert_eq!(shown(&outcome), r#"success "\u00e4""#);
}
