//! How fast the worker drains a queue, beside a bare lapin loop that acks the same messages and writes the
//! same bytes to Redis: A B A B in one run, so that the machine's mood falls on both alike.
//!
//! ```sh
//! make bench                                    # 50,000 messages, three rounds
//! make bench ARGS='--tasks 10000 --rounds 1'    # the short form
//! ```
//!
//! The clock runs from the first result seen in Redis to the last. Processor time is read from `/proc`, for
//! the process under test, RabbitMQ and Redis. The last line is JSON, for those who keep records.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something does not work")]

mod measure;
mod queue;
mod raw;

use celery_testkit::{Program, Rabbit, Redis, binary, wait};
use measure::Row;
use std::time::Duration;

const WORKER: &[&str] = &["-l", "warning", "-c", "2", "--prefetch-multiplier", "250"];

struct Options {
    tasks: u64,
    rounds: usize,
    min_ratio: f64,
    worker: Vec<String>,
}

impl Options {
    fn from_args(args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            tasks: 50_000,
            rounds: 3,
            min_ratio: 0.0,
            worker: WORKER.iter().map(|&arg| arg.to_owned()).collect(),
        };
        let mut args = args;
        while let Some(flag) = args.next() {
            let mut value = || args.next().unwrap_or_default();
            match flag.as_str() {
                "--tasks" => options.tasks = value().parse().unwrap(),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--min-ratio" => options.min_ratio = value().parse().unwrap(),
                "--worker-args" => options.worker = value().split(' ').map(str::to_owned).collect(),
                _ => {} // cargo's own `--bench`
            }
        }
        options
    }
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let one_thread =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if args.peek().is_some_and(|arg| arg == raw::COMMAND) {
        let args: Vec<String> = args.skip(1).collect();
        return one_thread.block_on(raw::drain(&args[0], &args[1])).unwrap();
    }
    let options = Options::from_args(args);
    let ratio = one_thread.block_on(run(&options));
    if ratio < options.min_ratio {
        eprintln!("the ratio is below {}", options.min_ratio);
        std::process::exit(1);
    }
}

async fn run(options: &Options) -> f64 {
    let rabbit = Rabbit::start_with("", "").await;
    let redis = Redis::start().await;
    println!("drain of {} pre-queued demo.add messages, results stored", options.tasks);
    println!("{}", Row::HEADER);
    let (mut raw, mut worker) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let bench = Bench { rabbit: &rabbit, redis: &redis, tasks: options.tasks };
        raw.push(bench.raw().await);
        worker.push(bench.worker(&options.worker).await);
    }
    let (raw, worker) = (median(raw), median(worker));
    let ratio = worker.rate / raw.rate;
    println!(
        "median of {}: worker {:.0}/s, bare loop {:.0}/s, ratio {ratio:.2}",
        options.rounds, worker.rate, raw.rate
    );
    println!(
        "{}",
        serde_json::json!({"bench": "drain", "tasks": options.tasks, "rounds": options.rounds, "ratio": ratio,
                           "worker": worker.json(), "raw": raw.json()})
    );
    ratio
}

fn median(mut rows: Vec<Row>) -> Row {
    rows.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rows.swap_remove(rows.len() / 2)
}

struct Bench<'a> {
    rabbit: &'a Rabbit,
    redis: &'a Redis,
    tasks: u64,
}

impl Bench<'_> {
    async fn raw(&self) -> Row {
        let (broker, backend) = self.prepared().await;
        let me = std::env::current_exe().unwrap();
        let program = Program::start(me, &[raw::COMMAND, &broker, &backend], &[]);
        self.watched("bare loop", &broker, &backend, &program).await
    }

    async fn worker(&self, args: &[String]) -> Row {
        let (broker, backend) = self.prepared().await;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let env = [("CELERY_BROKER_URL", broker.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];
        let program = Program::start(binary("celery-worker"), &args, &env);
        self.watched("worker", &broker, &backend, &program).await
    }

    async fn prepared(&self) -> (String, String) {
        let (broker, backend) = (self.rabbit.vhost("drain").await, self.redis.database());
        queue::fill(&broker, self.tasks).await.unwrap();
        (broker, backend)
    }

    /// Watches a drain to its end, then makes sure that nothing was left out.
    async fn watched(&self, name: &str, broker: &str, backend: &str, program: &Program) -> Row {
        let pids = [program.pid(), self.rabbit.process().pid(), self.redis.process().pid()];
        let row = measure::watch(name, backend, self.tasks, pids, program).await.unwrap();
        println!("{row}");
        wait::until(Duration::from_secs(20), "the last acks", async || {
            let queues = self.rabbit.queues(broker).await;
            let left: u64 = queues.iter().map(|queue| queue.ready + queue.unacked).sum();
            if left == 0 { Ok(()) } else { Err(format!("{left} messages left")) }
        })
        .await;
        measure::check_results(backend).await.unwrap();
        program.term();
        program.wait_exit(Duration::from_secs(20)).await;
        row
    }
}
