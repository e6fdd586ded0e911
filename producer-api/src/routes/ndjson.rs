//! A batch that is streamed, one task a line, and answered line by line.
//!
//! Nothing is kept but what is in flight: the next line is read from the socket only when there is room among the
//! [`WINDOW`] submissions that wait for the broker, and answers are written in the order of the lines.

use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use celery_protocol::TaskId;
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use serde::Serialize;

use super::batch::{WINDOW, answer, possibly_queued};
use crate::dto::batch::{Item, Summary};
use crate::extract::{self, Admission, JsonText};
use crate::idempotency;
use crate::problem::{Kind, Outcome, Problem};
use crate::registry::{PIECE, Set, Writer};
use crate::request_id;
use crate::submit::{Done, Identity};
use crate::submitter::Submitter;

/// What has become of the stream so far.
struct Progress {
    summary: Summary,
    /// Tasks that are not written down yet.
    noted: Vec<TaskId>,
    /// Away while it writes.
    writer: Option<Writer>,
}

/// Answers with a stream.
///
/// # Errors
/// The request cannot be a streamed batch.
pub fn submit(
    admission: Admission,
    submitter: Submitter,
    minimal: bool,
    payload: web::Payload,
    request: &HttpRequest,
) -> Result<HttpResponse, Problem> {
    extract::uncompressed(request.headers())?;
    if idempotency::key(request)?.is_some() {
        let detail = "is not for a streamed batch: give its items a task_id";
        let problem = Problem::field(Kind::InvalidParameter, "Idempotency-Key", detail);
        return Err(problem.outcome(Outcome::NotPublished).closing());
    }
    let api = submitter.api().clone();
    let batch_id = uuid::Uuid::new_v4().to_string();
    let summary = Summary {
        batch_id: batch_id.clone(),
        total: 0,
        accepted: 0,
        deduplicated: 0,
        failed: 0,
        complete: false,
        reason: None,
    };
    let writer = Some(Writer::new(&api, Set::Batch, &batch_id));
    let progress = Arc::new(Mutex::new(Progress { summary, noted: Vec::new(), writer }));
    let request_id = request_id::current().unwrap_or_default();

    let lines = Lines::new(payload, api.limits.body, api.limits.body_timeout);
    let drain = api.drain.clone();
    let read = stream::unfold(lines, |mut lines| async move { Some((lines.next().await?, lines)) });
    let read = read.take_until(async move { drain.cancelled().await });
    let handled = {
        let (submitter, progress) = (submitter.clone(), Arc::clone(&progress));
        read.enumerate().map(move |(index, line)| {
            let (submitter, progress) = (submitter.clone(), Arc::clone(&progress));
            request_id::scope(request_id, async move {
                match line {
                    Line::Text(text) => {
                        let (reference, result) = one(&submitter, text).await;
                        note(&submitter, &progress, &result).await;
                        Some(encode(&answer(index, reference, result, minimal)))
                    }
                    Line::TooLong => {
                        let result = Err(extract::too_large(submitter.api().limits.body));
                        note(&submitter, &progress, &result).await;
                        Some(encode(&answer(index, None, result, minimal)))
                    }
                    Line::End => {
                        lock(&progress).summary.complete = true;
                        None
                    }
                    Line::Broken(reason) => {
                        lock(&progress).summary.reason = Some(reason);
                        None
                    }
                }
            })
        })
    };
    // Known from the first line on: its address is in the head of the answer.
    let begin = {
        let (submitter, progress) = (submitter.clone(), Arc::clone(&progress));
        stream::once(async move { begin(&submitter, &progress).await }).filter_map(std::future::ready)
    };
    let answers = handled.buffered(WINDOW).filter_map(std::future::ready);
    let mut closing = Closing { submitter, progress, closed: false };
    let end = stream::once(async move {
        // Held until here: the batch is one submission in flight.
        let _admission = admission;
        closing.closed = true;
        finish(&closing.submitter, &closing.progress, "draining: the server is stopping").await
    });
    let body = begin.chain(answers).chain(end).map(Ok::<_, actix_web::Error>);
    Ok(HttpResponse::Accepted()
        .content_type("application/x-ndjson")
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        .insert_header((header::LOCATION, format!("/v1/batches/{batch_id}")))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body))
}

