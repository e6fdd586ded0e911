//! Chords in the backends that keep results: each member counts once, and one claim is given.

use std::time::Duration;

use celery_broker::chord_watch::WatchedChord;
use celery_broker::{ChordClaim, ChordPart, ChordProgress};
use celery_protocol::{GroupId, TaskState};
use celery_testkit::{Redis, wait};

use crate::backend::{client, on_each, raw, task};

fn part(group: &GroupId, name: &str, index: Option<u32>, value: &str) -> ChordPart {
    ChordPart {
        group: group.clone(),
        task: task(name),
        state: TaskState::Success,
        result: raw(value),
        index,
        claim_seconds: 6,
        token: uuid::Uuid::new_v4().to_string(),
    }
}

fn claimed(progress: ChordProgress) -> ChordClaim {
    match progress {
        ChordProgress::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_chord_is_claimed_once() {
    on_each(async |backend| {
        let group = GroupId::parse("chord").unwrap();
        // The first member may end before the last is sent, so before the size is known.
        let early = backend.chord_part(&part(&group, "b", Some(1), "20")).await.unwrap();
        assert_eq!(early, ChordProgress::Waiting { done: 1, total: None });
        backend.chord_start(&group, 3).await.unwrap();
        let second = backend.chord_part(&part(&group, "c", None, "30")).await.unwrap();
        assert_eq!(second, ChordProgress::Waiting { done: 2, total: Some(3) });
        // A redelivered member counts once, even with another result.
        let again = backend.chord_part(&part(&group, "b", Some(1), "21")).await.unwrap();
        assert_eq!(again, ChordProgress::Waiting { done: 2, total: Some(3) });
        let claim = claimed(backend.chord_part(&part(&group, "a", Some(0), "10")).await.unwrap());
        let late = backend.chord_part(&part(&group, "a", Some(0), "10")).await.unwrap();
        assert_eq!(late, ChordProgress::Taken);
        let values: Vec<String> = backend
            .chord_results(&group)
            .await
            .unwrap()
            .into_iter()
            .map(|member| format!("{} {} {}", member.task, member.state, member.result.get()))
            .collect();
        assert_eq!(values, ["a SUCCESS 10", "b SUCCESS 20", "c SUCCESS 30"]);
        assert!(backend.chord_extend(&claim, 20).await.unwrap());
        let other = ChordClaim { token: "other".into(), ..claim.clone() };
        assert!(!backend.chord_extend(&other, 20).await.unwrap());
        backend.chord_done(&other).await.unwrap();
        assert_eq!(backend.chord_results(&group).await.unwrap().len(), 3);
        backend.chord_done(&claim).await.unwrap();
        assert_eq!(backend.chord_results(&group).await.unwrap().len(), 0);
        let late = backend.chord_part(&part(&group, "a", Some(0), "10")).await.unwrap();
        assert_eq!(late, ChordProgress::Late);
    })
    .await;
}

#[tokio::test]
async fn a_chord_can_grow_and_be_aborted() {
    on_each(async |backend| {
        let group = GroupId::parse("growing").unwrap();
        backend.chord_start(&group, 1).await.unwrap();
        backend.chord_grow(&group, 1).await.unwrap();
        let first = backend.chord_part(&part(&group, "a", Some(0), "1")).await.unwrap();
        assert_eq!(first, ChordProgress::Waiting { done: 1, total: Some(2) });
        backend.chord_abort(&group).await.unwrap();
        let second = backend.chord_part(&part(&group, "b", Some(1), "2")).await.unwrap();
        assert_eq!(second, ChordProgress::Waiting { done: 2, total: None });
    })
    .await;
}

/// Whoever got the claim and did not learn of it asks again; whoever cannot use it leaves it to the next one.
#[tokio::test]
async fn a_claim_is_known_by_its_token_and_can_be_given_back() {
    on_each(async |backend| {
        let group = GroupId::parse("given-back").unwrap();
        backend.chord_start(&group, 1).await.unwrap();
        let first = part(&group, "a", Some(0), "1");
        let claim = claimed(backend.chord_part(&first).await.unwrap());
        assert_eq!(claimed(backend.chord_part(&first).await.unwrap()), claim);
        let second = part(&group, "a", Some(0), "1");
        assert_eq!(backend.chord_part(&second).await.unwrap(), ChordProgress::Taken);
        let not_ours = ChordClaim { token: second.token.clone(), ..claim.clone() };
        backend.chord_release(&not_ours).await.unwrap();
        assert_eq!(backend.chord_part(&second).await.unwrap(), ChordProgress::Taken);
        backend.chord_release(&claim).await.unwrap();
        assert_eq!(claimed(backend.chord_part(&second).await.unwrap()), not_ours);
    })
    .await;
}

#[tokio::test]
async fn a_chord_that_nobody_watches_is_late_and_stays_so() {
    let celery = client(&Redis::shared().await.database());
    let watch = celery.backend().chord_watch().unwrap();
    let chord = |name: &str, patience| {
        let group = GroupId::parse(name).unwrap();
        WatchedChord { group, body: raw("{}"), root_id: None, patience }
    };
    watch.watch(&chord("slow", Duration::from_millis(1))).await.unwrap();
    watch.watch(&chord("fine", Duration::from_secs(600))).await.unwrap();
    for _ in 0..2 {
        wait::until(Duration::from_secs(20), "one that is late", async || {
            let late = watch.late(10).await.unwrap();
            match late.as_slice() {
                [(group, by)] if group.as_str() == "slow" && !by.is_zero() => Ok(()),
                _ => Err(format!("{late:?}")),
            }
        })
        .await;
    }
}

/// A chord under watch that cannot be read kept all others from being looked at.
#[tokio::test]
async fn a_damaged_chord_under_watch_keeps_nobody_from_the_others() {
    let database = Redis::shared().await.database();
    let celery = client(&database);
    let watch = celery.backend().chord_watch().unwrap();
    for name in ["1-damaged", "2-sound"] {
        let group = GroupId::parse(name).unwrap();
        let (body, patience) = (raw("{}"), Duration::from_millis(1));
        let chord = WatchedChord { group: group.clone(), body, root_id: None, patience };
        celery.backend().chord_start(&group, 1).await.unwrap();
        watch.watch(&chord).await.unwrap();
    }
    let number = database.rsplit('/').next().unwrap();
    let key = "celeriac:chord:1-damaged";
    Redis::shared().await.cli(&["-n", number, "HSET", key, "body", "no json"]).await;
    wait::until(Duration::from_secs(20), "the sound one is found", async || match watch.overdue(10).await {
        Ok(found) if found.iter().any(|one| one.chord.group.as_str() == "2-sound") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    celery.close().await;
}

/// Whatever the order and however often: each member counts once, and one claim is given for the whole chord.
#[tokio::test]
async fn chords_of_any_order_with_any_duplicates_are_claimed_once() {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let celery = client(&Redis::shared().await.database());
    let mut runner = TestRunner::deterministic();
    let deliveries = (1_u32..8, any::<bool>()).prop_flat_map(|(size, early)| {
        let more = prop::collection::vec(0..size, 0..10);
        (Just(size), Just(early), more).prop_flat_map(|(size, early, more)| {
            let all: Vec<u32> = (0..size).chain(more).collect();
            (Just(size), Just(early), Just(all).prop_shuffle())
        })
    });
    for case in 0..60 {
        let (size, started_first, order) = deliveries.new_tree(&mut runner).unwrap().current();
        let group = GroupId::parse(format!("any-{case}")).unwrap();
        let backend = celery.backend();
        if started_first {
            backend.chord_start(&group, size.into()).await.unwrap();
        }
        let mut claims = Vec::new();
        let mut distinct = std::collections::HashSet::new();
        for member in &order {
            let part = part(&group, &format!("m{member}"), Some(*member), &member.to_string());
            let progress = backend.chord_part(&part).await.unwrap();
            distinct.insert(*member);
            match progress {
                ChordProgress::Claimed(claim) => claims.push(claim),
                ChordProgress::Waiting { done, .. } => assert_eq!(done, distinct.len() as u64, "{order:?}"),
                ChordProgress::Taken => assert_eq!(claims.len(), 1, "{order:?}"),
                ChordProgress::Late => panic!("nothing was finished: {order:?}"),
            }
        }
        assert_eq!(claims.len(), usize::from(started_first), "{order:?}");
        if let [claim] = claims.as_slice() {
            let results = backend.chord_results(&group).await.unwrap();
            let results: Vec<_> = results.iter().map(|member| member.result.get().to_owned()).collect();
            assert_eq!(results, (0..size).map(|member| member.to_string()).collect::<Vec<_>>());
            backend.chord_done(claim).await.unwrap();
            let late = backend.chord_part(&part(&group, "m0", Some(0), "0")).await.unwrap();
            assert_eq!(late, ChordProgress::Late);
        }
    }
    celery.close().await;
}

/// A chord that is called again has the same ids, and a fast worker may end its first member before the caller has said
/// that it begins anew.
#[tokio::test]
async fn a_chord_that_is_called_again_loses_no_early_member() {
    let celery = client(&Redis::shared().await.database());
    let (backend, group) = (celery.backend(), GroupId::parse("again").unwrap());
    for _ in 0..2 {
        backend.chord_part(&part(&group, "a", Some(0), "1")).await.unwrap();
        backend.chord_start(&group, 2).await.unwrap();
        let claim = claimed(backend.chord_part(&part(&group, "b", Some(1), "2")).await.unwrap());
        backend.chord_done(&claim).await.unwrap();
    }
    celery.close().await;
}
