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

    pub(crate) async fn push(&self, key: &str, value: impl AsRef<[u8]>) -> TaskResult<()> {
        self.run(&[b"RPUSH", key.as_bytes(), value.as_ref()]).await.or_raise("ConnectionError")
    }

    pub(crate) async fn increment(&self, key: &str) -> TaskResult<()> {
        self.run(&[b"INCR", key.as_bytes()]).await.or_raise("ConnectionError")
    }

    async fn run(&self, command: &[&[u8]]) -> Result<()> {
        let mut stream = BufReader::new(TcpStream::connect(&self.address).await?);
        for command in [&[b"SELECT", self.database.as_bytes()][..], command] {
            let mut request = format!("*{}\r\n", command.len()).into_bytes();
            for part in command {
                request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
                request.extend_from_slice(part);
                request.extend_from_slice(b"\r\n");
            }
            stream.write_all(&request).await?;
            let mut answer = String::new();
            stream.read_line(&mut answer).await?;
            if !answer.starts_with(['+', ':']) {
                bail!("Redis says {answer:?}");
            }
        }
        Ok(())
    }
}
