//! One periodic task: what to send, and when. Read from the `beat_schedule` table of the configuration file.

use std::time::Duration;

use celery_broker::config::parse_duration;
use celery_protocol::{RawMap, Sig, Signature, SignatureOptions, TaskName, pyjson};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::crontab::{Crontab, Fields};
use super::schedule::Schedule;
use super::solar::{Solar, SolarError};

/// A periodic task.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name in the schedule; the state file knows it by this name.
    pub name: String,
    /// When it is due.
    pub schedule: Schedule,
    /// What is sent.
    pub signature: Signature,
    /// As it stands in the table that it was read from.
    written: Option<Value>,
}

impl Entry {
    /// A task that runs every so often.
    ///
    /// # Errors
    /// The call could not be built, or the interval is 0.
    pub fn every<O>(name: &str, every: Duration, call: Sig<O>) -> Result<Entry, EntryError> {
        let problem = |problem: String| EntryError { entry: name.to_owned(), problem };
        if every.is_zero() {
            return Err(problem("schedule: an interval of 0 would never end".to_owned()));
        }
        Entry::new(name, Schedule::Every(every), call)
    }

    /// A task that runs at the minutes of a crontab: minute, hour, day of month, month, day of week.
    ///
    /// # Errors
    /// The call could not be built, or the crontab cannot be read.
    pub fn crontab<O>(name: &str, columns: &str, call: Sig<O>) -> Result<Entry, EntryError> {
        match Crontab::from_columns(columns) {
            Ok(crontab) => Entry::new(name, Schedule::Crontab(Box::new(crontab)), call),
            Err(error) => Err(EntryError { entry: name.to_owned(), problem: format!("schedule: {error}") }),
        }
    }

    /// A task that runs with the sun: `event` is one of Celery's words, `sunrise` or `dusk_civil`; latitude and longitude are
    /// in degrees, north and east are positive.
    ///
    /// # Errors
    /// The call could not be built, or there is no such event or place.
    pub fn solar<O>(name: &str, event: &str, lat: f64, lon: f64, call: Sig<O>) -> Result<Entry, EntryError> {
        match event.parse().and_then(|event| Solar::new(event, lat, lon)) {
            Ok(solar) => Entry::new(name, Schedule::Solar(solar), call),
            Err(error) => Err(EntryError { entry: name.to_owned(), problem: format!("schedule: {error}") }),
        }
    }

    /// A task with any schedule.
    ///
    /// # Errors
    /// The call could not be built.
    pub fn new<O>(name: &str, schedule: Schedule, call: Sig<O>) -> Result<Entry, EntryError> {
        let signature = call
            .into_signature()
            .map_err(|error| EntryError { entry: name.to_owned(), problem: error.to_string() })?;
        Ok(Entry { name: name.to_owned(), schedule, signature, written: None })
    }

    /// As it was written, for those who look at the schedule; of one that code made, intervals are in seconds and other
    /// schedules are not told.
    pub(super) fn shown(&self) -> Value {
        if let Some(written) = &self.written {
            return written.clone();
        }
        let mut shown = self.written();
        shown["schedule"] = match &self.schedule {
            Schedule::Every(every) | Schedule::Rounded(every) => every.as_secs_f64().into(),
            _ => Value::Null,
        };
        shown
    }

    /// Its call, as [`read`] reads it; of the schedule only that there is one.
    pub(super) fn written(&self) -> Value {
        let Signature { task, args, kwargs, options, .. } = &self.signature;
        let value = |raw: &str| serde_json::from_str::<Value>(raw).unwrap_or_default();
        json!({
            "task": task.as_str(),
            "schedule": 1,
            "args": value(args.to_raw().get()),
            "kwargs": value(kwargs.to_raw().get()),
            "options": value(options.as_map().to_raw().get()),
        })
    }
}

/// Why an entry was refused, with its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("beat_schedule.{entry}: {problem}")]
pub struct EntryError {
    entry: String,
    problem: String,
}

/// An entry as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    task: String,
    schedule: Value,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    kwargs: Map<String, Value>,
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(default)]
    relative: bool,
    #[serde(default = "yes")]
    enabled: bool,
}

