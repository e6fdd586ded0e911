//! How fast tasks are submitted over HTTP: producer-api beside the smallest actix program that publishes with confirms,
//! A B A B in one run, and beside Flask with Celery and Flower's `send-task`.
//!
//! ```sh
//! broker/testkit/scripts/bench.sh http                       # three rounds of eight seconds, 64 clients
//! broker/testkit/scripts/bench.sh http --seconds 2 --rounds 1
//! broker/testkit/scripts/bench.sh http --only floor,producer-api
//! ```
//!
//! wrk asks; every 2xx must be a message in the queue. Processor time is read from `/proc`, for the process group under
//! test, RabbitMQ and Redis. The last line is JSON, for those who keep records.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something does not work")]

mod contestant;
mod floor;
mod load;

use celery_testkit::{Rabbit, Redis, wait};
use contestant::{Contestant, Kind};
use load::Row;
use std::time::Duration;

struct Options {
    seconds: u32,
    rounds: usize,
    clients: u32,
    only: Vec<Kind>,
    min_ratio: f64,
    max_p99: f64,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            seconds: 8,
            rounds: 3,
            clients: 64,
            only: Kind::ALL.to_vec(),
            min_ratio: 0.0,
            max_p99: f64::INFINITY,
        };
        while let Some(flag) = args.next() {
            let mut value = || args.next().unwrap_or_default();
            match flag.as_str() {
                "--seconds" => options.seconds = value().parse().unwrap(),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--clients" => options.clients = value().parse().unwrap(),
                "--min-ratio" => options.min_ratio = value().parse().unwrap(),
                "--max-p99" => options.max_p99 = value().parse().unwrap(),
                "--only" => {
                    let wanted = value();
                    options.only.retain(|kind| wanted.split(',').any(|name| name == kind.name()));
                }
                "--short" => (options.seconds, options.rounds) = (1, 1),
                _ => {} // cargo's own `--bench`
            }
        }
        options
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, broker, port] = args.as_slice()
        && command == floor::COMMAND
    {
        return floor::serve(broker, port).unwrap();
    }
    let options = Options::from_args(args.into_iter());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if !runtime.block_on(run(&options)) {
        std::process::exit(1);
    }
}

/// Says whether the bounds were kept.
async fn run(options: &Options) -> bool {
    let rabbit = Rabbit::start_with("", "").await;
    let redis = Redis::start().await;
    println!("POST of demo.add for {} s from {} clients, confirmed", options.seconds, options.clients);
    println!("{}", Row::HEADER);
    let mut rows: Vec<(Kind, Vec<Row>)> = options.only.iter().map(|kind| (*kind, Vec::new())).collect();
    for _ in 0..options.rounds {
        for (kind, rows) in &mut rows {
            let row = measure(*kind, options, &rabbit, &redis).await;
            println!("{row}");
            rows.push(row);
        }
    }
    let medians: Vec<(Kind, Row)> = rows.into_iter().map(|(kind, rows)| (kind, median(rows))).collect();
    let of = |wanted: Kind| medians.iter().find(|(kind, _)| *kind == wanted).map(|(_, row)| row);
    let mut ratios = serde_json::Map::new();
    let mut kept = true;
    if let Some(ours) = of(Kind::Ours) {
        for (kind, row) in medians.iter().filter(|(kind, _)| *kind != Kind::Ours) {
            let (rate, p99) = (ours.rate() / row.rate(), ours.p99() / row.p99());
            println!("producer-api / {}: rate {rate:.2}, p99 {p99:.2}", kind.name());
            ratios.insert(kind.name().to_owned(), serde_json::json!({"rate": rate, "p99": p99}));
            if *kind == Kind::Floor && (rate < options.min_ratio || p99 > options.max_p99) {
                eprintln!(
                    "beyond the bounds: rate {} at least, p99 {} at most",
                    options.min_ratio, options.max_p99
                );
                kept = false;
            }
        }
    }
    let rows: Vec<_> = medians.iter().map(|(_, row)| row.json()).collect();
    println!(
        "{}",
        serde_json::json!({"bench": "http", "seconds": options.seconds, "rounds": options.rounds,
                           "clients": options.clients, "ratios": ratios, "rows": rows})
    );
    kept
}

fn median(mut rows: Vec<Row>) -> Row {
    rows.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    rows.swap_remove(rows.len() / 2)
}

async fn measure(kind: Kind, options: &Options, rabbit: &Rabbit, redis: &Redis) -> Row {
    let (broker, backend) = (rabbit.vhost("http").await, redis.database());
    let contestant = Contestant::start(kind, &broker, &backend).await.unwrap();
    let servers = [rabbit.process().pid(), redis.process().pid()];
    // To warm up; of what it queues nothing is counted.
    let warm = load::put(kind.name(), &contestant, servers, 1, options.clients).await.unwrap();
    let row = load::put(kind.name(), &contestant, servers, options.seconds, options.clients).await.unwrap();
    assert_eq!(row.failed(), 0, "{}: {}", kind.name(), contestant.process().log_tail());
    let accepted = 1 + warm.accepted() + row.accepted();
    // wrk leaves with requests under way: there may be more, and never fewer.
    let most = accepted + 2 * u64::from(options.clients);
    wait::until(Duration::from_secs(30), "every 2xx to be in the queue", async || {
        let queued: u64 = rabbit.queues(&broker).await.iter().map(|queue| queue.ready).sum();
        match (accepted..=most).contains(&queued) {
            true => Ok(()),
            false => Err(format!("{}: {accepted} accepted, {queued} queued", kind.name())),
        }
    })
    .await;
    contestant.process().term();
    contestant.process().wait_exit(Duration::from_secs(60)).await;
    let vhost = broker.rsplit('/').next().unwrap_or_default();
    rabbit.ctl(&["delete_vhost", vhost]).await;
    row
}
