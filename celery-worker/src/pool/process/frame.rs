//! What a worker and its child processes say to each other, over the socket that is the child's standard input: frames of
//! a JSON head and the bytes of a message's body, each with its length before it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use celery_protocol::{HeaderMap, Properties, RawMessage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::context::Request;
use crate::trace::settle::Disposition;

/// Heads and bodies beyond these are none of ours.
const MAX_HEAD: usize = 32 << 20;
const MAX_BODY: usize = 128 << 20;

/// From the worker to a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// Run this; the body follows.
    Run(Box<Run>),
    /// The task that runs is to end: it was terminated, or the worker does not wait for it.
    End { terminated: bool },
}

/// A call for a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// AMQP's properties by name.
    properties: BTreeMap<String, String>,
    headers: HeaderMap,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) redelivered: bool,
    pub(super) queue: String,
    /// The soft time limit; the worker itself sees to the hard one.
    pub(super) soft: Option<Duration>,
    /// The hard one, for the task to know.
    pub(super) hard: Option<Duration>,
    /// Send task events.
    pub(super) events: bool,
}

/// From a child to the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// It takes calls.
    Ready,
    /// The task has ended; what follows from it is being done.
    Ended,
    /// The call has ended, and all that follows from it is done but this.
    Done { disposition: Ending },
}

/// What the worker does with the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    Ack,
    Discard,
    Requeue,
}

impl From<Disposition> for Ending {
    fn from(disposition: Disposition) -> Ending {
        match disposition {
            Disposition::Ack => Ending::Ack,
            Disposition::Discard => Ending::Discard,
            Disposition::Requeue => Ending::Requeue,
        }
    }
}

impl From<Ending> for Disposition {
    fn from(ending: Ending) -> Disposition {
        match ending {
            Ending::Ack => Disposition::Ack,
            Ending::Discard => Disposition::Discard,
            Ending::Requeue => Disposition::Requeue,
        }
    }
}

impl Run {
    /// The call as it is sent, and the bytes of its body.
    pub(super) fn of(
        request: &Request,
        soft: Option<Duration>,
        hard: Option<Duration>,
        events: bool,
    ) -> (Run, Bytes) {
        let RawMessage { properties, headers, body } = request.message().clone().into_raw();
        let delivery = request.delivery();
        let run = Run {
            properties: named(properties),
            headers,
            exchange: delivery.exchange.clone(),
            routing_key: delivery.routing_key.clone(),
            redelivered: delivery.redelivered,
            queue: delivery.queue.to_string(),
            soft,
            hard,
            events,
        };
        (run, body)
    }

    /// The message again.
    pub(super) fn message(&mut self, body: Bytes) -> RawMessage {
        let properties = properties(std::mem::take(&mut self.properties));
        RawMessage { properties, headers: std::mem::take(&mut self.headers), body }
    }
}

fn named(properties: Properties) -> BTreeMap<String, String> {
    let Properties {
        content_type,
        content_encoding,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        type_,
        user_id,
        app_id,
    } = properties;
    [
        ("content_type", content_type),
        ("content_encoding", content_encoding),
        ("delivery_mode", delivery_mode.map(|number| number.to_string())),
        ("priority", priority.map(|number| number.to_string())),
        ("correlation_id", correlation_id),
        ("reply_to", reply_to),
        ("expiration", expiration),
        ("message_id", message_id),
        ("timestamp", timestamp.map(|number| number.to_string())),
        ("type", type_),
        ("user_id", user_id),
        ("app_id", app_id),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

fn properties(mut named: BTreeMap<String, String>) -> Properties {
    let mut take = |name: &str| named.remove(name);
    Properties {
        content_type: take("content_type"),
        content_encoding: take("content_encoding"),
        delivery_mode: take("delivery_mode").and_then(|number| number.parse().ok()),
        priority: take("priority").and_then(|number| number.parse().ok()),
        correlation_id: take("correlation_id"),
        reply_to: take("reply_to"),
        expiration: take("expiration"),
        message_id: take("message_id"),
        timestamp: take("timestamp").and_then(|number| number.parse().ok()),
        type_: take("type"),
        user_id: take("user_id"),
        app_id: take("app_id"),
    }
}

/// One end of the socket. Reading can be interrupted at any point without losing anything.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Wire> {
        stream.set_nonblocking(true)?;
        Ok(Wire { stream: UnixStream::from_std(stream)?, read: Vec::new() })
    }

    pub(super) async fn send<T: Serialize>(&mut self, head: &T, body: &[u8]) -> io::Result<()> {
        let head = serde_json::to_vec(head)?;
        let mut frame = Vec::with_capacity(8 + head.len() + body.len());
        for length in [head.len(), body.len()] {
            let length = u32::try_from(length).map_err(io::Error::other)?;
            frame.extend_from_slice(&length.to_be_bytes());
        }
        frame.extend_from_slice(&head);
        frame.extend_from_slice(body);
        self.stream.write_all(&frame).await
    }

    /// The next frame; `None` when the other end is gone.
    pub(super) async fn recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Bytes)>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Bytes)>> {
        let length = |at: usize| -> Option<usize> {
            let bytes = self.read.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(bytes)).ok()
        };
        let (Some(head), Some(body)) = (length(0), length(4)) else { return Ok(None) };
        if head > MAX_HEAD || body > MAX_BODY {
            return Err(io::Error::other("a frame that is too large"));
        }
        let (start, end) = (8 + head, 8 + head + body);
        if self.read.len() < end {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(self.read.get(8..start).unwrap_or_default())?;
        let body = Bytes::copy_from_slice(self.read.get(start..end).unwrap_or_default());
        self.read.drain(..end);
        Ok(Some((parsed, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_being_named() {
        let all = Properties {
            content_type: Some("application/json".into()),
            delivery_mode: Some(2),
            priority: Some(9),
            timestamp: Some(u64::MAX),
            type_: Some("t".into()),
            ..Properties::default()
        };
        assert_eq!(properties(named(all.clone())), all);
        assert_eq!(properties(BTreeMap::new()), Properties::default());
    }

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Wire::new(ours).unwrap(), Wire::new(theirs).unwrap());
        let body = vec![7; 300_000];
        let sending = async {
            ours.send(&ToWorker::Ready, &[]).await.unwrap();
            ours.send(&ToWorker::Done { disposition: Ending::Requeue }, &body).await.unwrap();
            drop(ours);
        };
        let reading = async {
            let first: (ToWorker, Bytes) = theirs.recv().await.unwrap().unwrap();
            assert!(matches!(first.0, ToWorker::Ready) && first.1.is_empty());
            let second: (ToWorker, Bytes) = theirs.recv().await.unwrap().unwrap();
            assert!(matches!(second.0, ToWorker::Done { disposition: Ending::Requeue }));
            assert_eq!(second.1, body);
            assert!(theirs.recv::<ToWorker>().await.unwrap().is_none());
        };
        tokio::join!(sending, reading);
    }
}
