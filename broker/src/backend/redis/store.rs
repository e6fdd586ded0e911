//! Writing and reading task states: Celery's keys, bytes and rules.
//!
//! Celery reads the stored state, and unless it is SUCCESS sends SETEX and PUBLISH in one MULTI. A script does the same
//! atomically, and for a whole batch in one round trip.

use std::sync::LazyLock;

use celery_protocol::result::keys::Prefix;
use celery_protocol::{GroupId, ResultMeta, ResultTuple, TaskId};
use redis::Cmd;

use super::connection::Connector;
use super::script::Script;
use crate::error::{BackendError, BackendErrorKind};

/// Redis refuses larger values.
const MAX_VALUE: usize = 512 * 1024 * 1024;
/// States in one script call: one call must not keep the server from others for long.
const BATCH: usize = 256;

/// KEYS: one per state. ARGV: seconds to live (0: for ever), the same for failures, then one value per key.
///
/// A stored SUCCESS stays. Celery writes `status` first, so a look at the first bytes mostly tells; other writers' JSON is
/// decoded, and a compressed value, which Lua cannot read, is reported back for the caller to decide.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
local results, failures = tonumber(ARGV[1]), tonumber(ARGV[2])
local unsure = {}
for i, key in ipairs(KEYS) do
  local old = redis.call('GET', key)
  local write = true
  if old then
    if string.sub(old, 1, 19) == '{"status": "SUCCESS' then
      write = false
    elseif string.byte(old, 1) == 0 then
      write = false
      unsure[#unsure + 1] = i
    elseif string.sub(old, 1, 12) ~= '{"status": "' then
      local ok, meta = pcall(cjson.decode, old)
      if ok and type(meta) == 'table' and meta['status'] == 'SUCCESS' then
        write = false
      end
    end
  end
  if write then
    local value = ARGV[i + 2]
    local ttl = string.sub(value, 1, 19) == '{"status": "FAILURE' and failures or results
    if ttl > 0 then
      redis.call('SETEX', key, ttl, value)
    else
      redis.call('SET', key, value)
    end
    redis.call('PUBLISH', key, value)
  end
end
return unsure
"#,
    )
});

/// KEYS: the key. ARGV: seconds to live, the value, the value that was read before. Writes if that still stands.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) ~= ARGV[3] then
  return 0
end
local ttl = tonumber(ARGV[1])
if ttl > 0 then
  redis.call('SETEX', KEYS[1], ttl, ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
",
    )
});

/// Task states and group shapes in Redis.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) connector: Connector,
    pub(super) prefix: Prefix,
    /// Seconds to live; 0 is for ever.
    pub(super) ttl: u64,
    /// As `ttl`, for failures.
    pub(super) failure_ttl: u64,
}

struct Entry {
    key: String,
    value: Vec<u8>,
}

impl Store {
    pub(super) async fn store_many(&self, metas: &[ResultMeta]) -> Result<(), BackendError> {
        for batch in metas.chunks(BATCH) {
            let entries: Vec<Entry> = batch
                .iter()
                .map(|meta| Entry { key: self.prefix.task_meta(&meta.task_id), value: meta.encode() })
                .collect();
            if let Some(large) = entries.iter().find(|entry| entry.value.len() > MAX_VALUE) {
                let context = format!("{} is {} bytes long", large.key, large.value.len());
                return Err(BackendError::new(BackendErrorKind::TooLarge, context));
            }
            let unsure = self.store_batch(&entries).await?;
            for index in unsure {
                if let Some(entry) = index.checked_sub(1).and_then(|index| entries.get(index)) {
                    self.store_over_compressed(entry).await?;
                }
            }
        }
        metrics::counter!("celery_backend_results_stored_total").increment(metas.len() as u64);
        Ok(())
    }

    async fn store_batch(&self, entries: &[Entry]) -> Result<Vec<usize>, BackendError> {
        let fill = |command: &mut Cmd| {
            command.arg(entries.len());
            for entry in entries {
                command.arg(&entry.key);
            }
            command.arg(self.ttl).arg(self.failure_ttl);
            for entry in entries {
                command.arg(&entry.value);
            }
        };
        self.connector
            .run("storing results", async |mut connection| STORE.run(&mut connection, fill).await)
            .await
    }

