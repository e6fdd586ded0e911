//! Draining a queue of tiny tasks: what a worker costs.

use crate::Options;
use crate::contestant::{self, Contestant, Field};
use crate::measure::{self, Row};
use crate::queue::{self, Load};
use crate::report::{Asked, Report};

/// The ratio that a run may be judged by.
pub(crate) const TO_BARE: &str = "drain: celery-worker / bare loop, tasks/s";
/// The same workers with somebody listening to their events.
const LISTENED: &str = "celery-worker -E";
const OURS: &str = "celery-worker";

pub(crate) async fn run(field: &Field, options: &Options, report: &mut Report) {
    report.title(&format!("drain of {} pre-queued add(1, 2), results stored", options.tasks));
    println!("{}", Row::HEADER);
    let args = options.worker.join(" ");
    let mut contestants = vec![
        Contestant::Bare,
        Contestant::ours(OURS, &args),
        Contestant::ours(LISTENED, &format!("{args} -E")),
        Contestant::Celery("Celery solo", "-P solo --prefetch-multiplier 64"),
        Contestant::Celery("Celery prefork -c 2", "-P prefork -c 2 --prefetch-multiplier 64"),
        Contestant::Celery("Celery threads -c 2", "-P threads -c 2 --prefetch-multiplier 64"),
    ];
    if contestant::has_celery_rs() {
        contestants.push(Contestant::CeleryRs);
    } else {
        println!("celery-rs is not built: `make bench` does that");
    }
    let mut rows: Vec<Vec<Row>> = contestants.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (who, rows) in contestants.iter().zip(&mut rows) {
            rows.push(one(field, who, options.tasks).await);
        }
    }
    let rows: Vec<Row> = rows.into_iter().map(|rows| report.rounds("drain", rows)).collect();
    ratios(&rows, report);
}

async fn one(field: &Field, who: &Contestant, tasks: u64) -> Row {
    let count = who.share(tasks);
    let ground = field.filled(&Load::additions(count)).await;
    let listener = match who.name() {
        LISTENED => Some(queue::listen_to_events(&ground.broker).await.unwrap()),
        _ => None,
    };
    let row = measure::drain(field, &ground, who, count).await;
    if who.stores_results() {
        measure::check_results(&ground.backend, &3.into()).await.unwrap();
    }
    drop(listener);
    field.leave(&ground).await;
    row
}

fn ratios(rows: &[Row], report: &mut Report) {
    let named = |name: &str| rows.iter().find(|row| row.name == name);
    let celery = || rows.iter().filter(|row| row.name.starts_with("Celery"));
    let (Some(bare), Some(ours), Some(listened)) = (named("bare loop"), named(OURS), named(LISTENED)) else {
        return;
    };
    let fastest = celery().map(|row| row.rate).fold(0.0, f64::max);
    let cheapest = celery().map(|row| row.micros[0]).fold(f64::MAX, f64::min);
    report.ratio(TO_BARE, ours.rate / bare.rate, Asked::AtLeast(0.85));
    report.ratio(
        "drain: celery-worker / Celery's best pool, tasks/s",
        ours.rate / fastest,
        Asked::AtLeast(12.0),
    );
    report.ratio("drain: CPU µs per task of celery-worker", ours.micros[0], Asked::AtMost(25.0));
    report.ratio(
        "drain: CPU per task, Celery's best / celery-worker",
        cheapest / ours.micros[0],
        Asked::Nothing,
    );
    report.ratio(
        "drain: celery-worker -E / without, tasks/s",
        listened.rate / ours.rate,
        Asked::AtLeast(0.9),
    );
    if let Some(prefork) = named("Celery prefork -c 2") {
        let share = ours.memory.pss / prefork.memory.pss;
        report.ratio("drain: PSS of celery-worker / Celery prefork -c 2", share, Asked::AtMost(0.2));
    }
    if let Some(rusty) = named("celery-rs") {
        report.ratio(
            "drain: celery-worker / celery-rs (no results), tasks/s",
            ours.rate / rusty.rate,
            Asked::Nothing,
        );
    }
}
