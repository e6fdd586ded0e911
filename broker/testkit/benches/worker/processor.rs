//! Tasks that work: a millisecond of SHA-256 each, on both cores.

use crate::Options;
use crate::contestant::{Contestant, Field};
use crate::measure::{self, Row, as_f64};
use crate::queue::{Load, QueueType};
use crate::report::{Asked, Report, median};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::thread;
use std::time::Instant;

const TEXT: &str = "celeriac";

pub(crate) async fn run(field: &Field, options: &Options, report: &mut Report) {
    let rounds = calibrate();
    let count = if options.short { 500 } else { 5_000 };
    report.title(&format!("drain of {count} tasks of 1 ms of SHA-256 ({rounds} rounds), results stored"));
    println!("{}", Row::HEADER);
    let contestants = [
        Contestant::ours("celery-worker", "-c 2"),
        Contestant::Celery("Celery prefork -c 2", "-P prefork -c 2 --prefetch-multiplier 64"),
    ];
    let (mut bare, mut rows) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..options.rounds {
        bare.push(compute(rounds, count));
        for (who, rows) in contestants.iter().zip(&mut rows) {
            rows.push(one(field, who, rounds, who.share(count)).await);
        }
    }
    let bare = median(bare, |&micros| micros);
    let rate = 2e6 / bare;
    report.figures(
        "processor",
        "bare computation, two threads",
        &format!("{rate:>8.0} {bare:>8.1}"),
        &json!({"rate": rate, "us": bare}),
    );
    let [ours, celery] = rows.map(|rows| report.rounds("processor", rows));
    report.ratio("processor: CPU per task, celery-worker / bare", ours.micros[0] / bare, Asked::AtMost(1.03));
    let all: f64 = ours.micros.iter().sum();
    report.ratio("processor: CPU per task with servers / bare", all / bare, Asked::Nothing);
    report.ratio("processor: rate, celery-worker / bare", ours.rate / rate, Asked::Nothing);
    report.ratio("processor: rate, celery-worker / Celery prefork", ours.rate / celery.rate, Asked::Nothing);
}

async fn one(field: &Field, who: &Contestant, rounds: u32, count: u64) -> Row {
    let args = format!("[\"{TEXT}\", {rounds}]");
    let load = Load { count, task: "demo.hash", args, queue_type: QueueType::Classic, due: None };
    let ground = field.filled(&load).await;
    let row = measure::drain(field, &ground, who, count).await;
    let expected = hex(&hash(rounds));
    measure::check_results(&ground.backend, &expected.into()).await.unwrap();
    field.leave(&ground).await;
    row
}

/// How many rounds take a millisecond.
fn calibrate() -> u32 {
    let best = (0..20).map(|_| {
        let clock = Instant::now();
        std::hint::black_box(hash(10_000));
        clock.elapsed().as_secs_f64()
    });
    let best = best.fold(f64::MAX, f64::min);
    let rounds = (10_000.0 * 0.001 / best).round();
    format!("{rounds}").parse().unwrap_or(10_000)
}

/// Microseconds of processor time for one of `count` computations on two threads, nothing else done.
fn compute(rounds: u32, count: u64) -> f64 {
    let me = std::process::id();
    let before = measure::processor_seconds(me);
    let work = move || {
        for _ in 0..count / 2 {
            std::hint::black_box(hash(rounds));
        }
    };
    let threads = [thread::spawn(work), thread::spawn(work)];
    for thread in threads {
        thread.join().unwrap();
    }
    // The servers are children of this process and do nothing meanwhile.
    (measure::processor_seconds(me) - before) * 1e6 / as_f64(count / 2 * 2)
}

fn hash(rounds: u32) -> [u8; 32] {
    let mut digest = Sha256::digest(TEXT);
    for _ in 1..rounds {
        digest = Sha256::digest(digest);
    }
    digest.into()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
