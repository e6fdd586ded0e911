//! What tasks share: the worker gets it once, a task asks for the part that it needs.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use celery_worker::prelude::*;
use support::{PATIENCE, connect, serve};

/// Stands for a database pool: a cheap handle that is cloned for each run.
#[derive(Clone, Default)]
struct Stock(Arc<Mutex<BTreeMap<String, u64>>>);

impl Stock {
    fn change(&self, item: &str, by: u64) -> u64 {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = shelves.entry(item.to_owned()).or_default();
        *count += by;
        *count
    }
}

/// All that the tasks of this worker share.
struct Shop {
    stock: Stock,
    name: String,
}
celery_worker::from_ref!(Shop { stock: Stock, name: String });

#[task(name = "shop.deliver")]
async fn deliver(#[state] stock: Stock, item: String, count: u64) -> TaskResult<u64> {
    Ok(stock.change(&item, count))
}

/// The order of parameters is free, and a part can be taken by reference.
#[task(name = "shop.report")]
async fn report(item: String, #[state] stock: &Stock, #[state] shop: &String) -> TaskResult<String> {
    Ok(format!("{shop} has {} {item}", stock.change(&item, 0)))
}

#[tokio::main]
async fn main() -> Result<()> {
    let celery = connect("state").await?;
    let shop = Shop { stock: Stock::default(), name: "The corner shop".into() };
    let worker = Worker::builder(celery.clone(), shop).task::<deliver>().task::<report>().build()?;
    serve(&celery, worker, async {
        for count in [2, 3] {
            celery.send(deliver::s("apples", count)).await?.get(PATIENCE).await?;
        }
        println!("{}", celery.send(report::s("apples")).await?.get(PATIENCE).await?);
        Ok(())
    })
    .await
}
