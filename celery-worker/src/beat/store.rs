//! The file in which beat remembers when each entry ran last, so that a restart neither repeats nor forgets.
//!
//! JSON of our own (Celery's is a Python shelve and private to it), replaced atomically: a crash while writing leaves
//! the old file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// The state file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

/// What is remembered of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LastRun {
    /// Unix time of the last run, or of the moment the entry was first seen.
    at: f64,
    /// How often it has run.
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    entries: BTreeMap<String, LastRun>,
}

impl LastRun {
    /// An entry that is seen for the first time: it runs one interval from now.
    pub fn first_seen(now: SystemTime) -> LastRun {
        LastRun { at: unix(now), count: 0 }
    }

    /// The entry ran again.
    pub fn ran(self, at: SystemTime) -> LastRun {
        LastRun { at: unix(at), count: self.count + 1 }
    }

    /// When it ran last.
    pub fn at(self) -> SystemTime {
        let since = Duration::try_from_secs_f64(self.at).unwrap_or_default();
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// A time as it is kept.
    pub(super) fn unix(at: SystemTime) -> f64 {
        unix(at)
    }

    /// A time that was kept.
    pub(super) fn unix_time(seconds: f64) -> SystemTime {
        LastRun { at: seconds, count: 0 }.at()
    }

    /// How often it has run.
    pub fn count(self) -> u64 {
        self.count
    }
}

impl Store {
    /// The store in the file `path`; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Store {
        Store { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. One that does not exist is empty.
    ///
    /// # Errors
    /// When the file cannot be read or is not ours: overwriting a foreign file would be worse than not starting.
    pub fn load(&self) -> io::Result<BTreeMap<String, LastRun>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(err) => return Err(err),
        };
        let file: File = serde_json::from_slice(&text).map_err(|err| {
            let path = self.path.display();
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{path} is not a schedule file of celery-beat ({err}); move it away or name another file"
                ),
            )
        })?;
        if file.version != VERSION {
            let text = format!("{} has version {}, expected {VERSION}", self.path.display(), file.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(file.entries)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written; the old file is then still there.
    pub fn save(&self, entries: &BTreeMap<String, LastRun>) -> io::Result<()> {
        let file = File { version: VERSION, entries: entries.clone() };
        let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.path)
    }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_foreign_files_are_refused() {
        let path = std::env::temp_dir().join(format!("celery-beat-store-{}", std::process::id()));
        let store = Store::new(&path);
        let _ = std::fs::remove_file(&path);
        assert!(store.load().unwrap().is_empty());
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let entries = BTreeMap::from([("a".to_owned(), LastRun::first_seen(now).ran(now))]);
        store.save(&entries).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded, entries);
        assert_eq!((loaded["a"].at(), loaded["a"].count()), (now, 1));
        std::fs::write(&path, "not ours").unwrap();
        assert!(store.load().unwrap_err().to_string().contains("move it away"));
        std::fs::remove_file(&path).unwrap();
    }
}
