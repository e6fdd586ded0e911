//! A worker at rest: how fast it consumes after its start, what it holds and does while nothing happens.

use crate::Options;
use crate::contestant::{self, Contestant, Field};
use crate::measure::{self, Memory};
use crate::queue::{self, QUEUE, QueueType};
use crate::report::{Asked, Report, median};
use celery_testkit::binary;
use serde_json::json;
use std::time::{Duration, Instant};

/// When it has come to rest after its start.
const SETTLED: Duration = Duration::from_secs(3);
const PROGRAMS: [&str; 4] = ["celery-worker", "celery-beat", "producer-api", "flower-lite"];

struct Rest {
    ready_ms: f64,
    memory: Memory,
    /// Percent of one core.
    busy: f64,
}

pub(crate) async fn run(field: &Field, options: &Options, report: &mut Report) {
    report.title("start and rest");
    println!("                               ready ms   PSS MB  peak MB   CPU %");
    let contestants = [
        Contestant::ours("celery-worker -c 2", "-c 2"),
        Contestant::ours("celery-worker -c 1000", "-c 1000"),
        Contestant::ours("celery-worker --pool prefork -c 2", "--pool prefork -c 2"),
        Contestant::Celery("Celery prefork -c 2", "-P prefork -c 2"),
        Contestant::Celery("Celery solo", "-P solo"),
    ];
    let mut all: Vec<Vec<Rest>> = contestants.iter().map(|_| Vec::new()).collect();
    let span = Duration::from_secs(if options.short { 1 } else { 5 });
    for _ in 0..options.rounds {
        for (who, rests) in contestants.iter().zip(&mut all) {
            rests.push(one(field, who, span).await);
        }
    }
    let mut medians = Vec::new();
    for (who, rests) in contestants.iter().zip(all) {
        let rest = median(rests, |rest| rest.ready_ms);
        let Rest { ready_ms, memory: Memory { peak, pss }, busy } = rest;
        let figures = json!({"ready_ms": ready_ms, "pss_mb": pss, "peak_mb": peak, "cpu_percent": busy});
        report.figures(
            "rest",
            who.name(),
            &format!("{ready_ms:>8.0} {pss:>8.1} {peak:>8.1} {busy:>7.2}"),
            &figures,
        );
        medians.push(rest);
    }
    report.ratio("rest: start to consuming, ms", medians[0].ready_ms, Asked::AtMost(100.0));
    report.ratio("rest: peak MB of an idle celery-worker -c 2", medians[0].memory.peak, Asked::AtMost(15.0));
    report.ratio("rest: percent of a core while idle", medians[0].busy, Asked::AtMost(1.0));
    let to_celery = medians[0].memory.pss / medians[3].memory.pss;
    report.ratio("rest: PSS, celery-worker / Celery prefork, both -c 2", to_celery, Asked::AtMost(0.2));
    let flat = medians[1].memory.pss / medians[0].memory.pss;
    report.ratio("rest: PSS, celery-worker -c 1000 / -c 2", flat, Asked::AtMost(1.2));
    sizes(report);
}

async fn one(field: &Field, who: &Contestant, span: Duration) -> Rest {
    let ground = field.ground().await;
    let connection = queue::connect(&ground.broker).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    queue::declare(&channel, QueueType::Classic).await.unwrap();
    let clock = Instant::now();
    let program = who.start(&ground);
    while queue::depth(&channel, QUEUE).await.unwrap().1 == 0 {
        program.still_running().unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ready_ms = clock.elapsed().as_secs_f64() * 1e3;
    tokio::time::sleep(SETTLED).await;
    let before = measure::processor_seconds(program.pid());
    tokio::time::sleep(span).await;
    let busy = (measure::processor_seconds(program.pid()) - before) * 100.0 / span.as_secs_f64();
    let memory = measure::memory(program.pid());
    contestant::stop(&program).await;
    connection.close(200, "done".into()).await.unwrap();
    field.leave(&ground).await;
    Rest { ready_ms, memory, busy }
}

/// The programs' sizes on disk.
fn sizes(report: &mut Report) {
    for name in PROGRAMS {
        let path = binary("celery-worker").with_file_name(name);
        let Ok(found) = path.metadata() else { continue };
        let megabytes = measure::as_f64(found.len()) / 1e6;
        report.figures("rest", name, &format!("{megabytes:>8.1} MB on disk"), &json!({"disk_mb": megabytes}));
    }
}
