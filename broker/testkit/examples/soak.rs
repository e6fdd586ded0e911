//! Continuous load with trouble, for `make soak`: tasks are submitted over HTTP while the broker's connections are cut and
//! workers are killed, stopped and frozen; at the end every accepted id is accounted for.
//!
//! `soak [MINUTES] [SEED]`. Servers and programs are private. Ends with 1, and says which ids, if one was not run, has no
//! result, or has the wrong one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use celery_testkit::{Program, Rabbit, Redis, binary, wait};
use serde_json::{Value, json};

/// Submissions under way at a time.
const CLIENTS: u64 = 8;
/// Pause of a client between two submissions: the load is to last, not to be as great as it can be.
const PACE: Duration = Duration::from_millis(20);
const WORKERS: usize = 2;
const BOOT: Duration = Duration::from_secs(60);
/// At the end, for what is still to be run: as long as a broker may take to notice a worker that was frozen, and more.
const DRAIN: Duration = Duration::from_secs(180);
/// Results that are read at once.
const CHUNK: usize = 500;

/// Numbers that look like chance and come again with the same seed (Steele's and Vigna's SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What was started.
struct World {
    rabbit: Rabbit,
    redis: Redis,
    env: Vec<(String, String)>,
    /// Those that run, and the logs of those that do not any more.
    workers: Vec<Program>,
    logs: Vec<String>,
    api: Program,
    url: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let minutes: f64 = args.next().as_deref().unwrap_or("2").parse().context("MINUTES is no number")?;
    ensure!((0.0..=1_440.0).contains(&minutes), "MINUTES must be from 0 to 1440");
    let seed = match args.next() {
        Some(seed) => seed.parse().context("SEED is no whole number")?,
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()),
    };
    println!("soak: {minutes} minutes, seed {seed}");
    let mut world = World::start().await?;
    let span = Duration::from_secs_f64(minutes * 60.0);
    let until = Instant::now() + span;
    let accepted = Mutex::new(BTreeMap::new());
    let url = world.url.clone();
    let clients =
        futures_util::future::try_join_all((0..CLIENTS).map(|client| submit(&url, client, until, &accepted)));
    let (submitted, troubled) = tokio::join!(clients, world.trouble(Dice(seed), until));
    let refused: u64 = submitted?.into_iter().sum();
    let troubles = troubled?;
    let accepted = accepted.into_inner().context("a client panicked")?;
    println!("soak: {} accepted, {refused} not accepted, {troubles} troubles; draining", accepted.len());
    world.account(&accepted).await
}

/// One client: submits until the time is over. What was accepted, and how much was not.
async fn submit(
    url: &str,
    client: u64,
    until: Instant,
    accepted: &Mutex<BTreeMap<String, Value>>,
) -> Result<u64> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let mut refused = 0;
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let id = format!("soak-{client}-{number}");
        // Some run for longer than others, some fail before they succeed.
        let (task, args, result) = match number % 10 {
            8 => ("demo.sleep", json!([0.2]), json!(0.2)),
            9 => ("demo.xsum", json!([[number, 1, 2]]), json!(number + 3)),
            _ => ("demo.add", json!([number, client]), json!(number + client)),
        };
        let body = json!({"task": task, "args": args, "task_id": id});
        match http.post(format!("{url}/v1/tasks")).json(&body).send().await {
            Ok(answer) if answer.status() == 202 => {
                let mut accepted = accepted.lock().map_err(|_| anyhow::anyhow!("a client panicked"))?;
                accepted.insert(id, result);
            }
            // Refused, or its fate is unknown: it may run, it need not.
            Ok(_) => refused += 1,
            Err(error) => bail!("producer-api does not answer: {error}"),
        }
        wait::nothing_for(PACE).await;
    }
    Ok(refused)
}

impl World {
    async fn start() -> Result<World> {
        let (rabbit, redis) = (Rabbit::start_with("", "").await, Redis::start_durable().await);
        let env = [
            ("CELERY_BROKER_URL", rabbit.url()),
            ("CELERY_RESULT_BACKEND", redis.url(0)),
            ("PRODUCER_API_PORT", "0".to_owned()),
            // A frozen worker is to be given up before the drain is over.
            ("CELERY_BROKER_HEARTBEAT", "5".to_owned()),
        ];
        let env: Vec<(String, String)> = env.map(|(name, value)| (name.to_owned(), value)).into();
        let workers = (0..WORKERS).map(|_| worker(&env)).collect::<Vec<_>>();
        for worker in &workers {
            worker.wait_for_log(" ready.", BOOT).await;
        }
        let api = Program::start(binary("producer-api"), &[], &borrowed(&env));
        api.wait_for_log("listening on http://", BOOT).await;
        let log = api.log();
        let address = log.split("listening on ").nth(1).unwrap_or_default();
        let url = address.chars().take_while(|c| !c.is_whitespace() && *c != '"').collect();
        Ok(World { rabbit, redis, env, workers, logs: Vec::new(), api, url })
    }

