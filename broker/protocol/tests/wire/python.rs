//! What Python itself reads and prints, against what is read and printed here.

use celery_protocol::{RawArgs, RawMap, WireTime, args::bind, pyjson, repr};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::golden;

#[derive(Deserialize)]
struct Tables {
    isoparse: Vec<(String, Option<String>)>,
    argsrepr: Vec<(String, String)>,
    resultrepr: Vec<(String, String)>,
    floats: Vec<(String, String)>,
    type_errors: Vec<(String, Value, Value, String)>,
}

/// Texts that dateutil reads by accident, as half a field or a time without its end, and that are refused here.
const DELIBERATE: [&str; 1] = ["2026-01-02T03:04:0"];

fn tables() -> Tables {
    golden::read("python")
}

#[test]
fn times_are_read_as_celery_reads_them() {
    let mut differences = Vec::new();
    for (text, expected) in tables().isoparse {
        let ours = WireTime::parse(&text).ok().map(|time| time.in_utc().isoformat());
        if ours != expected && !DELIBERATE.contains(&text.as_str()) {
            differences.push((text, ours, expected));
        }
    }
    assert!(differences.is_empty(), "text, ours, Celery's: {differences:#?}");
}

#[test]
fn arguments_are_printed_as_celery_prints_them() {
    let tables = tables();
    for (json, expected) in tables.argsrepr {
        let args: RawArgs = pyjson::from_str(&json).unwrap();
        assert_eq!(repr::argsrepr(args.as_slice()), expected, "{json}");
    }
    for (json, expected) in tables.resultrepr {
        assert_eq!(repr::repr(&json, 1024), expected, "{json}");
    }
}

#[test]
fn floats_are_written_as_python_writes_them() {
    for (hex, expected) in tables().floats {
        let value: f64 = expected.parse().unwrap();
        assert_eq!(pyjson::to_string(&value).unwrap(), expected, "{hex}");
    }
}

macro_rules! parameters {
    ($($name:ident { $($(#[$meta:meta])* $field:ident),* })*) => {
        $(
            #[expect(non_camel_case_types, dead_code, reason = "named as the Python functions are, and never read")]
            #[derive(Debug, Deserialize)]
            struct $name {
                $($(#[$meta])* $field: Value,)*
            }
        )*
    };
}

#[expect(non_camel_case_types, reason = "named as the Python function is")]
#[derive(Debug, Deserialize)]
struct none {}

parameters! {
    two { x, y }
    defaults { x, #[serde(default)] y, #[serde(default)] z }
    star { x, #[serde(rename = "*rest")] rest }
    keywords { x, #[serde(rename = "**rest")] rest }
    three { x, y, z }
}

#[test]
fn misfits_are_told_in_pythons_words() {
    let mut checked = 0;
    for (name, args, kwargs, expected) in tables().type_errors {
        let args: RawArgs = pyjson::from_str(&args.to_string()).unwrap();
        let kwargs: RawMap = pyjson::from_str(&kwargs.to_string()).unwrap();
        let (args, kwargs): (&[Box<RawValue>], _) = (args.as_slice(), kwargs.as_slice());
        let problem = match name.as_str() {
            "two" => bind::<two>(&name, args, kwargs).unwrap_err(),
            "defaults" => bind::<defaults>(&name, args, kwargs).unwrap_err(),
            "none" => bind::<none>(&name, args, kwargs).unwrap_err(),
            "star" => bind::<star>(&name, args, kwargs).unwrap_err(),
            "keywords" => bind::<keywords>(&name, args, kwargs).unwrap_err(),
            "three" => bind::<three>(&name, args, kwargs).unwrap_err(),
            // a bare `*` has no form among a struct's fields
            _ => continue,
        };
        assert_eq!(problem.to_string(), expected, "{args:?} {kwargs:?}");
        checked += 1;
    }
    assert!(checked > 15);
}
