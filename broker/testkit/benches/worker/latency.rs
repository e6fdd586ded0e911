//! One task at a time: published, and waited for until a subscriber sees its result.

use crate::Options;
use crate::contestant::{self, Contestant, Field, Ground};
use crate::queue::{self, Load, QUEUE, QueueType};
use crate::report::{Asked, Report, median};
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use serde_json::json;
use std::time::{Duration, Instant};

const WARM: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

/// The round trips of one contestant, in µs.
struct Trips {
    p50: f64,
    p99: f64,
}

pub(crate) async fn run(field: &Field, options: &Options, report: &mut Report) {
    let count = if options.short { 200 } else { 3_000 };
    report.title(&format!("publish to result, one at a time, {count} times"));
    println!("                                   p50 µs   p99 µs");
    let contestants = [
        Contestant::Bare,
        Contestant::ours("celery-worker", ""),
        Contestant::Celery("Celery solo", "-P solo"),
        Contestant::Celery("Celery prefork -c 2", "-P prefork -c 2"),
    ];
    for confirm in [false, true] {
        let mut trips: Vec<Vec<Trips>> = contestants.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (who, trips) in contestants.iter().zip(&mut trips) {
                let count = if matches!(who, Contestant::Celery(..)) { count / 3 } else { count };
                trips.push(one(field, who, count, confirm).await);
            }
        }
        let how = if confirm { "confirm awaited" } else { "no confirm" };
        let mut medians = Vec::new();
        for (who, trips) in contestants.iter().zip(trips) {
            let Trips { p50, p99 } = median(trips, |trips| trips.p50);
            let figures = json!({"p50_us": p50, "p99_us": p99, "confirm": confirm});
            report.figures(
                "latency",
                &format!("{}, {how}", who.name()),
                &format!("   {p50:>8.0} {p99:>8.0}"),
                &figures,
            );
            medians.push(p50);
        }
        let name = format!("latency: p50, celery-worker / bare loop, {how}");
        report.ratio(&name, medians[1] / medians[0], Asked::AtMost(1.5));
        let name = format!("latency: p50, Celery's best / celery-worker, {how}");
        report.ratio(&name, medians[2].min(medians[3]) / medians[1], Asked::Nothing);
    }
}

async fn one(field: &Field, who: &Contestant, count: usize, confirm: bool) -> Trips {
    let ground = field.ground().await;
    let connection = queue::connect(&ground.broker).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    queue::declare(&channel, QueueType::Classic).await.unwrap();
    let program = who.start(&ground);
    let trips = trips(&ground, &channel, count, confirm).await;
    contestant::stop(&program).await;
    connection.close(200, "done".into()).await.unwrap();
    field.leave(&ground).await;
    trips
}

async fn trips(ground: &Ground, channel: &lapin::Channel, count: usize, confirm: bool) -> Trips {
    if confirm {
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    }
    let client = redis::Client::open(ground.backend.as_str()).unwrap();
    let mut results = client.get_async_pubsub().await.unwrap();
    results.psubscribe("celery-task-meta-*").await.unwrap();
    let mut results = results.into_on_message();
    let load = Load::additions(1);
    let body = br#"[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;
    let mut took = Vec::with_capacity(count);
    for number in 0..count + WARM {
        let properties = queue::properties(&load, 0);
        let id = properties.correlation_id().clone().unwrap_or_default();
        let clock = Instant::now();
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), QUEUE.into(), options, body, properties).await.unwrap();
        if confirm {
            sent.await.unwrap();
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, results.next()).await.unwrap().unwrap();
            if message.get_channel_name().ends_with(id.as_str()) {
                break;
            }
        }
        if number >= WARM {
            took.push(clock.elapsed().as_secs_f64() * 1e6);
        }
    }
    took.sort_by(f64::total_cmp);
    Trips { p50: took[took.len() / 2], p99: took[took.len() * 99 / 100] }
}
