//! The history: tasks and workers in a SQLite file, so that they outlive this process, and more of them than fit into
//! memory can be searched.
//!
//! One thread writes, in batches that the collector hands over as fast as they are written: while the disk is slow, changes
//! of a task pile up in memory as one. Readers have connections of their own and are never waited for.

mod facts;
mod record;
mod schema;
pub mod search;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::metrics::HistoryNumbers;
use crate::state::ClusterState;
use crate::state::key::TaskKey;
use crate::state::memory::SavedWorker;
use crate::state::task::Task;
use crate::state::time::UnixTime;

/// How many batches may be under way: one that is written, and one that waits.
const UNDER_WAY: usize = 2;
/// How many connections readers keep.
const READERS: usize = 4;
/// How long a reader waits for a lock; in WAL mode hardly ever.
const LOCK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });
/// The most tasks of one workflow.
const MAX_MEMBERS: usize = 10_000;

/// Where the history is, and how long it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// The file; it is made if it isn't there.
    pub path: PathBuf,
    /// What is kept.
    pub retention: Retention,
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For how long a task is kept after it was received.
    pub age: Duration,
    /// How large the file may become, about; then the oldest tasks go.
    pub bytes: u64,
}

/// The history. Cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Shared>,
    batches: SyncSender<Batch>,
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    /// Batches under way.
    busy: AtomicUsize,
    tasks: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
}

/// What is written at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// Tasks that have changed.
    pub tasks: Vec<Task>,
    /// Workers that have changed.
    pub workers: Vec<SavedWorker>,
}

impl History {
    /// Opens the history, and starts the thread that writes it.
    ///
    /// # Errors
    /// Says which file can't be used, and why.
    pub fn open(options: &HistoryOptions) -> Result<History, String> {
        let path = &options.path;
        let told = |error: String| {
            let path = path.display();
            format!(
                "db (FLOWER_DB, --db): {path} can't be used: {error}; name another file, or move this one away"
            )
        };
        let mut connection = Connection::open(path).map_err(|error| told(error.to_string()))?;
        connection.busy_timeout(LOCK).map_err(|error| told(error.to_string()))?;
        schema::prepare(&mut connection).map_err(told)?;
        let tasks = connection
            .query_row("SELECT count(*) FROM task", [], |row| row.get::<_, u64>(0))
            .map_err(|error| told(error.to_string()))?;
        let shared = Arc::new(Shared {
            path: path.clone(),
            readers: Mutex::default(),
            busy: AtomicUsize::new(0),
            tasks: AtomicU64::new(tasks),
            bytes: AtomicU64::new(std::fs::metadata(path).map_or(0, |file| file.len())),
            failures: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        });
        let (batches, received) = sync_channel(UNDER_WAY);
        let (writers, retention) = (shared.clone(), options.retention);
        std::thread::Builder::new()
            .name("history".into())
            .spawn(move || writer::run(connection, &received, &writers, retention))
            .map_err(|error| told(error.to_string()))?;
        Ok(History { shared, batches })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Whether another batch can be taken now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.busy.load(Ordering::Acquire) < UNDER_WAY
    }

    /// Whether everything that was handed over is on disk.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.busy.load(Ordering::Acquire) == 0
    }

    /// Hands a batch over to be written.
    pub fn write(&self, batch: Batch) {
        if batch.tasks.is_empty() && batch.workers.is_empty() {
            return;
        }
        self.shared.busy.fetch_add(1, Ordering::AcqRel);
        let count = batch.tasks.len() as u64;
        if self.batches.try_send(batch).is_err() {
            self.shared.busy.fetch_sub(1, Ordering::AcqRel);
            self.note_skipped(count);
        }
    }

    /// Notes that changes of so many tasks will not be written.
    pub fn note_skipped(&self, tasks: u64) {
        self.shared.skipped.fetch_add(tasks, Ordering::Relaxed);
    }

    /// Its numbers.
    #[must_use]
    pub fn numbers(&self) -> HistoryNumbers {
        let number = |value: &AtomicU64| value.load(Ordering::Relaxed);
        HistoryNumbers {
            tasks: number(&self.shared.tasks),
            bytes: number(&self.shared.bytes),
            failures: number(&self.shared.failures),
            skipped: number(&self.shared.skipped),
        }
    }

    /// Puts workers and the newest tasks back into `state`, no more than it has room for.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn restore(&self, state: &mut ClusterState, room: usize, now: UnixTime) -> rusqlite::Result<()> {
        self.read(|connection| {
            let mut workers =
                connection.prepare("SELECT name, first_seen, last_heartbeat, facts FROM worker")?;
            let mut rows = workers.query([])?;
            while let Some(row) = rows.next()? {
                let saved = SavedWorker {
                    name: row.get(0)?,
                    first_seen: row.get(1)?,
                    last_heartbeat: row.get(2)?,
                    facts: facts::read(row.get_ref(3)?.as_str().unwrap_or_default()),
                };
                state.restore_worker(&saved, now);
            }
            // Oldest first: what is restored last counts as changed last.
            let newest = "SELECT id, forgotten, marks FROM
                (SELECT id, forgotten, marks, at FROM task ORDER BY at DESC LIMIT ?1) ORDER BY at";
            let mut tasks = connection.prepare(newest)?;
            let mut rows = tasks.query([room])?;
            while let Some(row) = rows.next()? {
                let id: String = row.get(0)?;
                let marks =
                    record::read(row.get_ref(2)?.as_str().unwrap_or_default(), |name| state.share_name(name));
                if !marks.is_empty() {
                    state.restore_task(&TaskKey::from(&*id), marks, row.get(1)?);
                }
            }
            Ok(())
        })
    }

    /// The task with this id.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn task(&self, id: &str) -> rusqlite::Result<Option<Task>> {
        self.read(|connection| {
            let mut one = connection.prepare_cached("SELECT id, forgotten, marks FROM task WHERE id = ?1")?;
            one.query_row([id], task).optional()
        })
    }

    /// The tasks of the workflow that begins with the task `root`, oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn workflow(&self, root: &str) -> rusqlite::Result<Vec<Task>> {
        self.read(|connection| {
            let mut members = connection.prepare_cached(
                "SELECT id, forgotten, marks, at, n FROM task WHERE id = ?1
                 UNION ALL SELECT id, forgotten, marks, at, n FROM task WHERE root = ?1 AND root <> id
                 ORDER BY at, n LIMIT ?2",
            )?;
            members.query_map(rusqlite::params![root, MAX_MEMBERS], task)?.collect()
        })
    }

    /// Carries out `work` on a connection that only reads.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let kept = self.readers().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.shared.path, flags)?;
                connection.busy_timeout(LOCK)?;
                connection.pragma_update(None, "cache_size", -16_000)?;
                connection.pragma_update(None, "mmap_size", 256 << 20)?;
                connection
            }
        };
        let outcome = work(&connection);
        let mut readers = self.readers();
        if readers.len() < READERS && outcome.is_ok() {
            readers.push(connection);
        }
        outcome
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task of a row that begins with `id, forgotten, marks`.
fn task(row: &Row<'_>) -> rusqlite::Result<Task> {
    let id: String = row.get(0)?;
    let marks = record::read(row.get_ref(2)?.as_str().unwrap_or_default(), |name| Arc::from(name));
    Ok(record::task(&id, marks, row.get(1)?))
}

#[cfg(test)]
mod tests;
