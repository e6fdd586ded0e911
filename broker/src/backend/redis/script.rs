//! Lua scripts: sent by their hash, loaded when the server does not know them.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError};

use super::fault;

/// A script of ours.
#[derive(Debug)]
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// Runs it; `fill` adds the number of keys, the keys and the arguments.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        fill: impl Fn(&mut Cmd),
    ) -> Result<T, RedisError> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash);
        fill(&mut command);
        match command.query_async(connection).await {
            Err(err) if fault::is_unknown_script(&err) => {
                let mut command = redis::cmd("EVAL");
                command.arg(self.code);
                fill(&mut command);
                command.query_async(connection).await
            }
            result => result,
        }
    }
}