/// Sees to it that a batch does not look as if it grew for ever: also one whose client has gone is written down as ended.
struct Closing {
    submitter: Submitter,
    progress: Arc<Mutex<Progress>>,
    closed: bool,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.closed {
            let (submitter, progress) = (self.submitter.clone(), Arc::clone(&self.progress));
            let tracker = submitter.api().under_way.clone();
            tracker.spawn(async move { finish(&submitter, &progress, "the client has gone").await });
        }
    }
}

/// Submits the task in one line.
async fn one(submitter: &Submitter, text: Bytes) -> (Option<String>, Result<Done, Problem>) {
    let checked = match JsonText::check(text, submitter.api().limits.json_depth) {
        Ok(checked) => checked,
        Err(problem) => return (None, Err(problem)),
    };
    let Item { reference, task } = Item::read(checked.as_str(), "", &[]);
    let result = async {
        let mut task = task?;
        let (id, identity) = match task.task_id.take() {
            Some(chosen) => (chosen, Identity::Chosen),
            None => (uuid::Uuid::new_v4().into(), Identity::Fresh),
        };
        let plan = submitter.plan(task, &id)?;
        submitter.publish(id, identity, plan).await
    };
    (reference, result.await)
}

/// Writes down that the batch is on its way; says nothing.
async fn begin(submitter: &Submitter, progress: &Mutex<Progress>) -> Option<Bytes> {
    let mut writer = lock(progress).writer.take()?;
    write(submitter, progress, &mut writer, true).await;
    lock(progress).writer = Some(writer);
    None
}

/// Counts an answer, and writes its task down.
async fn note(submitter: &Submitter, progress: &Mutex<Progress>, result: &Result<Done, Problem>) {
    {
        let mut progress = lock(progress);
        let Progress { summary, noted, .. } = &mut *progress;
        summary.total += 1;
        match result {
            Ok(done) => {
                summary.accepted += 1;
                summary.deduplicated += usize::from(done.deduplicated);
                noted.push(done.id.clone());
            }
            Err(problem) => {
                summary.failed += 1;
                noted.extend(possibly_queued(problem));
            }
        }
    }
    // Whoever comes meanwhile finds no writer; who has it looks again when it is done.
    loop {
        let full = lock(progress).full();
        let Some(mut writer) = full else { return };
        write(submitter, progress, &mut writer, true).await;
        lock(progress).writer = Some(writer);
    }
}

impl Progress {
    /// The writer, if there is a piece for it to write.
    fn full(&mut self) -> Option<Writer> {
        if self.noted.len() >= PIECE { self.writer.take() } else { None }
    }
}

/// Writes down what is noted, and whether more is coming.
async fn write(submitter: &Submitter, progress: &Mutex<Progress>, writer: &mut Writer, growing: bool) {
    let summary = {
        let mut progress = lock(progress);
        std::mem::take(&mut progress.noted).into_iter().for_each(|id| writer.push(id));
        progress.summary.clone()
    };
    writer.head.growing = growing;
    writer.head.total = summary.total;
    writer.head.accepted = summary.accepted;
    writer.head.failed = summary.failed;
    writer.head.complete = summary.complete;
    if let Err(reason) = writer.flush(submitter.api()).await {
        tracing::warn!(batch = summary.batch_id, reason, "a streamed batch could not be recorded");
    }
}

