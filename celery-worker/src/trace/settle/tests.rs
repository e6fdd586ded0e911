//! The policy as tables: how a task ended, under which rules, and what follows, in order.

use std::time::{Duration, SystemTime};

use celery_protocol::event::TaskEventKind;
use celery_protocol::{
    Body, Embed, GroupId, Headers, Message, Nodename, QueueName, ResultTuple, Signature, TaskId, TaskName,
    pyjson,
};

use super::*;
use crate::context::DeliveryInfo;
use crate::task::Failure;

pub(super) const NOW: SystemTime = SystemTime::UNIX_EPOCH;

const LATE: Rules = Rules {
    acks_late: true,
    acks_on_failure: true,
    acks_on_timeout: true,
    reject_on_worker_lost: false,
    ignore_result: false,
    store_errors: false,
    track_started: false,
    send_events: true,
};
const EARLY: Rules = Rules { acks_late: false, ..LATE };
const IGNORED: Rules = Rules { ignore_result: true, ..LATE };
const ERRORS_ONLY: Rules = Rules { store_errors: true, ..IGNORED };
const STRICT: Rules = Rules { acks_on_failure: false, acks_on_timeout: false, ..LATE };
const STRICT_EARLY: Rules = Rules { acks_late: false, ..STRICT };

pub(super) fn signature(task: &str, id: &str) -> Signature {
    let mut signature = Signature::new(TaskName::parse(task).unwrap());
    signature.options.set("task_id", &id);
    signature
}

pub(super) fn request(embed: Embed, change: impl FnOnce(&mut Headers)) -> Request {
    let mut headers = Headers::new(TaskName::parse("t.add").unwrap(), TaskId::parse("me").unwrap());
    headers.root_id = Some(TaskId::parse("root").unwrap());
    change(&mut headers);
    let body = Body { embed, ..Body::default() };
    let delivery = DeliveryInfo {
        exchange: String::new(),
        routing_key: "mail".into(),
        priority: None,
        redelivered: false,
        queue: QueueName::parse("mail").unwrap(),
    };
    Request::new(Message::new(headers, &body), body, delivery, Nodename::parse("w@h").unwrap())
}

/// The follow-ups of a success are confirmed before its result is stored; its chord is told after that.
#[test]
fn what_was_completed_before_owes_its_chord_an_answer_and_nothing_else() {
    let mut embed = Embed { callbacks: vec![signature("t.add", "callback")].into(), ..Embed::default() };
    let settlement = completed_before(&request(embed.clone(), |_| {}), value("5"));
    assert!(settlement.steps.is_empty(), "{settlement:?}");
    embed.chord = Some(Box::new(signature("t.add", "body")));
    let member = request(embed, |headers| {
        headers.group = Some(GroupId::parse("g").unwrap());
        headers.group_index = Some(3);
    });
    let settlement = completed_before(&member, value("5"));
    assert_eq!(settlement.disposition, Disposition::Ack);
    let [Step::ChordPart(report)] = settlement.steps.as_slice() else { panic!("{settlement:?}") };
    assert_eq!((report.state.clone(), report.result.get()), (TaskState::Success, "5"));
    assert_eq!((report.group_id.as_str(), report.group_index), ("g", Some(3)));
}

fn plain() -> Request {
    request(Embed::default(), |_| {})
}

fn value(json: &str) -> Box<RawValue> {
    pyjson::from_str(json).unwrap()
}

pub(super) fn success() -> Outcome {
    Outcome::Success(value("5"))
}

pub(super) fn failure() -> Outcome {
    Outcome::Failure { failure: Failure::new("ValueError", "no"), expected: false }
}

pub(super) fn retry() -> Outcome {
    Outcome::Retry(Resend {
        due: NOW + Duration::from_secs(10),
        delay: Duration::from_secs(10),
        failure: Some(Failure::new("ValueError", "again")),
        reason: "Retry in 10s: ValueError('again')".into(),
        args: None,
        kwargs: None,
        queue: None,
        priority: None,
        expires: None,
    })
}

pub(super) fn settled(request: &Request, rules: Rules, outcome: Outcome, timed_out: bool) -> Settlement {
    settle(Ended {
        request,
        rules,
        outcome,
        timed_out,
        children: Vec::new(),
        runtime: Duration::from_millis(3),
        now: NOW,
        new_style: &HashSet::from([TaskName::parse("new").unwrap()]),
        wants: Wants { extended: false, events: true },
    })
}

/// One word per step, and what becomes of the message.
fn told(settlement: &Settlement) -> String {
    let mut words: Vec<String> = settlement.steps.iter().map(word).collect();
    words.push(format!("{:?}", settlement.disposition).to_lowercase());
    words.join(" ")
}

