//! Tells a webhook of notices: signed, tried again with longer and longer pauses, from a queue with a bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::{Method, Uri};
use ring::hmac;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::engine::Notice;
use crate::access::secret;
use crate::clock;
use crate::outbound::Client;

/// Notices that wait, at the most; then the oldest ones go.
const MAX_QUEUED: usize = 1_000;
/// How long one delivery may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a notice is tried.
const ATTEMPTS: u32 = 8;
/// The first pause; each is twice as long as the one before it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The header with the time of the signature.
pub const TIME_HEADER: &str = "X-Flower-Timestamp";
/// The header with the signature: `sha256=` and the HMAC of the time, a point, and the body.
pub const SIGNATURE_HEADER: &str = "X-Flower-Signature";

/// Where notices go.
pub struct Webhook {
    url: Uri,
    key: Option<hmac::Key>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Notice>,
    numbers: Numbers,
}

/// How deliveries went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Numbers {
    /// Whether there is a webhook.
    pub configured: bool,
    /// Those that wait.
    pub queued: usize,
    /// Those that arrived.
    pub delivered: u64,
    /// Those that were given up.
    pub failed: u64,
    /// Those that were dropped for want of room.
    pub dropped: u64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.url.host()).finish_non_exhaustive()
    }
}

impl Webhook {
    /// One at this address; with a key what is sent is signed.
    #[must_use]
    pub fn new(url: Uri, key: Option<&str>) -> Webhook {
        let key = key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
        Webhook { url, key, queue: Mutex::default(), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a notice sent.
    pub fn push(&self, notice: Notice) {
        let mut queue = self.lock();
        if queue.waiting.len() >= MAX_QUEUED {
            queue.waiting.pop_front();
            queue.numbers.dropped += 1;
        }
        queue.waiting.push_back(notice);
        drop(queue);
        self.wake.notify_one();
    }

    /// How deliveries went.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let queue = self.lock();
        Numbers { configured: true, queued: queue.waiting.len(), ..queue.numbers.clone() }
    }

    /// Delivers what comes, one after the other, until `stop`.
    pub(crate) async fn run(&self, client: &Client, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let Some(notice) = self.lock().waiting.front().cloned() else {
                tokio::select! {
                    () = self.wake.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            let delivered = self.deliver(client, &notice, stop).await;
            let mut queue = self.lock();
            // It may have been dropped meanwhile.
            if queue.waiting.front() == Some(&notice) {
                queue.waiting.pop_front();
            }
            if delivered {
                queue.numbers.delivered += 1;
                queue.numbers.last_error = None;
            } else if !stop.is_cancelled() {
                queue.numbers.failed += 1;
                tracing::error!(
                    rule = notice.rule.as_str(),
                    target = notice.target,
                    "an alert could not be delivered"
                );
            }
        }
    }

    async fn deliver(&self, client: &Client, notice: &Notice, stop: &CancellationToken) -> bool {
        let body = serde_json::to_vec(notice).unwrap_or_default();
        for attempt in 0..ATTEMPTS {
            match self.attempt(client, &body).await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::warn!(error, attempt, "the webhook did not take an alert");
                    self.lock().numbers.last_error = Some(error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause(attempt)) => {}
                () = stop.cancelled() => return false,
            }
        }
        false
    }

    async fn attempt(&self, client: &Client, body: &[u8]) -> Result<(), String> {
        // Signed anew each time: who receives it may refuse what is old.
        let time = format!("{:.0}", clock::now().seconds());
        let signature = self.key.as_ref().map(|key| sign(key, &time, body));
        let mut headers = vec![("Content-Type", "application/json"), (TIME_HEADER, &*time)];
        if let Some(signature) = &signature {
            headers.push((SIGNATURE_HEADER, signature));
        }
        let answer = client.send(Method::POST, &self.url, &headers, body.to_vec(), DEADLINE).await;
        let status = answer.map_err(|error| error.to_string())?.status;
        if (200..300).contains(&status) { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE)
}

fn sign(key: &hmac::Key, time: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(time.as_bytes());
    context.update(b".");
    context.update(body);
    format!("sha256={}", secret::hex(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::super::engine::Kind;
    use super::*;

    #[test]
    fn signatures_are_those_of_everybody_elses_hmac() {
        // echo -n '10.{"a":1}' | openssl dgst -sha256 -hmac key
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let signed = sign(&key, "10", b"{\"a\":1}");
        assert_eq!(signed, "sha256=b92f06c3797710ff8abe47f12a5038c7992cc22c09361f94e62817f75668fb45");
        assert_ne!(signed, sign(&key, "11", b"{\"a\":1}"));
    }

    #[test]
    fn pauses_grow_and_the_queue_does_not() {
        let pauses: Vec<u64> = (0..8).map(|attempt| pause(attempt).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let webhook = Webhook::new("http://h/canary".parse().expect("an address"), Some("canary"));
        let notice = Notice {
            status: "firing",
            rule: Kind::NoWorker,
            target: "q".into(),
            value: 1.0,
            threshold: 0.0,
            summary: String::new(),
            since: 0.0,
            at: 0.0,
        };
        for _ in 0..MAX_QUEUED + 5 {
            webhook.push(notice.clone());
        }
        let numbers = webhook.numbers();
        assert_eq!((numbers.queued, numbers.dropped), (MAX_QUEUED, 5));
        assert!(!format!("{webhook:?}").contains("canary"));
    }

    /// Reads one request and answers it; gives its head and its body.
    async fn answer(listener: &tokio::net::TcpListener, status: &str) -> (String, Vec<u8>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut seen = Vec::new();
        loop {
            let mut bytes = [0; 4_096];
            let count = stream.read(&mut bytes).await.expect("bytes");
            seen.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8_lossy(&seen);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if Some(body.len()) == length {
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("sent");
                return (head.to_lowercase(), body.as_bytes().to_vec());
            }
        }
    }

    #[tokio::test]
    async fn a_notice_is_signed_and_sent_until_it_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let webhook = Webhook::new(url.parse().expect("an address"), Some("key"));
        let notice = Notice {
            status: "firing",
            rule: Kind::BacklogAge,
            target: "slow".into(),
            value: 301.0,
            threshold: 300.0,
            summary: "old".into(),
            since: 1.0,
            at: 2.0,
        };
        webhook.push(notice);
        let (client, stop) = (Client::new().expect("TLS"), CancellationToken::new());
        let served = async {
            answer(&listener, "500 Oops").await;
            assert_eq!(webhook.numbers().delivered, 0);
            let seen = answer(&listener, "204 Thanks").await;
            while webhook.numbers().delivered == 0 {
                tokio::task::yield_now().await;
            }
            stop.cancel();
            seen
        };
        let ((), (head, body)) = tokio::join!(webhook.run(&client, &stop), served);
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .expect("the header")
                .to_owned()
        };
        assert!(head.starts_with("post /hook http/1.1"), "{head}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        assert_eq!(header("x-flower-signature"), sign(&key, &header("x-flower-timestamp"), &body));
        let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&told["rule"], &told["status"]), (&"backlog_age".into(), &"firing".into()));
        let numbers = webhook.numbers();
        assert_eq!((numbers.queued, numbers.delivered, numbers.failed, numbers.last_error), (0, 1, 0, None));
    }
}
