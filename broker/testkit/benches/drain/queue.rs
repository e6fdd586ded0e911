//! The messages: what a Python client's `add.delay(1, 2)` puts on the wire, for the demo's `demo.add`.

use futures_util::FutureExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

pub(crate) const QUEUE: &str = "celery";
const BODY: &[u8] = br#"[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;

/// Declares the queue as Celery does, and fills it. Returns when all messages are there.
pub(crate) async fn fill(broker: &str, count: u64) -> anyhow::Result<()> {
    let connection = connect(broker).await?;
    let channel = connection.create_channel().await?;
    declare(&channel, false).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for _ in 0..count {
        let publish = channel.basic_publish(
            "".into(),
            QUEUE.into(),
            BasicPublishOptions::default(),
            BODY,
            properties(&uuid::Uuid::new_v4().to_string()),
        );
        // The first poll queues the frames; the confirms are awaited together below.
        if let Some(sent) = publish.now_or_never() {
            sent?;
        }
    }
    channel.wait_for_confirms().await?;
    let depth = u64::from(declare(&channel, true).await?);
    anyhow::ensure!(depth == count, "{depth} of {count} messages are in the queue");
    connection.close(200, "done".into()).await?;
    Ok(())
}

pub(crate) async fn connect(broker: &str) -> anyhow::Result<Connection> {
    Ok(Connection::connect(broker, ConnectionProperties::default()).await?)
}

async fn declare(channel: &Channel, passive: bool) -> anyhow::Result<u32> {
    let options = QueueDeclareOptions { durable: true, passive, ..Default::default() };
    Ok(channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?.message_count())
}

fn properties(id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers(id))
        .with_delivery_mode(2)
        .with_priority(0)
        .with_correlation_id(ShortString::from(id))
        .with_reply_to("6f5a1f0c-6d5a-3a92-8a3c-f6a5a3c2f3a1".into())
}

fn headers(id: &str) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let no_limits = FieldArray::from(vec![AMQPValue::Void, AMQPValue::Void]);
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("lang", text("py")),
        ("task", text("demo.add")),
        ("id", text(id)),
        ("shadow", AMQPValue::Void),
        ("eta", AMQPValue::Void),
        ("expires", AMQPValue::Void),
        ("group", AMQPValue::Void),
        ("group_index", AMQPValue::Void),
        ("retries", AMQPValue::LongInt(0)),
        ("timelimit", AMQPValue::FieldArray(no_limits)),
        ("root_id", text(id)),
        ("parent_id", AMQPValue::Void),
        ("argsrepr", text("(1, 2)")),
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
