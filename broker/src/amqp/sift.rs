//! Looking through a queue message by message, and taking out some of them: for dead letters. Not a way to consume.
//!
//! Messages are fetched one at a time and stay unacknowledged until the end, so none is seen twice. What is kept goes back
//! to where it was, marked as redelivered; a quorum queue counts that as a delivery. If the connection is lost, everything
//! that was not taken is there again.

use std::time::Duration;

use celery_protocol::QueueName;
use celery_protocol::message::RawMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};

use super::connection::{Session, within};
use super::table::{decode, short};
use super::topology::{close, look};
use crate::error::BrokerError;

/// For one message.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that are held unacknowledged, at the most.
const MAX_BYTES: usize = 64 << 20;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It is taken out of the queue.
    Take,
    /// It stays, and no more are looked at.
    Stop,
}

/// Looks at the messages that are in the queue now, `limit` at the most. Whether that were all; `None` if there is no such
/// queue.
pub(crate) async fn sift(
    session: &Session,
    queue: &QueueName,
    limit: usize,
    mut judge: impl AsyncFnMut(&RawMessage) -> Verdict,
) -> Result<Option<bool>, BrokerError> {
    let Some(depth) = look(session, queue.as_str()).await? else { return Ok(None) };
    // What is put into this queue meanwhile, maybe by the judge, is not looked at.
    let there = usize::try_from(depth.ready).unwrap_or(usize::MAX);
    let name = short("the name of a queue", queue.as_str())?;
    let channel = session.channel(DEADLINE).await?;
    let mut last_kept = None;
    let (mut seen, mut bytes) = (0, 0);
    let mut stopped = false;
    while seen < there.min(limit) && bytes < MAX_BYTES && !stopped {
        let got = channel.basic_get(name.clone(), BasicGetOptions { no_ack: false });
        let Some(got) = within(DEADLINE, &format!("queue '{queue}'"), got).await? else { break };
        let tag = got.delivery.delivery_tag;
        let message = decode(&got.delivery.properties, got.delivery.data);
        seen += 1;
        match judge(&message).await {
            Verdict::Take => {
                let ack = channel.basic_ack(tag, BasicAckOptions { multiple: false });
                within(DEADLINE, &format!("queue '{queue}'"), ack).await?;
            }
            verdict => {
                bytes += message.body.len();
                last_kept = Some(tag);
                stopped = verdict == Verdict::Stop;
            }
        }
    }
    if let Some(tag) = last_kept {
        let back = channel.basic_nack(tag, BasicNackOptions { multiple: true, requeue: true });
        within(DEADLINE, &format!("queue '{queue}'"), back).await?;
    }
    close(&channel).await;
    Ok(Some(seen >= there && !stopped))
}
