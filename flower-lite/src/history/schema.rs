//! The tables, and how older files are brought up to date.

use rusqlite::Connection;

/// Each step brings a file from the version before it to its own; the version is SQLite's `user_version`. Steps that were
/// ever released are not changed any more: new ones are added.
const STEPS: [&str; 1] = ["
    CREATE TABLE task (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        at REAL NOT NULL,
        state TEXT NOT NULL,
        name TEXT,
        worker TEXT,
        queue TEXT,
        runtime REAL,
        root TEXT,
        digest INTEGER NOT NULL,
        first REAL NOT NULL,
        count INTEGER NOT NULL,
        forgotten INTEGER NOT NULL,
        marks TEXT NOT NULL
    ) STRICT;
    CREATE INDEX task_at ON task (at);
    CREATE INDEX task_state ON task (state, at);
    CREATE INDEX task_name ON task (name, state, at);
    CREATE INDEX task_name_at ON task (name, at);
    CREATE INDEX task_worker ON task (worker, at);
    CREATE INDEX task_queue ON task (queue, at) WHERE queue IS NOT NULL;
    CREATE INDEX task_runtime ON task (runtime) WHERE runtime IS NOT NULL;
    CREATE INDEX task_root ON task (root) WHERE root IS NOT NULL AND root <> id;
    CREATE TABLE name (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE worker (
        name TEXT PRIMARY KEY,
        first_seen REAL NOT NULL,
        last_heartbeat REAL NOT NULL,
        facts TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE VIRTUAL TABLE task_text USING fts5 (
        text, content = '', contentless_delete = 1, tokenize = 'trigram', detail = 'none'
    );
"];

/// Sets a connection that writes up, and brings the file up to date.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), String> {
    let told = |error: rusqlite::Error| error.to_string();
    // Before the first table is made, so that what is deleted can be given back to the file system.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(told)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(told)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(told)?;
    connection.pragma_update(None, "cache_size", -16_000).map_err(told)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: usize =
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).map_err(told)? as usize;
    if version > STEPS.len() {
        return Err(format!("it was written by a newer flower-lite (version {version} of its tables)"));
    }
    for (index, step) in STEPS.iter().enumerate().skip(version) {
        let transaction = connection.transaction().map_err(told)?;
        transaction.execute_batch(step).map_err(told)?;
        transaction.pragma_update(None, "user_version", index + 1).map_err(told)?;
        transaction.commit().map_err(told)?;
    }
    Ok(())
}
