//! The intake on a clock that moves only while everything waits: what is held starts when its time has come.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use celery_broker::{Called, Celery, ConsumeOptions, clock::Clock};
use celery_protocol::options::TaskOptions;
use celery_protocol::{Body, Headers, Message, QueueName, TaskId, WireTime};
use tokio::time::Instant;

use super::*;
use crate::context::{DeliveryInfo, Request};
use crate::pool::Work;
use crate::trace::settle::Step;
use crate::worker::engine::Lines;
use crate::worker::{Settings, Worker};

/// A wall clock that goes with tokio's, and can be set.
#[derive(Clone, Default)]
struct Wall(Arc<AtomicI64>);

impl Wall {
    fn clock(&self) -> Clock {
        let (begin, at_begin, set) = (Instant::now(), SystemTime::now(), self.0.clone());
        Clock::from_fn(move || {
            let now = at_begin + begin.elapsed();
            let shift = Duration::from_secs(set.load(Ordering::SeqCst).unsigned_abs());
            if set.load(Ordering::SeqCst) < 0 { now - shift } else { now + shift }
        })
    }

    /// Sets it by so many seconds.
    fn jump(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// An intake without messages, and lanes that only note what starts.
struct Bench {
    wall: Wall,
    begin: Instant,
    engine: Arc<Engine>,
    intake: Intake,
    orders: mpsc::Sender<Order>,
    received: mpsc::Receiver<Order>,
    refused: mpsc::Receiver<Vec<Finished>>,
    started: Arc<Started>,
}

/// Which calls have started, and after how many milliseconds.
#[derive(Default)]
struct Started {
    begin: Mutex<Option<Instant>>,
    calls: Mutex<Vec<(String, u128)>>,
}

impl Work for Started {
    type Done = ();

    async fn run(&self, job: Arc<Job>) {
        let begin = self.begin.lock().unwrap().unwrap();
        self.calls.lock().unwrap().push((job.request.id().to_string(), begin.elapsed().as_millis()));
    }

    async fn hand_on(&self, _done: Vec<()>) {}
}

fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let wall = Wall::default();
    // Nobody is there; nothing comes from there.
    let celery = Celery::builder("bench").broker("amqp://127.0.0.1:9").backend("cache+memory://");
    let celery = celery.clock(wall.clock()).start().unwrap();
    let nothing = async |_, _| Ok(());
    let limited = TaskOptions { rate_limit: Some("2/s".parse().unwrap()), ..TaskOptions::DEFAULT };
    let builder = Worker::builder(celery, ())
        .raw_task("plain", TaskOptions::DEFAULT, nothing)
        .raw_task("limited", limited, nothing)
        .configure(change);
    let Worker { celery, tasks, settings, nodename, handle, .. } = builder.build().unwrap();
    let (orders, received) = mpsc::channel(1);
    let (grow, _) = mpsc::channel(1);
    let lines = Lines { orders: orders.clone(), grow, shutdown: handle.warm.clone() };
    let queues = vec![QueueSpec::new(QueueName::parse("celery").unwrap())];
    let consumer = celery.consume(ConsumeOptions::new(queues.clone())).unwrap();
    let engine = Arc::new(Engine::new(celery, &tasks, settings, nodename, lines));
    let (finished, refused) = mpsc::channel(16);
    let prefetch = Prefetch::new(Some(1), 1, 1000);
    let intake = Intake::new(engine.clone(), consumer, queues, prefetch, finished);
    let begin = Instant::now();
    let started = Arc::new(Started { begin: Mutex::new(Some(begin)), ..Started::default() });
    Bench { wall, begin, engine, intake, orders, received, refused, started }
}

impl Bench {
    /// A call arrives.
    fn arrives(&mut self, task: &str, id: &str, change: impl FnOnce(&mut Headers, SystemTime)) {
        let now = self.engine.now();
        let mut headers = Headers::new(TaskName::parse(task).unwrap(), TaskId::parse(id).unwrap());
        change(&mut headers, now);
        let entry = self.engine.catalog.get(&headers.task).unwrap().clone();
        let delivery = DeliveryInfo {
            exchange: String::new(),
            routing_key: "celery".into(),
            priority: None,
            redelivered: false,
            queue: QueueName::parse("celery").unwrap(),
        };
        let message = Message::new(headers, &Body::default());
        let request = Request::new(message, Body::default(), delivery, self.engine.nodename.clone());
        let job = Arc::new(Job::without_message(Arc::new(request), entry, Called::default()));
        let (mut ready, mut suspects, mut over) = (Vec::new(), Vec::new(), Vec::new());
        self.intake.sort(job, now, &mut ready, &mut suspects, &mut over);
        assert!(suspects.is_empty() && over.is_empty());
        self.engine.pool.start(ready);
    }

