//! Everything that is announced: one pattern subscription for the whole process.

use std::time::Duration;

use celery_protocol::ResultMeta;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redis::aio::PubSubSink;
use tokio::time::{sleep, timeout};

use super::fault;
use super::store::Store;
use crate::error::{BackendError, BackendErrorKind};

/// For connecting and subscribing.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(5);

/// How often the server has to show that it is still there: a connection whose other end is gone without a word would
/// be silent for ever.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Subscribes to every task of this prefix. The stream ends with the connection.
pub(super) async fn open(store: &Store) -> Result<BoxStream<'static, ResultMeta>, BackendError> {
    open_with(store, PING_EVERY, SUBSCRIBE_DEADLINE).await
}

async fn open_with(
    store: &Store,
    ping_every: Duration,
    patience: Duration,
) -> Result<BoxStream<'static, ResultMeta>, BackendError> {
    let prefix = format!("{}celery-task-meta-", store.prefix.as_str());
    let subscribing = async {
        let mut pubsub = store.connector.client().get_async_pubsub().await?;
        pubsub.psubscribe(format!("{}*", literal(&prefix))).await?;
        Ok(pubsub)
    };
    let pubsub = match timeout(SUBSCRIBE_DEADLINE, subscribing).await {
        Ok(Ok(pubsub)) => pubsub,
        Ok(Err(err)) => return Err(fault::of(err, store.connector.address())),
        Err(_) => return Err(BackendError::new(BackendErrorKind::Timeout, "subscribing to all results")),
    };
    let (sink, messages) = pubsub.split();
    let states = messages.take_until(lost(sink, ping_every, patience)).filter_map(|message| {
        let meta = ResultMeta::decode(message.get_payload_bytes());
        if let Err(err) = &meta {
            tracing::debug!(
                channel = message.get_channel_name(),
                "an announced result cannot be read: {err}"
            );
        }
        std::future::ready(meta.ok())
    });
    Ok(states.boxed())
}

/// Pings until that is not answered in time.
async fn lost(mut sink: PubSubSink, every: Duration, patience: Duration) {
    loop {
        sleep(every).await;
        match timeout(patience, sink.ping::<redis::Value>()).await {
            Ok(Ok(_)) => {}
            Ok(Err(err)) => return tracing::debug!("the subscription to all results is lost: {err}"),
            Err(_) => return tracing::debug!("the subscription to all results gives no answer"),
        }
    }
}

/// `text` as a pattern that only fits itself.
fn literal(text: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use celery_testkit::Redis;
    use futures_util::StreamExt;

    use crate::backend::redis::{Expires, RedisBackend};
    use crate::config::BackendUrl;
    use crate::tasks::Tasks;

    /// Connections whose other end says nothing more, and does not close them either.
    #[tokio::test]
    async fn a_silent_server_ends_the_stream() {
        let redis = Redis::start().await;
        let Ok(BackendUrl::Redis(url)) = BackendUrl::parse(&redis.url(0)) else { panic!("a URL") };
        let expires = Expires { results: Duration::ZERO, failures: Duration::ZERO };
        let tasks = Tasks::on_current_runtime().expect("a runtime");
        let backend = RedisBackend::start(&url, "", expires, &tasks).expect("a backend");
        let every = Duration::from_millis(50);
        let mut states =
            super::open_with(&backend.store, every, Duration::from_secs(2)).await.expect("subscribed");
        let next = tokio::time::timeout(10 * every, states.next()).await;
        assert!(next.is_err(), "a server that answers keeps the stream open");
        redis.pause();
        let next = tokio::time::timeout(Duration::from_secs(60), states.next()).await;
        redis.resume();
        assert!(next.expect("the stream goes on").is_none());
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(super::literal(r"a*[b]?\"), r"a\*\[b\]\?\\");
    }
}
