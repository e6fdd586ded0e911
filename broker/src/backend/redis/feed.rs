//! Everything that is announced: one pattern subscription for the whole process.

use std::time::Duration;

use celery_protocol::ResultMeta;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::timeout;

use super::fault;
use super::store::Store;
use crate::error::{BackendError, BackendErrorKind};

/// For connecting and subscribing.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(5);

/// Subscribes to every task of this prefix. The stream ends with the connection.
pub(super) async fn open(store: &Store) -> Result<BoxStream<'static, ResultMeta>, BackendError> {
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
    let states = pubsub.into_on_message().filter_map(|message| {
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

/// `text` as a pattern that only fits itself.
fn literal(text: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(super::literal(r"a*[b]?\"), r"a\*\[b\]\?\\");
    }
}
