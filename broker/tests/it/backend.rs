//! One suite over the backends that keep results.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celery_broker::control::{Pace, Revocation};
use celery_broker::{BackendErrorKind, Celery, ResultBackend};
use celery_protocol::{GroupId, RemoteException, ResultMeta, ResultTuple, TaskId, TaskState, WireTime};
use celery_testkit::{Rabbit, Redis, wait};
use futures_util::StreamExt;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::support::PATIENCE;

pub(crate) fn task(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

pub(crate) fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn now() -> WireTime {
    WireTime::from(SystemTime::now())
}

fn success(name: &str, value: &str) -> ResultMeta {
    ResultMeta::success(task(name), raw(value), now())
}

fn failure(name: &str) -> ResultMeta {
    ResultMeta::failure(task(name), &RemoteException::builtin("ValueError", "boom"), None, now())
}

fn state(name: &str, state: &str) -> ResultMeta {
    ResultMeta::new(task(name), TaskState::from(state), raw("{\"step\": 1}"))
}

/// A client whose backend is `url`. Its broker does not exist: results must not need one.
pub(crate) fn client(url: &str) -> Celery {
    Celery::builder("it").broker("amqp://127.0.0.1:1").backend(url).start().unwrap()
}

type Backend = Arc<dyn ResultBackend>;

pub(crate) async fn on_each(check: impl AsyncFn(Backend)) {
    let memory = client("memory://");
    check(Arc::clone(memory.backend())).await;
    let redis = client(&Redis::shared().await.database());
    check(Arc::clone(redis.backend())).await;
    memory.close().await;
    redis.close().await;
}

#[tokio::test]
async fn what_is_stored_is_read() {
    on_each(async |backend| {
        assert_eq!(backend.get(&task("none")).await.unwrap(), None);
        let metas = [success("a", "5"), failure("b"), state("c", "PROGRESS")];
        backend.store_many(&metas).await.unwrap();
        for meta in &metas {
            assert_eq!(backend.get(&meta.task_id).await.unwrap().as_ref(), Some(meta));
        }
        let ids = [task("c"), task("none"), task("a")];
        let found = backend.get_many(&ids).await.unwrap();
        assert_eq!(found, [Some(metas[2].clone()), None, Some(metas[0].clone())]);
        backend.forget(&task("a")).await.unwrap();
        assert_eq!(backend.get(&task("a")).await.unwrap(), None);
        backend.ping().await.unwrap();
    })
    .await;
}

/// Celery's rule: a stored SUCCESS stays, everything else is overwritten.
#[tokio::test]
async fn only_success_is_sticky() {
    on_each(async |backend| {
        backend.store(&success("s", "1")).await.unwrap();
        for later in [failure("s"), state("s", "STARTED"), success("s", "2")] {
            backend.store(&later).await.unwrap();
            let kept = backend.get(&task("s")).await.unwrap().unwrap();
            assert_eq!((kept.status, kept.result.get()), (TaskState::Success, "1"));
        }
        for (index, meta) in
            [failure("f"), state("f", "STARTED"), failure("f"), success("f", "3")].into_iter().enumerate()
        {
            backend.store(&meta).await.unwrap();
            assert_eq!(backend.get(&task("f")).await.unwrap(), Some(meta), "step {index}");
        }
        // Within one batch the order counts, too.
        backend.store_many(&[success("t", "1"), failure("t")]).await.unwrap();
        assert_eq!(backend.get(&task("t")).await.unwrap().unwrap().status, TaskState::Success);
    })
    .await;
}

#[tokio::test]
async fn a_watcher_sees_every_state_and_then_the_end() {
    on_each(async |backend| {
        backend.store(&state("w", "STARTED")).await.unwrap();
        let watch = backend.watch(&task("w")).await.unwrap();
        backend.store(&state("w", "PROGRESS")).await.unwrap();
        backend.store(&success("w", "7")).await.unwrap();
        let seen: Vec<String> =
            timeout(PATIENCE, watch.map(|meta| meta.status.to_string()).collect()).await.unwrap();
        assert_eq!(seen, ["STARTED", "PROGRESS", "SUCCESS"]);
        // Who comes late sees the end at once.
        let mut late = backend.watch(&task("w")).await.unwrap();
        let last = timeout(PATIENCE, late.next()).await.unwrap().unwrap();
        assert_eq!(last.result.get(), "7");
        assert!(timeout(PATIENCE, late.next()).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn many_watch_at_once() {
    on_each(async |backend| {
        let watchers = (0..200).map(|index| {
            let backend = Arc::clone(&backend);
            async move {
                // Each task is watched twice, as by two callers.
                let id = task(&format!("m{}", index / 2));
                let mut watch = backend.watch(&id).await.unwrap();
                timeout(PATIENCE, watch.next()).await.unwrap().unwrap().result.get().to_owned()
            }
        });
        let storing = async {
            for index in 0..100 {
                backend.store(&success(&format!("m{index}"), &index.to_string())).await.unwrap();
            }
        };
        let (results, ()) = tokio::join!(futures_util::future::join_all(watchers), storing);
        for (index, result) in results.iter().enumerate() {
            assert_eq!(*result, (index / 2).to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn the_shape_of_a_group_is_kept() {
    on_each(async |backend| {
        let id = GroupId::parse("g").unwrap();
        let group =
            ResultTuple::group(id.clone(), vec![ResultTuple::task(task("a")), ResultTuple::task(task("b"))]);
        assert_eq!(backend.get_group(&id).await.unwrap(), None);
        backend.store_group(&group).await.unwrap();
        assert_eq!(backend.get_group(&id).await.unwrap(), Some(group));
        backend.forget_group(&id).await.unwrap();
        assert_eq!(backend.get_group(&id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn submissions_are_kept_and_listed() {
    on_each(async |backend| {
        let index = backend.submissions().unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(index.put_new(&task("a"), b"1", hour).await.unwrap(), None);
        assert_eq!(index.put_new(&task("a"), b"2", hour).await.unwrap(), Some(b"1".to_vec()));
        index.put(&task("b"), b"3", hour).await.unwrap();
        assert_eq!(index.get(&task("a")).await.unwrap(), Some(b"1".to_vec()));
        let both = index.get_many(&[task("b"), task("x"), task("a")]).await.unwrap();
        assert_eq!(both, [Some(b"3".to_vec()), None, Some(b"1".to_vec())]);
        assert_eq!(index.recent(10).await.unwrap(), [task("b"), task("a")]);
        assert_eq!(index.recent(1).await.unwrap(), [task("b")]);
        index.unlist(&[task("a")]).await.unwrap();
        assert_eq!(index.recent(10).await.unwrap(), [task("b")]);
        assert_eq!(index.recent(0).await.unwrap(), []);
        assert!(index.get(&task("a")).await.unwrap().is_some());
        index.remove(&task("b")).await.unwrap();
        assert_eq!((index.get(&task("b")).await.unwrap(), index.recent(10).await.unwrap()), (None, vec![]));
    })
    .await;
}

#[tokio::test]
async fn the_list_of_submissions_is_read_in_pages_that_do_not_shift() {
    on_each(async |backend| {
        let index = backend.submissions().unwrap();
        let names: Vec<String> = (0..25).map(|n| format!("t{n:02}")).collect();
        for name in &names {
            index.put(&task(name), b"x", Duration::from_secs(60)).await.unwrap();
        }
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let page = index.page(before.as_ref(), 10).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.clone());
            seen.extend(page.into_iter().map(|listed| listed.id.to_string()));
            // A newer one, and one less, change nothing about the pages to come.
            let newer = format!("new{}", seen.len());
            index.put(&task(&newer), b"x", Duration::from_secs(60)).await.unwrap();
            index.unlist(&[before.as_ref().unwrap().id.clone()]).await.unwrap();
        }
        let expected: Vec<String> = names.iter().rev().cloned().collect();
        assert_eq!(seen, expected);
        assert_eq!(index.page(None, 0).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn notes_are_changed_by_one_at_a_time() {
    on_each(async |backend| {
        let notes = backend.notes().unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(notes.get("k").await.unwrap(), None);
        assert_eq!(notes.put_new("k", b"1", hour).await.unwrap(), None);
        assert_eq!(notes.put_new("k", b"2", hour).await.unwrap(), Some(b"1".to_vec()));
        assert!(!notes.replace("k", b"2", b"3", hour).await.unwrap());
        assert!(notes.replace("k", b"1", b"3", hour).await.unwrap());
        assert!(!notes.remove("k", b"1").await.unwrap());
        assert_eq!(notes.get("k").await.unwrap(), Some(b"3".to_vec()));
        assert!(notes.remove("k", b"3").await.unwrap());
        notes.put("t", b"once", hour).await.unwrap();
        assert_eq!(notes.take("t").await.unwrap(), Some(b"once".to_vec()));
        assert_eq!((notes.take("t").await.unwrap(), notes.get("k").await.unwrap()), (None, None));
        assert!(!notes.replace("k", b"", b"4", hour).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn revocations_are_kept_for_a_while_and_starts_are_paced() {
    on_each(async |backend| {
        let cluster = backend.cluster().unwrap();
        let hour = Duration::from_secs(3600);
        let before = SystemTime::now() - Duration::from_secs(1);
        assert_eq!(cluster.revoked_since(before).await.unwrap(), []);
        let both =
            [Revocation::Task(task("r1")), Revocation::Stamp("job".into(), serde_json::json!(["j", 1]))];
        cluster.revoke(&both, hour).await.unwrap();
        cluster.revoke(&[], hour).await.unwrap();
        let mut found = cluster.revoked_since(before).await.unwrap();
        found.sort_by_key(|one| matches!(one, Revocation::Stamp(..)));
        assert_eq!(found, both);
        assert_eq!(cluster.revoked_since(SystemTime::now() + hour).await.unwrap(), []);

        let pace = Pace { interval: Duration::from_secs(1000), burst: 2 };
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(cluster.book("k", pace).await.unwrap().as_secs_f64().round());
        }
        assert_eq!(waits, [0.0, 0.0, 1000.0, 2000.0]);
        assert_eq!(cluster.book("other", pace).await.unwrap(), Duration::ZERO);

        let counts = [cluster.count("c", hour).await.unwrap(), cluster.count("c", hour).await.unwrap()];
        cluster.forget_count("c").await.unwrap();
        assert_eq!((counts, cluster.count("c", hour).await.unwrap()), ([1, 2], 1));
    })
    .await;
}

/// The one with the shortest patience made all others forget.
#[tokio::test]
async fn each_revocation_is_kept_for_its_own_time() {
    let revocation = |name: &str| [Revocation::Task(task(name))];
    let hour = Duration::from_secs(3600);
    let before = SystemTime::now() - Duration::from_secs(1);
    on_each(async |backend| {
        let cluster = backend.cluster().unwrap();
        cluster.revoke(&revocation("long"), hour).await.unwrap();
        cluster.revoke(&revocation("short"), Duration::ZERO).await.unwrap();
        cluster.revoke(&revocation("long"), Duration::ZERO).await.unwrap();
        assert_eq!(cluster.revoked_since(before).await.unwrap(), revocation("long"));
    })
    .await;
    let database = Redis::shared().await.database();
    let celery = client(&database);
    let cluster = celery.cluster().unwrap();
    cluster.revoke(&revocation("long"), hour).await.unwrap();
    cluster.revoke(&revocation("short"), Duration::ZERO).await.unwrap();
    let number = database.rsplit('/').next().unwrap();
    let left = Redis::shared().await.cli(&["-n", number, "TTL", "celeriac:revoked"]).await;
    assert!(left.trim().parse::<u64>().unwrap() > 3_000, "{left}");
    celery.close().await;
}

#[tokio::test]
async fn everything_that_is_stored_can_be_followed() {
    let celery = client(&Redis::shared().await.database());
    let backend = celery.backend();
    let mut all = backend.watch_all().await.unwrap();
    backend.store_many(&[state("w1", "STARTED"), success("w2", "2")]).await.unwrap();
    let first = timeout(PATIENCE, all.next()).await.unwrap().unwrap();
    let second = timeout(PATIENCE, all.next()).await.unwrap().unwrap();
    assert_eq!((first.task_id, second.task_id), (task("w1"), task("w2")));
    celery.close().await;
}

#[tokio::test]
async fn disabled_stores_silently_and_reads_loudly() {
    let celery = client("");
    celery.backend().store(&success("a", "1")).await.unwrap();
    let err = celery.backend().get(&task("a")).await.unwrap_err();
    assert_eq!(err.kind(), BackendErrorKind::Unsupported);
    assert_eq!(
        err.to_string(),
        "not supported by this result backend: results are disabled (set result_backend)"
    );
    celery.close().await;
}

#[tokio::test]
async fn keys_bytes_and_expiry_are_celerys() {
    let redis = Redis::start().await;
    let celery = Celery::builder("it")
        .broker("amqp://127.0.0.1:1")
        .backend(redis.url(3))
        .result_key_prefix("app")
        .result_expires(Duration::from_secs(1000))
        .result_failure_expires(Duration::from_secs(5000))
        .start()
        .unwrap();
    celery.backend().store(&failure("f")).await.unwrap();
    let ttl: u64 = redis.cli(&["-n", "3", "TTL", "app_celery-task-meta-f"]).await.trim().parse().unwrap();
    assert!((4990..=5000).contains(&ttl), "{ttl}");
    let meta = success("a", "5");
    celery.backend().store(&meta).await.unwrap();
    let stored = redis.cli(&["-n", "3", "GET", "app_celery-task-meta-a"]).await;
    assert_eq!(stored.trim(), String::from_utf8(meta.encode()).unwrap());
    let ttl: u64 = redis.cli(&["-n", "3", "TTL", "app_celery-task-meta-a"]).await.trim().parse().unwrap();
    assert!((990..=1000).contains(&ttl), "{ttl}");
    let forever = Celery::builder("it")
        .broker("amqp://127.0.0.1:1")
        .backend(redis.url(4))
        .result_expires(Duration::ZERO)
        .start()
        .unwrap();
    forever.backend().store(&meta).await.unwrap();
    assert_eq!(redis.cli(&["-n", "4", "TTL", "celery-task-meta-a"]).await.trim(), "-1");
    celery.close().await;
    forever.close().await;
}

/// Other writers: compact JSON, and Celery's compressed results.
#[tokio::test]
async fn success_of_other_writers_is_sticky_too() {
    let redis = Redis::start().await;
    let celery = client(&redis.url(0));
    let compact = r#"{"result":1,"status":"SUCCESS","task_id":"c"}"#;
    redis.cli(&["SET", "celery-task-meta-c", compact]).await;
    celery.backend().store(&failure("c")).await.unwrap();
    assert_eq!(celery.backend().get(&task("c")).await.unwrap().unwrap().result.get(), "1");
    let compress = format!(
        "import redis, zlib; r = redis.from_url('{}')
for name, state in [('z', b'SUCCESS'), ('y', b'STARTED')]:
    meta = b'{{\"status\": \"' + state + b'\", \"result\": 1, \"task_id\": \"' + name.encode() + b'\"}}'
    r.set('celery-task-meta-' + name, b'\\0celery-compressed\\0application/x-gzip\\0' + zlib.compress(meta))",
        redis.url(0)
    );
    celery_testkit::Python::new("amqp://127.0.0.1:1", &redis.url(0)).run(&compress).await;
    for (name, result) in [("z", "1"), ("y", "2")] {
        celery.backend().store(&success(name, "2")).await.unwrap();
        assert_eq!(celery.backend().get(&task(name)).await.unwrap().unwrap().result.get(), result, "{name}");
    }
    let open = r#"{"result":"SUCCESS","status":"FAILURE","task_id":"o"}"#;
    redis.cli(&["SET", "celery-task-meta-o", open]).await;
    celery.backend().store(&success("o", "2")).await.unwrap();
    assert_eq!(celery.backend().get(&task("o")).await.unwrap().unwrap().result.get(), "2");
    celery.close().await;
}

#[tokio::test]
async fn a_restarted_redis_loses_no_watcher() {
    let redis = Redis::start_durable().await;
    let (reader, writer) = (client(&redis.url(0)), client(&redis.url(0)));
    let mut watch = reader.backend().watch(&task("w")).await.unwrap();
    redis.kill();
    let err = writer.backend().store(&success("x", "1")).await.unwrap_err();
    assert!(err.is_transient(), "{err:?}");
    redis.restart().await;
    wait::until(Duration::from_secs(20), "storing works again", async || {
        writer.backend().store(&success("w", "5")).await.map_err(|err| err.to_string())
    })
    .await;
    let seen = timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
    assert_eq!(seen.result.get(), "5");
    reader.close().await;
    writer.close().await;
}

#[tokio::test]
async fn servers_troubles_are_told_apart_and_secrets_are_not_told() {
    let redis = Redis::start().await;
    let celery = client(&redis.url(0));
    celery.backend().ping().await.unwrap();
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let err = celery.backend().store(&success("a", "1")).await.unwrap_err();
    assert_eq!((err.kind(), err.is_transient()), (BackendErrorKind::ReadOnly, true), "{err:?}");
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let err = celery.backend().store(&success("a", "1")).await.unwrap_err();
    assert_eq!((err.kind(), err.is_transient()), (BackendErrorKind::OutOfMemory, true), "{err:?}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    celery.backend().store(&success("a", "1")).await.unwrap();
    redis.cli(&["CONFIG", "SET", "requirepass", "right"]).await;
    let without = client(&redis.url(0));
    let err = without.backend().ping().await.unwrap_err();
    assert_eq!((err.kind(), err.is_transient()), (BackendErrorKind::Auth, false), "{err:?}");
    let wrong = client(&redis.url(0).replace("redis://", "redis://:sesame@"));
    let err = wrong.backend().ping().await.unwrap_err();
    assert_eq!(err.kind(), BackendErrorKind::Auth, "{err:?}");
    assert!(!format!("{err} {err:?} {wrong:?}").contains("sesame"), "{err:?}");
    for celery in [celery, without, wrong] {
        celery.close().await;
    }
}

#[tokio::test]
async fn a_frozen_redis_is_given_up_within_the_deadline() {
    let redis = Redis::start().await;
    let celery = client(&format!("{}?socket_timeout=1", redis.url(0)));
    celery.backend().ping().await.unwrap();
    redis.pause();
    let begun = std::time::Instant::now();
    let err = celery.backend().ping().await.unwrap_err();
    assert_eq!(err.kind(), BackendErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    redis.resume();
    wait::until(Duration::from_secs(20), "it answers again", async || {
        celery.backend().ping().await.map_err(|err| err.to_string())
    })
    .await;
    celery.close().await;
}

/// A Python client reads what we store, and waits for what we announce.
#[tokio::test]
async fn python_reads_our_results() {
    let broker = Rabbit::shared().await.vhost("backend_python").await;
    let backend = Redis::shared().await.database();
    let celery = client(&backend);
    let script = "from celery.result import AsyncResult; from peer_app import app
print(AsyncResult('p', app=app).get(timeout=20))
try:
    AsyncResult('e', app=app).get(timeout=20)
except ValueError as exc:
    print(type(exc).__name__, exc.args)";
    let python = celery_testkit::Python::new(&broker, &backend);
    let storing = async {
        celery.backend().store(&failure("e")).await.unwrap();
        celery.backend().store(&success("p", "[1, {\"a\": null}]")).await.unwrap();
    };
    let (output, ()) = tokio::join!(python.run(script), storing);
    assert_eq!(output.stdout.trim(), "[1, {'a': None}]\nValueError ('boom',)");
    celery.close().await;
}

#[tokio::test]
async fn only_the_holder_of_a_lease_changes_its_records() {
    use celery_broker::fenced::{Change, Hold};

    on_each(async |backend| {
        let fenced = backend.fenced().unwrap();
        let ttl = Duration::from_secs(60);
        let (ours, theirs) =
            (Hold { name: "lease", token: "a", ttl }, Hold { name: "lease", token: "b", ttl });
        assert!(fenced.hold(ours).await.unwrap());
        assert!(fenced.hold(ours).await.unwrap(), "it is renewed");
        assert!(!fenced.hold(theirs).await.unwrap());
        let replace = async |hold, expected: Option<&[u8]>, value: Option<&[u8]>| {
            fenced.replace(hold, "k", expected, value).await.unwrap()
        };
        assert_eq!(replace(theirs, None, Some(b"x")).await, Change::NotHolder);
        assert_eq!(replace(ours, Some(b""), Some(b"x")).await, Change::Differs, "nothing is no empty value");
        assert_eq!(replace(ours, None, Some(b"\x001")).await, Change::Made);
        assert_eq!(replace(ours, None, Some(b"2")).await, Change::Differs);
        assert_eq!(replace(ours, Some(b"\x001"), Some(b"2")).await, Change::Made);
        assert_eq!(fenced.records("lease").await.unwrap(), [("k".to_owned(), b"2".to_vec())].into());
        assert!(fenced.records("other").await.unwrap().is_empty());
        assert!(!fenced.release(theirs).await.unwrap());
        assert!(fenced.release(ours).await.unwrap());
        assert_eq!(replace(ours, Some(b"2"), None).await, Change::NotHolder);
        assert!(fenced.hold(theirs).await.unwrap());
        assert_eq!(replace(theirs, Some(b"2"), None).await, Change::Made);
        assert!(fenced.records("lease").await.unwrap().is_empty());
        fenced.edit("lease", "e", Some(b"{}")).await.unwrap();
        assert_eq!(fenced.entries("lease").await.unwrap(), [("e".to_owned(), b"{}".to_vec())].into());
        fenced.edit("lease", "e", None).await.unwrap();
        assert!(fenced.entries("lease").await.unwrap().is_empty());
        // A lease ends by itself.
        let short = Hold { name: "short", token: "a", ttl: Duration::from_millis(20) };
        assert!(fenced.hold(short).await.unwrap());
        let next = Hold { name: "short", token: "b", ttl };
        wait::until(PATIENCE, "the lease ends", async || match fenced.hold(next).await.unwrap() {
            true => Ok(()),
            false => Err("held"),
        })
        .await;
        assert_eq!(fenced.replace(short, "k", None, Some(b"x")).await.unwrap(), Change::NotHolder);
    })
    .await;
}
