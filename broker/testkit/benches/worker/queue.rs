//! The messages: what a Python client's `add.delay(1, 2)` puts on the wire.

use futures_util::FutureExt;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::ops::Range;
use std::time::{Duration, SystemTime};

pub(crate) const QUEUE: &str = "celery";

/// Messages to put into the queue.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) count: u64,
    pub(crate) task: &'static str,
    /// The positional arguments as JSON.
    pub(crate) args: String,
    pub(crate) queue_type: QueueType,
    /// Seconds from now at which they are due, spread evenly.
    pub(crate) due: Option<Range<u64>>,
}

/// What kind of queue they go to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum QueueType {
    Classic,
    Quorum,
}

impl Load {
    /// `add.delay(1, 2)`, that often.
    pub(crate) fn additions(count: u64) -> Self {
        Self { count, task: "demo.add", args: "[1, 2]".into(), queue_type: QueueType::Classic, due: None }
    }

    fn body(&self) -> String {
        format!(
            r#"[{}, {{}}, {{"callbacks": null, "errbacks": null, "chain": null, "chord": null}}]"#,
            self.args
        )
    }
}

/// Fills the queue, which nobody consumes from. Returns when all messages are there.
pub(crate) async fn fill(broker: &str, load: &Load) -> anyhow::Result<()> {
    publish(broker, load).await?;
    let connection = connect(broker).await?;
    let channel = connection.create_channel().await?;
    let (there, _) = depth(&channel, QUEUE).await?;
    anyhow::ensure!(there == load.count, "{there} of {} messages are in the queue", load.count);
    Ok(connection.close(200, "done".into()).await?)
}

/// Declares the queue as Celery does, and publishes. Returns when the broker has all messages.
pub(crate) async fn publish(broker: &str, load: &Load) -> anyhow::Result<()> {
    let connection = connect(broker).await?;
    let channel = connection.create_channel().await?;
    declare(&channel, load.queue_type).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let body = load.body();
    // What is under way is bounded in bytes.
    let window = (50_000_000 / (body.len() + 1_000)).clamp(10, 10_000);
    for (number, unconfirmed) in (0..load.count).zip((1..=window).cycle()) {
        let publish = channel.basic_publish(
            "".into(),
            QUEUE.into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties(load, number),
        );
        // The first poll queues the frames; the confirms are awaited together.
        if let Some(sent) = publish.now_or_never() {
            sent?;
        }
        if unconfirmed == window {
            channel.wait_for_confirms().await?;
        }
    }
    channel.wait_for_confirms().await?;
    Ok(connection.close(200, "done".into()).await?)
}

pub(crate) async fn connect(broker: &str) -> anyhow::Result<Connection> {
    Ok(Connection::connect(broker, ConnectionProperties::default()).await?)
}

/// Declares the queue as Celery does.
pub(crate) async fn declare(channel: &Channel, queue_type: QueueType) -> anyhow::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    if queue_type == QueueType::Quorum {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    }
    channel.queue_declare(QUEUE.into(), options, arguments).await?;
    Ok(())
}

/// How many messages are ready in a queue, and how many consumers it has.
pub(crate) async fn depth(channel: &Channel, queue: &str) -> anyhow::Result<(u64, u64)> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok((found.message_count().into(), found.consumer_count().into()))
}

/// Somebody listens to Celery's events: a queue that takes all of them and keeps few.
pub(crate) async fn listen_to_events(broker: &str) -> anyhow::Result<Connection> {
    let connection = connect(broker).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("celeryev".into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let mut few = FieldTable::default();
    few.insert("x-max-length".into(), AMQPValue::LongInt(1_000));
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare("listener".into(), options, few).await?;
    let binding = QueueBindOptions::default();
    channel
        .queue_bind("listener".into(), "celeryev".into(), "#".into(), binding, FieldTable::default())
        .await?;
    Ok(connection)
}

/// The properties of the message with that number.
pub(crate) fn properties(load: &Load, number: u64) -> BasicProperties {
    let id = uuid::Uuid::new_v4().to_string();
    let due = load.due.as_ref().map(|range| {
        let width = 1_000_000 * (range.end - range.start);
        let after = Duration::from_micros(width * number / load.count.max(1));
        iso8601(SystemTime::now() + Duration::from_secs(range.start) + after)
    });
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers(load, &id, due))
        .with_delivery_mode(2)
        .with_priority(0)
        .with_correlation_id(ShortString::from(id))
        .with_reply_to("6f5a1f0c-6d5a-3a92-8a3c-f6a5a3c2f3a1".into())
}

/// A point in time in UTC as Celery's `eta` header writes it.
fn iso8601(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

fn headers(load: &Load, id: &str, due: Option<String>) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let no_limits = FieldArray::from(vec![AMQPValue::Void, AMQPValue::Void]);
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("lang", text("py")),
        ("task", text(load.task)),
        ("id", text(id)),
        ("shadow", AMQPValue::Void),
        ("eta", due.map_or(AMQPValue::Void, |due| text(&due))),
        ("expires", AMQPValue::Void),
        ("group", AMQPValue::Void),
        ("group_index", AMQPValue::Void),
        ("retries", AMQPValue::LongInt(0)),
        ("timelimit", AMQPValue::FieldArray(no_limits)),
        ("root_id", text(id)),
        ("parent_id", AMQPValue::Void),
        ("argsrepr", text(argsrepr(load))),
        ("kwargsrepr", text("{}")),
        ("origin", text("gen1234@bench")),
        ("ignore_result", AMQPValue::Boolean(false)),
        ("replaced_task_nesting", AMQPValue::LongInt(0)),
        ("stamped_headers", AMQPValue::Void),
        ("stamps", AMQPValue::FieldTable(FieldTable::default())),
    ] {
        headers.insert(ShortString::from(name), value);
    }
    headers
}

/// What Python would say of the arguments; it cuts long ones.
fn argsrepr(load: &Load) -> &str {
    if load.args == "[1, 2]" { "(1, 2)" } else { "('…',)" }
}
