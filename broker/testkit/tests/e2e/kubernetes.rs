//! The dev overlay, run: its pods as processes with their probes, volumes, users and grace periods. It is scaled, rolled
//! under load and robbed of its broker, and nothing is lost.

use crate::stage::SOON;
use celery_testkit::kubelet::{Cluster, Pod};
use celery_testkit::{Python, QueueState, wait};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WORKER: &str = "celery-worker";

/// The dev overlay, with `workers` workers and everything ready.
async fn running(workers: usize) -> Cluster {
    let cluster = Cluster::new();
    cluster.apply("overlays/dev").await;
    cluster.scale(WORKER, workers);
    for workload in cluster.objects().workloads.keys() {
        cluster.settled(workload).await;
    }
    cluster
}

/// A Python client with the overlay's own secrets.
fn python(cluster: &Cluster) -> Python {
    Python::new(&broker(cluster), &backend(cluster))
}

fn broker(cluster: &Cluster) -> String {
    format!("amqp://celeriac:dev-only@127.0.0.1:{}/%2f", cluster.rabbit().unwrap().port())
}

fn backend(cluster: &Cluster) -> String {
    format!("redis://:dev-only@127.0.0.1:{}/0", cluster.redis().unwrap().port())
}

/// Sends `count` tasks of `seconds` with publisher confirms; their ids.
async fn accepted(cluster: &Cluster, count: usize, seconds: f64) -> BTreeSet<String> {
    let program = format!(
        "import json
from peer_app import *
app.conf.broker_transport_options = {{'confirm_publish': True}}
with app.producer_pool.acquire(block=True) as producer:
    ids = [sleep.apply_async(({seconds},), producer=producer).id for _ in range({count})]
print(json.dumps(ids))"
    );
    let ids: Vec<String> = python(cluster).run(&program).await.json();
    ids.into_iter().collect()
}

/// Submits a short task about forty times a second, until told to stop; the ids of the accepted ones, which are all.
fn submitting(cluster: &Cluster) -> (JoinHandle<BTreeSet<String>>, watch::Sender<bool>) {
    let url = format!("http://{}/v1/tasks", cluster.address("producer-api"));
    let (stop, stopped) = watch::channel(false);
    let load = async move {
        let (client, mut ids) = (reqwest::Client::new(), BTreeSet::new());
        while !*stopped.borrow() {
            let task = json!({"task": "demo.sleep", "args": [0.2]});
            let answer = client.post(&url).bearer_auth("dev-only").json(&task).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            ids.insert(text(&answer.json::<Value>().await.unwrap()["id"]));
            wait::nothing_for(Duration::from_millis(20)).await;
        }
        ids
    };
    (tokio::runtime::Handle::current().spawn(load), stop)
}

