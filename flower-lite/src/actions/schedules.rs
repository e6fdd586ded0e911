//! Schedules that beats share through Redis: what is in them, and edits that the beat that leads takes over.
//!
//! Entries of the beats' own file are known by what the leader remembers of each; an edit takes the place of such an entry.
//! The settings say which schedules there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use celery_broker::fenced::Fenced;
use celery_protocol::Signature;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Doing, Done, backend, broker};
use crate::access::Action;
use crate::error::Problem;
use crate::monitor::Monitor;

/// How long Redis may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The keys of an entry.
const KEYS: [&str; 7] = ["task", "schedule", "args", "kwargs", "options", "relative", "enabled"];
/// What stands for an entry that is switched off and of which nothing more is known. Beats leave it out.
const OFF: &str = "celeriac.disabled";
/// The longest name.
const MAX_NAME: usize = 255;

type Outcome = Result<(String, Vec<Done>), Problem>;

/// An entry, and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    schedule: String,
    name: String,
    entry: Option<Map<String, Value>>,
}

/// What a schedule is: entries that were edited, and what the leader remembers of all.
#[derive(Debug, Default)]
struct Known {
    edited: BTreeMap<String, Vec<u8>>,
    records: BTreeMap<String, Vec<u8>>,
}

impl Known {
    async fn read(fenced: &dyn Fenced, schedule: &str) -> Result<Known, Problem> {
        let both = async {
            Ok(Known { edited: fenced.entries(schedule).await?, records: fenced.records(schedule).await? })
        };
        let read = tokio::time::timeout(DEADLINE, both).await;
        read.map_err(|_| Problem::unavailable(&"Redis does not answer"))?.map_err(|error| backend(&error))
    }

    fn edit(&self, name: &str) -> Option<Map<String, Value>> {
        serde_json::from_slice(self.edited.get(name)?).ok()
    }

    fn record(&self, name: &str) -> Value {
        self.records.get(name).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    fn names(&self) -> BTreeSet<&String> {
        self.edited.keys().chain(self.records.keys()).collect()
    }

    /// The entry as it counts: the edit, else what the leader has.
    fn entry(&self, name: &str) -> Option<Map<String, Value>> {
        let edited = self.edit(name).filter(|entry| !is_off(entry));
        edited.or_else(|| self.record(name).get("entry")?.as_object().cloned())
    }

    /// As it is shown.
    fn shown(&self, name: &str) -> Value {
        let record = self.record(name);
        let (edited, edit) = (self.edited.contains_key(name), self.edit(name));
        let entry = self.entry(name).unwrap_or_default();
        let of = |key: &str| entry.get(key).cloned().unwrap_or_default();
        let problem = match &edit {
            None if edited => Some("the edit is no JSON object; beats leave it out".to_owned()),
            Some(edit) => check(edit).err(),
            None => None,
        };
        let on = |entry: &Map<String, Value>| entry.get("enabled").and_then(Value::as_bool).unwrap_or(true);
        let ran = record.get("count").and_then(Value::as_u64).is_some_and(|count| count > 0);
        json!({
            "name": name,
            "task": entry.get("task").and_then(Value::as_str),
            "schedule": of("schedule"),
            "args": of("args"),
            "kwargs": of("kwargs"),
            "options": of("options"),
            "enabled": edit.as_ref().map_or_else(|| on(&entry), on),
            "edited": edited,
            "last_run": record.get("at").and_then(Value::as_f64).filter(|_| ran),
            "claimed": record.get("claimed").is_some_and(|claimed| !claimed.is_null()),
            "problem": problem,
        })
    }
}

fn is_off(entry: &Map<String, Value>) -> bool {
    entry.get("task").and_then(Value::as_str) == Some(OFF)
}

/// What a beat would take for an entry, as far as it can be told without one: whether a crontab can be read, the beat says.
fn check(entry: &Map<String, Value>) -> Result<(), String> {
    if let Some(key) = entry.keys().find(|key| !KEYS.contains(&&***key)) {
        return Err(format!("entry: there is no key `{key}`; there are {}", KEYS.join(", ")));
    }
    let of = |key: &str| entry.get(key);
    if of("task").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err("entry.task: must be the name of a task".to_owned());
    }
    let sound = match of("schedule") {
        Some(Value::Number(seconds)) => seconds.as_f64().is_some_and(|seconds| seconds > 0.0),
        Some(Value::String(text)) => !text.trim().is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        _ => false,
    };
    if !sound {
        return Err(
            "entry.schedule: must be seconds, \"5m\", a crontab such as \"30 4 * * mon-fri\", or its fields"
                .to_owned(),
        );
    }
    for (key, kind, fits) in [
        ("args", "an array", Value::is_array as fn(&Value) -> bool),
        ("kwargs", "an object", Value::is_object),
        ("options", "an object", Value::is_object),
        ("enabled", "true or false", Value::is_boolean),
        ("relative", "true or false", Value::is_boolean),
    ] {
        if of(key).is_some_and(|value| !fits(value)) {
            return Err(format!("entry.{key}: must be {kind}"));
        }
    }
    Ok(())
}