/// An event of the sun.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSolar {
    solar: String,
    lat: f64,
    lon: f64,
}

/// A crontab in keyword form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCrontab {
    minute: Option<Value>,
    hour: Option<Value>,
    day_of_week: Option<Value>,
    day_of_month: Option<Value>,
    month_of_year: Option<Value>,
}

fn yes() -> bool {
    true
}

/// Reads the table of all entries; one with `enabled = false` is left out.
///
/// # Errors
/// The first entry that cannot be used, and why.
pub fn read(schedule: &Map<String, Value>) -> Result<Vec<Entry>, EntryError> {
    let mut entries = Vec::with_capacity(schedule.len());
    for (name, as_written) in schedule {
        let error = |problem: String| EntryError { entry: name.clone(), problem };
        let written: Written =
            serde_json::from_value(as_written.clone()).map_err(|err| error(err.to_string()))?;
        if written.enabled {
            let entry = entry(name, written).map_err(error)?;
            entries.push(Entry { written: Some(as_written.clone()), ..entry });
        }
    }
    Ok(entries)
}

/// Takes the table `beat_schedule` out of a configuration file: the rest of the file, and the entries.
///
/// # Errors
/// The file is no TOML, or an entry cannot be used.
pub fn take(file: &str) -> Result<(String, Vec<Entry>), String> {
    // Only where it went wrong: the lines of the file may hold secrets.
    let mut file: toml::Table = file.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let schedule = file.remove("beat_schedule").unwrap_or(toml::Value::Table(toml::Table::new()));
    let schedule: Map<String, Value> =
        schedule.try_into().map_err(|error| format!("beat_schedule is not a table of entries: {error}"))?;
    let entries = read(&schedule).map_err(|error| error.to_string())?;
    // The order of routes counts, and would be lost here.
    if let Some(routes) = file.get_mut("task_routes")
        && !routes.is_str()
    {
        *routes = toml::Value::String(celery_broker::config::routes::json(routes));
    }
    let rest = toml::to_string(&file).map_err(|error| error.to_string())?;
    Ok((rest, entries))
}

fn entry(name: &str, written: Written) -> Result<Entry, String> {
    let task = TaskName::parse(written.task).map_err(|err| err.to_string())?;
    let mut signature = Signature::new(task);
    for value in &written.args {
        signature.args.push(value).map_err(|err| err.to_string())?;
    }
    for (key, value) in &written.kwargs {
        signature.kwargs.insert(key, value).map_err(|err| err.to_string())?;
    }
    let options: RawMap =
        pyjson::from_str(&Value::Object(written.options).to_string()).map_err(|err| err.to_string())?;
    signature.options = SignatureOptions::from(options);
    let schedule = schedule(&written.schedule, written.relative)?;
    Ok(Entry { name: name.to_owned(), schedule, signature, written: None })
}

