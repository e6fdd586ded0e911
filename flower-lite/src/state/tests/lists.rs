//! Filters, orders, pages.

use celery_protocol::TaskState;
use serde_json::json;

use super::{at, state, task};
use crate::state::ClusterState;
use crate::state::query::{Column, Cursor, Filter, NotACursor, Sort, facets, page};

/// Thirty tasks of three names on two workers, in several states.
fn some_tasks() -> ClusterState {
    let mut state = state();
    for index in 0..30_u32 {
        let (id, second) = (format!("t{index:02}"), f64::from(index));
        let worker = if index % 2 == 0 { "even@host" } else { "odd@host" };
        let name = ["demo.add", "demo.mul", "mail.send"][index as usize % 3];
        let call = json!({ "name": name, "args": format!("({index},)"), "kwargs": "{'To': 'Ann'}" });
        state.apply(&task("received", &id, worker, second, call), at(second));
        match index % 5 {
            0 => state.apply(
                &task("failed", &id, worker, second + 0.5, json!({ "exception": "Boom()" })),
                at(second),
            ),
            1 | 2 => {
                let end = json!({ "result": "'fine'", "runtime": f64::from(30 - index) });
                state.apply(&task("succeeded", &id, worker, second + 0.5, end), at(second))
            }
            3 => state.apply(&task("started", &id, worker, second + 0.2, json!({})), at(second)),
            _ => continue,
        };
    }
    state
}

fn ids(state: &ClusterState, filter: &Filter, sort: &str, limit: usize) -> (Vec<String>, usize) {
    let sort = sort.parse().expect("a sort");
    let page = page(state.tasks(), filter, sort, None, limit);
    (page.tasks.iter().map(|task| task.id().to_string()).collect(), page.total)
}

#[test]
fn filters_are_all_to_be_met() {
    let state = some_tasks();
    let none = Filter::default;
    let cases: Vec<(&str, Filter, Vec<u32>)> = vec![
        (
            "state",
            Filter { states: vec![TaskState::Failure], ..none() },
            (0..30).filter(|i| i % 5 == 0).collect(),
        ),
        (
            "two states",
            Filter { states: vec![TaskState::Failure, TaskState::Started], ..none() },
            (0..30).filter(|i| i % 5 == 0 || i % 5 == 3).collect(),
        ),
        ("state of none", Filter { states: vec![TaskState::Revoked], ..none() }, vec![]),
        (
            "name",
            Filter { name: Some("demo.add".into()), ..none() },
            (0..30).filter(|i| i % 3 == 0).collect(),
        ),
        ("glob", Filter { name: Some("demo.*".into()), ..none() }, (0..30).filter(|i| i % 3 != 2).collect()),
        (
            "glob of one",
            Filter { name: Some("*.send".into()), ..none() },
            (0..30).filter(|i| i % 3 == 2).collect(),
        ),
        ("name of none", Filter { name: Some("demo".into()), ..none() }, vec![]),
        (
            "worker",
            Filter { worker: Some("odd@host".into()), ..none() },
            (0..30).filter(|i| i % 2 == 1).collect(),
        ),
        ("worker of none", Filter { worker: Some("nobody".into()), ..none() }, vec![]),
        ("text in args", Filter { text: Some("(17,".into()), ..none() }, vec![17]),
        ("text in kwargs", Filter { text: Some("'to': 'ANN'".into()), ..none() }, (0..30).collect()),
        (
            "text in exception",
            Filter { text: Some("boom".into()), ..none() },
            (0..30).filter(|i| i % 5 == 0).collect(),
        ),
        ("text in id", Filter { text: Some("T29".into()), ..none() }, vec![29]),
        (
            "everything",
            Filter {
                states: vec![TaskState::Success],
                name: Some("demo.*".into()),
                worker: Some("even@host".into()),
                text: Some("FINE".into()),
            },
            (0..30).filter(|i| (i % 5 == 1 || i % 5 == 2) && i % 3 != 2 && i % 2 == 0).collect(),
        ),
    ];
    for (name, filter, expected) in cases {
        let expected: Vec<String> = expected.iter().rev().map(|index| format!("t{index:02}")).collect();
        let (found, total) = ids(&state, &filter, "-received", 1_000);
        assert_eq!((total, found), (expected.len(), expected), "{name}");
    }
}

