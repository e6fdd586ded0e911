//! Confirms, returns and refusals.

use std::time::{Duration, Instant};

use celery_broker::{BrokerErrorKind, Outcome, PublishOptions, Route, WhenUnavailable};
use celery_testkit::{Rabbit, wait};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{PATIENCE, connect, consumer, delivery, id, lifecycle, message, publish};

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let broker = Rabbit::shared().await.vhost("publish_roundtrip").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["q"], 10).await;
    let mut sent = message("a");
    sent.properties.priority = Some(3);
    sent.properties.reply_to = Some("somewhere".into());
    sent.properties.expiration = Some("60000".into());
    sent.headers.insert("x-foo".into(), json!({"deep": [1, null, "x", 2.5]}));
    let route = Route::queue("q");
    celery.publisher().publish(&route, sent.clone(), PublishOptions::default()).await.unwrap();
    let received = delivery(&mut consumer).await;
    assert_eq!(received.raw, sent);
    assert_eq!((received.exchange.as_str(), received.routing_key.as_str()), ("", "q"));
    assert!(!received.redelivered);
    received.token.ack();
    consumer.flush().await.unwrap();
    consumer.close().await;
    celery.close().await;
}

/// lapin attaches a return to whichever confirm completes next (docs/decisions); ours must be exact.
#[tokio::test]
async fn unroutable_is_told_exactly_under_concurrency() {
    let broker = Rabbit::shared().await.vhost("publish_unroutable").await;
    let celery = connect(&broker).await;
    let consumer = consumer(&celery, &["there"], 10).await;
    consumer.close().await;
    for round in 0..3 {
        let publishes = (0..2_000).map(|index| {
            let celery = &celery;
            async move {
                let queue = if index % 7 == 0 { "missing" } else { "there" };
                let id = format!("{round}-{index}");
                let sent = celery
                    .publisher()
                    .publish(&Route::queue(queue), message(&id), PublishOptions::default())
                    .await;
                match sent {
                    Ok(()) => (index, true),
                    Err(err) => {
                        assert_eq!(*err.kind(), BrokerErrorKind::Unroutable, "{err}");
                        assert_eq!(err.outcome(), Outcome::NotPublished);
                        (index, false)
                    }
                }
            }
        });
        for (index, accepted) in join_all(publishes).await {
            assert_eq!(accepted, index % 7 != 0, "publish {index} of round {round}");
        }
    }
    celery.close().await;
}

#[tokio::test]
async fn a_missing_exchange_is_named_and_disturbs_nobody() {
    let broker = Rabbit::shared().await.vhost("publish_exchange").await;
    let celery = connect(&broker).await;
    consumer(&celery, &["q"], 10).await.close().await;
    let wrong = Route { exchange: "nowhere".into(), routing_key: "q".into() };
    let publishes = (0..200).map(|index| {
        let (celery, wrong) = (&celery, &wrong);
        async move {
            let right = Route::queue("q");
            let route = if index % 10 == 0 { wrong } else { &right };
            let options = PublishOptions::default();
            (index, celery.publisher().publish(route, message(&index.to_string()), options).await)
        }
    });
    for (index, result) in join_all(publishes).await {
        match result {
            Ok(()) => assert_ne!(index % 10, 0),
            Err(err) => {
                assert_eq!(index % 10, 0, "{err}");
                assert_eq!(*err.kind(), BrokerErrorKind::ExchangeNotFound);
                assert_eq!(err.to_string(), "the exchange does not exist: 'nowhere'");
            }
        }
    }
    celery.close().await;
}

#[tokio::test]
async fn an_existing_exchange_routes() {
    let broker = Rabbit::shared().await.vhost("publish_named").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["feeds"], 10).await;
    // Celery declares an exchange of the queue's name and binds it.
    let route = Route { exchange: "feeds".into(), routing_key: "feeds".into() };
    celery.publisher().publish(&route, message("a"), PublishOptions::default()).await.unwrap();
    assert_eq!(delivery(&mut consumer).await.exchange, "feeds");
    let lost = Route { exchange: "feeds".into(), routing_key: "other".into() };
    let err = celery.publisher().publish(&lost, message("b"), PublishOptions::default()).await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Unroutable);
    celery.close().await;
}

#[tokio::test]
async fn two_messages_with_one_id_are_both_sent() {
    let broker = Rabbit::shared().await.vhost("publish_twins").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["q"], 10).await;
    let twins = (0..5).map(|_| publish(&celery, "q", "twin"));
    join_all(twins).await;
    for _ in 0..5 {
        assert_eq!(id(&delivery(&mut consumer).await), "twin");
    }
    celery.close().await;
}

