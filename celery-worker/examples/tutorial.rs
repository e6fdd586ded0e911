//! The worker of docs/tutorial.md, which shows this file.

use celery_worker::prelude::*;

/// The price of some apples, in cents.
#[task(name = "shop.price")]
async fn price(apples: u32, each: u32) -> TaskResult<u32> {
    if apples == 0 {
        raise!("ValueError", "no apples, no price");
    }
    Ok(apples * each)
}

/// Orders from a supplier, who is busy at the first call.
#[task(name = "shop.order", max_retries = 5)]
async fn order(#[ctx] ctx: Context, #[state] supplier: Supplier, what: String) -> TaskResult<String> {
    if ctx.request().retries() == 0 {
        let busy = Failure::new("ConnectionError", "the line is busy");
        return Err(ctx.retry().countdown(Duration::from_millis(200)).because(busy).into());
    }
    Ok(format!("{} sends {what}", supplier.name))
}

/// What tasks share: here a name, elsewhere a pool of connections.
#[derive(Clone)]
struct Supplier {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut args = std::env::args().skip(1);
    let broker = args.next().unwrap_or_else(|| "amqp://localhost".to_owned());
    let backend = args.next().unwrap_or_else(|| "redis://localhost".to_owned());

    let celery = Celery::builder("shop").broker(broker).backend(backend).connect().await?;
    let supplier = Supplier { name: "The orchard".to_owned() };
    let worker = Worker::builder(celery, supplier).task::<price>().task::<order>().concurrency(8).build()?;
    worker.run_until_signalled().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery_worker::testing::TestWorker;

    #[tokio::test]
    async fn a_busy_supplier_is_called_again() {
        let supplier = Supplier { name: "The orchard".to_owned() };
        let worker = TestWorker::new(supplier).task::<order>();
        let run = worker.run_until_done(order::s("pears")).await.unwrap();
        assert_eq!(run.retries(), 1);
        assert_eq!(run.value::<String>().as_deref(), Some("The orchard sends pears"));
    }
}
