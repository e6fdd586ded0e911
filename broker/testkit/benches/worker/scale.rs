//! How throughput grows, and where it stops: more processes, larger messages, other queues, a deeper backlog.

use crate::Options;
use crate::contestant::{self, Contestant, Field, Ground};
use crate::measure::{self, Row};
use crate::queue::{Load, QueueType};
use crate::report::Report;
use serde_json::json;
use std::time::Instant;

pub(crate) async fn run(field: &Field, options: &Options, report: &mut Report) {
    processes(field, options, report).await;
    prefetch(field, options, report).await;
    queue_types(field, options, report).await;
    payloads(field, options, report).await;
    backlog(field, options, report).await;
}

/// One, two, four, eight workers on one queue.
async fn processes(field: &Field, options: &Options, report: &mut Report) {
    report.title(&format!("{} tasks, workers on one queue", options.tasks));
    println!("                                tasks/s   CPU µs   PSS MB each");
    for workers in [1, 2, 4, 8] {
        let ground = field.filled(&Load::additions(options.tasks)).await;
        let who = Contestant::ours("celery-worker", "-c 2");
        let clock = Instant::now();
        let programs: Vec<_> = (0..workers).map(|_| who.start(&ground)).collect();
        wait_for(&ground, options.tasks).await;
        let seconds = clock.elapsed().as_secs_f64();
        let spent: f64 = programs.iter().map(|program| measure::processor_seconds(program.pid())).sum();
        let held: f64 = programs.iter().map(|program| measure::memory(program.pid()).pss).sum();
        let tasks = measure::as_f64(options.tasks);
        let (rate, micros, each) = (tasks / seconds, spent * 1e6 / tasks, held / f64::from(workers));
        let line = format!("{rate:>8.0} {micros:>8.1} {each:>8.1}");
        let figures = json!({"workers": workers, "rate": rate, "us": micros, "pss_mb_each": each});
        report.figures("scale", &format!("{workers} processes"), &line, &figures);
        for program in &programs {
            contestant::stop(program).await;
        }
        field.leave(&ground).await;
    }
}

async fn wait_for(ground: &Ground, count: u64) {
    let mut redis = measure::connect(&ground.backend).await.unwrap();
    loop {
        let done: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        if done >= count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn prefetch(field: &Field, options: &Options, report: &mut Report) {
    report.title("prefetch: --prefetch-multiplier with -c 2, and what the worker chooses itself");
    println!("{}", Row::HEADER);
    let settings = [
        ("multiplier 1", "-c 2 --prefetch-multiplier 1"),
        ("multiplier 4", "-c 2 --prefetch-multiplier 4"),
        ("multiplier 32", "-c 2 --prefetch-multiplier 32"),
        ("multiplier 500", "-c 2 --prefetch-multiplier 500"),
        ("chosen by the worker", "-c 2"),
    ];
    for (name, args) in settings {
        one(field, report, Contestant::ours(name, args), Load::additions(options.tasks)).await;
    }
}

async fn queue_types(field: &Field, options: &Options, report: &mut Report) {
    report.title("kinds of queues");
    println!("{}", Row::HEADER);
    for (name, queue_type) in [("classic", QueueType::Classic), ("quorum", QueueType::Quorum)] {
        let load = Load { queue_type, ..Load::additions(options.tasks) };
        one(field, report, Contestant::ours(name, "-c 2"), load).await;
    }
}

async fn payloads(field: &Field, options: &Options, report: &mut Report) {
    report.title("payloads: one text argument of that size, hashed once");
    println!("{}", Row::HEADER);
    let sizes = [
        ("100 B", 100, 1),
        ("1 kB", 1_000, 1),
        ("10 kB", 10_000, 4),
        ("100 kB", 100_000, 20),
        ("1 MB", 1_000_000, 100),
    ];
    for (name, size, fewer) in sizes {
        let args = format!("[\"{}\"]", "x".repeat(size));
        let count = (options.tasks / fewer).max(20);
        let load = Load { task: "demo.hash", args, ..Load::additions(count) };
        one(field, report, Contestant::ours(name, "-c 2"), load).await;
    }
}

async fn backlog(field: &Field, options: &Options, report: &mut Report) {
    let count = options.tasks * 20;
    report.title(&format!("a backlog of {count}"));
    println!("{}", Row::HEADER);
    one(field, report, Contestant::ours("celery-worker", ""), Load::additions(count)).await;
}

async fn one(field: &Field, report: &mut Report, who: Contestant, load: Load) {
    let ground = field.filled(&load).await;
    let row = measure::drain(field, &ground, &who, load.count).await;
    report.rounds("scale", vec![row]);
    field.leave(&ground).await;
}
