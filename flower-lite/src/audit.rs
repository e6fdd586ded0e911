//! What was changed through the monitor, by whom, and what came of it; what was refused too. A table of its own in the
//! history's file, or in memory where no history is kept.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use serde_json::{Value, json};

use crate::state::time::UnixTime;

/// Rows that are kept, at the most.
const MAX_ROWS: u32 = 100_000;
/// Rows that are kept in memory.
const MAX_IN_MEMORY: u32 = 5_000;
/// How long the file may be locked by whoever writes the history.
const LOCK: Duration = Duration::from_secs(5);
/// The longest text of a field.
const MAX_TEXT: usize = 4_096;
/// The longest parameters, as JSON.
const MAX_PARAMS: usize = 16_384;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It could not be done, or not wholly.
    Failed,
    /// Whoever asked may not.
    Denied,
}

impl Outcome {
    /// As it is kept and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Denied => "denied",
        }
    }
}

/// One thing that was done, or not.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub at: UnixTime,
    /// Who.
    pub user: String,
    /// Their role.
    pub role: &'static str,
    /// How they showed who they are.
    pub via: &'static str,
    /// From where.
    pub address: Option<IpAddr>,
    /// What.
    pub action: String,
    /// To what: a worker, a queue, a task.
    pub target: String,
    /// How it was asked for; redacted.
    pub params: Value,
    /// What came of it.
    pub outcome: Outcome,
    /// What was said about it.
    pub detail: Option<String>,
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// By this user.
    pub user: Option<String>,
    /// This action, or all that begin with it (`queue.`).
    pub action: Option<String>,
    /// With this text in the target.
    pub target: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// At this time or later.
    pub since: Option<f64>,
    /// Before this time.
    pub until: Option<f64>,
    /// Before this entry.
    pub before: Option<i64>,
    /// How many.
    pub limit: usize,
}

/// The log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    connection: Arc<Mutex<Connection>>,
    keep: Duration,
    rows: u32,
}

