//! How the worker compares: ours, a bare lapin loop, Python Celery and celery-rs, in turn in one run (A B A B), so
//! that the machine's mood falls on all alike.
//!
//! ```sh
//! make bench                                              # every case but the long ones
//! make bench ARGS='--short'                               # only whether everything runs
//! make bench ARGS='--case drain --tasks 100000 --rounds 5'
//! make bench ARGS='--case eta,chord,scale'                # the long ones
//! ```
//!
//! A drain's clock runs from the first task seen done to the last. Processor time is read from `/proc`, for the tree
//! of processes under test, RabbitMQ and Redis. With `--json FILE` the figures are kept.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something does not work")]

mod bare;
mod contestant;
mod drain;
mod latency;
mod measure;
mod processor;
mod queue;
mod report;
mod rest;
mod scale;
mod waiting;

use contestant::Field;
use report::Report;

/// The cases of a plain run, and those that take minutes each.
const CASES: &[&str] = &["drain", "processor", "latency", "rest"];
const LONG_CASES: &[&str] = &["eta", "chord", "scale"];

/// What the command line asks for.
pub(crate) struct Options {
    cases: Vec<String>,
    /// Messages of a drain; Python's drains take a fifth.
    tasks: u64,
    rounds: usize,
    /// Whether the run only shows that it runs.
    short: bool,
    /// Fails below this ratio of the worker's rate to the bare loop's.
    min_ratio: f64,
    json: Option<String>,
    /// The worker's arguments in drains.
    worker: Vec<String>,
}

impl Options {
    fn from_args(args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            cases: CASES.iter().map(|&case| case.to_owned()).collect(),
            tasks: 50_000,
            rounds: 3,
            short: false,
            min_ratio: 0.0,
            json: None,
            worker: Vec::new(),
        };
        let mut args = args;
        while let Some(flag) = args.next() {
            let mut value = || args.next().unwrap_or_default();
            match flag.as_str() {
                "--case" => options.cases = value().split(',').map(str::to_owned).collect(),
                "--tasks" => options.tasks = value().parse().unwrap(),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--min-ratio" => options.min_ratio = value().parse().unwrap(),
                "--json" => options.json = Some(value()),
                "--worker-args" => options.worker = value().split(' ').map(str::to_owned).collect(),
                "--short" => (options.short, options.tasks, options.rounds) = (true, 2_000, 1),
                "--bench" => {} // cargo's own
                other => give_up(&format!("unknown argument {other}")),
            }
        }
        let known = |case: &String| CASES.iter().chain(LONG_CASES).any(|name| name == case);
        if let Some(case) = options.cases.iter().find(|case| !known(case)) {
            give_up(&format!("unknown case {case}: it is one of {CASES:?} {LONG_CASES:?}"));
        }
        options
    }
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let one_thread =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if args.peek().is_some_and(|arg| arg == bare::COMMAND) {
        let args: Vec<String> = args.skip(1).collect();
        return one_thread.block_on(bare::drain(&args[0], &args[1])).unwrap();
    }
    let options = Options::from_args(args);
    let report = one_thread.block_on(run(&options));
    if let Some(file) = &options.json {
        std::fs::write(file, report.json()).unwrap();
    }
    if report.value_of(drain::TO_BARE).is_some_and(|ratio| ratio < options.min_ratio) {
        give_up(&format!("{} is below {}", drain::TO_BARE, options.min_ratio));
    }
}

async fn run(options: &Options) -> Report {
    let mut report = Report::default();
    let field = Field::open().await;
    for case in &options.cases {
        match case.as_str() {
            "drain" => drain::run(&field, options, &mut report).await,
            "processor" => processor::run(&field, options, &mut report).await,
            "latency" => latency::run(&field, options, &mut report).await,
            "rest" => rest::run(&field, options, &mut report).await,
            "eta" => waiting::eta(&field, options, &mut report).await,
            "chord" => waiting::chord(&field, options, &mut report).await,
            _ => scale::run(&field, options, &mut report).await,
        }
    }
    if options.short {
        println!("\neverything ran; figures of a short run say nothing");
    } else {
        report.print_ratios();
    }
    report
}

fn give_up(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1)
}
