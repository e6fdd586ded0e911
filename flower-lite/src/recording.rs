//! Events to a file, and from there back into a monitor: for bug reports, demonstrations and tests.
//!
//! A recording has one line for each batch of events: `{"received": <seconds>, "body": [<event>, …]}`.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use celery_protocol::event::{self, Event};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::startup::Feed;
use crate::state::time::UnixTime;

/// How large a recording may become; then it ends.
const MAX_BYTES: u64 = 4 << 30;
/// The longest line that is read.
const MAX_LINE: u64 = 64 << 20;
/// The longest that a replay waits between two lines.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Writes down the events that come in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    path: Arc<Path>,
    file: Arc<Mutex<Option<Writer>>>,
}

#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    bytes: u64,
}

impl Recorder {
    /// Begins a recording; one that is there already goes on.
    ///
    /// # Errors
    /// Says which file can't be written.
    pub fn create(path: &Path) -> Result<Recorder, String> {
        let told = |error: std::io::Error| {
            format!("record (FLOWER_RECORD, --record): {} can't be written: {error}", path.display())
        };
        let file = File::options().create(true).append(true).open(path).map_err(told)?;
        let bytes = file.metadata().map_err(told)?.len();
        let writer = Writer { file: BufWriter::with_capacity(1 << 20, file), bytes };
        Ok(Recorder { path: path.into(), file: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Writes events down. When that fails, or the file is full, the recording ends and the log says so.
    pub(crate) fn record(&self, events: &[Event], received: UnixTime) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = file.as_mut().filter(|_| !events.is_empty()) else { return };
        let body = match event::encode_multi(events) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(%error, "events could not be recorded");
                return;
            }
        };
        if let Err(error) = writer.line(received, &body) {
            tracing::error!(%error, path = %self.path.display(), "the recording ends");
            *file = None;
        }
    }

    /// Writes what is still in memory.
    pub fn flush(&self) {
        if let Some(writer) = self.file.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            && let Err(error) = writer.file.flush()
        {
            tracing::error!(%error, path = %self.path.display(), "the end of the recording could not be written");
        }
    }
}

impl Writer {
    fn line(&mut self, received: UnixTime, body: &[u8]) -> std::io::Result<()> {
        let head = format!("{{\"received\": {:?}, \"body\": ", received.seconds());
        self.bytes += (head.len() + body.len() + 2) as u64;
        if self.bytes > MAX_BYTES {
            return Err(std::io::Error::other("it is as large as it may become"));
        }
        self.file.write_all(head.as_bytes())?;
        self.file.write_all(body)?;
        self.file.write_all(b"}\n")
    }
}

/// One line of a recording.
#[derive(Debug, Deserialize)]
struct Line {
    received: f64,
    body: Box<RawValue>,
}

impl Line {
    fn read(text: &str) -> Result<(UnixTime, Vec<Event>), String> {
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let received = UnixTime::new(line.received).ok_or("`received` is no time")?;
        let events = event::decode(line.body.get().as_bytes()).map_err(|error| error.to_string())?;
        Ok((received, events.into_iter().filter_map(Result::ok).collect()))
    }
}

/// A recording that is shown again.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    file: BufReader<File>,
    speed: f64,
    /// When its first and its last line were received.
    span: (UnixTime, UnixTime),
}

impl Replay {
    /// Opens a recording; `speed` 1 shows it as fast as it happened, 0 all at once.
    ///
    /// # Errors
    /// Says which file can't be read, or which of its lines.
    pub fn open(path: &Path, speed: f64) -> Result<Replay, String> {
        let told = |error: String| format!("replay (FLOWER_REPLAY, --replay): {}: {error}", path.display());
        let open = || File::open(path).map(BufReader::new).map_err(|error| told(error.to_string()));
        let mut span: Option<(UnixTime, UnixTime)> = None;
        let mut file = open()?;
        let mut number = 0;
        while let Some(line) = next_line(&mut file).map_err(|error| told(error.to_string()))? {
            number += 1;
            let (received, _) = Line::read(&line).map_err(|error| told(format!("line {number}: {error}")))?;
            span = Some((span.map_or(received, |(first, _)| first), received));
        }
        let span = span.ok_or_else(|| told("it has no events".into()))?;
        Ok(Replay { path: path.to_owned(), file: open()?, speed, span })
    }