impl Audit {
    /// In this file, or in memory. Entries older than `keep` go.
    ///
    /// # Errors
    /// Says which file can't be used.
    pub fn open(path: Option<&Path>, keep: Duration) -> Result<Audit, String> {
        let (opened, rows) = match path {
            Some(path) => (Connection::open(path), MAX_ROWS),
            None => (Connection::open_in_memory(), MAX_IN_MEMORY),
        };
        let prepared = opened.and_then(|connection| {
            connection.busy_timeout(LOCK)?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS audit (
                    n INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, user TEXT NOT NULL, role TEXT NOT NULL,
                    via TEXT NOT NULL, address TEXT, action TEXT NOT NULL, target TEXT NOT NULL, params TEXT NOT NULL,
                    outcome TEXT NOT NULL, detail TEXT
                ) STRICT;
                CREATE INDEX IF NOT EXISTS audit_at ON audit (at);
                CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;",
            )?;
            Ok(connection)
        });
        let connection = prepared.map_err(|error| {
            let path = path.map_or_else(|| "memory".into(), |path| path.display().to_string());
            format!("db (FLOWER_DB, --db): the audit log can't be kept in {path}: {error}")
        })?;
        Ok(Audit { connection: Arc::new(Mutex::new(connection)), keep, rows })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry, and drops what is too old. To be called where it may take its time.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, entry: &Entry) -> rusqlite::Result<()> {
        let params = Some(entry.params.to_string()).filter(|text| text.len() <= MAX_PARAMS);
        let connection = self.lock();
        connection.execute(
            "INSERT INTO audit (at, user, role, via, address, action, target, params, outcome, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                entry.at.seconds(),
                cut(&entry.user),
                entry.role,
                entry.via,
                entry.address.map(|address| address.to_string()),
                cut(&entry.action),
                cut(&entry.target),
                params.unwrap_or_else(|| json!({ "cut": "too large to be kept" }).to_string()),
                entry.outcome.as_str(),
                entry.detail.as_deref().map(cut),
            ],
        )?;
        let newest = connection.last_insert_rowid();
        connection.execute(
            "DELETE FROM audit WHERE at < ?1 OR n <= ?2",
            params![entry.at.plus(-self.keep.as_secs_f64()).seconds(), newest - i64::from(self.rows)],
        )?;
        Ok(())
    }

    /// Keeps a small text under a name, beside the log.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn keep(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        self.lock().execute("INSERT OR REPLACE INTO kept (name, value) VALUES (?1, ?2)", [name, value])?;
        Ok(())
    }

    /// What is kept under a name.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn kept(&self, name: &str) -> rusqlite::Result<Option<String>> {
        let connection = self.lock();
        connection.query_row("SELECT value FROM kept WHERE name = ?1", [name], |row| row.get(0)).optional()
    }

    /// Entries as they are shown, newest first, and where the next page begins.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(&self, query: &Query) -> rusqlite::Result<(Vec<Value>, Option<i64>)> {
        let mut conditions = vec!["1"];
        let mut values: Vec<Sql> = Vec::new();
        let mut add = |condition: &'static str, value: Option<Sql>| {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(value);
            }
        };
        add("user = ?", query.user.clone().map(Sql::from));
        let action = query.action.as_ref().map(|action| format!("{}*", action.replace(['*', '?', '['], "")));
        add("action GLOB ?", action.map(Sql::from));
        add("instr(target, ?) > 0", query.target.clone().map(Sql::from));
        add("outcome = ?", query.outcome.clone().map(Sql::from));
        add("at >= ?", query.since.map(Sql::from));
        add("at < ?", query.until.map(Sql::from));
        add("n < ?", query.before.map(Sql::from));
        let asked = format!(
            "SELECT n, at, user, role, via, address, action, target, params, outcome, detail FROM audit
             WHERE {} ORDER BY n DESC LIMIT {}",
            conditions.join(" AND "),
            query.limit + 1
        );
        let connection = self.lock();
        let mut found = connection.prepare(&asked)?;
        let rows = found.query_map(params_from_iter(values), |row| {
            let params: String = row.get(8)?;
            let n: i64 = row.get(0)?;
            Ok((
                n,
                json!({
                    "id": n,
                    "at": row.get::<_, f64>(1)?,
                    "user": row.get::<_, String>(2)?,
                    "role": row.get::<_, String>(3)?,
                    "via": row.get::<_, String>(4)?,
                    "address": row.get::<_, Option<String>>(5)?,
                    "action": row.get::<_, String>(6)?,
                    "target": row.get::<_, String>(7)?,
                    "params": serde_json::from_str::<Value>(&params).unwrap_or_default(),
                    "outcome": row.get::<_, String>(9)?,
                    "detail": row.get::<_, Option<String>>(10)?,
                }),
            ))
        })?;
        let mut rows: Vec<(i64, Value)> = rows.collect::<rusqlite::Result<_>>()?;
        let more = rows.len() > query.limit;
        rows.truncate(query.limit);
        let next = rows.last().filter(|_| more).map(|(n, _)| *n);
        Ok((rows.into_iter().map(|(_, row)| row).collect(), next))
    }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: f64, user: &str, action: &str, outcome: Outcome) -> Entry {
        Entry {
            at: UnixTime::EPOCH.plus(at),
            user: user.into(),
            role: "admin",
            via: "token",
            address: Some(IpAddr::from([127, 0, 0, 1])),
            action: action.into(),
            target: format!("target {at}"),
            params: json!({ "n": at }),
            outcome,
            detail: None,
        }
    }

    #[test]
    fn entries_are_found_newest_first() {
        let audit = Audit::open(None, Duration::from_secs(100)).expect("memory");
        for (at, user, action, outcome) in [
            (1.0, "anna", "queue.purge", Outcome::Ok),
            (50.0, "ben", "queue.pause", Outcome::Denied),
            (60.0, "anna", "task.retry", Outcome::Failed),
            (110.0, "anna", "task.revoke", Outcome::Ok),
        ] {
            audit.write(&entry(at, user, action, outcome)).expect("written");
        }
        let find = |query: Query| {
            let (rows, next) = audit.read(&Query { limit: 2, ..query }).expect("read");
            let times: Vec<f64> = rows.iter().filter_map(|row| row["at"].as_f64()).collect();
            (times, next)
        };
        let (times, next) = find(Query::default());
        assert_eq!(times, [110.0, 60.0]);
        assert_eq!(
            find(Query { before: next, ..Query::default() }),
            (vec![50.0], None),
            "the oldest one is too old"
        );
        assert_eq!(find(Query { user: Some("ben".into()), ..Query::default() }).0, [50.0]);
        assert_eq!(find(Query { action: Some("task.".into()), ..Query::default() }).0, [110.0, 60.0]);
        assert_eq!(find(Query { outcome: Some("failed".into()), ..Query::default() }).0, [60.0]);
        assert_eq!(find(Query { target: Some("110".into()), ..Query::default() }).0, [110.0]);
        assert_eq!(find(Query { since: Some(55.0), until: Some(70.0), ..Query::default() }).0, [60.0]);
        assert_eq!(find(Query { user: Some("' OR 1".into()), ..Query::default() }).0, [] as [f64; 0]);
    }

    #[test]
    fn it_lies_beside_the_history_and_outlives_the_process() {
        let path = std::env::temp_dir().join(format!("flower-audit-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let keep = Duration::from_secs(100);
        Audit::open(Some(&path), keep)
            .expect("a file")
            .write(&entry(1.0, "a", "b", Outcome::Ok))
            .expect("written");
        let (rows, _) = Audit::open(Some(&path), keep)
            .expect("a file")
            .read(&Query { limit: 5, ..Query::default() })
            .expect("read");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["params"], json!({ "n": 1.0 }));
        std::fs::remove_file(&path).expect("it was there");
        let missing = Path::new("/nonexistent/f.db");
        assert!(Audit::open(Some(missing), keep).is_err_and(|told| told.contains("FLOWER_DB")));
    }
}
