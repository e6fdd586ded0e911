//! What workers know together, in Redis. Keys of ours: `<prefix>celeriac:revoked`, a sorted set by time of revocation,
//! `<prefix>celeriac:revoked-until`, the same by the time at which each is forgotten, `<prefix>celeriac:pace:<key>`, in
//! microseconds of Redis' clock, and `<prefix>celeriac:count:<key>`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::connection::Connector;
use super::script::Script;
use crate::backend::Answer;
use crate::control::{Cluster, MAX_REVOCATIONS, Pace, Revocation};

/// [`Pace::book`](crate::control::Pace), with Redis' clock; numbers are written in full, Lua's own way rounds them.
const BOOK: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local start = math.max(tat - interval * (tonumber(ARGV[2]) - 1), now)
tat = tat + interval
redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', string.format('%.0f', math.ceil((tat - now) / 1000) + 1000))
return string.format('%.0f', start - now)
";

/// KEYS: revocations by their time, by their end. ARGV: now, end, seconds to live, how many are kept, revocations. Workers may
/// keep revocations for different times: each has its own end, and none is forgotten before it.
const REVOKE: &str = r"
local revoked, ends = unpack(KEYS)
for i = 5, #ARGV do
  redis.call('ZADD', revoked, ARGV[1], ARGV[i])
  local known = tonumber(redis.call('ZSCORE', ends, ARGV[i]) or '0')
  if tonumber(ARGV[2]) > known then
    redis.call('ZADD', ends, ARGV[2], ARGV[i])
  end
end
local function forget(gone)
  for _, one in ipairs(gone) do
    redis.call('ZREM', revoked, one)
    redis.call('ZREM', ends, one)
  end
end
forget(redis.call('ZRANGEBYSCORE', ends, '-inf', '(' .. ARGV[1]))
forget(redis.call('ZRANGE', revoked, 0, -ARGV[4] - 1))
local ttl = tonumber(ARGV[3])
for _, key in ipairs(KEYS) do
  if redis.call('TTL', key) < ttl then
    redis.call('EXPIRE', key, ttl)
  end
end
";

/// The longest time between two starts that the script counts with: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Shared knowledge in Redis.
pub(super) struct RedisCluster {
    connector: Connector,
    prefix: String,
    book: Script,
    revoke: Script,
}

impl RedisCluster {
    pub(super) fn new(connector: Connector, prefix: &str) -> Self {
        let (book, revoke) = (Script::new(BOOK), Script::new(REVOKE));
        Self { connector, prefix: prefix.to_owned(), book, revoke }
    }

    fn counter(&self, key: &str) -> String {
        format!("{}celeriac:count:{key}", self.prefix)
    }

    fn revoked(&self) -> String {
        format!("{}celeriac:revoked", self.prefix)
    }
}

impl std::fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisCluster").field(&self.connector.address()).finish()
    }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Cluster for RedisCluster {
    fn revoke<'a>(&'a self, revocations: &'a [Revocation], lifetime: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            if revocations.is_empty() {
                return Ok(());
            }
            let now = unix(SystemTime::now());
            let end = now + lifetime.as_secs_f64();
            let (key, ends) = (self.revoked(), format!("{}-until", self.revoked()));
            let fill = |command: &mut redis::Cmd| {
                command.arg(2).arg(&key).arg(&ends).arg(now).arg(end).arg(lifetime.as_secs().max(1));
                command.arg(MAX_REVOCATIONS);
                for one in revocations {
                    command.arg(one.encode());
                }
            };
            self.connector
                .run("keeping a revocation", async |mut connection| {
                    self.revoke.run::<()>(&mut connection, fill).await
                })
                .await
        })
    }

    fn revoked_since(&self, since: SystemTime) -> Answer<'_, Vec<Revocation>> {
        Box::pin(async move {
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(self.revoked()).arg(unix(since)).arg("+inf");
            let kept: Vec<String> = self
                .connector
                .run("reading revocations", async |mut connection| command.query_async(&mut connection).await)
                .await?;
            Ok(kept.iter().filter_map(|text| Revocation::decode(text)).collect())
        })
    }

    fn book<'a>(&'a self, key: &'a str, pace: Pace) -> Answer<'a, Duration> {
        Box::pin(async move {
            let key = format!("{}celeriac:pace:{key}", self.prefix);
            let interval = pace.interval.min(LONGEST).as_micros();
            let wait: String = self
                .connector
                .run("booking a start", async |mut connection| {
                    self.book
                        .run(&mut connection, |command| {
                            command.arg(1).arg(&key).arg(interval.to_string()).arg(pace.burst.max(1));
                        })
                        .await
                })
                .await?;
            Ok(Duration::from_micros(wait.parse().unwrap_or(0)))
        })
    }

    fn count<'a>(&'a self, key: &'a str, lifetime: Duration) -> Answer<'a, u64> {
        Box::pin(async move {
            let key = self.counter(key);
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("INCR").arg(&key);
            pipe.cmd("EXPIRE").arg(&key).arg(lifetime.as_secs().max(1)).ignore();
            let (count,): (u64,) = self
                .connector
                .run("counting", async |mut connection| pipe.query_async(&mut connection).await)
                .await?;
            Ok(count)
        })
    }

    fn forget_count<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut command = redis::cmd("DEL");
            command.arg(self.counter(key));
            self.connector
                .run("forgetting a count", async |mut connection| {
                    command.query_async::<()>(&mut connection).await
                })
                .await
        })
    }
}