    /// Plays it into a monitor, moved in time so that it seems to happen now: at speed 0 it ends now, else it begins now.
    pub async fn play(mut self, feed: Feed, stop: CancellationToken) {
        let (first, last) = self.span;
        let begun = clock::now();
        let shift = begun.since(if self.speed > 0.0 { first } else { last });
        let mut count = 0_u64;
        while let Ok(Some(line)) = next_line(&mut self.file) {
            let Ok((received, mut events)) = Line::read(&line) else { continue };
            let mut at = received.plus(shift);
            if self.speed > 0.0 {
                // In a quicker time, too, what is long ago must come before what is not.
                let due = begun.plus(received.since(first) / self.speed);
                let pause = Duration::try_from_secs_f64(due.since(clock::now())).unwrap_or_default();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause.min(LONGEST_PAUSE)) => {}
                }
                at = due;
            }
            let moved = at.since(received);
            for event in &mut events {
                event.timestamp += moved;
            }
            count += events.len() as u64;
            if !feed.events_of(events, at).await {
                return;
            }
        }
        tracing::info!(events = count, path = %self.path.display(), "the recording has been replayed");
    }
}

/// The next line that is not empty.
fn next_line(file: &mut BufReader<File>) -> std::io::Result<Option<String>> {
    loop {
        let mut line = String::new();
        let read = file.by_ref().take(MAX_LINE).read_line(&mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if !line.trim().is_empty() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Monitor, MonitorOptions};
    use serde_json::json;

    async fn known(monitor: &Monitor) -> Vec<serde_json::Value> {
        // Whoever feeds waits for room, not for the state: so what came in is asked for until it is all there.
        for _ in 0..2_000 {
            if monitor.state().totals().received == 3 {
                break;
            }
            tokio::task::yield_now().await;
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let state = monitor.state();
        let tasks = state.tasks().all().iter().filter_map(|place| state.tasks().at(place));
        tasks
            .map(|task| {
                let seen = serde_json::to_value(crate::view::Task::of(task)).expect("JSON");
                json!([
                    seen["id"],
                    seen["state"],
                    seen["args"],
                    seen["result"],
                    seen["runtime"],
                    seen["worker"]
                ])
            })
            .collect()
    }

    #[tokio::test]
    async fn a_recording_replays_to_what_it_was_made_of() {
        let path = std::env::temp_dir().join(format!("flower-recording-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let recorder = Recorder::create(&path).expect("a file");
        let options = MonitorOptions { recorder: Some(recorder.clone()), ..MonitorOptions::default() };
        let (monitor, feed) = Monitor::fed_by_hand(options);
        let at = clock::now().seconds() - 500.0;
        let event = |kind: &str, later: f64| {
            json!({ "type": kind, "uuid": "one", "hostname": "a@1", "timestamp": at + later, "clock": 1, "args": "('€',)",
                    "name": "demo.add", "result": "7", "runtime": 0.5, "more": { "is": "kept" } })
        };
        feed.body(json!([event("task-received", 0.0), event("task-started", 1.0)]).to_string().as_bytes())
            .await;
        feed.body(event("task-succeeded", 2.0).to_string().as_bytes()).await;
        let expected = known(&monitor).await;
        recorder.flush();
        assert_eq!(expected, [json!(["one", "SUCCESS", "('€',)", "7", 0.5, "a@1"])]);

        for speed in [0.0, 1_000.0] {
            let (again, feed) = Monitor::fed_by_hand(MonitorOptions::default());
            Replay::open(&path, speed).expect("a recording").play(feed, again.ended()).await;
            assert_eq!(known(&again).await, expected, "at speed {speed}");
        }
        std::fs::write(&path, "{\"received\": 1}\n").expect("a file");
        let told = Replay::open(&path, 1.0).expect_err("no recording");
        assert!(told.contains("line 1") && told.contains("body") && told.contains("--replay"), "{told}");
        std::fs::write(&path, "\n").expect("a file");
        assert!(Replay::open(&path, 1.0).is_err_and(|told| told.contains("no events")));
        let _ = std::fs::remove_file(&path);
    }
}
