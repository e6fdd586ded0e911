//! Chords under watch in Redis. Keys of ours: `<prefix>celeriac:chords`, a sorted set of groups by the moment at which to
//! look at them, and `<prefix>celeriac:chord:<group>`, a hash with what is needed to end one. The clock is the server's.

use std::sync::LazyLock;
use std::time::Duration;

use celery_protocol::pyjson;
use celery_protocol::result::keys::{ChordKeys, Prefix};
use celery_protocol::{GroupId, TaskId};
use redis::Cmd;
use uuid::Uuid;

use super::connection::Connector;
use super::script::Script;
use crate::backend::{Answer, ChordClaim};
use crate::chord_watch::{ChordWatch, OverdueChord, WatchedChord};
use crate::error::{BackendError, BackendErrorKind};

/// How long a claim to end a chord holds, and when to look again at one that was looked at.
const CLAIM_SECONDS: u64 = 60;
/// Chords that nobody has looked at for so long are forgotten: there is no worker that watches.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// KEYS: list, note, results. ARGV: group, body, root, patience in ms, ms until it is forgotten.
static WATCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local list, note, results = unpack(KEYS)
if redis.call('EXISTS', note) == 1 then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counted = 0
if redis.call('TYPE', results).ok == 'zset' then
  counted = redis.call('ZCARD', results)
end
redis.call('HSET', note, 'body', ARGV[2], 'root', ARGV[3], 'patience', ARGV[4], 'counted', counted)
redis.call('PEXPIRE', note, ARGV[4] + ARGV[5])
redis.call('ZREMRANGEBYSCORE', list, '-inf', now - ARGV[5])
redis.call('ZADD', list, now + ARGV[4], ARGV[1])
return 1
",
    )
});

/// KEYS: list. ARGV: ms until the next look, limit.
static DUE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, group in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[1], group)
end
return due
",
    )
});

/// KEYS: list. ARGV: limit. The time, then groups and the moments at which they were to be looked at.
static LATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local late = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
table.insert(late, 1, tostring(now))
return late
",
    )
});

/// KEYS: list, note, claim, results, size, diff. ARGV: group, token, seconds of the claim, ms until it is forgotten.
/// Answers what is needed to end the chord, or nothing: it is over, goes on, or somebody else ends it.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local list, note, claim, results, size, diff = unpack(KEYS)
local function forget()
  redis.call('ZREM', list, ARGV[1])
  redis.call('DEL', note)
  return {}
end
local body, root, patience, before = unpack(redis.call('HMGET', note, 'body', 'root', 'patience', 'counted'))
if not body or redis.call('GET', claim) == 'done' then
  return forget()
end
local counted = 0
local kind = redis.call('TYPE', results).ok
if kind == 'zset' then
  counted = redis.call('ZCARD', results)
elseif kind == 'list' then
  counted = redis.call('LLEN', results)
end
local expected = redis.call('GET', size)
if not expected and counted == 0 then
  return forget()
end
local total = expected and (tonumber(expected) + tonumber(redis.call('GET', diff) or 0)) or -1
if counted ~= total and counted ~= tonumber(before) then
  local time = redis.call('TIME')
  redis.call('HSET', note, 'counted', counted)
  redis.call('PEXPIRE', note, patience + ARGV[4])
  redis.call('ZADD', list, time[1] * 1000 + math.floor(time[2] / 1000) + patience, ARGV[1])
  return {}
end
if not redis.call('SET', claim, ARGV[2], 'NX', 'EX', ARGV[3]) then
  return {}
end
return {body, root, patience, tostring(counted), tostring(total)}
",
    )
});

/// The watch in Redis.
#[derive(Clone)]
pub(super) struct RedisChordWatch {
    connector: Connector,
    prefix: Prefix,
}

/// The keys of a watched chord: the list of all, and its own.
pub(super) fn keys(prefix: &Prefix, group: &GroupId) -> [String; 2] {
    [list(prefix), format!("{}celeriac:chord:{group}", prefix.as_str())]
}

fn list(prefix: &Prefix) -> String {
    format!("{}celeriac:chords", prefix.as_str())
}

impl RedisChordWatch {
    pub(super) fn new(connector: Connector, prefix: Prefix) -> Self {
        Self { connector, prefix }
    }

