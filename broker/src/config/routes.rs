//! The setting `task_routes` as it is written: Celery's forms in JSON or TOML, and a short one.
//!
//! A router is a table of patterns and routes, or a list of pairs of them; the setting is one router or a list. The short
//! form, `mail.*=mail,shop.report=reports`, is for environments and command lines.

use std::fmt;

use celery_protocol::QueueName;
use celery_protocol::content::Compression;
use celery_protocol::options::Serializer;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::route::{Router, Target};

/// Routes by pattern, in their order.
pub type Routes = Vec<(String, Target)>;

/// What a route may say.
const OPTIONS: &str =
    "queue, exchange, exchange_type, routing_key, priority, serializer, compression and delivery_mode";

/// Reads the setting: its routers, the first of which is asked first.
///
/// # Errors
/// What is wrong, with the pattern where it is.
pub fn parse(text: &str) -> Result<Vec<Routes>, String> {
    let text = text.trim();
    let routers = match text.starts_with(['{', '[']) {
        false => vec![short(text)?],
        true => match serde_json::from_str(text).map_err(|err| format!("no JSON: {err}"))? {
            Node::List(items) => list(items)?,
            node => vec![router(node)?],
        },
    };
    // Expressions are tried out, so that they fail here.
    if let Ok(queue) = QueueName::parse("celery") {
        let mut tried = Router::new(queue);
        for routes in &routers {
            tried.add_map(routes.clone()).map_err(|err| err.to_string())?;
        }
    }
    Ok(routers)
}

