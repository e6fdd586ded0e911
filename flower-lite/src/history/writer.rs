//! The thread that writes: batches of tasks in one transaction each, and in between what retention asks for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use super::{Batch, Retention, Shared, record};
use crate::clock;
use crate::state::memory::SavedWorker;
use crate::state::task::Task;
use crate::state::time::UnixTime;

/// How often it is looked whether something must go.
const LOOK: Duration = Duration::from_secs(2);
/// How many tasks go at a time, so that writing never waits for long.
const SLICE: usize = 2_000;
/// How many slices go in one look.
const SLICES: usize = 20;
/// The first pause before a batch is tried again; it doubles up to the longest one.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 200 });
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a batch is tried whose failure does not look as if it would pass by itself.
const TRIES: u32 = 3;

/// Runs until nobody can send batches any more.
pub(super) fn run(
    mut connection: Connection,
    batches: &Receiver<Batch>,
    shared: &Arc<Shared>,
    retention: Retention,
) {
    let mut names = HashSet::new();
    let mut looked = Instant::now();
    loop {
        match batches.recv_timeout(LOOK) {
            Ok(batch) => {
                persist(&mut connection, &batch, &mut names, shared);
                shared.busy.fetch_sub(1, Ordering::AcqRel);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if let Err(error) = retain(&mut connection, retention, clock::now(), shared) {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "old tasks could not be removed from the history");
            }
        }
    }
    let _ = connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);");
}

/// Writes a batch, again and again while the disk is full or another process has the file: meanwhile the collector holds
/// back what comes. What can't be written for another reason is skipped, and counted.
fn persist(connection: &mut Connection, batch: &Batch, names: &mut HashSet<Arc<str>>, shared: &Arc<Shared>) {
    let tasks = batch.tasks.len();
    let mut pause = PAUSE;
    for tried in 1.. {
        let error = match write(connection, batch, names) {
            Ok(added) => {
                shared.tasks.fetch_add(added, Ordering::Relaxed);
                return;
            }
            Err(error) => error,
        };
        shared.failures.fetch_add(1, Ordering::Relaxed);
        // Names of a transaction that was undone are not there.
        names.clear();
        // Nobody waits for it any more when this thread alone holds the history.
        if Arc::strong_count(shared) == 1 || tried >= TRIES && !may_pass(&error) {
            shared.skipped.fetch_add(tasks as u64, Ordering::Relaxed);
            tracing::error!(%error, tasks, "the history could not be written; these changes are not in it");
            return;
        }
        tracing::warn!(%error, tasks, "the history could not be written; trying again");
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a failure is of the kind that passes: the disk is full or failing, or the file is another's for now.
fn may_pass(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
        )
    )
}

/// Writes a batch; gives how many of its tasks are new.
pub(super) fn write(
    connection: &mut Connection,
    batch: &Batch,
    names: &mut HashSet<Arc<str>>,
) -> rusqlite::Result<u64> {
    let transaction = connection.transaction()?;
    let mut added = 0;
    for task in &batch.tasks {
        added += u64::from(put(&transaction, task)?);
        if let Some(name) = task.name().filter(|name| !names.contains(*name)) {
            transaction.prepare_cached("INSERT OR IGNORE INTO name VALUES (?1)")?.execute([&**name])?;
            // A flood of names must not fill memory; the table itself is small enough.
            if names.len() < 10_000 {
                names.insert(name.clone());
            }
        }
    }
    for worker in &batch.workers {
        put_worker(&transaction, worker)?;
    }
    transaction.commit()?;
    Ok(added)
}

/// Writes a task; gives whether it is new.
fn put(transaction: &Transaction<'_>, task: &Task) -> rusqlite::Result<bool> {
    let known = transaction
        .prepare_cached("SELECT n, digest, first, count FROM task WHERE id = ?1")?
        .query_row([task.id()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, f64>(2)?, row.get::<_, usize>(3)?))
        })
        .optional()?;
    let Some((n, digest, first, count)) = known else {
        let text = record::text(task);
        let n = upsert(transaction, task, record::digest(&text))?;
        index(transaction, n, &text)?;
        return Ok(true);
    };
    // It was forgotten and came up again: what is on disk knows more than memory does.
    let same = task.count() >= count && task.first_at().is_some_and(|at| at.seconds() == first);
    let merged;
    let task = if same {
        task
    } else {
        merged = merge(transaction, n, task)?;
        &merged
    };
    let text = record::text(task);
    let new = record::digest(&text);
    upsert(transaction, task, new)?;
    if new != digest {
        index(transaction, n, &text)?;
    }
    Ok(false)
}

