//! What a [`Keeper`] does about subscriptions that ended without anybody saying so.

use celery_protocol::QueueName;
use tokio::time::Instant;

use super::backoff::{Backoff, Failure, dice};
use super::keeper::{Attached, Broken, End, Keeper, Signal, cancel};
use super::topology;

impl Keeper {
    /// A delivery stream ended: the channel died, or the broker cancelled this subscription.
    pub(super) fn feed_ended(&mut self, at: &mut Attached, tag: &str, reason: Option<String>) -> Option<End> {
        if !at.amqp.status().connected() {
            let reason = reason.unwrap_or_else(|| "the broker closed the channel".into());
            return Some(End::Lost(reason));
        }
        let position = at.subscriptions.iter().position(|subscription| subscription.tag == tag)?;
        let queue = at.subscriptions.remove(position).queue;
        tracing::warn!(%queue, "the broker ended the consumer of a queue; restoring it");
        metrics::counter!("celery_broker_consumers_cancelled_total").increment(1);
        self.tell(Signal::Cancelled { queue: queue.clone() });
        at.broken.push(Broken { queue, backoff: Backoff::default(), at: Instant::now() });
        None
    }

    /// Subscribes to broken queues again when their time has come.
    pub(super) async fn restore(&mut self, at: &mut Attached) -> Option<End> {
        for mut broken in std::mem::take(&mut at.broken) {
            if broken.at > Instant::now() {
                at.broken.push(broken);
                continue;
            }
            let Some(spec) = self.options.queues.iter().find(|spec| spec.name == broken.queue).cloned()
            else {
                continue;
            };
            let restored = match topology::ensure(&at.session, &spec).await {
                Ok(()) => self.subscribe(at, &spec.name).await,
                Err(err) => Err(err),
            };
            match restored {
                Ok(()) => tracing::info!(queue = %spec.name, "consuming again"),
                Err(err) if !at.amqp.status().connected() => return Some(End::Lost(err.to_string())),
                Err(err) => {
                    if broken.backoff.failures() < 3 {
                        tracing::warn!(queue = %spec.name, "cannot restore the consumer yet: {err}");
                    }
                    broken.at = Instant::now() + broken.backoff.next(Failure::Unreachable, dice());
                    at.broken.push(broken);
                }
            }
        }
        None
    }

    /// Compares what we think we consume with what the broker says.
    pub(super) async fn compare(&mut self, at: &mut Attached) -> Option<End> {
        let checked: Vec<(QueueName, String)> = at
            .subscriptions
            .iter()
            .map(|subscription| (subscription.queue.clone(), subscription.tag.clone()))
            .collect();
        for (queue, tag) in checked {
            let depth = match topology::look(&at.session, queue.as_str()).await {
                Ok(depth) => depth,
                Err(_) if !at.amqp.status().connected() => {
                    return Some(End::Lost("the channel is closed".into()));
                }
                // No permission to look, or a slow broker: no news.
                Err(_) => continue,
            };
            if depth.is_some_and(|depth| depth.consumers > 0) {
                continue;
            }
            tracing::warn!(%queue, "the broker does not know our consumer; restoring it");
            metrics::counter!("celery_broker_consumers_forgotten_total").increment(1);
            at.subscriptions.retain(|subscription| subscription.tag != tag);
            self.tell(Signal::Retire { tag: tag.clone() });
            if depth.is_some() {
                let _ = cancel(&at.amqp, &tag).await;
            }
            self.tell(Signal::Cancelled { queue: queue.clone() });
            at.broken.push(Broken { queue, backoff: Backoff::default(), at: Instant::now() });
        }
        None
    }
}