    /// Lets time pass; `then` may do something meanwhile. What has started, and what was refused.
    async fn passes(
        mut self,
        span: Duration,
        then: impl AsyncFnOnce(&mpsc::Sender<Order>, &Wall),
    ) -> (Vec<(String, u128)>, Vec<Finished>) {
        let Bench { engine, intake, orders, received, started, wall, begin, .. } = self;
        let lane = engine.pool.add_lane();
        let until = async {
            then(&orders, &wall).await;
            tokio::time::sleep_until(begin + span).await;
        };
        tokio::select! {
            _ = intake.run(received, CancellationToken::new()) => panic!("the intake has ended"),
            () = engine.pool.run_lane(lane, &*started) => panic!("the lane has ended"),
            () = until => {}
        }
        let mut refused = Vec::new();
        while let Ok(some) = self.refused.try_recv() {
            refused.extend(some);
        }
        let started = started.calls.lock().unwrap().clone();
        (started, refused)
    }
}

async fn nothing(_: &mpsc::Sender<Order>, _: &Wall) {}

fn after(seconds: f64) -> impl FnOnce(&mut Headers, SystemTime) {
    move |headers, now| headers.eta = Some(WireTime::from(now + Duration::from_secs_f64(seconds)))
}

/// Each within a few milliseconds of its time, never before it.
fn assert_started(started: &[(String, u128)], expected: &[(&str, u128)]) {
    let names = |calls: &[(String, u128)]| calls.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(names(started), expected.iter().map(|(id, _)| (*id).to_owned()).collect::<Vec<_>>());
    for ((id, at), (_, due)) in started.iter().zip(expected) {
        assert!((*due..=due + 5).contains(at), "{id} started at {at} instead of {due} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_an_eta_starts_at_it_and_not_before() {
    let mut bench = bench(|_| {});
    bench.arrives("plain", "late", after(40.25));
    bench.arrives("plain", "at-once", |_, _| {});
    bench.arrives("plain", "soon", after(0.5));
    bench.arrives("plain", "past", after(-0.0));
    bench.arrives("plain", "early", after(5.0));
    let (started, refused) = bench.passes(Duration::from_secs(60), nothing).await;
    assert_started(
        &started,
        &[("at-once", 0), ("past", 0), ("soon", 500), ("early", 5_000), ("late", 40_250)],
    );
    assert!(refused.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_it_is_held_is_not_started() {
    let mut bench = bench(|_| {});
    bench.arrives("plain", "expired", |headers, now| {
        headers.eta = Some(WireTime::from(now + Duration::from_secs(20)));
        headers.expires = Some(WireTime::from(now + Duration::from_secs(10)));
    });
    let (started, refused) = bench.passes(Duration::from_secs(30), nothing).await;
    assert!(started.is_empty(), "{started:?}");
    let [Finished { settlement, .. }] = refused.as_slice() else { panic!("{refused:?}") };
    assert!(matches!(&settlement.steps[0], Step::Store(meta) if meta.result.get().contains("expired")));
}

/// ETAs are moments of the wall clock. When it is set, what is due by it starts within a second, and nothing before.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_moves_what_is_held() {
    let mut ahead = bench(|_| {});
    ahead.arrives("plain", "held", after(50.0));
    let jump = async |_: &mpsc::Sender<Order>, wall: &Wall| {
        tokio::time::sleep(Duration::from_millis(9_900)).await;
        wall.jump(3_600);
    };
    let (started, _) = ahead.passes(Duration::from_secs(60), jump).await;
    let [(_, at)] = started.as_slice() else { panic!("{started:?}") };
    assert!((9_900..=10_905).contains(at), "{at}");

    let mut back = bench(|_| {});
    back.arrives("plain", "held", after(50.0));
    let jump = async |_: &mpsc::Sender<Order>, wall: &Wall| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        wall.jump(-5);
    };
    let (started, _) = back.passes(Duration::from_secs(70), jump).await;
    assert_started(&started, &[("held", 55_000)]);
}

#[tokio::test(start_paused = true)]
async fn starts_keep_the_distance_of_their_rate_limit() {
    let mut bench = bench(|_| {});
    for id in ["1", "2", "3"] {
        bench.arrives("limited", id, |_, _| {});
    }
    // Its time comes first, then its turn.
    bench.arrives("limited", "4", after(1.2));
    bench.arrives("plain", "free", |_, _| {});
    let (started, _) = bench.passes(Duration::from_secs(10), nothing).await;
    assert_started(&started, &[("1", 0), ("free", 0), ("2", 500), ("3", 1_000), ("4", 1_500)]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lifted_or_set_holds_for_what_waits() {
    let mut bench = bench(|_| {});
    for id in ["1", "2", "3", "4"] {
        bench.arrives("limited", id, |_, _| {});
    }
    let change = async |orders: &mpsc::Sender<Order>, _: &Wall| {
        for (at, limit) in [(700, "1/s"), (2_200, "0")] {
            tokio::time::sleep(Duration::from_millis(at)).await;
            let limit = rate_limit::parse(limit).unwrap();
            let (reply, answer) = tokio::sync::oneshot::channel();
            orders.send(Order::RateLimit(TaskName::parse("limited").unwrap(), limit, reply)).await.unwrap();
            answer.await.unwrap();
        }
    };
    let (started, _) = bench.passes(Duration::from_secs(10), change).await;
    assert_started(&started, &[("1", 0), ("2", 500), ("3", 700), ("4", 1_700)]);
}

#[tokio::test(start_paused = true)]
async fn the_horizon_is_where_calls_are_no_longer_held() {
    let mut bench = bench(|own| own.eta_horizon = Duration::from_secs(10));
    bench.arrives("plain", "near", after(9.5));
    bench.arrives("plain", "far", after(11.0));
    assert_eq!((bench.intake.held.len(), bench.intake.far.len()), (1, 1));
    let (started, _) = bench.passes(Duration::from_secs(12), nothing).await;
    assert_eq!(started[0].0, "near");
}
