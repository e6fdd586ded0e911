//! Tests of the history: what is written is found, by every filter, and kept for as long as it should be.

use std::collections::HashSet;
use std::sync::Arc;

use celery_protocol::event::decode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::search::{Page, Query};
use super::*;
use crate::state::Limits;
use crate::state::text::contains_ignoring_case;

/// A folder of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let name = format!("flower-history-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn options(&self) -> HistoryOptions {
        let retention = Retention { age: Duration::from_secs(1 << 40), bytes: u64::MAX };
        HistoryOptions { path: self.0.join("flower.db"), retention }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const NOW: f64 = 1_800_000_000.0;

fn now() -> UnixTime {
    UnixTime::EPOCH.plus(NOW)
}

fn apply(state: &mut ClusterState, event: &Value) {
    let mut event = event.clone();
    event["timestamp"] = json!(NOW + event["timestamp"].as_f64().unwrap_or(0.0));
    for event in decode(event.to_string().as_bytes()).expect("a body") {
        state.apply(&event.expect("an event"), now());
    }
}

/// The life of a task with the number `i`: names, workers, states and texts repeat with different periods.
fn life(i: usize) -> Vec<Value> {
    let (id, at) = (format!("id-{i:05}"), i as f64);
    let host = format!("w{}@h", i % 3);
    let root = format!("id-{:05}", i - i % 5);
    let mut events = vec![
        json!({ "type": "task-sent", "uuid": id, "hostname": "gen@h", "timestamp": at, "name": format!("app.task_{}", i % 4),
                "args": format!("({i}, 'Größe {}')", i % 7), "kwargs": "{}", "queue": format!("q{}", i % 2), "root_id": root }),
        json!({ "type": "task-received", "uuid": id, "hostname": host, "timestamp": at, "name": format!("app.task_{}", i % 4),
                "args": format!("({i}, 'Größe {}')", i % 7), "kwargs": "{}", "root_id": root }),
        json!({ "type": "task-started", "uuid": id, "hostname": host, "timestamp": at + 0.1 }),
    ];
    match i % 6 {
        0 => events.push(json!({ "type": "task-failed", "uuid": id, "hostname": host, "timestamp": at + 0.2,
            "exception": format!("ValueError('number \"{i}\"')"), "traceback": "Traceback: canary" })),
        1 => {}
        _ => events
            .push(json!({ "type": "task-succeeded", "uuid": id, "hostname": host, "timestamp": at + 0.2,
            "result": format!("'ok {i}'"), "runtime": i as f64 / 100.0 })),
    }
    events
}

fn saved(state: &mut ClusterState) -> Batch {
    let mut batch = Batch::default();
    state.save(
        usize::MAX,
        |task| batch.tasks.push(task.clone()),
        |worker| batch.workers.push(SavedWorker::of(worker)),
    );
    batch
}

fn wait(history: &History) {
    until("the history to be written", || history.is_idle());
}

fn until(what: &str, check: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if check() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("waited too long for {what}");
}

fn filled(folder: &Folder, count: usize) -> (History, ClusterState) {
    let history = History::open(&folder.options()).expect("it opens");
    let mut state = ClusterState::new(Limits::default(), now());
    state.begin_saving();
    for i in 0..count {
        life(i).iter().for_each(|event| apply(&mut state, event));
    }
    history.write(saved(&mut state));
    wait(&history);
    (history, state)
}

/// Every page of a search.
fn all(history: &History, query: &Query) -> Vec<String> {
    let (mut found, mut query) = (Vec::new(), Query { limit: 7, ..query.clone() });
    loop {
        let Page { tasks, next, complete } = history.search(&query).expect("it reads");
        assert!(complete && tasks.len() <= 7);
        found.extend(tasks.iter().map(|task| task.id().to_string()));
        match next {
            Some(next) => query.cursor = Some(next.to_string().parse().expect("our own cursor")),
            None => return found,
        }
    }
}

/// The same, by looking at everything.
fn expected(state: &ClusterState, query: &Query) -> Vec<String> {
    let fits = |task: &&Task| {
        let at = task.listed_at().seconds();
        (query.states.is_empty() || query.states.iter().any(|wanted| task.state().as_str() == wanted))
            && query
                .name
                .as_ref()
                .is_none_or(|glob| task.name().is_some_and(|name| celery_protocol::glob::matches(glob, name)))
            && query.worker.as_ref().is_none_or(|wanted| task.worker().is_some_and(|own| **own == **wanted))
            && query.queue.as_ref().is_none_or(|wanted| task.queue().is_some_and(|own| **own == **wanted))
            && query.root.as_ref().is_none_or(|wanted| {
                task.id() == wanted
                    || task.call().and_then(|call| call.root).is_some_and(|root| root == wanted)
            })
            && query.since.is_none_or(|since| at >= since)
            && query.until.is_none_or(|until| at <= until)
            && query.min_runtime.is_none_or(|least| task.runtime().is_some_and(|own| own >= least))
            && query.max_runtime.is_none_or(|most| task.runtime().is_some_and(|own| own <= most))
            && query.text.as_ref().is_none_or(|text| contains_ignoring_case(&record::text(task), text))
    };
    let tasks = state.tasks().all().iter().filter_map(|place| state.tasks().at(place)).filter(fits);
    let ids = tasks.map(|task| task.id().to_string());
    if query.oldest_first { ids.collect() } else { ids.collect::<Vec<_>>().into_iter().rev().collect() }
}

