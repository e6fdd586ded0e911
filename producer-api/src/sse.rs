//! Server-sent events: frames, keep-alive, and the end of a stream. What is in them is decided elsewhere.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::gate::Pass;
use crate::state::Api;

/// How often a silent stream shows that it is there; also how a client that has gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a browser comes back after a stream has broken off.
const RETRY: &str = "retry: 3000\n\n";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(String);

impl Frame {
    /// An event whose data is JSON already, on one line.
    pub fn raw(id: Option<&str>, event: &str, data: &str) -> Self {
        let mut text = String::with_capacity(data.len() + 64);
        if let Some(id) = id {
            text.push_str(&format!("id: {id}\n"));
        }
        text.push_str(&format!("event: {event}\n"));
        // Results of others may be written over several lines.
        for line in data.split(['\n', '\r']) {
            text.push_str(&format!("data: {line}\n"));
        }
        text.push('\n');
        Frame(text)
    }

    /// An event.
    pub fn json(id: Option<&str>, event: &str, data: &impl Serialize) -> Self {
        Frame::raw(id, event, &serde_json::to_string(data).unwrap_or_default())
    }

    /// The last event, and why.
    pub fn end(reason: &'static str) -> Self {
        Frame::json(None, "end", &serde_json::json!({ "reason": reason }))
    }
}

/// Answers with `frames`, whose last one ends the stream; so does the server's shutdown.
pub fn respond(
    api: &Api,
    pass: Pass,
    first: Option<Frame>,
    frames: BoxStream<'static, Frame>,
) -> HttpResponse {
    let mut alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let drain = api.drain.clone();
    let state = Streaming { frames, alive, ended: false, _pass: pass };
    let events = stream::unfold(state, move |mut state| {
        let drain = drain.clone();
        async move {
            if state.ended {
                return None;
            }
            let text = tokio::select! {
                biased;
                () = drain.cancelled() => {
                    state.ended = true;
                    Frame::end("draining").0
                }
                frame = state.frames.next() => match frame {
                    Some(frame) => frame.0,
                    None => return None,
                },
                _ = state.alive.tick() => ": keep-alive\n\n".to_owned(),
            };
            Some((Bytes::from(text), state))
        }
    });
    let head =
        stream::iter([RETRY.to_owned()].into_iter().chain(first.map(|frame| frame.0)).map(Bytes::from));
    let body = head.chain(events).map(Ok::<_, actix_web::Error>);
    answer(body)
}

struct Streaming {
    frames: BoxStream<'static, Frame>,
    alive: Interval,
    ended: bool,
    /// A place among the open waits, as long as the client is there.
    _pass: Pass,
}

/// What HEAD is answered with: a stream without its end would never be over.
pub fn head() -> HttpResponse {
    builder().finish()
}

fn answer(body: impl Stream<Item = Result<Bytes, actix_web::Error>> + 'static) -> HttpResponse {
    builder().streaming(body)
}

fn builder() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header(("x-accel-buffering", "no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_lines_and_an_empty_line() {
        assert_eq!(Frame::raw(Some("7"), "result", "{}").0, "id: 7\nevent: result\ndata: {}\n\n");
        assert_eq!(Frame::raw(None, "x", "[1,\n2]").0, "event: x\ndata: [1,\ndata: 2]\n\n");
        assert_eq!(Frame::end("terminal").0, "event: end\ndata: {\"reason\":\"terminal\"}\n\n");
    }
}
