//! Work that needs a processor: a plain `fn` runs on a thread of its own and stalls nobody.

mod support;

use anyhow::{Result, bail};
use celery_broker::GetError;
use celery_worker::prelude::*;
use sha2::{Digest, Sha256};
use support::{PATIENCE, connect, serve};

/// Iterated SHA-256. A thread can't be stopped from outside, so it looks now and then whether it should.
#[task(name = "blocking.hash", soft_time_limit = "200ms", time_limit = "5s")]
fn hash(#[ctx] ctx: &Context, text: String, rounds: u64) -> TaskResult<String> {
    let mut digest = Sha256::digest(text);
    for round in 1..rounds {
        if round % 1024 == 0 {
            ctx.checkpoint()?;
        }
        digest = Sha256::digest(digest);
    }
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("blocking").await?;
    let worker = Worker::builder(celery.clone(), ()).task::<hash>().build()?;
    serve(&celery, worker, async {
        println!("{}", celery.send(hash::s("celery", 2)).await?.get(PATIENCE).await?);
        match celery.send(hash::s("celery", u64::MAX)).await?.get(PATIENCE).await {
            Err(GetError::Failed(failure)) => println!("stopped: {}", failure.exception.repr()),
            other => bail!("expected a failure, got {other:?}"),
        }
        Ok(())
    })
    .await
}
