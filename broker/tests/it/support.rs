//! What the tests share: handles, messages, and reading until something happened.

use std::time::Duration;

use celery_broker::{
    Celery, ConsumeOptions, Consumer, ConsumerEvent, Delivery, PublishOptions, QueueSpec, Route,
};
use celery_protocol::{Properties, QueueName, RawMessage};
use tokio::time::timeout;

/// Longer than anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn connect(broker: &str) -> Celery {
    Celery::builder("it").broker(broker).connect().await.unwrap()
}

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

pub(crate) fn spec(name: &str) -> QueueSpec {
    QueueSpec::new(queue(name))
}

/// A message that carries its id and nothing else.
pub(crate) fn message(id: &str) -> RawMessage {
    RawMessage {
        properties: Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            delivery_mode: Some(Properties::PERSISTENT),
            correlation_id: Some(id.into()),
            ..Properties::default()
        },
        headers: [("id".to_owned(), id.into()), ("task".to_owned(), "it.task".into())].into_iter().collect(),
        body: format!("[[\"{id}\"], {{}}, {{}}]").into(),
    }
}

pub(crate) async fn publish(celery: &Celery, queue: &str, id: &str) {
    let route = Route::queue(queue);
    celery.publisher().publish(&route, message(id), PublishOptions::default()).await.unwrap();
}

pub(crate) fn id(delivery: &Delivery) -> String {
    delivery.raw.properties.correlation_id.clone().unwrap()
}

/// A consumer that is connected.
pub(crate) async fn consumer(celery: &Celery, queues: &[&str], prefetch: u16) -> Consumer {
    let specs = queues.iter().map(|name| spec(name)).collect();
    let mut consumer = celery.consume(ConsumeOptions::new(specs).prefetch(prefetch)).unwrap();
    let first = next(&mut consumer).await;
    assert!(matches!(first, ConsumerEvent::Connected { epoch: 1 }), "{first:?}");
    consumer
}

/// The next event.
pub(crate) async fn next(consumer: &mut Consumer) -> ConsumerEvent {
    let mut buffer = Vec::new();
    let received = timeout(PATIENCE, consumer.recv_many(&mut buffer, 1)).await.expect("nothing to receive");
    assert_eq!(received, 1, "the consumer has ended");
    buffer.pop().unwrap()
}

/// The next message, whatever else happens before.
pub(crate) async fn delivery(consumer: &mut Consumer) -> Delivery {
    loop {
        match next(consumer).await {
            ConsumerEvent::Delivery(delivery) => return delivery,
            ConsumerEvent::Fatal(err) => panic!("{err}"),
            _ => {}
        }
    }
}

/// The next event that is no message.
pub(crate) async fn lifecycle(consumer: &mut Consumer) -> ConsumerEvent {
    loop {
        match next(consumer).await {
            ConsumerEvent::Delivery(_) => {}
            event => return event,
        }
    }
}
