//! Celery's ladder for delayed delivery: messages that are due much later wait in the broker, not in a worker.
//!
//! 28 queues `celery_delayed_27 … 0` hold a message for 2ⁿ seconds each and then dead-letter it to the next exchange. The
//! routing key begins with the delay in binary: at a `1` the message waits in the queue of that level, at a `0` it passes
//! by. What comes out at the bottom goes through `celery_delayed_delivery` to the queue named at the end of the key.
//! Python's workers use the same ladder for quorum queues.

use std::collections::HashSet;
use std::time::Duration;

use celery_protocol::{HeaderMap, QueueName};
use lapin::options::{ExchangeBindOptions, QueueBindOptions};
use lapin::types::FieldTable;
use serde_json::Value;
use tokio::sync::Mutex;

use super::connection::{Session, within};
use super::publisher::Route;
use super::table::short;
use super::topology::{DECLARE_DEADLINE, ExchangeSpec, QueueSpec, close, ensure, ensure_exchange};
use crate::error::{BrokerError, BrokerErrorKind};

/// Levels of the ladder.
const LEVELS: u32 = 28;
/// The exchange at the bottom.
const DELIVERY: &str = "celery_delayed_delivery";

/// Shorter delays are not worth a ladder.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

fn level(level: u32) -> String {
    format!("celery_delayed_{level}")
}

/// Where a message for `queue` is published so that it arrives after `delay`, to the second below.
pub(crate) fn route(queue: &str, delay: Duration) -> Route {
    let seconds = delay.as_secs().min((1 << LEVELS) - 1);
    let mut routing_key = String::with_capacity(2 * LEVELS as usize + queue.len());
    for bit in (0..LEVELS).rev() {
        routing_key.push_str(if seconds >> bit & 1 == 1 { "1." } else { "0." });
    }
    routing_key.push_str(queue);
    Route { exchange: level(LEVELS - 1), routing_key }
}

/// The routing key that a message had before it was delayed, and the key itself if it was not.
pub fn undelayed(routing_key: &str) -> &str {
    let mut rest = routing_key;
    for _ in 0..LEVELS {
        match rest.strip_prefix("0.").or_else(|| rest.strip_prefix("1.")) {
            Some(shorter) => rest = shorter,
            None => return routing_key,
        }
    }
    rest
}

/// What of the ladder is known to stand, for one connection.
#[derive(Debug, Default)]
pub(crate) struct Ladder(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    landings: HashSet<QueueName>,
}

impl Ladder {
    /// Makes sure that the ladder stands and leads to `queue`.
    pub(crate) async fn ensure(&self, session: &Session, queue: &QueueName) -> Result<(), BrokerError> {
        let mut known = self.0.lock().await;
        if known.generation != session.generation {
            ensure_ladder(session).await?;
            *known = Known { generation: session.generation, landings: HashSet::new() };
        }
        if !known.landings.contains(queue) {
            ensure_landing(session, queue, queue.as_str()).await?;
            known.landings.insert(queue.clone());
        }
        Ok(())
    }

    /// Makes sure that the ladder stands and leads to the queue by its name and, where its exchange is not a direct one,
    /// by the key under which others publish to it: what a Python worker binds before it consumes from a quorum queue.
    pub(crate) async fn ensure_for(&self, session: &Session, spec: &QueueSpec) -> Result<(), BrokerError> {
        self.ensure(session, &spec.name).await?;
        let keyed = spec.exchange.as_ref().is_some_and(|exchange| exchange.kind != "direct");
        if keyed && spec.routing_key != spec.name.as_str() {
            ensure_landing(session, &spec.name, &spec.routing_key).await?;
        }
        Ok(())
    }
}

/// Makes sure that the ladder stands.
async fn ensure_ladder(session: &Session) -> Result<(), BrokerError> {
    ensure_exchange(session, &ExchangeSpec::durable(DELIVERY, "topic")).await?;
    for number in 0..LEVELS {
        let exchange = ExchangeSpec::durable(level(number), "topic");
        ensure_exchange(session, &exchange).await?;
        let below = if number == 0 { DELIVERY.to_owned() } else { level(number - 1) };
        let skipped = "*.".repeat((LEVELS - 1 - number) as usize);
        ensure(session, &rung(number, exchange, &below, &format!("{skipped}1.#"))?).await?;
        bind_exchange(session, &below, &level(number), &format!("{skipped}0.#")).await?;
    }
    Ok(())
}

/// Makes sure that what comes out of the ladder with `key` gets to `queue`. The queue must exist.
async fn ensure_landing(session: &Session, queue: &QueueName, key: &str) -> Result<(), BrokerError> {
    let key = if key.starts_with('#') { key.to_owned() } else { format!("#.{key}") };
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let bound = channel.queue_bind(
        short("the name of a queue", queue.as_str())?,
        DELIVERY.into(),
        short("the routing key", &key)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    match within(DECLARE_DEADLINE, &format!("queue '{queue}'"), bound).await {
        Ok(()) => {
            close(&channel).await;
            Ok(())
        }
        Err(err) if *err.kind() == BrokerErrorKind::NotFound => {
            Err(BrokerError::new(BrokerErrorKind::Unroutable, format!("queue '{queue}' does not exist")))
        }
        Err(err) => Err(err),
    }
}

/// The queue of one level.
fn rung(number: u32, exchange: ExchangeSpec, below: &str, key: &str) -> Result<QueueSpec, BrokerError> {
    let name = QueueName::parse(level(number))
        .map_err(|err| BrokerError::new(BrokerErrorKind::Encode, level(number)).caused_by(err))?;
    let text = |value: &str| Value::String(value.to_owned());
    let arguments = HeaderMap::from_iter([
        ("x-queue-type".to_owned(), text("quorum")),
        ("x-dead-letter-strategy".to_owned(), text("at-least-once")),
        ("x-overflow".to_owned(), text("reject-publish")),
        ("x-message-ttl".to_owned(), Value::from((1_u64 << number) * 1000)),
        ("x-dead-letter-exchange".to_owned(), text(below)),
    ]);
    Ok(QueueSpec { arguments, ..QueueSpec::new(name).bound_to(exchange, key) })
}

async fn bind_exchange(session: &Session, to: &str, from: &str, key: &str) -> Result<(), BrokerError> {
    let channel = session.channel(DECLARE_DEADLINE).await?;
    let bound = channel.exchange_bind(
        short("the name of an exchange", to)?,
        short("the name of an exchange", from)?,
        short("the routing key", key)?,
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    within(DECLARE_DEADLINE, &format!("binding of exchange '{to}' to '{from}'"), bound).await?;
    close(&channel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_celerys() {
        let two = route("qq.key", Duration::from_millis(2_900));
        assert_eq!(two.exchange, "celery_delayed_27");
        assert_eq!(two.routing_key, format!("{}1.0.qq.key", "0.".repeat(26)));
        let longest = route("q", Duration::MAX);
        assert_eq!(longest.routing_key, format!("{}q", "1.".repeat(28)));
    }

    #[test]
    fn the_key_before_the_delay_is_found() {
        for key in ["q", "mail.high", "0.1.q"] {
            assert_eq!(undelayed(&route(key, Duration::from_secs(77)).routing_key), key);
            assert_eq!(undelayed(key), key);
        }
    }
}
