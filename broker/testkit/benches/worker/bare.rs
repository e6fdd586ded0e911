//! The bare loop: as little as lapin and Redis allow for a late-acking consumer that stores a result for each message.
//! It decodes nothing and runs nothing; what a worker adds to it is the worker's cost.

use crate::queue;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;

/// How this program is told to be the bare loop.
pub(crate) const COMMAND: &str = "raw-drain";

/// The pair that drained fastest of those tried (16/64, 64/256, 256/1000).
const PREFETCH: u16 = 1000;
const BATCH: usize = 256;

/// Celery's `result_expires`.
const EXPIRES: u64 = 24 * 60 * 60;

/// Drains the queue until SIGTERM.
pub(crate) async fn drain(broker: &str, backend: &str) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut redis = redis::Client::open(backend)?.get_multiplexed_async_connection().await?;
    let connection = queue::connect(broker).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(queue::QUEUE.into(), "raw".into(), options, FieldTable::default()).await?;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let first = tokio::select! {
            delivery = deliveries.next() => delivery,
            _ = terminate.recv() => break,
        };
        let Some(first) = first else { break };
        batch.push(first?);
        while batch.len() < BATCH {
            match deliveries.next().now_or_never() {
                Some(Some(delivery)) => batch.push(delivery?),
                _ => break,
            }
        }
        let mut pipeline = redis::pipe();
        for delivery in &batch {
            let id = delivery.properties.correlation_id().as_ref().map_or("", |id| id.as_str());
            let key = format!("celery-task-meta-{id}");
            let meta = result(id);
            pipeline.set_ex(&key, &meta, EXPIRES).ignore().publish(&key, &meta).ignore();
        }
        pipeline.query_async::<()>(&mut redis).await?;
        let last = batch.last().map_or(0, |delivery| delivery.delivery_tag);
        // The first poll queues the ack; nothing waits for its write.
        if let Some(acked) = channel.basic_ack(last, BasicAckOptions { multiple: true }).now_or_never() {
            acked?;
        }
        batch.clear();
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

fn result(id: &str) -> String {
    format!(
        "{{\"status\": \"SUCCESS\", \"result\": 3, \"traceback\": null, \"children\": [], \
         \"date_done\": \"2026-01-01T00:00:00.000000+00:00\", \"task_id\": \"{id}\"}}"
    )
}