    /// The stored value is compressed: read it here.
    async fn store_over_compressed(&self, entry: &Entry) -> Result<(), BackendError> {
        // Each round means that somebody else has written in between.
        for _ in 0..10 {
            let Some(old) = self.read(&entry.key).await? else {
                return self.store_batch(std::slice::from_ref(entry)).await.map(drop);
            };
            if ResultMeta::decode(&old).is_ok_and(|meta| meta.status == celery_protocol::TaskState::Success) {
                return Ok(());
            }
            let fill = |command: &mut Cmd| {
                let failed = entry.value.starts_with(b"{\"status\": \"FAILURE");
                let ttl = if failed { self.failure_ttl } else { self.ttl };
                command.arg(1).arg(&entry.key).arg(ttl).arg(&entry.value).arg(&old);
            };
            let written: bool = self
                .connector
                .run("storing a result", async |mut connection| REPLACE.run(&mut connection, fill).await)
                .await?;
            if written {
                return Ok(());
            }
        }
        Err(BackendError::new(BackendErrorKind::Server, format!("{} changes all the time", entry.key)))
    }

    pub(super) async fn get(&self, id: &TaskId) -> Result<Option<ResultMeta>, BackendError> {
        let key = self.prefix.task_meta(id);
        match self.read(&key).await? {
            Some(value) => decode(&key, &value).map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn get_many(&self, ids: &[TaskId]) -> Result<Vec<Option<ResultMeta>>, BackendError> {
        let mut metas = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let keys: Vec<String> = batch.iter().map(|id| self.prefix.task_meta(id)).collect();
            let values: Vec<Option<Vec<u8>>> = self.read_many(&keys).await?;
            for (key, value) in keys.iter().zip(values) {
                metas.push(value.map(|value| decode(key, &value)).transpose()?);
            }
        }
        Ok(metas)
    }

    pub(super) async fn forget(&self, id: &TaskId) -> Result<(), BackendError> {
        self.delete(&self.prefix.task_meta(id)).await
    }

    pub(super) async fn store_group(&self, group: &ResultTuple) -> Result<(), BackendError> {
        let key = self.prefix.group_meta(&GroupId::from(group.id.clone()));
        let mut value = b"{\"result\": ".to_vec();
        group.write(&mut value);
        value.push(b'}');
        let mut pipe = redis::pipe();
        pipe.atomic();
        if self.ttl > 0 {
            pipe.set_ex(&key, &value, self.ttl).ignore();
        } else {
            pipe.set(&key, &value).ignore();
        }
        pipe.publish(&key, &value).ignore();
        self.connector
            .run("storing a group", async |mut connection| pipe.query_async::<()>(&mut connection).await)
            .await
    }

    pub(super) async fn get_group(&self, id: &GroupId) -> Result<Option<ResultTuple>, BackendError> {
        #[derive(serde::Deserialize)]
        struct Saved {
            result: ResultTuple,
        }
        let key = self.prefix.group_meta(id);
        let Some(value) = self.read(&key).await? else { return Ok(None) };
        let saved: Saved = serde_json::from_slice(&value)
            .map_err(|err| BackendError::new(BackendErrorKind::Decode, key).caused_by(err))?;
        Ok(Some(saved.result))
    }

    pub(super) async fn forget_group(&self, id: &GroupId) -> Result<(), BackendError> {
        self.delete(&self.prefix.group_meta(id)).await
    }

    pub(super) async fn ping(&self) -> Result<(), BackendError> {
        self.connector
            .run("ping", async |mut connection| redis::cmd("PING").query_async(&mut connection).await)
            .await
    }

    pub(super) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, BackendError> {
        self.connector
            .run("reading a result", async |mut connection| {
                redis::cmd("GET").arg(key).query_async(&mut connection).await
            })
            .await
    }

    pub(super) async fn read_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, BackendError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.connector
            .run("reading results", async |mut connection| {
                redis::cmd("MGET").arg(keys).query_async(&mut connection).await
            })
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), BackendError> {
        self.connector
            .run("forgetting", async |mut connection| {
                redis::cmd("DEL").arg(key).query_async::<()>(&mut connection).await
            })
            .await
    }
}

/// Reads a stored state.
pub(super) fn decode(key: &str, value: &[u8]) -> Result<ResultMeta, BackendError> {
    ResultMeta::decode(value).map_err(|err| BackendError::new(BackendErrorKind::Decode, key).caused_by(err))
}