    /// Makes trouble every few seconds; how often.
    async fn trouble(&mut self, mut dice: Dice, until: Instant) -> Result<u64> {
        let mut count = 0;
        let first = dice.below(5);
        loop {
            let pause = Duration::from_millis(1_000 + dice.below(4_000));
            if Instant::now() + pause >= until {
                return Ok(count);
            }
            wait::nothing_for(pause).await;
            for (number, worker) in self.workers.iter().enumerate() {
                worker.still_running().with_context(|| format!("worker {number} ended by itself"))?;
            }
            count += 1;
            let victim = usize::try_from(dice.below(WORKERS as u64))?;
            // One kind after the other, so that a short soak has all of them.
            match (first + count) % 5 {
                0 => self.cut_one(&mut dice).await,
                1 => {
                    println!("soak: all connections are cut");
                    self.rabbit.ctl(&["close_all_connections", "soak"]).await;
                }
                2 => {
                    println!("soak: worker {victim} is killed");
                    self.workers[victim].kill();
                    self.replace(victim).await;
                }
                3 => {
                    println!("soak: worker {victim} is told to stop");
                    self.workers[victim].term();
                    let status = self.workers[victim].wait_exit(BOOT).await;
                    let told = || self.workers[victim].log_tail();
                    ensure!(status.success(), "worker {victim} did not stop cleanly ({status}): {}", told());
                    self.replace(victim).await;
                }
                _ => {
                    println!("soak: worker {victim} is frozen for a while");
                    self.workers[victim].pause();
                    wait::nothing_for(Duration::from_millis(1_000 + dice.below(2_000))).await;
                    self.workers[victim].still_running().context("a frozen worker ended")?;
                    self.workers[victim].resume();
                }
            }
            self.api.still_running().context("producer-api ended")?;
        }
    }

    async fn cut_one(&self, dice: &mut Dice) {
        let listed = self.rabbit.ctl(&["-q", "list_connections", "pid"]).await;
        let pids: Vec<&str> = listed.lines().filter(|line| line.starts_with('<')).collect();
        let Ok(index) = usize::try_from(dice.below(pids.len().max(1) as u64)) else { return };
        if let Some(pid) = pids.get(index) {
            println!("soak: connection {pid} is cut");
            // It may have gone by itself meanwhile.
            self.rabbit
                .ctl(&[
                    "eval",
                    &format!("catch rabbit_networking:close_connection(list_to_pid(\"{pid}\"), \"soak\")."),
                ])
                .await;
        }
    }

    async fn replace(&mut self, victim: usize) {
        let next = worker(&self.env);
        next.wait_for_log(" ready.", BOOT).await;
        let ended = std::mem::replace(&mut self.workers[victim], next);
        self.logs.push(ended.log());
    }

    /// Waits for the end of all tasks, and accounts for each that was accepted.
    async fn account(mut self, accepted: &BTreeMap<String, Value>) -> Result<()> {
        let broker = self.rabbit.url();
        let empty = wait::attempt(DRAIN, async || {
            let queues = self.rabbit.queues(&broker).await;
            let left: u64 = queues
                .iter()
                .filter(|queue| queue.name == "celery")
                .map(|queue| queue.ready + queue.unacked)
                .sum();
            if left == 0 { Ok(()) } else { Err(format!("{left} messages are left")) }
        });
        let left = empty.await.err();
        for worker in &self.workers {
            worker.still_running().context("a worker ended by itself")?;
            worker.term();
            ensure!(
                worker.wait_exit(BOOT).await.success(),
                "a worker did not stop cleanly: {}",
                worker.log_tail()
            );
        }
        self.logs.extend(self.workers.iter().map(Program::log));
        let runs = runs(&self.logs);
        let (mut missing, mut wrong) = (BTreeSet::new(), Vec::new());
        let ids: Vec<&String> = accepted.keys().collect();
        for chunk in ids.chunks(CHUNK) {
            let keys: Vec<String> = chunk.iter().map(|id| format!("celery-task-meta-{id}")).collect();
            let command: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
            let answer = self.redis.cli(&command).await;
            let metas: Vec<&str> = answer.lines().collect();
            ensure!(metas.len() == chunk.len(), "Redis gave {} of {} results", metas.len(), chunk.len());
            for (id, meta) in chunk.iter().zip(metas) {
                match serde_json::from_str::<Value>(meta) {
                    Ok(meta) if meta["status"] == "SUCCESS" && meta["result"] == accepted[*id] => {}
                    Ok(meta) => wrong.push(format!("{id}: {meta}")),
                    Err(_) => drop(missing.insert((*id).clone())),
                }
            }
        }
        let idle: Vec<&String> = accepted.keys().filter(|id| !runs.contains_key(*id)).collect();
        let again = accepted.keys().filter(|id| runs.get(*id).is_some_and(|count| *count > 1)).count();
        println!(
            "soak: {} accepted: {} run at least once ({again} of them more than once), {} with their result",
            accepted.len(),
            accepted.len() - idle.len(),
            accepted.len() - missing.len() - wrong.len(),
        );
        if let Some(left) = left {
            bail!("the queue did not become empty: {left}");
        }
        ensure!(!accepted.is_empty(), "nothing was accepted");
        ensure!(missing.is_empty(), "without a result: {missing:?}");
        ensure!(wrong.is_empty(), "with a wrong result: {wrong:#?}");
        ensure!(idle.is_empty(), "never run, though they have results: {idle:?}");
        println!("soak: every accepted task was run and has its result");
        Ok(())
    }
}

fn worker(env: &[(String, String)]) -> Program {
    Program::start(binary("celery-worker"), &["-l", "info", "-c", "4"], &borrowed(env))
}

fn borrowed(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// How often each id ended with success, as the workers' logs say.
fn runs(logs: &[String]) -> BTreeMap<String, u32> {
    let mut runs = BTreeMap::new();
    for line in logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(" succeeded in ")) {
        let id = line.split_once("] succeeded in ").and_then(|(before, _)| before.rsplit('[').next());
        if let Some(id) = id {
            *runs.entry(id.to_owned()).or_default() += 1;
        }
    }
    runs
}
