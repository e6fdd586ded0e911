//! The health file: how a process without a port answers probes.
//!
//! A worker or a beat writes every two seconds what it could do just then; a probe (`celery-worker --healthcheck ready`)
//! reads it. The age of the file shows that its loop turns; a lost broker makes it unready and never dead, so that an
//! outage of the broker restarts nobody.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use celery_broker::{Celery, Health};

use crate::WorkerHandle;

/// Between two writes.
const EVERY: Duration = Duration::from_secs(2);
/// A file that is older was written by a process that hangs, or by one that is gone.
const STALE: Duration = Duration::from_secs(30);
/// What the file of a ready process says.
const READY: &str = "ready";

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Does its loop turn? If not, restart it.
    Live,
    /// Does it also consume (a beat: can it send), and is it not stopping?
    Ready,
}

/// The file that a running worker or beat keeps up to date.
#[derive(Debug)]
pub struct HealthFile {
    path: PathBuf,
}

impl HealthFile {
    /// Writes the file for the first time.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn create(path: impl Into<PathBuf>) -> std::io::Result<HealthFile> {
        let path = path.into();
        std::fs::write(&path, "starting\n")?;
        Ok(HealthFile { path })
    }

    /// Keeps the file up to date for as long as it is polled.
    pub async fn keep(&self, celery: &Celery, worker: &WorkerHandle) -> Infallible {
        self.keep_saying(|| describe(&celery.health(), worker.is_stopping())).await
    }

    /// As [`keep`](Self::keep), for what only sends.
    pub async fn keep_sending(&self, celery: &Celery) -> Infallible {
        // Whoever sends need not consume.
        self.keep_saying(|| describe(&Health { consuming: Some(true), ..celery.health() }, false)).await
    }

    async fn keep_saying(&self, what: impl Fn() -> String) -> Infallible {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let line = what();
            if let Err(error) = self.write(&line).await {
                tracing::warn!(path = %self.path.display(), %error, "the health file cannot be written");
            }
        }
    }

    /// Never leaves half a line for a probe to read.
    async fn write(&self, line: &str) -> std::io::Result<()> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        tokio::fs::write(&new, format!("{line}\n")).await?;
        tokio::fs::rename(&new, &self.path).await
    }
}

fn describe(health: &Health, stopping: bool) -> String {
    match health {
        _ if stopping => "stopping".to_owned(),
        Health { connected: false, reason, .. } => {
            format!("not connected to the broker: {}", reason.as_deref().unwrap_or("no connection yet"))
        }
        Health { consuming: Some(true), .. } => READY.to_owned(),
        Health { .. } => "does not consume yet".to_owned(),
    }
}

/// Answers a probe from the file at `path`.
///
/// # Errors
/// The answer is no: why, in a sentence.
pub fn check(path: &Path, question: Question) -> Result<(), String> {
    let shown = path.display();
    let age = std::fs::metadata(path).and_then(|file| file.modified());
    let age = age.map_err(|err| format!("{shown} cannot be read, so nobody keeps it: {err}"))?;
    // A clock that was set back makes the file look new, not old.
    let age = age.elapsed().unwrap_or_default();
    let text = std::fs::read_to_string(path).map_err(|err| format!("{shown} cannot be read: {err}"))?;
    answer(question, text.trim(), age).map_err(|why| format!("{why} ({shown})"))
}

fn answer(question: Question, text: &str, age: Duration) -> Result<(), String> {
    if age > STALE {
        return Err(format!("nothing was said for {} s", age.as_secs()));
    }
    match question {
        Question::Live => Ok(()),
        Question::Ready if text == READY => Ok(()),
        Question::Ready => Err(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(connected: bool, consuming: Option<bool>) -> Health {
        Health {
            connected,
            blocked: false,
            consuming,
            reason: (!connected).then(|| "connection refused".to_owned()),
        }
    }

    #[test]
    fn a_lost_broker_is_not_ready_and_not_dead() {
        let fresh = Duration::from_secs(1);
        for (health, stopping, ready) in [
            (health(true, Some(true)), false, Ok(())),
            (health(true, Some(true)), true, Err("stopping")),
            (health(true, Some(false)), false, Err("does not consume yet")),
            (health(true, None), false, Err("does not consume yet")),
            (health(false, Some(false)), false, Err("not connected to the broker: connection refused")),
        ] {
            let line = describe(&health, stopping);
            assert_eq!(answer(Question::Ready, &line, fresh), ready.map_err(str::to_owned), "{line}");
            assert_eq!(answer(Question::Live, &line, fresh), Ok(()), "{line}");
        }
    }

    #[test]
    fn a_worker_that_has_stopped_writing_is_dead() {
        for question in [Question::Live, Question::Ready] {
            assert!(answer(question, READY, Duration::from_secs(31)).is_err_and(|why| why.contains("31 s")));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let why = check(Path::new("/nowhere/health"), Question::Live).unwrap_err();
        assert!(why.contains("/nowhere/health"), "{why}");
    }

    #[test]
    fn the_file_is_there_from_the_start() {
        let path = std::env::temp_dir().join(format!("celery-worker-health-{}", std::process::id()));
        let file = HealthFile::create(&path).unwrap();
        assert_eq!(check(&path, Question::Live), Ok(()));
        assert!(check(&path, Question::Ready).unwrap_err().starts_with("starting"));
        std::fs::remove_file(&file.path).unwrap();
        assert!(HealthFile::create("/nowhere/health").is_err());
    }
}