fn query() -> impl Strategy<Value = Query> {
    let some = |texts: &'static [&'static str]| {
        prop::option::weighted(0.3, prop::sample::select(texts).prop_map(str::to_owned))
    };
    (
        prop::collection::vec(prop::sample::select(&["SUCCESS", "FAILURE", "STARTED", "RETRY"][..]), 0..3),
        some(&["app.task_1", "app.*", "*_[03]", "nothing.*", "*"]),
        some(&["w0@h", "w1@h", "nobody@h"]),
        some(&["q0", "q1", "q9"]),
        some(&["id-00010", "id-00011"]),
        (prop::option::weighted(0.3, 0.0..120.0_f64), prop::option::weighted(0.3, 0.0..120.0_f64)),
        (prop::option::weighted(0.2, 0.0..1.0_f64), prop::option::weighted(0.2, 0.0..1.0_f64)),
        some(&["größe 3", "Größe", "valueerror", "number \"12\"", "'ok 7", "id-0001", "canary", "task_2"]),
        any::<bool>(),
    )
        .prop_map(|(states, name, worker, queue, root, time, runtime, text, oldest_first)| {
            let mut states: Vec<String> = states.into_iter().map(str::to_owned).collect();
            states.sort();
            states.dedup();
            Query {
                states,
                name,
                worker,
                queue,
                root,
                since: time.0.map(|at| NOW + at),
                until: time.1.map(|at| NOW + at),
                min_runtime: runtime.0,
                max_runtime: runtime.1,
                text,
                oldest_first,
                ..Query::default()
            }
        })
}

#[test]
fn any_mix_of_filters_finds_what_a_look_at_everything_finds() {
    let folder = Folder::new();
    let (history, state) = filled(&folder, 120);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let judged = runner.run(&query(), |query| {
        prop_assert_eq!(all(&history, &query), expected(&state, &query), "{:?}", query);
        Ok(())
    });
    judged.expect("the same");
    let everything = all(&history, &Query::default());
    assert_eq!((everything.len(), history.numbers().tasks), (120, 120));
}

#[test]
fn what_was_written_is_there_in_the_next_process() {
    let folder = Folder::new();
    let (history, mut state) = filled(&folder, 40);
    apply(
        &mut state,
        &json!({ "type": "worker-heartbeat", "hostname": "w1@h", "freq": 3.0, "sw_ver": "5.7.0" }),
    );
    history.write(saved(&mut state));
    wait(&history);
    drop(history);

    let history = History::open(&folder.options()).expect("it opens again");
    let mut again = ClusterState::new(Limits::default(), now());
    history.restore(&mut again, 100, now()).expect("it reads");
    assert_eq!(again.tasks().len(), 40);
    assert_eq!(again.totals().received, 0, "no event came in");
    for i in 0..40 {
        let id = format!("id-{i:05}");
        let seen = |state: &ClusterState| {
            let task = state.tasks().get(&id).expect("known");
            let mut seen =
                serde_json::to_value(crate::view::TaskDetail::of(state, task, None)).expect("JSON");
            seen["version"].take();
            seen["orphaned"].take();
            seen
        };
        assert_eq!(seen(&again), seen(&state));
    }
    let worker = again.worker("w1@h").expect("it was heard of");
    assert_eq!((worker.freq(), worker.facts().sw_ver.as_deref()), (3.0, Some("5.7.0")));
    assert_eq!(worker.running().len(), state.worker("w1@h").map_or(0, |worker| worker.running().len()));
    again.tick(now().plus(60.0));
    assert!(again.tasks().orphaned() > 0, "its running tasks are nobody's now");
}

#[test]
fn a_task_that_was_forgotten_and_comes_up_again_loses_nothing() {
    let folder = Folder::new();
    let history = History::open(&folder.options()).expect("it opens");
    let mut state = ClusterState::new(Limits { max_tasks: 1, ..Limits::default() }, now());
    state.begin_saving();
    let events = life(2);
    events[..3].iter().for_each(|event| apply(&mut state, event));
    life(3).iter().for_each(|event| apply(&mut state, event));
    assert_eq!((state.tasks().len(), state.unsaved_evicted()), (1, 1), "forgotten before it was saved");
    history.write(saved(&mut state));
    wait(&history);
    apply(&mut state, &events[3]);
    history.write(saved(&mut state));
    wait(&history);
    let task = history.task("id-00002").expect("it reads").expect("it is there");
    assert_eq!((task.state().as_str(), task.marks().len()), ("SUCCESS", 4));
    assert_eq!(task.name().map(|name| &**name), Some("app.task_2"));
    let found =
        history.search(&Query { text: Some("'ok 2'".into()), limit: 10, ..Query::default() }).expect("reads");
    assert_eq!(found.tasks.len(), 1, "its new text is indexed");
}

