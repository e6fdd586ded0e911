//! Leases and fenced records in Redis. Keys of ours: `<prefix>celeriac:lease:<name>` (the holder's token),
//! `<prefix>celeriac:records:<name>` and `<prefix>celeriac:entries:<name>` (hashes).

use std::sync::Arc;

use redis::{Cmd, FromRedisValue};

use super::connection::Connector;
use super::script::Script;
use crate::backend::Answer;
use crate::error::BackendError;
use crate::fenced::{Change, Fenced, Hold, Records};

/// KEYS: lease. ARGV: token, milliseconds.
const HOLD: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: lease. ARGV: token.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
";

/// KEYS: lease, records. ARGV: token, milliseconds, field, whether something is expected, what, whether something is to
/// be there, what. Answers 0 if the lease is another's, 1 if the record differs, 2 if it was replaced.
const REPLACE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local present = redis.call('HGET', KEYS[2], ARGV[3])
if ARGV[4] == '1' then
  if present ~= ARGV[5] then return 1 end
elseif present then
  return 1
end
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[7])
else
  redis.call('HDEL', KEYS[2], ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 2
";

/// Leases in Redis.
#[derive(Clone)]
pub(super) struct RedisFenced {
    connector: Connector,
    prefix: String,
    scripts: Arc<Scripts>,
}

struct Scripts {
    hold: Script,
    release: Script,
    replace: Script,
}

impl RedisFenced {
    pub(super) fn new(connector: Connector, prefix: &str) -> Self {
        let scripts =
            Scripts { hold: Script::new(HOLD), release: Script::new(RELEASE), replace: Script::new(REPLACE) };
        Self { connector, prefix: prefix.to_owned(), scripts: Arc::new(scripts) }
    }

    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}celeriac:{kind}:{name}", self.prefix)
    }

    async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        fill: impl Fn(&mut Cmd),
    ) -> Result<T, BackendError> {
        self.connector.run("a lease", async |mut connection| script.run(&mut connection, &fill).await).await
    }

    async fn query<T: FromRedisValue>(&self, command: Cmd) -> Result<T, BackendError> {
        let query = async |mut connection| command.query_async(&mut connection).await;
        self.connector.run("records under a lease", query).await
    }
}

impl std::fmt::Debug for RedisFenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisFenced").field(&self.connector.address()).finish()
    }
}

fn milliseconds(hold: Hold<'_>) -> u64 {
    u64::try_from(hold.ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Fenced for RedisFenced {
    fn hold<'a>(&'a self, hold: Hold<'a>) -> Answer<'a, bool> {
        let lease = self.key("lease", hold.name);
        Box::pin(async move {
            let fill = |command: &mut Cmd| {
                command.arg(1).arg(&lease).arg(hold.token).arg(milliseconds(hold));
            };
            self.script(&self.scripts.hold, fill).await
        })
    }

    fn release<'a>(&'a self, hold: Hold<'a>) -> Answer<'a, bool> {
        let lease = self.key("lease", hold.name);
        Box::pin(async move {
            let fill = |command: &mut Cmd| {
                command.arg(1).arg(&lease).arg(hold.token);
            };
            self.script(&self.scripts.release, fill).await
        })
    }

    fn records<'a>(&'a self, name: &'a str) -> Answer<'a, Records> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.key("records", name));
        Box::pin(self.query(command))
    }

    fn replace<'a>(
        &'a self,
        hold: Hold<'a>,
        key: &'a str,
        expected: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Answer<'a, Change> {
        let (lease, records) = (self.key("lease", hold.name), self.key("records", hold.name));
        Box::pin(async move {
            let fill = |command: &mut Cmd| {
                command.arg(2).arg(&lease).arg(&records).arg(hold.token).arg(milliseconds(hold)).arg(key);
                for side in [expected, value] {
                    command.arg(u8::from(side.is_some())).arg(side.unwrap_or_default());
                }
            };
            let answer: u8 = self.script(&self.scripts.replace, fill).await?;
            Ok(match answer {
                0 => Change::NotHolder,
                1 => Change::Differs,
                _ => Change::Made,
            })
        })
    }

    fn entries<'a>(&'a self, name: &'a str) -> Answer<'a, Records> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.key("entries", name));
        Box::pin(self.query(command))
    }

    fn edit<'a>(&'a self, name: &'a str, key: &'a str, value: Option<&'a [u8]>) -> Answer<'a, ()> {
        let mut command = redis::cmd(if value.is_some() { "HSET" } else { "HDEL" });
        command.arg(self.key("entries", name)).arg(key);
        if let Some(value) = value {
            command.arg(value);
        }
        Box::pin(async move { self.query::<u64>(command).await.map(drop) })
    }
}
