//! Deliveries, acks, and what ends consuming.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use celery_broker::{BrokerErrorKind, ConsumeOptions, ConsumerEvent, Existing, Mismatch, Requeue, Token};
use celery_testkit::{Rabbit, wait};

use crate::support::{connect, consumer, delivery, id, lifecycle, next, publish, queue, spec};

#[tokio::test]
async fn acks_and_rejects_reach_the_broker() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("consume_settle").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["q"], 100).await;
    for index in 0..20 {
        publish(&celery, "q", &index.to_string()).await;
    }
    let mut tokens: Vec<Option<Token>> = Vec::new();
    for _ in 0..20 {
        tokens.push(Some(delivery(&mut consumer).await.token));
    }
    // In an order that makes runs, holes and stragglers.
    for index in [3, 1, 2, 0, 7, 8, 5, 19, 18] {
        tokens[index].take().unwrap().ack();
    }
    tokens[4].take().unwrap().reject(Requeue::No);
    tokens[10].take().unwrap().reject(Requeue::Yes);
    consumer.flush().await.unwrap();
    let again = delivery(&mut consumer).await;
    assert_eq!((id(&again).as_str(), again.redelivered), ("10", true));
    again.token.ack();
    consumer.flush().await.unwrap();
    wait::until(Duration::from_secs(10), "nine are left", async || {
        let state = rabbit.queues(&broker).await;
        let left = state.iter().find(|state| state.name == "q").map(|state| state.unacked + state.ready);
        if left == Some(9) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    drop(tokens);
    consumer.close().await;
    let (mut rest, mut consumer) = (BTreeSet::new(), self::consumer(&celery, &["q"], 100).await);
    while rest.len() < 9 {
        let received = delivery(&mut consumer).await;
        rest.insert(id(&received).parse::<u32>().unwrap());
        received.token.ack();
    }
    assert_eq!(rest, BTreeSet::from([6, 9, 11, 12, 13, 14, 15, 16, 17]));
    celery.close().await;
}

/// Defect 5 of rusty-celery: after a reconnect it had no prefetch, so the broker sent everything.
#[tokio::test]
async fn defect_5_the_prefetch_holds_on_every_connection() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    let mut consumer = consumer(&celery, &["q"], 3).await;
    for index in 0..10 {
        publish(&celery, "q", &index.to_string()).await;
    }
    for round in 0..2 {
        let held: Vec<_> =
            [delivery(&mut consumer).await, delivery(&mut consumer).await, delivery(&mut consumer).await]
                .into_iter()
                .collect();
        let mut more = Vec::new();
        let waited =
            tokio::time::timeout(Duration::from_millis(500), consumer.recv_many(&mut more, 10)).await;
        assert!(waited.is_err(), "a fourth message in round {round}: {more:?}");
        if round == 0 {
            rabbit.ctl(&["close_all_connections", "test"]).await;
            let lost = lifecycle(&mut consumer).await;
            assert!(matches!(lost, ConsumerEvent::Lost { epoch: 1, .. }), "{lost:?}");
            assert!(held.iter().all(|delivery| !delivery.token.is_live()));
            let connected = lifecycle(&mut consumer).await;
            assert!(matches!(connected, ConsumerEvent::Connected { epoch: 2 }), "{connected:?}");
        }
    }
    celery.close().await;
}

/// A token of a dead channel must never ack a message of the next one, whose tags begin at 1 again.
#[tokio::test]
async fn tokens_of_a_dead_channel_do_nothing() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    let mut consumer = consumer(&celery, &["q"], 10).await;
    publish(&celery, "q", "a").await;
    let old = delivery(&mut consumer).await;
    rabbit.ctl(&["close_all_connections", "test"]).await;
    let new = delivery(&mut consumer).await;
    assert_eq!((id(&new).as_str(), new.redelivered, new.token.epoch()), ("a", true, 2));
    old.token.ack();
    consumer.flush().await.unwrap();
    drop(consumer);
    let mut consumer = self::consumer(&celery, &["q"], 10).await;
    assert_eq!(id(&delivery(&mut consumer).await), "a");
    celery.close().await;
}