fn word(step: &Step) -> String {
    match step {
        Step::Publish(FollowUp::Resend { route, message, .. }) => {
            format!("resend:{}:{}", route.routing_key, message.headers.retries)
        }
        Step::Publish(FollowUp::Apply(application)) => {
            let name = application.signature.task.as_str();
            let rest = application.chain.as_ref().map_or(String::new(), |chain| format!("+{}", chain.len()));
            format!("apply:{name}{rest}({})", application.arguments[0].get())
        }
        Step::Store(meta) => format!("store:{}:{}", meta.task_id, meta.status.as_str()),
        Step::ChordPart(report) => format!("chord:{}:{}", report.task_id, report.state.as_str()),
        Step::Emit(event) => match &event.kind {
            TaskEventKind::Succeeded => "succeeded".into(),
            TaskEventKind::Failed => "failed".into(),
            TaskEventKind::Retried => "retried".into(),
            TaskEventKind::Revoked => "revoked".into(),
            TaskEventKind::Rejected => format!("rejected:{}", event.fields.requeue.unwrap()),
            other => format!("{other:?}"),
        },
    }
}

#[test]
fn outcomes_and_rules() {
    for (rules, outcome, timed_out, expected) in [
        (LATE, success(), false, "store:me:SUCCESS succeeded ack"),
        (EARLY, success(), false, "store:me:SUCCESS succeeded ack"),
        (IGNORED, success(), false, "succeeded ack"),
        (LATE, failure(), false, "store:me:FAILURE failed ack"),
        (IGNORED, failure(), false, "failed ack"),
        (ERRORS_ONLY, failure(), false, "store:me:FAILURE failed ack"),
        (STRICT, failure(), false, "store:me:FAILURE rejected:false failed discard"),
        (STRICT, failure(), true, "store:me:FAILURE rejected:true failed requeue"),
        (STRICT_EARLY, failure(), true, "store:me:FAILURE failed ack"),
        (LATE, failure(), true, "store:me:FAILURE failed ack"),
        (LATE, retry(), false, "store:me:RETRY retried resend:mail:1 ack"),
        (IGNORED, retry(), false, "retried resend:mail:1 ack"),
        (ERRORS_ONLY, retry(), false, "store:me:RETRY retried resend:mail:1 ack"),
        (LATE, Outcome::Ignore, false, "ack"),
        (LATE, Outcome::Replaced, false, "ack"),
        (LATE, reject(false), false, "store:me:FAILURE failed rejected:false discard"),
        (LATE, reject(true), false, "rejected:true requeue"),
        (EARLY, reject(false), false, "store:me:FAILURE failed discard"),
        (LATE, Outcome::Interrupted(Interrupt::Terminated), false, "store:me:REVOKED revoked ack"),
        (LATE, Outcome::Interrupted(Interrupt::Shutdown), false, "requeue"),
    ] {
        let shown = format!("{rules:?} {outcome:?} {timed_out}");
        assert_eq!(told(&settled(&plain(), rules, outcome, timed_out)), expected, "{shown}");
    }
}

fn reject(requeue: bool) -> Outcome {
    Outcome::Reject { requeue, reason: "no".into() }
}

#[test]
fn a_success_sends_its_follow_ups_before_its_result() {
    let embed = Embed {
        callbacks: vec![signature("cb", "c1")].into(),
        chain: vec![signature("last", "s2"), signature("next", "s1")].into(),
        ..Embed::default()
    };
    let request = request(embed, |_| {});
    assert_eq!(
        told(&settled(&request, LATE, success(), false)),
        "apply:cb(5) apply:next+1(5) store:me:SUCCESS succeeded ack"
    );
}

#[test]
fn several_callbacks_go_as_one_group_and_groups_by_themselves() {
    let mut inner = signature("celery.group", "g");
    inner.subtask_type = Some("group".into());
    let callbacks = vec![signature("a", "a"), inner, signature("b", "b")];
    let request = request(Embed { callbacks: callbacks.into(), ..Embed::default() }, |_| {});
    let settlement = settled(&request, LATE, success(), false);
    assert_eq!(
        told(&settlement),
        "apply:celery.group(5) apply:celery.group(5) store:me:SUCCESS succeeded ack"
    );
}

#[test]
fn a_failure_reaches_all_that_was_to_come() {
    let mut member = signature("member", "s2");
    member.options.set("group_id", &"outer");
    member.options.set("chord", &signature("body", "b"));
    let mut chord = signature("celery.chord", "x");
    chord.subtask_type = Some("chord".into());
    chord.kwargs.insert("body", &signature("inner-body", "s1")).unwrap();
    chord.kwargs.insert("header", &Vec::<Signature>::new()).unwrap();
    let embed = Embed {
        errbacks: vec![signature("oops", "e")].into(),
        chain: vec![member, chord].into(),
        ..Embed::default()
    };
    let request = request(embed, |_| {});
    assert_eq!(
        told(&settled(&request, LATE, failure(), false)),
        "store:me:FAILURE store:s2:FAILURE chord:s2:FAILURE store:s1:FAILURE apply:celery.group(\"me\") failed ack"
    );
}