#[test]
fn orders_put_what_has_no_value_last_either_way() {
    let state = some_tasks();
    let every = Filter::default();
    let (up, _) = ids(&state, &every, "runtime", 30);
    let (down, _) = ids(&state, &every, "-runtime", 30);
    // Twelve succeeded: t27 ran for three seconds, t01 for 29.
    let with_value = |ids: &[String]| {
        ids.iter().position(|id| state.tasks().get(id).is_some_and(|task| task.runtime().is_none()))
    };
    assert_eq!((with_value(&up), with_value(&down)), (Some(12), Some(12)));
    assert_eq!((&*up[0], &*up[11], &*down[0], &*down[11]), ("t27", "t01", "t01", "t27"));
    assert_eq!((&*up[12], &*down[12]), ("t29", "t29"), "equals are listed newest first");
    let (names, _) = ids(&state, &every, "name", 11);
    assert_eq!(
        (&*names[0], &*names[9], &*names[10]),
        ("t27", "t00", "t28"),
        "equals are listed newest first"
    );
}

#[test]
fn pages_join_without_gap_or_overlap() {
    let state = some_tasks();
    for sort in ["received", "-received", "started", "-runtime", "runtime", "name", "-state", "worker"] {
        for filter in [Filter::default(), Filter { name: Some("demo.*".into()), ..Filter::default() }] {
            let (whole, total) = ids(&state, &filter, sort, 1_000);
            let sort: Sort = sort.parse().expect("a sort");
            let (mut joined, mut cursor): (Vec<String>, Option<Cursor>) = (Vec::new(), None);
            loop {
                let page = page(state.tasks(), &filter, sort, cursor.as_ref(), 7);
                assert_eq!(page.total, total);
                joined.extend(page.tasks.iter().map(|task| task.id().to_string()));
                let Some(next) = page.next else { break };
                cursor = Some(Cursor::parse(&next.to_string(), sort).expect("its own cursor"));
            }
            assert_eq!(joined, whole, "{sort:?}");
        }
    }
}

#[test]
fn a_page_goes_on_where_it_was_though_rows_have_come() {
    let mut state = some_tasks();
    let first = page(state.tasks(), &Filter::default(), Sort::NEWEST, None, 10);
    assert_eq!(first.tasks[9].id(), "t20");
    let cursor = first.next.expect("there is more");
    for index in 0..5 {
        state.apply(&task("received", &format!("new{index}"), "a", 100.0, json!({})), at(100.0));
    }
    let second = page(state.tasks(), &Filter::default(), Sort::NEWEST, Some(&cursor), 10);
    assert_eq!(second.tasks[0].id(), "t19");
}

#[test]
fn a_cursor_of_another_order_or_of_nobody_is_refused() {
    let state = some_tasks();
    let cursor = page(state.tasks(), &Filter::default(), Sort::NEWEST, None, 10).next.expect("there is more");
    let by_name = Sort { column: Column::Name, descending: false };
    assert_eq!(Cursor::parse(&cursor.to_string(), by_name), Err(NotACursor));
    for text in ["", ".", "..", "x.y.t", "0.0.", "0.0.q", "7ff0000000000000.0.t", "0.0.s", "0.0.nzz", "0.0.ü"]
    {
        assert_eq!(Cursor::parse(text, Sort::NEWEST), Err(NotACursor), "{text:?}");
    }
}

#[test]
fn a_facet_counts_what_one_would_get_by_choosing_otherwise() {
    let state = some_tasks();
    let filter =
        Filter { states: vec![TaskState::Failure], worker: Some("even@host".into()), ..Filter::default() };
    let facets = facets(state.tasks(), &filter);
    // State: all tasks of even@host. Worker: all failures. Name: failures of even@host.
    assert_eq!(facets.states.get("FAILURE"), Some(&3));
    assert_eq!(facets.states.get("SUCCESS"), Some(&6));
    assert_eq!(facets.workers.get("odd@host"), Some(&3));
    assert_eq!(facets.names.values().sum::<usize>(), 3);
}