/// Defects 3, 4 and 6 of rusty-celery: a lost network ended the worker, reconnecting had 2 ms, and when the stream had
/// ended it span for ever.
#[tokio::test]
async fn defect_3_4_6_killed_broker_comes_back_and_nothing_is_lost() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    let mut consumer = consumer(&celery, &["q"], 50).await;
    let mut expected = BTreeSet::new();
    for index in 0..200 {
        publish(&celery, "q", &index.to_string()).await;
        expected.insert(index.to_string());
    }
    let mut done = BTreeSet::new();
    for _ in 0..60 {
        let received = delivery(&mut consumer).await;
        done.insert(id(&received));
        received.token.ack();
    }
    rabbit.kill();
    let lost = lifecycle(&mut consumer).await;
    assert!(matches!(lost, ConsumerEvent::Lost { epoch: 1, .. }), "{lost:?}");
    assert!(!celery.health().connected || celery.health().reason.is_none());
    rabbit.restart().await;
    let returned = Instant::now();
    let connected = lifecycle(&mut consumer).await;
    assert!(matches!(connected, ConsumerEvent::Connected { epoch: 2 }), "{connected:?}");
    assert!(returned.elapsed() < Duration::from_secs(15), "{:?}", returned.elapsed());
    // Acks in flight at the moment of death may be lost, so some come twice; none may be missing.
    while done.len() < expected.len() {
        let received = delivery(&mut consumer).await;
        done.insert(id(&received));
        received.token.ack();
    }
    assert_eq!(done, expected);
    publish(&celery, "q", "after").await;
    assert_eq!(id(&delivery(&mut consumer).await), "after");
    celery.close().await;
}

#[tokio::test]
async fn a_deleted_queue_is_restored() {
    let rabbit = Rabbit::start().await;
    let celery = connect(&rabbit.url()).await;
    let mut consumer = consumer(&celery, &["stays", "goes"], 10).await;
    let deleted = Instant::now();
    rabbit.ctl(&["delete_queue", "goes"]).await;
    let cancelled = lifecycle(&mut consumer).await;
    assert!(
        matches!(&cancelled, ConsumerEvent::Cancelled { queue } if queue.as_str() == "goes"),
        "{cancelled:?}"
    );
    let restored = async {
        let mut buffer = Vec::new();
        loop {
            consumer.recv_many(&mut buffer, 10).await;
            for event in buffer.drain(..) {
                match event {
                    ConsumerEvent::Delivery(delivery) if delivery.queue.as_str() == "goes" => {
                        return delivery;
                    }
                    _ => {}
                }
            }
        }
    };
    let publishing = async {
        wait::until(Duration::from_secs(20), "the queue is back", async || {
            let route = celery_broker::Route::queue("goes");
            let sent = celery
                .publisher()
                .publish(&route, crate::support::message("again"), celery_broker::PublishOptions::default())
                .await;
            sent.map_err(|err| err.to_string())
        })
        .await;
    };
    let (received, ()) = tokio::join!(restored, publishing);
    assert_eq!(id(&received), "again");
    assert!(deleted.elapsed() < Duration::from_secs(10), "{:?}", deleted.elapsed());
    celery.close().await;
}