#[test]
fn a_chord_member_reports_whatever_is_stored() {
    let member = |rules, outcome| {
        let embed = Embed { chord: Some(Box::new(signature("body", "b"))), ..Embed::default() };
        let request = request(embed, |headers| headers.group = Some(GroupId::parse("g").unwrap()));
        told(&settled(&request, rules, outcome, false))
    };
    assert_eq!(member(LATE, success()), "store:me:SUCCESS chord:me:SUCCESS succeeded ack");
    assert_eq!(member(IGNORED, success()), "chord:me:SUCCESS succeeded ack");
    assert_eq!(member(IGNORED, failure()), "chord:me:FAILURE failed ack");
    assert_eq!(
        member(LATE, Outcome::Interrupted(Interrupt::Terminated)),
        "store:me:REVOKED chord:me:REVOKED revoked ack"
    );
    assert_eq!(member(LATE, retry()), "store:me:RETRY retried resend:mail:1 ack");
    assert_eq!(member(LATE, Outcome::Ignore), "ack");
}

#[test]
fn a_retry_is_the_same_message_again() {
    let embed = Embed { callbacks: vec![signature("cb", "c")].into(), ..Embed::default() };
    let request = request(embed, |headers| {
        headers.retries = 4;
        headers.shadow = Some("shown".into());
        headers.origin = Some("gen1@h".into());
        headers.extra.insert("x-mine".into(), "kept".into());
        headers.extra.insert("x-death".into(), "left out".into());
        headers.extra.insert("x-first-death-queue".into(), "left out".into());
    });
    let settlement = settled(&request, LATE, retry(), false);
    let Some(Step::Publish(FollowUp::Resend { message, .. })) = settlement.steps.last() else {
        panic!("{settlement:?}")
    };
    let headers = &message.headers;
    assert_eq!((headers.id.as_str(), headers.retries), ("me", 5));
    assert_eq!(headers.parent_id.as_ref().unwrap().as_str(), "me");
    assert_eq!(headers.root_id.as_ref().unwrap().as_str(), "root");
    assert_eq!(headers.eta.unwrap().isoformat(), "1970-01-01T00:00:10+00:00");
    assert_eq!((headers.shadow.as_deref(), headers.origin.as_deref()), (Some("shown"), Some("gen1@h")));
    assert_eq!(headers.extra.keys().collect::<Vec<_>>(), ["x-mine"]);
    assert_eq!(message.body, request.message().body);
    let Step::Store(meta) = &settlement.steps[0] else { panic!("{settlement:?}") };
    assert_eq!(meta.children.as_deref(), Some(&[ResultTuple::task(request.id().clone())][..]));
}

#[test]
fn a_message_that_cannot_be_run_is_discarded_and_told_where_it_can_be() {
    let failure = Failure::not_registered("t.x");
    let id = TaskId::parse("x").unwrap();
    assert_eq!(told(&refused(Some(id), &failure, NOW)), "store:x:FAILURE failed discard");
    assert_eq!(told(&refused(None, &failure, NOW)), "discard");
}

#[test]
fn a_revoked_call_is_stored_and_acked() {
    let wants = Wants { extended: false, events: true };
    for why in [Revocation::Expired, Revocation::Revoked] {
        let settlement = revoked(&plain(), LATE, why, NOW, wants);
        assert_eq!(told(&settlement), "store:me:REVOKED revoked ack");
        let Step::Store(meta) = &settlement.steps[0] else { panic!("{settlement:?}") };
        assert_eq!(meta.exception().unwrap().repr(), format!("TaskRevokedError('{}')", why.reason()));
    }
}

#[test]
fn a_chord_that_fails_ends_its_body_and_calls_its_errbacks() {
    let mut body = signature("body", "b");
    body.options.set("link_error", &vec![signature("oops", "e")]);
    body.options.set("chain", &vec![signature("later", "l")]);
    let report = ChordReport {
        task_id: TaskId::parse("me").unwrap(),
        group_id: GroupId::parse("g").unwrap(),
        group_index: Some(0),
        state: TaskState::Failure,
        result: value("{}"),
        body,
        told: Vec::new(),
        root_id: TaskId::parse("root").unwrap(),
    };
    let failure = Failure::chord_error("x");
    let words = |told: &[Signature]| -> Vec<_> {
        chord_failed(&report.body, &report.root_id, &failure, told, NOW, &HashSet::new())
            .iter()
            .flat_map(|part| part.errbacks.iter().chain(&part.failures))
            .map(word)
            .collect()
    };
    assert_eq!(words(&[]), ["apply:celery.group(\"b\")", "store:b:FAILURE", "store:l:FAILURE"]);
    // An errback that a chord inside this one has called is not called again.
    let told = report.body.options.link_error().unwrap();
    assert_eq!(words(&told), ["store:b:FAILURE", "store:l:FAILURE"]);
}

#[test]
fn an_errback_of_the_new_style_gets_the_call_and_the_exception() {
    let errbacks = vec![signature("old", "o"), signature("new", "n")];
    let request = request(Embed { errbacks: errbacks.into(), ..Embed::default() }, |_| {});
    let settlement = settled(&request, LATE, failure(), false);
    let told: Vec<_> = settlement
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Publish(FollowUp::Apply(application)) => {
                Some((application.signature.task.as_str().to_owned(), application.arguments.len()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [("new".to_owned(), 3), ("celery.group".to_owned(), 1)]);
}