#[tokio::test]
async fn what_would_break_the_connection_is_refused_before() {
    let broker = Rabbit::shared().await.vhost("publish_limits").await;
    let celery = connect(&broker).await;
    consumer(&celery, &["q"], 10).await.close().await;
    let route = Route::queue("q");
    let mut large_headers = message("a");
    large_headers.headers.insert("x".into(), json!("x".repeat(140_000)));
    let mut large_body = message("b");
    large_body.body = vec![b'x'; 17 * 1024 * 1024].into();
    let long_key = Route::queue("k".repeat(300));
    for (route, wrong, kind) in [
        (&route, large_headers, BrokerErrorKind::MessageTooLarge),
        (&route, large_body, BrokerErrorKind::MessageTooLarge),
        (&long_key, message("c"), BrokerErrorKind::Encode),
    ] {
        let err = celery.publisher().publish(route, wrong, PublishOptions::default()).await.unwrap_err();
        assert_eq!((err.kind(), err.outcome()), (&kind, Outcome::NotPublished), "{err}");
    }
    publish(&celery, "q", "still alive").await;
    celery.close().await;
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let broker = Rabbit::shared().await.vhost("publish_full").await;
    let celery = connect(&broker).await;
    let full =
        crate::support::spec("full").argument("x-max-length", 1).argument("x-overflow", "reject-publish");
    let mut full = celery.consume(celery_broker::ConsumeOptions::new(vec![full])).unwrap();
    lifecycle(&mut full).await;
    full.close().await;
    publish(&celery, "full", "a").await;
    let err = celery
        .publisher()
        .publish(&Route::queue("full"), message("b"), PublishOptions::default())
        .await
        .unwrap_err();
    assert_eq!((err.kind(), err.outcome()), (&BrokerErrorKind::NotConfirmed, Outcome::NotPublished));
    celery.close().await;
}

/// The broker blocks a publishing connection when memory is short. Publishing must answer within its deadline, consuming
/// and acks must go on: they have a connection of their own.
#[tokio::test]
async fn a_memory_alarm_refuses_publishes_and_lets_acks_through() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    let mut consumer = consumer(&celery, &["q"], 1).await;
    for name in ["a", "b", "c"] {
        publish(&celery, "q", name).await;
    }
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let options = PublishOptions { deadline: Duration::from_secs(2), ..PublishOptions::default() };
    let attempt = async |name: &str| {
        let begun = Instant::now();
        let result = celery.publisher().publish(&Route::queue("q"), message(name), options).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        result
    };
    // The broker blocks a connection with its first publish after the alarm; from then on the answer is a refusal.
    let mut first = 0;
    wait::until(Duration::from_secs(30), "publishing is blocked", async || {
        first += 1;
        match attempt(&format!("first-{first}")).await {
            Err(err) if *err.kind() == BrokerErrorKind::Blocked => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(celery.health().blocked);
    let err = attempt("second").await.unwrap_err();
    assert_eq!((err.kind(), err.outcome()), (&BrokerErrorKind::Blocked, Outcome::NotPublished));
    let at_once = PublishOptions { unavailable: WhenUnavailable::Fail, ..PublishOptions::default() };
    let begun = Instant::now();
    let err = celery.publisher().publish(&Route::queue("q"), message("third"), at_once).await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Blocked);
    assert!(begun.elapsed() < Duration::from_millis(500));
    // With a prefetch of 1 each message only comes when the ack of the one before has reached the broker.
    for name in ["a", "b", "c"] {
        let received = delivery(&mut consumer).await;
        assert_eq!(id(&received), name);
        received.token.ack();
    }
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    wait::until(Duration::from_secs(30), "publishing works again", async || {
        attempt("after").await.map_err(|err| err.to_string())
    })
    .await;
    celery.close().await;
}

/// Defect 13 of rusty-celery: a task that is due later was held unacked, one more prefetch each.
#[tokio::test]
async fn defect_13_a_delayed_message_waits_in_the_broker() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("publish_delayed").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["q.a"], 10).await;
    let queue = crate::support::queue("q.a");
    let sent = Instant::now();
    celery.delay(&queue, message("later"), Duration::from_secs(3)).await.unwrap();
    celery.delay(&queue, message("now"), Duration::from_millis(300)).await.unwrap();
    assert_eq!(id(&delivery(&mut consumer).await), "now");
    let later = delivery(&mut consumer).await;
    assert_eq!(id(&later), "later");
    let took = sent.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(celery_broker::undelayed(&later.routing_key), "q.a");
    assert_eq!(later.raw.body, message("later").body);
    let missing = crate::support::queue("missing");
    let err = celery.delay(&missing, message("lost"), Duration::from_secs(3)).await.unwrap_err();
    assert_eq!((err.kind(), err.outcome()), (&BrokerErrorKind::Unroutable, Outcome::NotPublished));
    // A second client adopts the ladder.
    let other = connect(&broker).await;
    other.delay(&queue, message("again"), Duration::from_secs(1)).await.unwrap();
    assert_eq!(id(&delivery(&mut consumer).await), "again");
    other.close().await;
    celery.close().await;
}