#[test]
fn workflows_are_found_whole() {
    let folder = Folder::new();
    let (history, _) = filled(&folder, 20);
    let ids: Vec<String> =
        history.workflow("id-00005").expect("it reads").iter().map(|task| task.id().to_string()).collect();
    assert_eq!(ids, ["id-00005", "id-00006", "id-00007", "id-00008", "id-00009"]);
}

#[test]
fn what_is_too_old_or_too_much_goes_oldest_first() {
    let folder = Folder::new();
    let (history, _) = filled(&folder, 60);
    let mut connection = Connection::open(history.path()).expect("it opens");
    let kept = Retention { age: Duration::from_secs(100), bytes: u64::MAX };
    let gone = writer::retain(&mut connection, kept, now().plus(120.0), &history.shared).expect("it writes");
    let left = all(&history, &Query { oldest_first: true, ..Query::default() });
    assert_eq!((gone, left.len(), left.first().map(String::as_str)), (20, 40, Some("id-00020")));
    let nothing = Retention { age: Duration::from_secs(1 << 40), bytes: 0 };
    writer::retain(&mut connection, nothing, now(), &history.shared).expect("it writes");
    assert_eq!(all(&history, &Query::default()), Vec::<String>::new());
    let texts =
        connection.query_row("SELECT count(*) FROM task_text('\"app\"')", [], |row| row.get::<_, u64>(0));
    assert_eq!(texts, Ok(0), "nor is their text");
}

#[test]
fn a_batch_that_can_not_be_written_now_is_written_later() {
    let folder = Folder::new();
    let (history, mut state) = filled(&folder, 3);
    let other = Connection::open(history.path()).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("the file is free");
    life(3).iter().for_each(|event| apply(&mut state, event));
    history.write(saved(&mut state));
    until("it to fail", || history.numbers().failures > 0);
    assert!(!history.is_idle(), "it is not given up");
    other.execute_batch("ROLLBACK").expect("the file is given back");
    wait(&history);
    assert_eq!((history.numbers().tasks, history.numbers().skipped), (4, 0));
    assert!(history.task("id-00003").expect("it reads").is_some());
}

#[test]
fn a_batch_that_can_never_be_written_is_counted_as_skipped() {
    let folder = Folder::new();
    let (history, mut state) = filled(&folder, 3);
    let other = Connection::open(history.path()).expect("it opens");
    other.execute_batch("DROP TABLE task_text").expect("gone");
    (3..5).flat_map(life).for_each(|event| apply(&mut state, &event));
    history.write(saved(&mut state));
    wait(&history);
    let numbers = history.numbers();
    assert_eq!((numbers.tasks, numbers.skipped), (3, 2));
    assert!(numbers.failures > 1, "it was tried again");
}

#[test]
fn fields_of_own_events_are_found_as_they_are_written() {
    let folder = Folder::new();
    let history = History::open(&folder.options()).expect("it opens");
    let mut state = ClusterState::new(Limits::default(), now());
    state.begin_saving();
    for i in 0..40 {
        life(i).iter().for_each(|event| apply(&mut state, event));
        apply(
            &mut state,
            &json!({ "type": "task-progress", "uuid": format!("id-{i:05}"), "hostname": "w0@h", "timestamp": i,
                "stage": format!("load{i}"), "path": r"C:\temp" }),
        );
    }
    history.write(saved(&mut state));
    wait(&history);
    for (text, count) in
        [(r#""load7""#, 1), (r#""stage""#, 40), (r#"load7""#, 1), (r"\\temp", 40), (r#"number "12""#, 1)]
    {
        let query = Query { text: Some(text.into()), ..Query::default() };
        assert_eq!(expected(&state, &query).len(), count, "{text}");
        assert_eq!(all(&history, &query), expected(&state, &query), "{text}");
    }
}

#[test]
fn files_that_are_none_of_ours_are_told_of() {
    let folder = Folder::new();
    let options = folder.options();
    std::fs::write(&options.path, b"this is no database, but it is long enough to be one").expect("a file");
    let told = History::open(&options).expect_err("no database");
    assert!(told.contains("FLOWER_DB") && told.contains("not a database"), "{told}");
    std::fs::remove_file(&options.path).expect("gone");
    let newer = Connection::open(&options.path).expect("a file");
    newer.pragma_update(None, "user_version", 99).expect("it writes");
    assert!(History::open(&options).is_err_and(|told| told.contains("newer flower-lite")));
}

#[test]
fn names_are_noted_once() {
    let folder = Folder::new();
    let options = folder.options();
    let history = History::open(&options).expect("it opens");
    let mut connection = Connection::open(history.path()).expect("it opens");
    let mut state = ClusterState::new(Limits::default(), now());
    state.begin_saving();
    (0..8).flat_map(life).for_each(|event| apply(&mut state, &event));
    let mut names: HashSet<Arc<str>> = HashSet::new();
    assert_eq!(writer::write(&mut connection, &saved(&mut state), &mut names), Ok(8));
    assert_eq!(names.len(), 4);
    let count = connection.query_row("SELECT count(*) FROM name", [], |row| row.get::<_, u64>(0));
    assert_eq!(count, Ok(4));
}