/// The edit that switches an entry on or off; `None`: no edit any more. Pure.
fn switched(known: &Known, name: &str, on: bool) -> Option<Map<String, Value>> {
    match known.edit(name) {
        // The placeholder goes, and the file's entry counts again.
        Some(edit) if is_off(&edit) && on => None,
        Some(mut edit) => {
            edit.insert("enabled".into(), on.into());
            Some(edit)
        }
        None if on => None,
        None => {
            let mut edit = known.entry(name).unwrap_or_else(|| {
                Map::from_iter([
                    ("task".to_owned(), Value::from(OFF)),
                    ("schedule".to_owned(), Value::from(86_400)),
                ])
            });
            edit.insert("enabled".into(), false.into());
            // One that code made may have a schedule that can't be written down.
            if check(&edit).is_err() {
                edit = Map::from_iter([
                    ("task".to_owned(), Value::from(OFF)),
                    ("schedule".to_owned(), Value::from(86_400)),
                    ("enabled".to_owned(), Value::from(false)),
                ]);
            }
            Some(edit)
        }
    }
}

pub(super) async fn change(doing: &Doing<'_>, asked: One) -> Outcome {
    let One { schedule, name, entry } = asked;
    if !doing.monitor.schedules().contains(&schedule) {
        return Err(Problem::not_found(format!(
            "no schedule {schedule} is known here: name it in beat_schedules (FLOWER_BEAT_SCHEDULES)"
        )));
    }
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Problem::bad_parameter("name", format!("must have 1 to {MAX_NAME} bytes")));
    }
    let fenced = doing.celery.fenced().ok_or_else(no_store)?;
    let known = Known::read(&*fenced, &schedule).await?;
    let there = known.edited.contains_key(&name) || known.records.contains_key(&name);
    if !there && doing.action != Action::ScheduleEdit {
        return Err(Problem::not_found(format!("the schedule {schedule} has no entry {name}")));
    }
    if entry.is_some() != (doing.action == Action::ScheduleEdit) {
        return Err(Problem::bad_parameter("entry", "is for schedule.edit, which needs it"));
    }
    let (edit, message) = match doing.action {
        Action::ScheduleRun => return run(doing, &known, &name).await,
        Action::ScheduleEnable => (switched(&known, &name, true), format!("{name} is enabled")),
        Action::ScheduleDisable => (switched(&known, &name, false), format!("{name} is disabled")),
        Action::ScheduleRevert => (None, format!("{name} is as the beats' own file has it")),
        _ => {
            let entry = entry.unwrap_or_default();
            check(&entry).map_err(|what| Problem::bad_parameter("body", what))?;
            (Some(entry), format!("{name} is changed"))
        }
    };
    let bytes = edit.map(|edit| Value::Object(edit).to_string().into_bytes());
    let written = tokio::time::timeout(DEADLINE, fenced.edit(&schedule, &name, bytes.as_deref())).await;
    written.map_err(|_| Problem::unavailable(&"Redis does not answer"))?.map_err(|error| backend(&error))?;
    let message = format!("{message}; the beat that leads takes it over within a quarter of its lease");
    Ok((message, vec![Done::ok(name)]))
}

async fn run(doing: &Doing<'_>, known: &Known, name: &str) -> Outcome {
    let entry = known.entry(name).ok_or_else(|| {
        Problem::bad_parameter(
            "name",
            "what it sends is not known: the beat that leads is of an older version",
        )
    })?;
    let of = |key: &str, otherwise: Value| entry.get(key).cloned().unwrap_or(otherwise);
    let mut options = of("options", json!({}));
    if let Some(options) = options.as_object_mut() {
        let headers = options.entry("headers").or_insert_with(|| json!({}));
        if let Some(headers) = headers.as_object_mut() {
            headers.insert("celery_beat_task".to_owned(), name.into());
        }
    }
    let call = json!({
        "task": of("task", Value::Null),
        "args": of("args", json!([])),
        "kwargs": of("kwargs", json!({})),
        "options": options,
    });
    let signature =
        Signature::from_json(&call.to_string()).map_err(|error| Problem::bad_parameter("entry", error))?;
    let result = doing.celery.send(signature).await.map_err(|error| broker(&error))?;
    let id = result.id().to_string();
    Ok((format!("Sent as {id}"), vec![Done { task_id: Some(id), ..Done::ok(name) }]))
}

