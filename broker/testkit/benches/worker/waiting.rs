//! What waits costs memory: tasks with a countdown, and the members of a wide chord.

use crate::Options;
use crate::contestant::{self, Contestant, Field, Ground, python};
use crate::measure::{self, Memory, connect};
use crate::queue::{self, Load};
use crate::report::{Asked, Report};
use celery_testkit::Program;
use serde_json::json;
use std::time::{Duration, Instant};

fn contestants() -> [Contestant; 2] {
    [
        Contestant::ours("celery-worker -c 2", "-c 2"),
        Contestant::Celery("Celery prefork -c 2", "-P prefork -c 2"),
    ]
}

/// Tasks that are due in one to two minutes.
pub(crate) async fn eta(field: &Field, options: &Options, report: &mut Report) {
    let (count, due) = if options.short { (500, 5..10) } else { (50_000, 60..120) };
    report.title(&format!("{count} tasks due {} to {} s from now", due.start, due.end));
    println!("                               PSS MB before   most     done");
    let mut most = Vec::new();
    for who in contestants() {
        let (ground, program, before) = begin(field, &who).await;
        let load = Load { due: Some(due.clone()), ..Load::additions(count) };
        queue::publish(&ground.broker, &load).await.unwrap();
        let (peak, done) = highest(&ground, &program, count).await;
        row(report, "eta", &who, before, peak, done);
        most.push(peak);
        contestant::stop(&program).await;
        field.leave(&ground).await;
    }
    report.ratio("eta: most PSS, celery-worker / Celery prefork", most[0] / most[1], Asked::AtMost(0.1));
}

/// A chord with ten thousand members, called by a Python client.
pub(crate) async fn chord(field: &Field, options: &Options, report: &mut Report) {
    let width: u64 = if options.short { 100 } else { 10_000 };
    report.title(&format!("a chord of {width}, called by Python"));
    println!("                               PSS MB before   most     done");
    let mut most = Vec::new();
    for who in contestants() {
        let (ground, program, before) = begin(field, &who).await;
        let client = python(&ground);
        let call = "import sys; from peer import *; from celery import chord; n = int(sys.argv[1]); \
                    print(chord(add.s(i, 1) for i in range(n))(xsum.s()).get(timeout=170))";
        let width_text = width.to_string();
        let args = [width_text.as_str()];
        let answer = client.run_with(call, &args);
        let (answer, (peak, done)) = tokio::join!(answer, highest(&ground, &program, width + 1));
        assert_eq!(answer.json::<u64>(), width * (width - 1) / 2 + width, "the sum of {width} members");
        row(report, "chord", &who, before, peak, done);
        most.push(peak);
        contestant::stop(&program).await;
        field.leave(&ground).await;
    }
    report.ratio("chord: most PSS, celery-worker / Celery prefork", most[0] / most[1], Asked::AtMost(0.1));
}

fn row(report: &mut Report, case: &str, who: &Contestant, before: Memory, peak: f64, done: u64) {
    let before = before.pss;
    let line = format!("{before:>13.1} {peak:>7.1} {done:>8}");
    report.figures(
        case,
        who.name(),
        &line,
        &json!({"pss_mb_before": before, "pss_mb_most": peak, "done": done}),
    );
}

/// Starts a worker, and waits for its first result, so that what it holds is all of what it needs at rest.
async fn begin(field: &Field, who: &Contestant) -> (Ground, Program, Memory) {
    let ground = field.ground().await;
    let program = who.start(&ground);
    queue::publish(&ground.broker, &Load::additions(1)).await.unwrap();
    highest(&ground, &program, 1).await;
    let mut redis = connect(&ground.backend).await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
    let before = measure::memory(program.pid());
    (ground, program, before)
}

/// The most memory that is seen until `count` results are there, and how many are.
async fn highest(ground: &Ground, program: &Program, count: u64) -> (f64, u64) {
    let mut redis = connect(&ground.backend).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(400);
    let (mut peak, mut done) = (0.0_f64, 0);
    while done < count && Instant::now() < deadline {
        program.still_running().unwrap();
        peak = peak.max(measure::memory(program.pid()).pss);
        done = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (peak, done)
}
