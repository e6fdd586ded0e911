//! Chords: counting header tasks and deciding who sends the body, on the keys of Celery 5.7, so that workers of both
//! kinds can share one chord.
//!
//! `.j` holds the results, `.s` the size (written with the last header task), `.t` what was added while it ran, `.d` who
//! was counted already, `.c` who sends the body: a token while somebody does, `done` afterwards.

use std::sync::LazyLock;

use celery_protocol::result::keys::ChordKeys;
use celery_protocol::{GroupId, TaskId, TaskState, pyjson};
use redis::{Cmd, RedisError};
use serde_json::value::RawValue;

use super::chord_watch;
use super::script::Script;
use super::store::Store;
use crate::backend::{ChordClaim, ChordMember, ChordPart, ChordProgress};
use crate::error::{BackendError, BackendErrorKind};

/// How long the mark of a finished chord stays, for late duplicates.
const DONE_SECONDS: u64 = 300;

/// KEYS: results, total diff, size, seen, group, claim. ARGV: who (`id:index`), result, index, seconds to live, seconds to
/// claim, token, seconds for the mark. Answers {code, counted, total}: -1 late, 0 waiting, 1 claimed, 2 taken; a total of -1
/// is not known yet.
///
/// What comes after the end of a chord is kept for a while: mostly it is a late duplicate, but it may be the first member of
/// the same chord, called again, that has ended before its caller could say how many there are.
static PART: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local results, diff, size, seen, group, claim = unpack(KEYS)
if redis.call('SADD', seen, ARGV[1]) == 1 then
  redis.call('ZADD', results, ARGV[3], ARGV[2])
end
if redis.call('GET', claim) == 'done' then
  redis.call('EXPIRE', results, ARGV[7])
  redis.call('EXPIRE', seen, ARGV[7])
  return {-1, 0, 0}
end
local counted = redis.call('ZCARD', results)
local ttl = tonumber(ARGV[4])
if ttl > 0 then
  for _, key in ipairs({results, diff, size, seen, group}) do
    redis.call('EXPIRE', key, ttl)
  end
end
local expected = redis.call('GET', size)
if not expected then
  return {0, counted, -1}
end
local total = tonumber(expected) + tonumber(redis.call('GET', diff) or 0)
if counted ~= total then
  return {0, counted, total}
end
if redis.call('SET', claim, ARGV[6], 'NX', 'EX', ARGV[5]) then
  return {1, counted, total}
end
if redis.call('GET', claim) == ARGV[6] then
  redis.call('EXPIRE', claim, ARGV[5])
  return {1, counted, total}
end
return {2, counted, total}
",
    )
});

/// KEYS: claim, size. ARGV: token, seconds. A claim that has expired is taken again while the chord is still there.
static EXTEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  return redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if not holder and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  return 1
end
return 0
",
    )
});

/// KEYS: claim. ARGV: token.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
",
    )
});

/// KEYS: list of watched chords, claim, then what to delete. ARGV: token, seconds for the mark, group.
static DONE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('ZREM', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], 'done', 'EX', ARGV[2])
return 1
",
    )
});

impl Store {
    pub(super) async fn chord_start(&self, group: &GroupId, size: u64) -> Result<(), BackendError> {
        let keys = self.prefix.chord(group);
        let mut pipe = redis::pipe();
        pipe.del(&keys.claim).ignore();
        if self.ttl > 0 {
            pipe.set_ex(&keys.size, size, self.ttl).ignore();
        } else {
            pipe.set(&keys.size, size).ignore();
        }
        self.connector
            .run("starting a chord", async |mut connection| pipe.query_async::<()>(&mut connection).await)
            .await
    }

    pub(super) async fn chord_grow(&self, group: &GroupId, by: i64) -> Result<(), BackendError> {
        let key = self.prefix.chord(group).total_diff;
        let mut pipe = redis::pipe();
        pipe.cmd("INCRBY").arg(&key).arg(by).ignore();
        if self.ttl > 0 {
            pipe.cmd("EXPIRE").arg(&key).arg(self.ttl).ignore();
        }
        self.connector
            .run("adding to a chord", async |mut connection| pipe.query_async::<()>(&mut connection).await)
            .await
    }

