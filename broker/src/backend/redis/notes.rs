//! Notes in Redis. Keys of ours: `<prefix>celeriac:note:<key>`.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::connection::Connector;
use super::script::Script;
use crate::backend::Answer;
use crate::error::BackendError;
use crate::notes::Notes;

/// Writes or removes a key if its value is the expected one. `ARGV`: expected, new value, seconds; 0 seconds remove it.
const COMPARE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
return 1
";

/// Notes in Redis.
#[derive(Clone)]
pub(super) struct RedisNotes {
    connector: Connector,
    prefix: String,
    compare: Arc<Script>,
}

impl RedisNotes {
    pub(super) fn new(connector: Connector, prefix: &str) -> Self {
        Self { connector, prefix: prefix.to_owned(), compare: Arc::new(Script::new(COMPARE)) }
    }

    fn key(&self, key: &str) -> String {
        format!("{}celeriac:note:{key}", self.prefix)
    }

    /// A command on the key of a note.
    fn command(&self, name: &str, key: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(self.key(key));
        command
    }

    async fn query<T: FromRedisValue>(&self, command: Cmd) -> Result<T, BackendError> {
        let query = async |mut connection| command.query_async(&mut connection).await;
        self.connector.run("a note", query).await
    }

    /// Runs [`COMPARE`].
    async fn compare(
        &self,
        key: &str,
        expected: &[u8],
        value: &[u8],
        seconds: u64,
    ) -> Result<bool, BackendError> {
        let key = self.key(key);
        self.connector
            .run("a note", async |mut connection| {
                self.compare
                    .run(&mut connection, |command| {
                        command.arg(1).arg(&key).arg(expected).arg(value).arg(seconds);
                    })
                    .await
            })
            .await
    }
}

impl std::fmt::Debug for RedisNotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisNotes").field(&self.connector.address()).finish()
    }
}

fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs().max(1)
}

impl Notes for RedisNotes {
    fn put<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, ()> {
        let mut command = self.command("SET", key);
        command.arg(value).arg("EX").arg(seconds(ttl));
        Box::pin(self.query(command))
    }

    fn put_new<'a>(&'a self, key: &'a str, value: &'a [u8], ttl: Duration) -> Answer<'a, Option<Vec<u8>>> {
        let mut command = self.command("SET", key);
        command.arg(value).arg("NX").arg("GET").arg("EX").arg(seconds(ttl));
        Box::pin(self.query(command))
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        expected: &'a [u8],
        value: &'a [u8],
        ttl: Duration,
    ) -> Answer<'a, bool> {
        Box::pin(self.compare(key, expected, value, seconds(ttl)))
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(self.query(self.command("GET", key)))
    }

    fn take<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(self.query(self.command("GETDEL", key)))
    }

    fn remove<'a>(&'a self, key: &'a str, expected: &'a [u8]) -> Answer<'a, bool> {
        Box::pin(self.compare(key, expected, b"", 0))
    }
}