/// The states of stored results by task id.
async fn stored(cluster: &Cluster) -> BTreeMap<String, String> {
    let redis = cluster.redis().unwrap();
    let keys = redis.cli(&["--no-auth-warning", "-a", "dev-only", "KEYS", "celery-task-meta-*"]).await;
    let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
    if keys.is_empty() {
        return BTreeMap::new();
    }
    let metas = redis.cli(&[&["--no-auth-warning", "-a", "dev-only", "MGET"], &keys[..]].concat()).await;
    let states = metas.lines().filter_map(|meta| serde_json::from_str::<Value>(meta).ok());
    let state = |meta: Value| (text(&meta["task_id"]), text(&meta["status"]));
    states.map(state).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn done(cluster: &Cluster, count: usize, deadline: Duration) {
    wait::until(deadline, "results", async || {
        let done = stored(cluster).await.len();
        if done >= count { Ok(()) } else { Err(format!("{done} of {count}")) }
    })
    .await;
}

/// Every id has its result, and the queue is empty.
async fn nothing_lost(cluster: &Cluster, ids: &BTreeSet<String>, consumers: u64) {
    done(cluster, ids.len(), Duration::from_secs(120)).await;
    let states = stored(cluster).await;
    // Beat may have sent one, too.
    let bad = |id: &&String| states.get(*id).is_none_or(|state| state != "SUCCESS");
    let lost: Vec<_> = ids.iter().filter(bad).map(|id| (id, states.get(id))).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    let rabbit = cluster.rabbit().unwrap();
    wait::until(SOON, "the queue to be empty", async || {
        let queues = rabbit.queues(&rabbit.url()).await;
        let queue = queues.into_iter().find(|queue| queue.name == "celery").unwrap();
        let empty = QueueState { name: "celery".to_owned(), ready: 0, unacked: 0, consumers };
        if queue == empty { Ok(()) } else { Err(format!("{queue:?}")) }
    })
    .await;
}

fn names(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().map(|pod| format!("celery@{}", pod.name)).collect()
}

async fn get(cluster: &Cluster, service: &str, path: &str) -> Value {
    let url = format!("http://{}{path}", cluster.address(service));
    reqwest::Client::new()
        .get(url)
        .basic_auth("celeriac", Some("dev-only"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_under_load_loses_nothing() {
    let cluster = running(5).await;
    let old = cluster.pods(WORKER);
    assert_eq!(old.len(), 5);

    let (load, stop) = submitting(&cluster);
    done(&cluster, 20, SOON).await;
    let before = stored(&cluster).await.len();
    cluster.rollout(WORKER).await;
    assert!(stored(&cluster).await.len() > before, "nothing was done during the rollout");
    stop.send_replace(true);
    let ids = load.await.unwrap();
    for pod in &old {
        let end = pod.status().end.unwrap();
        assert!(!end.killed && end.status.is_some_and(|status| status.success()), "{end:?}\n{}", pod.log());
    }
    let new = cluster.pods(WORKER);
    assert!(new.len() == 5 && new.iter().all(|pod| pod.revision == 2), "{new:#?}");
    nothing_lost(&cluster, &ids, 5).await;
    assert!(cluster.all_pods().iter().all(|pod| pod.status().restarts == 0), "{:#?}", cluster.all_pods());

    // The monitor saw all ten, under the names of their pods, and each did its share.
    let everyone: BTreeSet<_> = names(&old).union(&names(&new)).cloned().collect();
    let seen = wait::until(SOON, "every worker in the monitor", async || {
        let answer = get(&cluster, "flower-lite", "/api/v2/workers").await;
        let workers = answer["items"].as_array().cloned().unwrap_or_default();
        let seen: BTreeSet<_> = workers.iter().map(|worker| text(&worker["name"])).collect();
        let idle = workers.iter().any(|worker| worker["processed"].as_u64().unwrap_or(0) == 0);
        if seen == everyone && !idle { Ok(seen) } else { Err(format!("{workers:#?}")) }
    });
    assert_eq!(seen.await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_workers_finish_what_they_run() {
    let cluster = running(3).await;
    let ids = accepted(&cluster, 120, 0.25).await;
    done(&cluster, 10, SOON).await;
    // A crash: the container is started again, its messages are delivered to others.
    let victim = cluster.pods(WORKER)[0].clone();
    victim.program().unwrap().kill();
    wait::until(SOON, "the container to be started again", async || match victim.status() {
        status if status.restarts == 1 && status.ready => Ok(()),
        status => Err(format!("{status:?}")),
    })
    .await;
    cluster.scale(WORKER, 1);
    cluster.settled(WORKER).await;
    nothing_lost(&cluster, &ids, 1).await;

    let ended = cluster.all_pods().into_iter().filter_map(|pod| pod.status().end);
    let ended: Vec<_> = ended.collect();
    assert!(ended.len() == 2 && ended.iter().all(|end| !end.killed), "{ended:?}");
    cluster.delete().await;
    for pod in cluster.all_pods() {
        let end = pod.status().end.unwrap();
        assert!(!end.killed, "{}: {end:?}\n{}", pod.name, pod.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_restarts_nobody() {
    let cluster = running(2).await;
    let rabbit = cluster.rabbit().unwrap();
    rabbit.kill();
    wait::until(SOON, "the workers to be unready", async || {
        let pods = cluster.pods(WORKER);
        let ready = pods.iter().filter(|pod| pod.status().ready).count();
        if ready == 0 { Ok(()) } else { Err(format!("{ready} are ready")) }
    })
    .await;
    // The API is there to say so.
    let url = format!("http://{}/v1/tasks", cluster.address("producer-api"));
    let task = json!({"task": "demo.add", "args": [1, 2]});
    let answer = reqwest::Client::new().post(&url).bearer_auth("dev-only").json(&task).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"), "{answer:?}");

    rabbit.restart().await;
    for workload in ["celery-worker", "celery-beat", "producer-api", "flower-lite"] {
        cluster.settled(workload).await;
        assert!(cluster.pods(workload).iter().all(|pod| pod.status().restarts == 0), "{workload}");
    }
    let ids = accepted(&cluster, 10, 0.01).await;
    nothing_lost(&cluster, &ids, 2).await;
}

/// The history is on a volume: what one pod of the monitor has seen is there in the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_monitor_has_the_history_of_the_old() {
    let cluster = running(1).await;
    let ids = accepted(&cluster, 5, 0.01).await;
    nothing_lost(&cluster, &ids, 1).await;
    let found = async || {
        let answer = get(&cluster, "flower-lite", "/api/v2/history?state=SUCCESS&limit=100").await;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        let found: BTreeSet<String> = items.iter().map(|task| text(&task["id"])).collect();
        if found.is_superset(&ids) { Ok(()) } else { Err(format!("{answer:#}")) }
    };
    wait::until(SOON, "the tasks in the history", found).await;
    let old = cluster.pods("flower-lite")[0].clone();
    cluster.rollout("flower-lite").await;
    let end = old.status().end.unwrap();
    assert!(!end.killed && end.status.is_some_and(|status| status.success()), "{end:?}");
    let new = cluster.pods("flower-lite")[0].clone();
    assert_ne!(old.name, new.name);
    wait::until(SOON, "the same tasks in the history", found).await;
    assert_eq!(new.status().restarts, 0, "{}", new.log());
}

/// The number of the last tick, and how often each was done, of an entry that counts.
async fn ticks(cluster: &Cluster) -> Vec<String> {
    let redis = cluster.redis().unwrap();
    let auth = ["--no-auth-warning", "-a", "dev-only"];
    let keys = redis.cli(&[&auth[..], &["KEYS", "celery-task-meta-*"]].concat()).await;
    keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

/// Two beats, and one of them is lost: the other goes on with the schedule.
#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_is_lost_is_followed_by_the_other() {
    const BEAT: &str = "celery-beat";
    let cluster = running(1).await;
    cluster.scale(BEAT, 2);
    cluster.settled(BEAT).await;
    let redis = cluster.redis().unwrap();
    let auth = ["--no-auth-warning", "-a", "dev-only"];
    let entry = r#"{"task": "demo.add", "schedule": 0.5, "args": [1, 1]}"#;
    let edit = ["HSET", "celeriac:entries:celeriac", "often", entry];
    redis.cli(&[&auth[..], &edit].concat()).await;
    let more_than = async |count: usize, what: &str| {
        wait::until(Duration::from_secs(90), what, async || {
            let ticks = ticks(&cluster).await.len();
            if ticks > count { Ok(()) } else { Err(format!("{ticks} ticks")) }
        })
        .await;
    };
    more_than(4, "ticks of the first leader").await;

    let pods = cluster.pods(BEAT);
    let leads = |pod: &Arc<Pod>| pod.log().contains("beat: Leading");
    let leaders: Vec<_> = pods.iter().filter(|pod| leads(pod)).collect();
    let [leader] = leaders.as_slice() else { panic!("{} lead", leaders.len()) };
    leader.program().unwrap().kill();
    let before = ticks(&cluster).await.len();
    more_than(before + 4, "ticks after the leader was killed").await;

    // An orderly end gives the lease up at once.
    cluster.rollout(BEAT).await;
    for pod in &pods {
        let end = pod.status().end.unwrap();
        assert!(!end.killed && end.status.is_some_and(|status| status.success()), "{end:?}\n{}", pod.log());
    }
    let before = ticks(&cluster).await.len();
    more_than(before + 4, "ticks after the rollout").await;
    cluster.delete().await;
}