    pub(super) async fn chord_part(&self, part: &ChordPart) -> Result<ChordProgress, BackendError> {
        let ChordKeys { results, total_diff, size, seen, claim } = self.prefix.chord(&part.group);
        let group = self.prefix.group_meta(&part.group);
        let index = part.index.map_or_else(|| "+inf".to_owned(), |index| index.to_string());
        let who = format!("{}:{index}", part.task);
        let member = encode(part);
        let fill = |command: &mut Cmd| {
            command.arg(6).arg(&[&results, &total_diff, &size, &seen, &group, &claim]);
            command.arg(&who).arg(&member).arg(&index).arg(self.ttl);
            command.arg(part.claim_seconds.max(1)).arg(&part.token).arg(DONE_SECONDS);
        };
        let answer: (i64, u64, i64) = self
            .connector
            .run("counting a chord's part", async |mut connection| PART.run(&mut connection, fill).await)
            .await?;
        Ok(match answer {
            (-1, ..) => ChordProgress::Late,
            (1, ..) => {
                let (group, token) = (part.group.clone(), part.token.clone());
                ChordProgress::Claimed(ChordClaim { group, token })
            }
            (2, ..) => ChordProgress::Taken,
            (_, done, total) => ChordProgress::Waiting { done, total: u64::try_from(total).ok() },
        })
    }

    pub(super) async fn chord_results(&self, group: &GroupId) -> Result<Vec<ChordMember>, BackendError> {
        let key = self.prefix.chord(group).results;
        let members: Vec<Vec<u8>> = self
            .connector
            .run("reading a chord's results", async |mut connection| {
                let sorted: Result<_, RedisError> =
                    redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).query_async(&mut connection).await;
                match sorted {
                    // With `result_chord_ordered = false` Celery keeps a list.
                    Err(err) if err.code() == Some("WRONGTYPE") => {
                        redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query_async(&mut connection).await
                    }
                    sorted => sorted,
                }
            })
            .await?;
        members.iter().map(|member| decode(&key, member)).collect()
    }

    pub(super) async fn chord_extend(&self, claim: &ChordClaim, seconds: u64) -> Result<bool, BackendError> {
        let keys = self.prefix.chord(&claim.group);
        let fill = |command: &mut Cmd| {
            command.arg(2).arg(&keys.claim).arg(&keys.size).arg(&claim.token).arg(seconds.max(1));
        };
        self.connector
            .run("keeping a chord", async |mut connection| EXTEND.run(&mut connection, fill).await)
            .await
    }

    pub(super) async fn chord_release(&self, claim: &ChordClaim) -> Result<(), BackendError> {
        let key = self.prefix.chord(&claim.group).claim;
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(&key).arg(&claim.token);
        };
        self.connector
            .run("giving a chord back", async |mut connection| RELEASE.run::<()>(&mut connection, fill).await)
            .await
    }

    pub(super) async fn chord_done(&self, claim: &ChordClaim) -> Result<(), BackendError> {
        let ChordKeys { results, total_diff, size, seen, claim: key } = self.prefix.chord(&claim.group);
        let [list, note] = chord_watch::keys(&self.prefix, &claim.group);
        let fill = |command: &mut Cmd| {
            command.arg(7).arg(&[&list, &key, &results, &total_diff, &size, &seen, &note]);
            command.arg(&claim.token).arg(DONE_SECONDS).arg(claim.group.as_str());
        };
        self.connector
            .run("finishing a chord", async |mut connection| DONE.run::<()>(&mut connection, fill).await)
            .await
    }

    pub(super) async fn chord_abort(&self, group: &GroupId) -> Result<(), BackendError> {
        let size = self.prefix.chord(group).size;
        let [list, note] = chord_watch::keys(&self.prefix, group);
        let mut pipe = redis::pipe();
        pipe.del(&[size, note]).ignore().zrem(list, group.as_str()).ignore();
        self.connector
            .run("ending a chord", async |mut connection| pipe.query_async::<()>(&mut connection).await)
            .await
    }
}

/// `[1, "<id>", "SUCCESS", <result>]`, byte for byte as Celery: older workers tell duplicates by the text.
fn encode(part: &ChordPart) -> Vec<u8> {
    let mut out = b"[1, ".to_vec();
    pyjson::write_str(&mut out, part.task.as_str());
    out.extend_from_slice(b", ");
    pyjson::write_str(&mut out, part.state.as_str());
    out.extend_from_slice(b", ");
    out.extend_from_slice(part.result.get().as_bytes());
    out.push(b']');
    out
}

fn decode(key: &str, member: &[u8]) -> Result<ChordMember, BackendError> {
    let wrong = || BackendError::new(BackendErrorKind::Decode, key);
    let text = std::str::from_utf8(member).map_err(|err| wrong().caused_by(err))?;
    let (_, task, state, result): (Box<RawValue>, TaskId, String, Box<RawValue>) =
        pyjson::from_str(text).map_err(|err| wrong().caused_by(err))?;
    Ok(ChordMember { task, state: TaskState::from(state.as_str()), result })
}