fn merge(transaction: &Transaction<'_>, n: i64, task: &Task) -> rusqlite::Result<Task> {
    let (json, forgotten): (String, u32) = transaction
        .prepare_cached("SELECT marks, forgotten FROM task WHERE n = ?1")?
        .query_row([n], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut marks = record::read(&json, |name| Arc::from(name));
    marks.extend(task.marks());
    Ok(record::task(task.id(), marks, forgotten.max(task.forgotten())))
}

/// Writes a task's row, new or not; gives its number.
fn upsert(transaction: &Transaction<'_>, task: &Task, digest: i64) -> rusqlite::Result<i64> {
    let call = task.call();
    transaction
        .prepare_cached(
            "INSERT INTO task (id, at, state, name, worker, queue, runtime, root, digest, first, count, forgotten, marks)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (id) DO UPDATE SET at = ?2, state = ?3, name = ?4, worker = ?5, queue = ?6, runtime = ?7,
             root = ?8, digest = ?9, first = ?10, count = ?11, forgotten = ?12, marks = ?13
             RETURNING n",
        )?
        .query_row(
            params![
                task.id(),
                task.listed_at().seconds(),
                task.state().as_str(),
                task.name().map(|name| &**name),
                task.worker().map(|worker| &**worker),
                task.queue().map(|queue| &**queue),
                task.runtime(),
                call.and_then(|call| call.root),
                digest,
                first(task),
                task.count(),
                task.forgotten(),
                record::write(task),
            ],
            |row| row.get(0),
        )
}

fn first(task: &Task) -> f64 {
    task.first_at().map_or(0.0, UnixTime::seconds)
}

fn index(transaction: &Transaction<'_>, n: i64, text: &str) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO task_text (rowid, text) VALUES (?1, ?2)")?;
    insert.execute(params![n, text])?;
    Ok(())
}

fn put_worker(transaction: &Transaction<'_>, worker: &SavedWorker) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO worker VALUES (?1, ?2, ?3, ?4)")?;
    let facts = super::facts::write(&worker.facts);
    insert.execute(params![worker.name, worker.first_seen, worker.last_heartbeat, facts])?;
    Ok(())
}

/// Removes what is too old, and as much of the oldest as makes the file too large. Gives how many tasks went.
pub(super) fn retain(
    connection: &mut Connection,
    retention: Retention,
    now: UnixTime,
    shared: &Shared,
) -> rusqlite::Result<u64> {
    const OLDEST: &str = "SELECT n FROM task WHERE at < ?1 ORDER BY at LIMIT ?2";
    let oldest = now.seconds() - retention.age.as_secs_f64();
    let mut gone = 0;
    // Several slices at a time: what goes must keep up with what comes.
    for _ in 0..SLICES {
        let before = if used(connection)? > retention.bytes { f64::MAX } else { oldest };
        let some = remove(connection, OLDEST, before)?;
        gone += some;
        if some == 0 {
            break;
        }
    }
    let used = used(connection)?;
    if gone > 0 {
        connection.execute_batch("PRAGMA incremental_vacuum(10000);")?;
    }
    connection.execute("DELETE FROM worker WHERE last_heartbeat < ?1", [oldest])?;
    shared.bytes.store(used, Ordering::Relaxed);
    shared.tasks.fetch_sub(gone, Ordering::Relaxed);
    Ok(gone)
}

fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    Ok(pages * number("PRAGMA page_size")?)
}

fn remove(connection: &mut Connection, which: &str, before: f64) -> rusqlite::Result<u64> {
    let transaction = connection.transaction()?;
    let old: Vec<i64> = transaction
        .prepare_cached(which)?
        .query_map(params![before, SLICE], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for n in &old {
        transaction.prepare_cached("DELETE FROM task WHERE n = ?1")?.execute([n])?;
        transaction.prepare_cached("DELETE FROM task_text WHERE rowid = ?1")?.execute([n])?;
    }
    transaction.commit()?;
    Ok(old.len() as u64)
}
