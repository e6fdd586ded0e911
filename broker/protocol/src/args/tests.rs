//! Calls as Python would make them, and what Python would answer.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
struct Add {
    x: i64,
    y: i64,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Range {
    start: i64,
    stop: i64,
    #[serde(default = "one")]
    step: i64,
    label: Option<String>,
}

fn one() -> i64 {
    1
}

#[derive(Debug, PartialEq, Deserialize)]
struct Variadic {
    first: i64,
    #[serde(rename = "*rest")]
    rest: Vec<i64>,
    #[serde(default)]
    flag: bool,
    #[serde(rename = "**more")]
    more: std::collections::BTreeMap<String, Value>,
}

/// Binds a call written as JSON: positional arguments and keywords.
fn call<T: DeserializeOwned>(args: &str, kwargs: &str) -> Result<T, String> {
    let args: Vec<Box<RawValue>> = serde_json::from_str(args).unwrap();
    let kwargs: serde_json::Map<String, Value> = serde_json::from_str(kwargs).unwrap();
    let kwargs: Vec<_> =
        kwargs.into_iter().map(|(k, v)| (k, serde_json::value::to_raw_value(&v).unwrap())).collect();
    bind("proj.add", &args, &kwargs).map_err(|error| error.to_string())
}

#[test]
fn positional_and_keyword_arguments_mix() {
    let want = Ok(Add { x: 2, y: 3 });
    assert_eq!(call("[2, 3]", "{}"), want);
    assert_eq!(call("[2]", r#"{"y": 3}"#), want);
    assert_eq!(call("[]", r#"{"y": 3, "x": 2}"#), want);
}

#[test]
fn defaults_and_options_may_be_left_out() {
    assert_eq!(call("[1, 5]", "{}"), Ok(Range { start: 1, stop: 5, step: 1, label: None }));
    let full = Range { start: 1, stop: 5, step: 2, label: Some("a".into()) };
    assert_eq!(call("[1, 5, 2]", r#"{"label": "a"}"#), Ok(full));
}

#[test]
fn misfits_are_told_in_pythons_words() {
    let cases = [
        ("[2]", "{}", "add() missing 1 required positional argument: 'y'"),
        ("[2, 3, 4]", "{}", "add() takes 2 positional arguments but 3 were given"),
        ("[2, 3]", r#"{"z": 1}"#, "add() got an unexpected keyword argument 'z'"),
        ("[2, 3]", r#"{"x": 1}"#, "add() got multiple values for argument 'x'"),
        ("[2]", r#"{"y": "three"}"#, "add() argument 'y': invalid type: string \"three\", expected i64"),
        ("[2, 3.5]", "{}", "add() argument 'y': invalid type: floating point `3.5`, expected i64"),
    ];
    for (args, kwargs, want) in cases {
        assert_eq!(call::<Add>(args, kwargs), Err(want.to_owned()), "{args} {kwargs}");
    }
}

#[test]
fn a_task_without_parameters_takes_nothing() {
    assert_eq!(call::<()>("[]", "{}"), Ok(()));
    assert_eq!(call::<()>("[1]", "{}"), Err("add() takes 0 positional arguments but 1 was given".into()));
    assert_eq!(call::<()>("[]", r#"{"a": 1}"#), Err("add() got an unexpected keyword argument 'a'".into()));
}

#[test]
fn stars_take_what_is_left() {
    let got: Variadic = call("[1, 2, 3]", r#"{"flag": true, "a": [1]}"#).unwrap();
    assert_eq!((got.first, got.rest, got.flag), (1, vec![2, 3], true));
    assert_eq!(got.more["a"], serde_json::json!([1]));
    let none: Variadic = call("[1]", "{}").unwrap();
    assert_eq!((none.rest.len(), none.more.len()), (0, 0));
}

#[test]
fn tuples_are_positional_and_maps_are_keywords() {
    assert_eq!(call::<(i64, String)>(r#"[1, "a"]"#, "{}"), Ok((1, "a".into())));
    assert_eq!(call::<Vec<i64>>("[1, 2]", "{}"), Ok(vec![1, 2]));
    assert_eq!(call::<(i64, i64)>("[1]", "{}"), Err("add() missing 1 required positional argument".into()));
    let map: std::collections::BTreeMap<String, i64> = call("[]", r#"{"a": 1}"#).unwrap();
    assert_eq!(map["a"], 1);
}

#[test]
fn wide_integers_are_kept_or_refused_but_never_turned_into_floats() {
    #[derive(Debug, Deserialize)]
    struct Raw {
        x: Box<RawValue>,
    }
    #[derive(Debug, Deserialize)]
    struct Loose {
        #[expect(dead_code, reason = "only its type matters")]
        x: Value,
    }
    #[derive(Debug, Deserialize)]
    struct Nested {
        x: Vec<std::collections::BTreeMap<String, u128>>,
    }
    let wide = "[10000000000000000000000000000000000000000]";
    assert_eq!(call::<Raw>(wide, "{}").unwrap().x.get(), &wide[1..wide.len() - 1]);
    let refused = call::<Loose>(wide, "{}").unwrap_err();
    assert!(refused.contains("beyond 64 bits"), "{refused}");
    assert!(call::<Loose>(r#"[{"a": [1, 18446744073709551616]}]"#, "{}").is_err());
    assert!(call::<Loose>(r#"[{"a": ["18446744073709551616", 18446744073709551615, 1e40]}]"#, "{}").is_ok());
    let nested = call::<Nested>(r#"[[{"a": 18446744073709551616}]]"#, "{}").unwrap();
    assert_eq!(nested.x[0]["a"], 18_446_744_073_709_551_616);
    assert!(call::<Add>("[18446744073709551616, 1]", "{}").is_err());
}

#[test]
fn deep_values_bind_without_a_recursion_error() {
    let deep = format!("[{}1{}, 2]", "[".repeat(400), "]".repeat(400));
    let mut parser = serde_json::Deserializer::from_str(&deep);
    parser.disable_recursion_limit();
    let args: Vec<Box<RawValue>> = Deserialize::deserialize(&mut parser).unwrap();
    assert!(bind::<(Value, i64)>("add", &args, &[]).is_ok());
}