/// A table of a TOML file as the JSON that [`parse`] reads, in its order. A file that is written anew must hold this: TOML
/// itself puts values before tables.
pub fn json(value: &toml::Value) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    match value {
        toml::Value::Table(table) => {
            let fields: Vec<_> =
                table.iter().map(|(key, value)| format!("{}: {}", quoted(key), json(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        toml::Value::Array(items) => {
            format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", "))
        }
        toml::Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// JSON that keeps the order of its tables: patterns are tried in theirs.
#[derive(Debug, Clone)]
enum Node {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Plain(Value),
}

fn short(text: &str) -> Result<Routes, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| match item.split_once('=') {
        Some((pattern, queue)) => {
            let pattern = pattern.trim();
            Ok((pattern.to_owned(), queue_of(pattern, queue.trim())?.into()))
        }
        None => Err(format!("`{item}` is not of the form pattern=queue")),
    };
    items.map(pair).collect()
}

/// Routers; pairs that stand in the list itself are one.
fn list(items: Vec<Node>) -> Result<Vec<Routes>, String> {
    let mut routers = Vec::new();
    let mut pairs = Routes::new();
    for item in items {
        match &item {
            Node::List(parts) if matches!(parts.first(), Some(Node::Plain(_))) => pairs.push(pair(item)?),
            _ => {
                if !pairs.is_empty() {
                    routers.push(std::mem::take(&mut pairs));
                }
                routers.push(router(item)?);
            }
        }
    }
    if !pairs.is_empty() {
        routers.push(pairs);
    }
    Ok(routers)
}

fn router(node: Node) -> Result<Routes, String> {
    match node {
        Node::Map(entries) => entries
            .into_iter()
            .map(|(pattern, route)| {
                let target = target(&pattern, route)?;
                Ok((pattern, target))
            })
            .collect(),
        Node::List(items) => items.into_iter().map(pair).collect(),
        Node::Plain(other) => Err(format!("{other} is neither a table of routes nor a list of pairs")),
    }
}

fn pair(node: Node) -> Result<(String, Target), String> {
    if let Node::List(parts) = node
        && let Ok([Node::Plain(Value::String(pattern)), route]) = <[Node; 2]>::try_from(parts)
    {
        let target = target(&pattern, route)?;
        return Ok((pattern, target));
    }
    Err("an item of a list is neither a table nor a pair of a pattern and a route".to_owned())
}

fn target(pattern: &str, route: Node) -> Result<Target, String> {
    let fields = match route {
        Node::Plain(Value::String(queue)) => return Ok(queue_of(pattern, &queue)?.into()),
        Node::Map(fields) => fields,
        _ => return Err(format!("`{pattern}`: a route is the name of a queue, or a table of {OPTIONS}")),
    };
    let mut target = Target::default();
    for (name, value) in fields {
        let Node::Plain(value) = value else {
            return Err(format!("`{pattern}`: {name} is no single value"));
        };
        if value.is_null() {
            continue;
        }
        let wrong = |expected: &str| format!("`{pattern}`: {name} is {value}, not {expected}");
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a text"));
        let small = |range: std::ops::RangeInclusive<u8>, expected: &str| {
            let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
            number.filter(|number| range.contains(number)).ok_or_else(|| wrong(expected))
        };
        match name.as_str() {
            "queue" => target.queue = Some(queue_of(pattern, &text()?)?),
            "exchange" => target.exchange = Some(text()?),
            "exchange_type" => target.exchange_type = Some(text()?),
            "routing_key" => target.routing_key = Some(text()?),
            "priority" => target.priority = Some(small(0..=255, "a number from 0 to 255")?),
            "delivery_mode" => target.delivery_mode = Some(small(1..=2, "1 (transient) or 2 (persistent)")?),
            "serializer" => {
                let found = Serializer::parse(&text()?);
                target.serializer = Some(found.ok_or_else(|| wrong("json, msgpack or yaml"))?);
            }
            "compression" => {
                let found = Compression::parse(&text()?);
                target.compression = Some(found.ok_or_else(|| wrong("gzip, bzip2, lzma, brotli or zstd"))?);
            }
            _ => return Err(format!("`{pattern}`: a route has no option {name}; there are {OPTIONS}")),
        }
    }
    Ok(target)
}

fn queue_of(pattern: &str, name: &str) -> Result<QueueName, String> {
    QueueName::parse(name).map_err(|err| format!("`{pattern}`: {err}"))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Plain(text.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Plain(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Plain(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
                Ok(Node::Plain(number.into()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Plain(Value::Null))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(text: &str) -> Vec<Vec<String>> {
        let routers = parse(text).unwrap();
        routers.into_iter().map(|routes| routes.into_iter().map(|(pattern, _)| pattern).collect()).collect()
    }

    #[test]
    fn all_forms_keep_their_order() {
        assert_eq!(patterns(r#"{"z.*": "a", "a.*": "b"}"#), [["z.*", "a.*"]]);
        assert_eq!(
            patterns(r#"[{"z": "a"}, [["b", "c"], ["a", {"queue": "q"}]]]"#),
            [vec!["z"], vec!["b", "a"]]
        );
        assert_eq!(patterns(r#"[["b", "c"], ["a", "d"], {"e": "f"}]"#), [vec!["b", "a"], vec!["e"]]);
        assert_eq!(patterns("z.*=a, a.*=b,"), [["z.*", "a.*"]]);
        let file: toml::Table = "\"z.*\" = 'a'\n'^a\\d' = { queue = 'b', priority = 3 }".parse().unwrap();
        let text = json(&toml::Value::Table(file));
        assert_eq!(text, r#"{"z.*": "a", "^a\\d": {"queue": "b", "priority": 3}}"#);
        assert_eq!(parse(&text).unwrap()[0][1].1.priority, Some(3));
    }

    #[test]
    fn mistakes_name_the_pattern_and_the_remedy() {
        for (text, part) in [
            ("mail", "`mail` is not of the form pattern=queue"),
            ("{", "no JSON"),
            ("[1]", "neither a table of routes"),
            (r#"[["a"]]"#, "neither a table nor a pair"),
            (r#"{"m": 1}"#, "`m`: a route is the name of a queue"),
            (r#"{"m": {"queu": "q"}}"#, "`m`: a route has no option queu; there are queue, exchange"),
            (r#"{"m": {"queue": ""}}"#, "`m`: "),
            (r#"{"m": {"priority": 300}}"#, "`m`: priority is 300, not a number from 0 to 255"),
            (r#"{"m": {"serializer": "pickle"}}"#, "not json, msgpack or yaml"),
            (r#"{"m": {"delivery_mode": 3}}"#, "not 1 (transient)"),
            (r#"{"^(": "q"}"#, "`^(` is no regular expression"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
