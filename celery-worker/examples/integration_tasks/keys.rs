//! Just enough of Redis to leave marks that the suite reads: `RPUSH` and `INCR`.

use anyhow::{Context as _, Result, bail};
use celery_worker::prelude::*;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Address and database of a server. Connects for each command: the tasks are few.
#[derive(Clone)]
pub(crate) struct Redis {
    address: String,
    database: String,
}

impl Redis {
    /// `redis://host:port/database`
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("redis://").context("a redis:// URL")?;
        let (address, database) = rest.split_once('/').unwrap_or((rest, "0"));
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:6379") };
        Ok(Self { address, database: if database.is_empty() { "0" } else { database }.to_owned() })
    }

    pub(crate) async fn push(&self, key: &str, value: &str) -> TaskResult<()> {
        self.run(&["RPUSH", key, value]).await.or_raise("ConnectionError")
    }

    pub(crate) async fn increment(&self, key: &str) -> TaskResult<()> {
        self.run(&["INCR", key]).await.or_raise("ConnectionError")
    }

    async fn run(&self, command: &[&str]) -> Result<()> {
        let mut stream = BufReader::new(TcpStream::connect(&self.address).await?);
        for command in [&["SELECT", self.database.as_str()][..], command] {
            let mut request = format!("*{}\r\n", command.len());
            for part in command {
                request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
            }
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_line(&mut answer).await?;
            if !answer.starts_with(['+', ':']) {
                bail!("Redis says {answer:?}");
            }
        }
        Ok(())
    }
}
