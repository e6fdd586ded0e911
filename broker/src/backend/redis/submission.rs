//! The submission index in Redis. Keys of ours: `<prefix>celeriac:submission:<id>`, `<prefix>celeriac:submissions`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use celery_protocol::TaskId;
use redis::Pipeline;

use super::connection::Connector;
use crate::backend::Answer;
use crate::submission::{CAPACITY, Listed, SubmissionIndex, now};

/// Every so many calls the list is cut back to its capacity.
const TRIM_EVERY: u64 = 256;

/// How many submissions of one microsecond are expected.
const TIES: usize = 16;

/// Submissions in Redis.
#[derive(Clone)]
pub(super) struct RedisSubmissions {
    connector: Connector,
    prefix: String,
    calls: Arc<AtomicU64>,
}

impl RedisSubmissions {
    pub(super) fn new(connector: Connector, prefix: &str) -> Self {
        Self { connector, prefix: prefix.to_owned(), calls: Arc::default() }
    }

    fn key(&self, id: &TaskId) -> String {
        format!("{}celeriac:submission:{id}", self.prefix)
    }

    fn list(&self) -> String {
        format!("{}celeriac:submissions", self.prefix)
    }

    fn enlist(&self, pipe: &mut Pipeline, id: &TaskId) {
        pipe.cmd("ZADD").arg(self.list()).arg("NX").arg(now()).arg(id.as_str()).ignore();
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIM_EVERY) {
            let last = -(i64::try_from(CAPACITY).unwrap_or(i64::MAX) + 1);
            pipe.cmd("ZREMRANGEBYRANK").arg(self.list()).arg(0).arg(last).ignore();
        }
    }
}

impl std::fmt::Debug for RedisSubmissions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisSubmissions").field(&self.connector.address()).finish()
    }
}

fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs().max(1)
}

impl SubmissionIndex for RedisSubmissions {
    fn put<'a>(&'a self, id: &'a TaskId, record: &'a [u8], ttl: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            pipe.set_ex(self.key(id), record, seconds(ttl)).ignore();
            self.enlist(&mut pipe, id);
            self.connector
                .run("recording a submission", async |mut connection| {
                    pipe.query_async::<()>(&mut connection).await
                })
                .await
        })
    }

    fn put_new<'a>(&'a self, id: &'a TaskId, record: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            pipe.cmd("SET").arg(self.key(id)).arg(record).arg("NX").arg("GET").arg("EX").arg(seconds(ttl));
            self.enlist(&mut pipe, id);
            let (earlier,): (Option<Vec<u8>>,) = self
                .connector
                .run("recording a submission", async |mut connection| pipe.query_async(&mut connection).await)
                .await?;
            Ok(earlier)
        })
    }

    fn get<'a>(&'a self, id: &'a TaskId) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            self.connector
                .run("reading a submission", async |mut connection| {
                    redis::cmd("GET").arg(self.key(id)).query_async(&mut connection).await
                })
                .await
        })
    }

    fn get_many<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, Vec<Option<Vec<u8>>>> {
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let keys: Vec<String> = ids.iter().map(|id| self.key(id)).collect();
            self.connector
                .run("reading submissions", async |mut connection| {
                    redis::cmd("MGET").arg(&keys).query_async(&mut connection).await
                })
                .await
        })
    }

    fn remove<'a>(&'a self, id: &'a TaskId) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut pipe = redis::pipe();
            pipe.del(self.key(id)).ignore();
            pipe.cmd("ZREM").arg(self.list()).arg(id.as_str()).ignore();
            self.connector
                .run("removing a submission", async |mut connection| {
                    pipe.query_async::<()>(&mut connection).await
                })
                .await
        })
    }

    fn recent(&self, limit: usize) -> Answer<'_, Vec<TaskId>> {
        Box::pin(async move {
            let Some(last) = limit.checked_sub(1) else { return Ok(Vec::new()) };
            let ids: Vec<String> = self
                .connector
                .run("listing submissions", async |mut connection| {
                    redis::cmd("ZREVRANGE")
                        .arg(self.list())
                        .arg(0)
                        .arg(last)
                        .query_async(&mut connection)
                        .await
                })
                .await?;
            Ok(ids.into_iter().filter_map(|id| TaskId::parse(id).ok()).collect())
        })
    }

    fn page<'a>(&'a self, before: Option<&'a Listed>, limit: usize) -> Answer<'a, Vec<Listed>> {
        Box::pin(async move {
            let newest = before.map_or("+inf".to_owned(), |before| before.at.to_string());
            let mut skipped = 0;
            loop {
                // Those of the same microsecond come in the order of their ids, and some of them were seen already.
                let count = limit + TIES;
                let found: Vec<(String, f64)> = self
                    .connector
                    .run("listing submissions", async |mut connection| {
                        redis::cmd("ZREVRANGEBYSCORE")
                            .arg(self.list())
                            .arg(&newest)
                            .arg("-inf")
                            .arg("WITHSCORES")
                            .arg("LIMIT")
                            .arg(skipped)
                            .arg(count)
                            .query_async(&mut connection)
                            .await
                    })
                    .await?;
                let complete = found.len() < count;
                skipped += found.len();
                let page: Vec<Listed> = found
                    .into_iter()
                    .filter_map(|(id, at)| Some(Listed { at: whole(at), id: TaskId::parse(id).ok()? }))
                    .filter(|listed| before.is_none_or(|before| listed < before))
                    .take(limit)
                    .collect();
                if complete || !page.is_empty() || limit == 0 {
                    return Ok(page);
                }
            }
        })
    }

    fn unlist<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, ()> {
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(());
            }
            let ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
            self.connector
                .run("unlisting submissions", async |mut connection| {
                    redis::cmd("ZREM").arg(self.list()).arg(&ids).query_async::<()>(&mut connection).await
                })
                .await
        })
    }
}

/// A score of [`now`], which a double holds exactly.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and scores are whole"
)]
fn whole(score: f64) -> u64 {
    score as u64
}