fn no_store() -> Problem {
    Problem::unavailable(&"the result backend keeps no schedules: it must be Redis (CELERY_RESULT_BACKEND)")
}

/// `GET /api/v2/schedules`.
pub async fn list(monitor: Data<Monitor>) -> HttpResponse {
    let mut items = Vec::new();
    for schedule in monitor.schedules() {
        let fenced = monitor.celery().and_then(celery_broker::Celery::fenced);
        let known = match fenced {
            Some(fenced) => Known::read(&*fenced, schedule).await,
            None => Err(no_store()),
        };
        let (error, known) = match known {
            Ok(known) => (None, known),
            Err(problem) => (Some(problem.to_string()), Known::default()),
        };
        let mut entries: Vec<Value> = known.names().into_iter().map(|name| known.shown(name)).collect();
        entries.iter_mut().for_each(|entry| monitor.redactor().json(entry));
        items.push(json!({ "name": schedule, "error": error, "entries": entries }));
    }
    HttpResponse::Ok().json(json!({ "items": items }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(edited: &[(&str, &str)], records: &[(&str, &str)]) -> Known {
        let bytes = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
        };
        Known { edited: bytes(edited), records: bytes(records) }
    }

    #[test]
    fn an_edit_takes_the_place_of_what_the_leader_has() {
        let known = known(
            &[
                ("poll", r#"{"task": "t.poll", "schedule": 60}"#),
                ("bad", "{"),
                ("odd", r#"{"task": "t", "every": 1}"#),
            ],
            &[
                ("poll", r#"{"at": 5.5, "count": 2, "entry": {"task": "t.poll", "schedule": 30}}"#),
                ("old", r#"{"at": 5.5, "count": 0}"#),
            ],
        );
        let poll = known.shown("poll");
        assert_eq!(
            (&poll["schedule"], &poll["last_run"], &poll["edited"]),
            (&json!(60), &json!(5.5), &json!(true))
        );
        let old = known.shown("old");
        assert_eq!(
            (&old["task"], &old["last_run"], &old["enabled"]),
            (&Value::Null, &Value::Null, &json!(true))
        );
        assert!(known.shown("bad")["problem"].is_string());
        assert!(known.shown("odd")["problem"].as_str().is_some_and(|told| told.contains("`every`")));
        assert_eq!(known.names().len(), 4);
    }

    #[test]
    fn entries_are_switched_off_and_on_again() {
        let known_entry = r#"{"at": 1, "count": 0, "entry": {"task": "t", "schedule": 30}}"#;
        let file = known(&[], &[("a", known_entry), ("b", r#"{"at": 1, "count": 0}"#)]);
        assert_eq!(switched(&file, "a", true), None, "it is on");
        let off = switched(&file, "a", false).expect("an edit");
        assert_eq!((&off["task"], &off["enabled"]), (&json!("t"), &json!(false)));
        let placeholder = switched(&file, "b", false).expect("an edit");
        assert_eq!(placeholder["task"], OFF);
        let text = Value::Object(placeholder).to_string();
        let off = known(&[("b", &text)], &[("b", r#"{"at": 1, "count": 0}"#)]);
        assert_eq!((&off.shown("b")["enabled"], &off.shown("b")["task"]), (&json!(false), &Value::Null));
        assert_eq!(switched(&off, "b", true), None, "the file's entry counts again");
        let edited = known(&[("a", r#"{"task": "t", "schedule": 1, "enabled": false}"#)], &[]);
        assert_eq!(switched(&edited, "a", true).expect("an edit")["enabled"], true);
    }

    #[test]
    fn a_mistake_names_its_field() {
        for (entry, field) in [
            (json!({}), "entry.task"),
            (json!({"task": "t"}), "entry.schedule"),
            (json!({"task": "t", "schedule": 0}), "entry.schedule"),
            (json!({"task": "t", "schedule": "5m", "args": {}}), "entry.args"),
            (json!({"task": "t", "schedule": "5m", "enabled": 1}), "entry.enabled"),
            (json!({"task": "t", "schedule": "5m", "every": 1}), "`every`"),
        ] {
            let told = check(entry.as_object().expect("an object")).expect_err(field);
            assert!(told.contains(field), "{told}");
        }
        let sound = json!({"task": "t", "schedule": {"minute": "*/5"}, "kwargs": {}});
        assert_eq!(check(sound.as_object().expect("an object")), Ok(()));
    }
}