    async fn look(&self, group: GroupId) -> Result<Option<OverdueChord>, BackendError> {
        let [list, note] = keys(&self.prefix, &group);
        let ChordKeys { results, total_diff, size, claim, .. } = self.prefix.chord(&group);
        let token = Uuid::new_v4().simple().to_string();
        let fill = |command: &mut Cmd| {
            command.arg(6).arg(&[&list, &note, &claim, &results, &size, &total_diff]);
            command.arg(group.as_str()).arg(&token).arg(CLAIM_SECONDS).arg(millis(FORGOTTEN_AFTER));
        };
        let answer: Vec<String> = self
            .connector
            .run("looking at a chord", async |mut connection| LOOK.run(&mut connection, fill).await)
            .await?;
        let [body, root, patience, done, total] = answer.as_slice() else { return Ok(None) };
        let wrong = || BackendError::new(BackendErrorKind::Decode, note.as_str());
        let body = pyjson::from_str(body).map_err(|err| wrong().caused_by(err))?;
        let patience = patience.parse().map(Duration::from_millis).map_err(|err| wrong().caused_by(err))?;
        let chord = WatchedChord { group: group.clone(), body, root_id: TaskId::parse(root).ok(), patience };
        let (done, total) = (done.parse().unwrap_or(0), total.parse().ok());
        Ok(Some(OverdueChord { chord, claim: ChordClaim { group, token }, done, total }))
    }
}

impl std::fmt::Debug for RedisChordWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisChordWatch").field(&self.connector.address()).finish()
    }
}

impl ChordWatch for RedisChordWatch {
    fn watch<'a>(&'a self, chord: &'a WatchedChord) -> Answer<'a, ()> {
        let [list, note] = keys(&self.prefix, &chord.group);
        let results = self.prefix.chord(&chord.group).results;
        Box::pin(async move {
            let root = chord.root_id.as_ref().map_or("", TaskId::as_str);
            let fill = |command: &mut Cmd| {
                command.arg(3).arg(&[&list, &note, &results]).arg(chord.group.as_str());
                command.arg(chord.body.get()).arg(root).arg(millis(chord.patience).max(1));
                command.arg(millis(FORGOTTEN_AFTER));
            };
            self.connector
                .run("watching a chord", async |mut connection| WATCH.run::<()>(&mut connection, fill).await)
                .await
        })
    }

    fn unwatch<'a>(&'a self, group: &'a GroupId) -> Answer<'a, ()> {
        let [list, note] = keys(&self.prefix, group);
        let mut pipe = redis::pipe();
        pipe.zrem(list, group.as_str()).ignore().del(note).ignore();
        Box::pin(async move {
            self.connector
                .run("letting a chord go", async |mut connection| {
                    pipe.query_async::<()>(&mut connection).await
                })
                .await
        })
    }

    fn overdue(&self, limit: usize) -> Answer<'_, Vec<OverdueChord>> {
        Box::pin(async move {
            let list = list(&self.prefix);
            let fill = |command: &mut Cmd| {
                command.arg(1).arg(&list).arg(CLAIM_SECONDS * 1000).arg(limit);
            };
            let due: Vec<String> = self
                .connector
                .run("looking for chords", async |mut connection| DUE.run(&mut connection, fill).await)
                .await?;
            let mut overdue = Vec::new();
            for group in due.iter().filter_map(|group| GroupId::parse(group.as_str()).ok()) {
                // One that cannot be read keeps nobody from the others.
                match self.look(group.clone()).await {
                    Ok(one) => overdue.extend(one),
                    Err(error) => tracing::warn!(%group, %error, "a chord cannot be looked at"),
                }
            }
            Ok(overdue)
        })
    }

    fn late(&self, limit: usize) -> Answer<'_, Vec<(GroupId, Duration)>> {
        Box::pin(async move {
            let list = list(&self.prefix);
            let fill = |command: &mut Cmd| {
                command.arg(1).arg(&list).arg(limit);
            };
            let answer: Vec<String> = self
                .connector
                .run("looking for late chords", async |mut connection| LATE.run(&mut connection, fill).await)
                .await?;
            let number = |text: &String| text.parse::<f64>().unwrap_or(0.0);
            let Some((now, pairs)) = answer.split_first() else { return Ok(Vec::new()) };
            let late = pairs.as_chunks::<2>().0.iter().filter_map(|[group, due]| {
                let late =
                    Duration::try_from_secs_f64((number(now) - number(due)) / 1_000.0).unwrap_or_default();
                Some((GroupId::parse(group.as_str()).ok()?, late))
            });
            Ok(late.collect())
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
