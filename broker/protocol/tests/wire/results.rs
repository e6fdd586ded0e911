//! Results: decode∘encode is the identity on every record that Celery stores.

use celery_protocol::{RemoteException, ResultMeta, TaskState, result::keys::Prefix};
use serde::Deserialize;

use crate::golden::{self, Bytes};

#[derive(Deserialize)]
struct Case {
    case: String,
    extended: bool,
    metas: Vec<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    key: String,
    value: Bytes,
}

fn cases() -> Vec<Case> {
    golden::read("results")
}

#[test]
fn every_record_is_encoded_as_it_was() {
    for case in cases().iter().filter(|case| case.case != "compressed") {
        for stored in &case.metas {
            let bytes = stored.value.get();
            let meta = ResultMeta::decode(&bytes).unwrap_or_else(|err| panic!("{}: {err}", case.case));
            assert_eq!(String::from_utf8(meta.encode()).unwrap(), stored.value.text(), "{}", case.case);
            assert_eq!(Prefix::default().task_of(&stored.key).as_ref(), Some(&meta.task_id));
            assert_eq!(meta.date_done.is_some(), meta.status.is_ready());
        }
    }
}

#[test]
fn every_state_was_captured() {
    let mut states: Vec<TaskState> = Vec::new();
    for case in cases().iter().filter(|case| case.case != "compressed") {
        states
            .extend(case.metas.iter().map(|stored| ResultMeta::decode(&stored.value.get()).unwrap().status));
    }
    for state in ["STARTED", "PROGRESS", "RETRY", "SUCCESS", "FAILURE", "REVOKED"] {
        assert!(states.contains(&state.into()), "{state}");
    }
}

#[test]
fn exceptions_are_read_and_written() {
    for case in cases().iter().filter(|case| case.case != "compressed") {
        for stored in &case.metas {
            let meta = ResultMeta::decode(&stored.value.get()).unwrap();
            // a retry without exception has none
            if !meta.status.is_exception() || meta.result.get() == "null" {
                continue;
            }
            let exception = RemoteException::from_raw(&meta.result).unwrap();
            assert_eq!(exception.to_raw().get(), meta.result.get(), "{}", case.case);
        }
    }
}

#[test]
fn a_failure_made_here_is_the_one_made_by_celery() {
    let cases = cases();
    let case = cases.iter().find(|case| case.case == "failure" && !case.extended).unwrap();
    let theirs = ResultMeta::decode(&case.metas[0].value.get()).unwrap();
    let exception = RemoteException {
        exc_type: "ValueError".to_owned(),
        exc_message: celery_protocol::pyjson::from_str(r#"["boom", 1]"#).unwrap(),
        exc_module: Some("builtins".to_owned()),
    };
    let done = theirs.date_done.unwrap();
    let ours = ResultMeta::failure(theirs.task_id.clone(), &exception, theirs.traceback.clone(), done);
    assert_eq!(ours, theirs);
    assert_eq!(exception.repr(), "ValueError('boom', 1)");
}

#[test]
fn compressed_records_are_unpacked() {
    let cases = cases();
    let case = cases.iter().find(|case| case.case == "compressed").unwrap();
    let [plain, packed] = case.metas.as_slice() else { panic!("two records") };
    assert_eq!(
        ResultMeta::decode(&plain.value.get()).unwrap(),
        ResultMeta::decode(&packed.value.get()).unwrap()
    );
}