/// Defect 10 of rusty-celery: nothing was confirmed, so a crash of the broker could lose what was "sent".
#[tokio::test]
async fn defect_10_what_is_confirmed_survives_a_kill() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    consumer(&celery, &["q"], 10).await.close().await;
    let mut accepted = std::collections::BTreeSet::new();
    let mut unknown = std::collections::BTreeSet::new();
    let publishes = (0..2_000).map(|index| {
        let celery = &celery;
        async move {
            let id = format!("{index:04}");
            let route = Route::queue("q");
            (id.clone(), celery.publisher().publish(&route, message(&id), PublishOptions::default()).await)
        }
    });
    let killing = async {
        tokio::task::yield_now().await;
        wait::until(Duration::from_secs(20), "some are in", async || {
            let ready = celery.queue_depth(&crate::support::queue("q")).await.ok().flatten();
            match ready {
                Some(depth) if depth.ready > 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        rabbit.kill();
        rabbit.restart().await;
    };
    let (results, ()) = tokio::join!(join_all(publishes), killing);
    for (id, result) in results {
        match result {
            Ok(()) => drop(accepted.insert(id)),
            Err(err) if err.outcome() == Outcome::Unknown => drop(unknown.insert(id)),
            Err(_) => {}
        }
    }
    assert!(accepted.len() > 100, "{} accepted, {} unknown", accepted.len(), unknown.len());
    let mut consumer = celery
        .consume(celery_broker::ConsumeOptions::new(vec![crate::support::spec("q")]).prefetch(1000))
        .unwrap();
    let mut missing = accepted.clone();
    while !missing.is_empty() {
        let received = delivery(&mut consumer).await;
        missing.remove(&id(&received));
        received.token.ack();
    }
    celery.close().await;
}

/// Defect 11 of rusty-celery: what came through an exchange was sent again to the default one with the same key, where
/// no queue had that name, and vanished.
#[tokio::test]
async fn defect_11_a_message_goes_back_the_way_it_came() {
    let broker = Rabbit::shared().await.vhost("publish_back").await;
    let celery = connect(&broker).await;
    let topic = celery_broker::ExchangeSpec::durable("news", "topic");
    let spec = crate::support::spec("sports").bound_to(topic, "news.sports.#");
    let mut consumer = celery.consume(celery_broker::ConsumeOptions::new(vec![spec])).unwrap();
    lifecycle(&mut consumer).await;
    let route = Route { exchange: "news".into(), routing_key: "news.sports.chess".into() };
    celery.publisher().publish(&route, message("a"), PublishOptions::default()).await.unwrap();
    let first = delivery(&mut consumer).await;
    let back = Route { exchange: first.exchange, routing_key: first.routing_key };
    assert_eq!(back, route);
    celery.publisher().publish(&back, first.raw, PublishOptions::default()).await.unwrap();
    first.token.ack();
    assert_eq!(id(&delivery(&mut consumer).await), "a");
    // The default exchange with that key leads nowhere, and that is told.
    let lost = Route::queue("news.sports.chess");
    let err = celery.publisher().publish(&lost, message("b"), PublishOptions::default()).await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Unroutable);
    celery.close().await;
}

#[tokio::test]
async fn a_queue_is_declared_or_adopted() {
    let broker = Rabbit::shared().await.vhost("publish_declare").await;
    let celery = connect(&broker).await;
    let name = crate::support::queue("q");
    assert_eq!(celery.queue_depth(&name).await.unwrap(), None);
    celery.declare(&crate::support::spec("q").argument("x-max-priority", 3)).await.unwrap();
    celery.declare(&crate::support::spec("q")).await.unwrap();
    publish(&celery, "q", "a").await;
    let depth = celery.queue_depth(&name).await.unwrap().unwrap();
    assert_eq!((depth.ready, depth.consumers), (1, 0));
    celery.close().await;
}

#[tokio::test]
async fn a_pinned_client_sends_nothing_over_a_later_connection() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    consumer(&celery, &["q"], 10).await.close().await;
    let route = Route::queue("q");
    let pinned = celery.pinned().unwrap();
    pinned.publish(&route, message("before")).await.unwrap();
    rabbit.kill();
    rabbit.restart().await;
    celery.wait_connected(PATIENCE).await.unwrap();
    wait::until(PATIENCE, "others can send", async || {
        celery.publish(&route, message("after")).await.map_err(|err| err.to_string())
    })
    .await;
    let err = pinned.publish(&route, message("late")).await.unwrap_err();
    assert_eq!((err.kind(), err.outcome()), (&BrokerErrorKind::ConnectionLost, Outcome::NotPublished));
    assert!(err.is_transient());
    let mut ids = std::collections::BTreeSet::new();
    let mut consumer = consumer(&celery, &["q"], 10).await;
    while ids.len() < 2 {
        ids.insert(id(&delivery(&mut consumer).await));
    }
    assert!(!ids.contains("late"), "{ids:?}");
    celery.close().await;
}