/// RabbitMQ closes a channel whose message was not settled within `consumer_timeout`.
#[tokio::test]
async fn a_dead_channel_is_replaced() {
    let rabbit = Rabbit::start().await;
    rabbit.ctl(&["eval", "application:set_env(rabbit,consumer_timeout,1500)."]).await;
    rabbit.ctl(&["eval", "application:set_env(rabbit,channel_tick_interval,500)."]).await;
    let celery = connect(&rabbit.url()).await;
    let mut consumer = consumer(&celery, &["q"], 10).await;
    publish(&celery, "q", "slow").await;
    let held = delivery(&mut consumer).await;
    let lost = lifecycle(&mut consumer).await;
    match lost {
        ConsumerEvent::Lost { epoch: 1, reason } => {
            assert!(reason.contains("PRECONDITION_FAILED"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!held.token.is_live());
    let again = delivery(&mut consumer).await;
    assert!(again.redelivered);
    again.token.ack();
    consumer.flush().await.unwrap();
    celery.close().await;
}

/// Defect 14 of rusty-celery: it declared queues with its own arguments and died when Python had made them otherwise.
#[tokio::test]
async fn defect_14_existing_queues_are_adopted() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("consume_adopt").await;
    let celery = connect(&broker).await;
    for (name, argument, value) in
        [("priorities", "x-max-priority", serde_json::json!(10)), ("quorum", "x-queue-type", "quorum".into())]
    {
        let theirs = spec(name).argument(argument, value);
        let mut first = celery.consume(ConsumeOptions::new(vec![theirs])).unwrap();
        assert!(matches!(next(&mut first).await, ConsumerEvent::Connected { .. }));
        first.close().await;
        let mut adopted = consumer(&celery, &[name], 5).await;
        publish(&celery, name, "a").await;
        delivery(&mut adopted).await.token.ack();
        adopted.flush().await.unwrap();
        adopted.close().await;
    }
    celery.close().await;
}

#[tokio::test]
async fn a_different_declaration_is_a_clear_fatal_error() {
    let broker = Rabbit::shared().await.vhost("consume_mismatch").await;
    let celery = connect(&broker).await;
    let theirs = spec("q").argument("x-max-priority", 10);
    let mut first = celery.consume(ConsumeOptions::new(vec![theirs])).unwrap();
    next(&mut first).await;
    first.close().await;
    let mut ours = spec("q").argument("x-max-priority", 5);
    ours.existing = Existing::MustMatch;
    let mut second = celery.consume(ConsumeOptions::new(vec![ours])).unwrap();
    let err = match next(&mut second).await {
        ConsumerEvent::Fatal(err) => err,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        *err.kind(),
        BrokerErrorKind::PreconditionFailed(Box::new(Mismatch {
            entity: "queue".into(),
            name: "q".into(),
            argument: "x-max-priority".into(),
            ours: "5".into(),
            theirs: "10".into(),
        }))
    );
    assert_eq!(
        err.to_string(),
        "queue 'q' exists with x-max-priority = 10, but is declared here with 5; make the declarations equal or delete it"
    );
    assert_eq!(second.recv_many(&mut Vec::new(), 1).await, 0);
    celery.close().await;
}

#[tokio::test]
async fn queues_and_prefetch_change_while_running() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("consume_change").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["one"], 1).await;
    consumer.add_queue(spec("two")).await.unwrap();
    publish(&celery, "two", "t1").await;
    publish(&celery, "two", "t2").await;
    let first = delivery(&mut consumer).await;
    assert_eq!((id(&first).as_str(), first.queue.as_str()), ("t1", "two"));
    // t2 only comes when the prefetch is raised, while t1 is still out.
    consumer.set_prefetch(2).await.unwrap();
    let second = delivery(&mut consumer).await;
    assert_eq!(id(&second), "t2");
    consumer.cancel_queue(&queue("two")).await.unwrap();
    publish(&celery, "two", "t3").await;
    publish(&celery, "one", "o1").await;
    let third = delivery(&mut consumer).await;
    assert_eq!(id(&third), "o1");
    for token in [first.token, third.token, second.token] {
        token.ack();
    }
    consumer.flush().await.unwrap();
    wait::until(Duration::from_secs(10), "t3 is left", async || {
        let state = rabbit.queues(&broker).await;
        let total: u64 = state.iter().map(|state| state.unacked + state.ready).sum();
        if total == 1 { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    celery.close().await;
}

#[tokio::test]
async fn stop_gives_back_what_was_not_read_and_keeps_tokens() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("consume_stop").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["q"], 10).await;
    for index in 0..10 {
        publish(&celery, "q", &index.to_string()).await;
    }
    let running = delivery(&mut consumer).await;
    consumer.stop().await.unwrap();
    // The nine others are back before the running one is done.
    wait::until(Duration::from_secs(10), "nine are ready", async || {
        let state = rabbit.queues(&broker).await;
        match state.iter().find(|state| state.name == "q") {
            Some(state) if (state.ready, state.unacked, state.consumers) == (9, 1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    running.token.ack();
    consumer.flush().await.unwrap();
    consumer.close().await;
    celery.close().await;
}

#[tokio::test]
async fn a_prefetch_of_zero_is_refused() {
    let broker = Rabbit::shared().await.vhost("consume_zero").await;
    let celery = connect(&broker).await;
    let err = celery.consume(ConsumeOptions::new(vec![spec("q")]).prefetch(0)).unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Config);
    celery.close().await;
}

/// A frozen broker accepts connections and says nothing: heartbeats notice it, nothing hangs, and it is found again.
#[tokio::test]
async fn a_frozen_broker_is_noticed_and_found_again() {
    let rabbit = Rabbit::start().await;
    let celery = celery_broker::Celery::builder("it")
        .broker(rabbit.url())
        .heartbeat(Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(2))
        .connect()
        .await
        .unwrap();
    let mut consumer = consumer(&celery, &["q"], 10).await;
    rabbit.pause();
    let options = celery_broker::PublishOptions { deadline: Duration::from_secs(1), ..Default::default() };
    let route = celery_broker::Route::queue("q");
    let begun = Instant::now();
    let err = celery.publisher().publish(&route, crate::support::message("a"), options).await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Timeout);
    assert_eq!(err.outcome(), celery_broker::Outcome::Unknown);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let lost = lifecycle(&mut consumer).await;
    assert!(matches!(lost, ConsumerEvent::Lost { .. }), "{lost:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Some attempts meet a broker that accepts and keeps silent.
    wait::until(Duration::from_secs(20), "a handshake timed out", async || match celery.health().reason {
        Some(reason) if reason.contains("no answer") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    rabbit.resume();
    let thawed = Instant::now();
    let connected = lifecycle(&mut consumer).await;
    assert!(matches!(connected, ConsumerEvent::Connected { .. }), "{connected:?}");
    assert!(thawed.elapsed() < Duration::from_secs(15), "{:?}", thawed.elapsed());
    publish(&celery, "q", "after").await;
    loop {
        // The first one may have been queued after all: its fate was unknown.
        if id(&delivery(&mut consumer).await) == "after" {
            break;
        }
    }
    celery.close().await;
}

#[tokio::test]
async fn closing_the_handle_loses_no_ack_and_no_publish() {
    let rabbit = Rabbit::shared().await;
    let broker = rabbit.vhost("consume_close").await;
    let celery = connect(&broker).await;
    let mut consumer = consumer(&celery, &["q"], 500).await;
    for index in 0..200 {
        publish(&celery, "q", &index.to_string()).await;
    }
    let mut tokens = Vec::new();
    while tokens.len() < 200 {
        tokens.push(delivery(&mut consumer).await.token);
    }
    let late = {
        let celery = celery.clone();
        async move {
            let route = celery_broker::Route::queue("q");
            let options = celery_broker::PublishOptions::default();
            celery.publisher().publish(&route, crate::support::message("late"), options).await
        }
    };
    let closing = async {
        Token::ack_all(tokens);
        celery.close().await;
    };
    // The publish is handed over before the close begins.
    let (sent, ()) = tokio::join!(biased; late, closing);
    sent.unwrap();
    wait::until(Duration::from_secs(10), "only the late one is left", async || {
        let state = rabbit.queues(&broker).await;
        match state.iter().find(|state| state.name == "q") {
            Some(state) if (state.ready, state.unacked) == (1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