/// Seconds, `"30s"`, `"*/5 * * * *"`, `{ minute = "*/5", … }`, or `{ solar = "sunset", lat = …, lon = … }`.
fn schedule(written: &Value, relative: bool) -> Result<Schedule, String> {
    let every = |every: Duration| {
        if every.is_zero() {
            return Err("schedule: an interval of 0 would never end".to_owned());
        }
        Ok(if relative { Schedule::Rounded(every) } else { Schedule::Every(every) })
    };
    let crontab = |crontab: Result<Crontab, _>| match crontab {
        Ok(crontab) => Ok(Schedule::Crontab(Box::new(crontab))),
        Err(err) => Err(format!("schedule: {err}")),
    };
    match written {
        Value::Number(number) => {
            let seconds = number.as_f64().unwrap_or_default();
            every(Duration::try_from_secs_f64(seconds).map_err(|err| format!("schedule: {err}"))?)
        }
        Value::String(text) => match parse_duration(text) {
            Some(interval) => every(interval),
            None => crontab(Crontab::from_columns(text)),
        },
        Value::Object(table) if table.contains_key("solar") => {
            let problem = |err: String| format!("schedule: {err}");
            let written: WrittenSolar =
                serde_json::from_value(written.clone()).map_err(|err| problem(err.to_string()))?;
            let event = written.solar.parse().map_err(|err: SolarError| problem(err.to_string()))?;
            let solar = Solar::new(event, written.lat, written.lon);
            Ok(Schedule::Solar(solar.map_err(|err| problem(err.to_string()))?))
        }
        Value::Object(_) => {
            let written: WrittenCrontab =
                serde_json::from_value(written.clone()).map_err(|err| format!("schedule: {err}"))?;
            let text = |value: Option<Value>| match value {
                Some(Value::String(text)) => Some(text),
                other => other.map(|value| value.to_string()),
            };
            crontab(Crontab::from_fields(&Fields {
                minute: text(written.minute),
                hour: text(written.hour),
                day_of_week: text(written.day_of_week),
                day_of_month: text(written.day_of_month),
                month_of_year: text(written.month_of_year),
            }))
        }
        _ => {
            Err("schedule: expected seconds, a duration, a crontab line, a table of crontab fields, or `solar` with `lat` and `lon`"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: Value) -> Result<Entry, EntryError> {
        let table = Map::from_iter([("e".to_owned(), value)]);
        read(&table).map(|mut entries| entries.remove(0))
    }

    #[test]
    fn the_forms_of_a_schedule() {
        let schedule = |schedule: Value| one(json!({"task": "t", "schedule": schedule})).unwrap().schedule;
        assert_eq!(schedule(json!(10)), Schedule::Every(Duration::from_secs(10)));
        assert_eq!(schedule(json!(0.5)), Schedule::Every(Duration::from_millis(500)));
        assert_eq!(schedule(json!("2m")), Schedule::Every(Duration::from_secs(120)));
        let crontab = Schedule::Crontab(Box::new(Crontab::from_columns("*/5 3 * * *").unwrap()));
        assert_eq!(schedule(json!("*/5 3 * * *")), crontab);
        assert_eq!(schedule(json!({"minute": "*/5", "hour": 3})), crontab);
        let sunset = json!({"solar": "sunset", "lat": -37.8, "lon": 145});
        let event = super::super::solar::Event::Sunset;
        assert_eq!(schedule(sunset), Schedule::Solar(Solar::new(event, -37.8, 145.0).unwrap()));
        let aligned = one(json!({"task": "t", "schedule": 10, "relative": true})).unwrap().schedule;
        assert_eq!(aligned, Schedule::Rounded(Duration::from_secs(10)));
    }

    #[test]
    fn arguments_and_options_are_taken_over() {
        let entry = one(
            json!({"task": "t", "schedule": 1, "args": [1, "a"], "kwargs": {"k": null}, "options": {"queue": "q"}}),
        );
        let signature = entry.unwrap().signature;
        assert_eq!(signature.args.to_raw().get(), r#"[1, "a"]"#);
        assert_eq!(signature.kwargs.to_raw().get(), r#"{"k": null}"#);
        assert_eq!(signature.options.read::<String>("queue").unwrap().as_deref(), Some("q"));
    }

    #[test]
    fn mistakes_are_told_with_the_entry() {
        for (value, part) in [
            (json!({"schedule": 1}), "missing field `task`"),
            (json!({"task": "t"}), "missing field `schedule`"),
            (json!({"task": "t", "schedule": 0}), "would never end"),
            (json!({"task": "t", "schedule": "* * * *"}), "five columns"),
            (json!({"task": "t", "schedule": {"second": 1}}), "unknown field `second`"),
            (json!({"task": "t", "schedule": {"solar": "noon", "lat": 1, "lon": 2}}), "no event \"noon\""),
            (json!({"task": "t", "schedule": {"solar": "sunset", "lat": 1}}), "missing field `lon`"),
            (json!({"task": "t", "schedule": {"solar": "sunset", "lat": 91, "lon": 2}}), "no latitude"),
            (json!({"task": "t", "schedule": 1, "arg": []}), "unknown field `arg`"),
            (json!({"task": "", "schedule": 1}), "task name"),
        ] {
            let error = one(value).unwrap_err().to_string();
            assert!(error.starts_with("beat_schedule.e: ") && error.contains(part), "{error}");
        }
        assert_eq!(
            read(&Map::from_iter([("e".to_owned(), json!({"task": "t", "schedule": 1, "enabled": false}))])),
            Ok(vec![])
        );
    }
}
