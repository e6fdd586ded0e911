//! What holds of every settlement, whatever the outcome, the rules and what hangs on the call.

use proptest::prelude::*;

use super::tests::{NOW, failure, request, retry, settled, signature, success};
use super::*;
use crate::context::Interrupt;
use celery_protocol::Embed;

fn rules() -> impl Strategy<Value = Rules> {
    any::<(bool, bool, bool, bool, bool)>().prop_map(|(late, on_failure, on_timeout, ignore, errors)| Rules {
        acks_late: late,
        acks_on_failure: on_failure,
        acks_on_timeout: on_timeout,
        ignore_result: ignore,
        store_errors: errors,
        track_started: false,
        send_events: true,
        reject_on_worker_lost: false,
    })
}

/// Outcomes cannot be cloned cheaply in a strategy: they are made from a number.
fn outcome(kind: u8) -> Outcome {
    match kind {
        0 => success(),
        1 => failure(),
        2 => retry(),
        3 => Outcome::Ignore,
        4 => Outcome::Replaced,
        5 => Outcome::Reject { requeue: false, reason: "no".into() },
        6 => Outcome::Reject { requeue: true, reason: "no".into() },
        7 => Outcome::Interrupted(Interrupt::Terminated),
        _ => Outcome::Interrupted(Interrupt::Shutdown),
    }
}

prop_compose! {
    fn call()(callbacks in 0..3_usize, errbacks in 0..3_usize, chain in 0..3_usize, chord: bool, group: bool) -> Request {
        let many = |name: &str, count| -> Vec<Signature> {
            (0..count).map(|i| signature(&format!("t.{name}"), &format!("{name}{i}"))).collect()
        };
        let embed = Embed {
            callbacks: many("callback", callbacks).into(),
            errbacks: many("errback", errbacks).into(),
            chain: many("step", chain).into(),
            chord: chord.then(|| Box::new(signature("t.body", "body"))),
            ..Embed::default()
        };
        request(embed, |headers| headers.group = group.then(|| GroupId::parse("g").unwrap()))
    }
}

fn own_stores(settlement: &Settlement) -> Vec<usize> {
    let own = |step: &Step| matches!(step, Step::Store(meta) if meta.task_id.as_str() == "me");
    settlement.steps.iter().enumerate().filter(|(_, step)| own(step)).map(|(at, _)| at).collect()
}

fn publishes(settlement: &Settlement) -> Vec<usize> {
    let publish = |step: &Step| matches!(step, Step::Publish(_));
    settlement.steps.iter().enumerate().filter(|(_, step)| publish(step)).map(|(at, _)| at).collect()
}

proptest! {
    #[test]
    fn a_settlement_is_in_order_and_complete(
        rules in rules(), kind in 0..9_u8, request in call(), timed_out: bool,
    ) {
        let ended = outcome(kind);
        let is_success = matches!(ended, Outcome::Success(_));
        let is_retry = matches!(ended, Outcome::Retry(_));
        // a message that comes again, or that another task answers, has not ended
        let ends = matches!(kind, 0 | 1 | 5 | 7);
        let settlement = settled(&request, rules, ended, timed_out && kind == 1);
        let (stores, sent) = (own_stores(&settlement), publishes(&settlement));

        // Its state is stored once at most, and exactly where its rules say so.
        let wanted = !rules.ignore_result || (rules.store_errors && !is_success);
        let expected = usize::from(wanted && (ends || is_retry));
        prop_assert_eq!(stores.len(), expected);

        // A success sends first and stores then: a redelivered SUCCESS is skipped. All others store first.
        if let [stored] = stores.as_slice() {
            let in_order = sent.iter().all(|sent| (sent < stored) == is_success);
            prop_assert!(in_order);
        }

        // The chord hears of it once, when it has ended, whether its result is stored or not.
        let parts = settlement.steps.iter().filter(|step| matches!(step, Step::ChordPart(part) if part.task_id.as_str() == "me"));
        let member = request.embed().chord.is_some() && request.group().is_some();
        prop_assert_eq!(parts.count(), usize::from(member && ends));

        // What was to come after a failure fails too, so that nobody waits for it.
        if matches!(kind, 1 | 5) && wanted {
            let steps = settlement.steps.iter().filter(|step| matches!(step, Step::Store(meta) if meta.task_id.as_str().starts_with("step")));
            prop_assert_eq!(steps.count(), request.embed().chain.len());
        }
        if is_success {
            let links = usize::from(!request.embed().callbacks.is_empty());
            let next = usize::from(!request.embed().chain.is_empty());
            prop_assert_eq!(sent.len(), links + next);
        }

        // Only a message that nobody acked can come again or be refused, and only with a reason.
        let kept = rules.acks_late && kind == 1 && !(if timed_out { rules.acks_on_timeout } else { rules.acks_on_failure });
        let asked = matches!(kind, 5 | 6 | 8);
        prop_assert_eq!(settlement.disposition != Disposition::Ack, kept || asked);
        let rejected = settlement.steps.iter().any(|step| matches!(step, Step::Emit(event) if event.kind == celery_protocol::event::TaskEventKind::Rejected));
        prop_assert!(!rejected || rules.acks_late);
    }

    #[test]
    fn what_is_never_run_still_ends(rules in rules(), request in call()) {
        let wants = Wants { extended: false, events: true };
        let settlement = revoked(&request, rules, Revocation::Revoked, NOW, wants);
        prop_assert_eq!(settlement.disposition, Disposition::Ack);
        prop_assert!(publishes(&settlement).is_empty());
        let parts = settlement.steps.iter().filter(|step| matches!(step, Step::ChordPart(_))).count();
        prop_assert_eq!(parts, usize::from(request.embed().chord.is_some() && request.group().is_some()));
    }
}