/// The last line; a batch that was not read to its end has a reason, or the one `otherwise`.
async fn finish(submitter: &Submitter, progress: &Mutex<Progress>, otherwise: &str) -> Bytes {
    let writer = {
        let mut progress = lock(progress);
        if !progress.summary.complete && progress.summary.reason.is_none() {
            progress.summary.reason = Some(otherwise.to_owned());
        }
        progress.writer.take()
    };
    if let Some(mut writer) = writer {
        write(submitter, progress, &mut writer, false).await;
    }
    #[derive(Serialize)]
    struct Last<'a> {
        summary: &'a Summary,
    }
    encode(&Last { summary: &lock(progress).summary })
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A line, without its end.
    Text(Bytes),
    /// A line beyond the limit; it was skipped.
    TooLong,
    /// All was read.
    End,
    /// No more can be read, for this reason.
    Broken(String),
}

/// The lines of a body.
struct Lines<P> {
    payload: P,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line break.
    searched: usize,
    limit: usize,
    patience: std::time::Duration,
    /// Inside a line that is too long.
    skipping: bool,
    /// The payload has ended; `None` after that was told.
    ended: Option<bool>,
}

impl<P, E> Lines<P>
where
    P: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    fn new(payload: P, limit: usize, patience: std::time::Duration) -> Self {
        let buffer = BytesMut::new();
        Lines { payload, buffer, searched: 0, limit, patience, skipping: false, ended: Some(false) }
    }

    /// The next line that is not blank.
    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.take_line() {
                let blank = matches!(&line, Line::Text(text) if text.trim_ascii().is_empty());
                if !blank {
                    return Some(line);
                }
                continue;
            }
            if self.ended? {
                self.ended = None;
                return Some(Line::End);
            }
            match tokio::time::timeout(self.patience, self.payload.next()).await {
                Ok(Some(Ok(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Some(Err(err))) => {
                    return self.broken(format!("malformed: the body cannot be read: {err}"));
                }
                Ok(None) => {
                    self.ended = Some(true);
                    if !self.buffer.is_empty() {
                        self.buffer.extend_from_slice(b"\n");
                    }
                }
                Err(_) => {
                    let seconds = self.patience.as_secs_f64();
                    return self.broken(format!("request-timeout: no line came within {seconds} s"));
                }
            }
        }
    }

    fn broken(&mut self, reason: String) -> Option<Line> {
        self.ended = None;
        self.buffer.clear();
        self.searched = 0;
        Some(Line::Broken(reason))
    }

    /// A whole line from the buffer, if there is one.
    fn take_line(&mut self) -> Option<Line> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                if std::mem::take(&mut self.skipping) || line.len() > self.limit + 1 {
                    return Some(Line::TooLong);
                }
                Some(Line::Text(line.slice(..line.len() - 1)))
            }
            None => {
                self.searched = self.buffer.len();
                if self.buffer.len() > self.limit {
                    self.skipping = true;
                    self.buffer.clear();
                    self.searched = 0;
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn lines(chunks: &[&'static str], limit: usize) -> Vec<Line> {
        let chunks: Vec<Result<Bytes, String>> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        let lines = Lines::new(stream::iter(chunks), limit, Duration::from_secs(60));
        let read = stream::unfold(lines, |mut lines| async move { Some((lines.next().await?, lines)) });
        read.collect().await
    }

    #[tokio::test]
    async fn lines_are_cut_wherever_the_chunks_are() {
        let text = |text: &'static str| Line::Text(Bytes::from_static(text.as_bytes()));
        let expected = [text("{}"), text("{\"a\":1}\r"), text("x"), Line::End];
        assert_eq!(lines(&["{}\n{\"a\":1}\r\n\n  \nx"], 100).await, expected);
        assert_eq!(lines(&["{", "}", "\n{\"a\"", ":1}\r", "\n", "\n  \nx", "\n"], 100).await, expected);
        assert_eq!(lines(&[], 100).await, [Line::End]);
        let long = [Line::TooLong, text("ok"), Line::TooLong, Line::End];
        assert_eq!(lines(&["0123456789\nok\n0123", "45", "6789"], 5).await, long);
        assert_eq!(lines(&["01234", "56789", "01234\n", "ok\n", "012345\n"], 5).await, long);
    }
}
