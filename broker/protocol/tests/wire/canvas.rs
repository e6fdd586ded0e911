//! Workflows: what they look like as JSON, and every message that running them takes, against what Celery sent.
//!
//! The tasks of `capture.py` are run here by a few lines that stand for a worker: they compute the value and do with it
//! what a worker does, by the functions of this crate. All messages of the whole run must be Celery's, but for ids.

use std::collections::{BTreeMap, VecDeque};

use celery_protocol::{
    Body, Canvas, Headers, Limits, Message, NewCall, RawMap, ResultTuple, Signature, SignatureOptions,
    TaskId, WireTime,
    canvas::{Call, IdSource, Plan, Replacement, Step, plan},
    options::{SendOptions, TaskOptions, resolve},
    pyjson,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::golden::{self, Published};

#[derive(Deserialize)]
struct Signed {
    case: String,
    signature: String,
}

#[derive(Deserialize)]
struct Run {
    case: String,
    signature: String,
    result: String,
    messages: Vec<Published>,
}

#[test]
fn signatures_are_written_as_they_were() {
    for case in golden::read::<Vec<Signed>>("signatures") {
        let signature = Signature::from_json(&case.signature).unwrap();
        assert_eq!(signature.to_raw().get(), case.signature, "{}", case.case);
        let tree = Canvas::from_signature(signature).unwrap();
        assert_eq!(tree.to_signature().to_raw().get(), case.signature, "{}", case.case);
    }
}

#[test]
fn running_a_workflow_takes_celerys_messages() {
    let runs: Vec<Run> = golden::read("canvas");
    let mut differences = Vec::new();
    for run in &runs {
        let theirs: Vec<Message> = run
            .messages
            .iter()
            .map(|message| Message::decode(message.raw(), &Limits::DEFAULT).unwrap())
            .collect();
        let reply_to = theirs[0].properties.reply_to.clone();
        let ours = World::new(reply_to).run(Canvas::from_json(&run.signature).unwrap());
        let (ours, theirs) = (comparable(&ours), comparable(&theirs));
        if ours != theirs {
            differences.push(format!(
                "{}\n ours:\n{}\n Celery's:\n{}\n",
                run.case,
                ours.join("\n"),
                theirs.join("\n")
            ));
        }
    }
    assert!(runs.len() > 30);
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn the_ids_form_celerys_tree() {
    let mut differences = Vec::new();
    for run in golden::read::<Vec<Run>>("canvas") {
        let result = World::new(None)
            .ids(|ids| plan(Canvas::from_json(&run.signature).unwrap(), Call::default(), ids));
        let ours = pyjson::to_string(&result.unwrap().result).unwrap();
        // a tree that is read is written as it was
        let theirs = ResultTuple::from_json(&run.result).unwrap();
        assert_eq!(pyjson::to_string(&theirs).unwrap(), run.result, "{}", run.case);
        let (ours, theirs) = (shape(&ours), shape(&run.result));
        if ours != theirs {
            differences.push(format!("{}\n ours     {ours}\n Celery's {theirs}", run.case));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// The text with its ids numbered.
fn shape(text: &str) -> String {
    number_ids(text, &mut BTreeMap::new(), false)
}

/// What must be equal of the messages of a run: sorted, ids replaced by numbers in order of appearance.
fn comparable(messages: &[Message]) -> Vec<String> {
    // whose call completes a chord is a race, and with it whose child its body is
    let race = messages.iter().any(|message| message.body(&Limits::DEFAULT).unwrap().embed.chord.is_some());
    let mut lines: Vec<String> = messages.iter().map(|message| line(message, race)).collect();
    lines.sort_by_key(|line| number_ids(line, &mut BTreeMap::new(), true));
    let mut ids = BTreeMap::new();
    lines.iter().map(|line| number_ids(line, &mut ids, false)).collect()
}

/// The text with all queues for results the same: a worker's is not its client's.
fn one_reply_queue(text: &str) -> String {
    let mut parts = text.split("\"reply_to\": \"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| out + "\"reply_to\": \"" + &part[36..])
}

fn line(message: &Message, race: bool) -> String {
    let headers = &message.headers;
    let mut stamps = headers.stamped_headers.clone().unwrap_or_default();
    stamps.sort();
    format!(
        "{} {} body={} id={} group={:?} index={:?} root={:?} parent={:?} eta={} nesting={} stamps={:?}{:?} priority={:?} extra={:?} reply={:?}",
        headers.task,
        headers.argsrepr.as_deref().unwrap_or_default().replace(['(', ')', '[', ']', ','], ""),
        one_reply_queue(std::str::from_utf8(&message.body).unwrap()),
        headers.id,
        headers.group,
        headers.group_index,
        headers.root_id.as_ref().filter(|_| !race),
        headers.parent_id.as_ref().filter(|_| !race),
        headers.eta.is_some(),
        headers.replaced_task_nesting,
        stamps,
        headers.stamps,
        message.properties.priority.filter(|priority| *priority > 0),
        headers.extra,
        message.properties.reply_to.is_some(),
    )
}

/// Replaces each UUID by a number, or all by the same.
fn number_ids(text: &str, ids: &mut BTreeMap<String, usize>, blank: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(candidate) = rest.get(..36).or(if rest.len() < 36 { None } else { Some("") }) {
        let id = candidate.len() == 36
            && candidate.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if id {
            let next = ids.len();
            let number = *ids.entry(candidate.to_owned()).or_insert(next);
            out.push_str(&if blank { "<id>".to_owned() } else { format!("<{number}>") });
            rest = &rest[36..];
        } else {
            let char = rest.chars().next().unwrap();
            out.push(char);
            rest = &rest[char.len_utf8()..];
        }
    }
    out + rest
}

/// A broker, a result store and a worker, in memory.
struct World {
    reply_to: Option<String>,
    ids: u128,
    waiting: VecDeque<Message>,
    sent: Vec<Message>,
    /// Size, and results by index, of each chord.
    chords: BTreeMap<String, (Option<usize>, BTreeMap<u32, Value>)>,
}

impl World {
    fn new(reply_to: Option<String>) -> Self {
        Self { reply_to, ids: 0, waiting: VecDeque::new(), sent: Vec::new(), chords: BTreeMap::new() }
    }

    fn run(mut self, canvas: Canvas) -> Vec<Message> {
        self.send(canvas, Call::default(), None);
        while let Some(message) = self.waiting.pop_front() {
            self.work(&message);
            assert!(self.sent.len() < 100, "it never ends");
        }
        self.sent
    }

    fn ids<T>(&mut self, with: impl FnOnce(&mut IdSource<'_>) -> T) -> T {
        let mut next = || {
            self.ids += 1;
            TaskId::from(uuid::Uuid::from_u128(self.ids))
        };
        with(&mut IdSource::new(&mut next).reply_to(self.reply_to.clone()))
    }

    fn send(&mut self, canvas: Canvas, call: Call, parent: Option<&Headers>) {
        let Plan { steps, .. } = self.ids(|ids| plan(canvas, call, ids)).unwrap();
        for step in steps {
            match step {
                Step::ChordSize { group, size } => {
                    self.chords.entry(group.to_string()).or_default().0 = Some(size);
                }
                Step::SaveGroup { .. } => {}
                Step::Publish(signature) => self.publish(signature, parent),
            }
        }
    }

    fn publish(&mut self, signature: Signature, parent: Option<&Headers>) {
        let mut options = SendOptions::from_signature(&signature.options).unwrap();
        if let Some(parent) = parent {
            options.parent_id.get_or_insert_with(|| parent.id.clone());
            options.root_id.get_or_insert_with(|| parent.root().clone());
        }
        // a client's own call of one task says so too
        options.reply_to = options.reply_to.or_else(|| self.reply_to.clone());
        let now = WireTime::from_unix_micros(0).unwrap();
        let call = NewCall {
            task: signature.task,
            id: options.task_id.clone().unwrap(),
            args: signature.args,
            kwargs: signature.kwargs,
            options: resolve(
                SendOptions::default(),
                options,
                &TaskOptions::DEFAULT,
                &TaskOptions::DEFAULT,
                now,
            ),
            origin: String::new(),
        };
        let message = call.into_message().unwrap();
        self.sent.push(message.clone());
        self.waiting.push_back(message);
    }

    fn work(&mut self, message: &Message) {
        let body = message.body(&Limits::DEFAULT).unwrap();
        let headers = &message.headers;
        let args: Vec<Value> = body.args.iter().map(|arg| serde_json::from_str(arg.get()).unwrap()).collect();
        if let Some(replacement) = replacement(headers.task.as_str(), &args) {
            let current = Replacement { headers, embed: &body.embed };
            let canvas = self.ids(|ids| current.of(replacement, ids)).unwrap();
            return self.send(canvas, Call::default(), Some(headers));
        }
        let result = value(headers.task.as_str(), &args, &body);
        self.follow_up(headers, &body, &result);
    }

    fn follow_up(&mut self, headers: &Headers, body: &Body, result: &Value) {
        let embed = &body.embed;
        let raw = pyjson::to_raw(result).unwrap();
        let call = |options: &[(&str, Box<RawValue>)]| {
            let mut map: RawMap =
                options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            map.insert("parent_id", &headers.id).unwrap();
            map.insert("root_id", headers.root()).unwrap();
            map.insert("priority", &()).unwrap();
            Call { args: vec![raw.clone()], kwargs: RawMap::new(), options: SignatureOptions::from(map) }
        };
        for callback in embed.callbacks.iter() {
            self.send(Canvas::from_signature(callback.clone()).unwrap(), call(&[]), Some(headers));
        }
        let mut chain = embed.chain.clone();
        if let Some(next) = chain.pop() {
            let rest = pyjson::to_raw(&*chain).unwrap();
            self.send(Canvas::from_signature(next).unwrap(), call(&[("chain", rest)]), Some(headers));
        }
        if let Some(chord) = &embed.chord {
            let entry = self.chords.entry(headers.group.as_ref().unwrap().to_string()).or_default();
            entry.1.insert(headers.group_index.unwrap(), result.clone());
            if entry.0 == Some(entry.1.len()) {
                let results: Vec<&Value> = entry.1.values().collect();
                let call = Call { args: vec![pyjson::to_raw(&results).unwrap()], ..Call::default() };
                self.send(Canvas::from_signature((**chord).clone()).unwrap(), call, Some(headers));
            }
        }
    }
}

/// What the tasks of `capture.py` return.
fn value(task: &str, args: &[Value], body: &Body) -> Value {
    let number = |index: usize| args.get(index).and_then(Value::as_i64).unwrap_or(0);
    match task {
        "golden.add" => json!(number(0) + number(1) + number(2)),
        "golden.identity" => args[0].clone(),
        "golden.total" => json!(total(&args[0])),
        "celery.accumulate" => args[0].clone(),
        "celery.map" | "celery.starmap" | "golden.echo" => {
            assert!(task == "golden.echo" || body.kwargs.contains("it"));
            Value::Null
        }
        other => panic!("{other} is not run here"),
    }
}

fn total(value: &Value) -> i64 {
    match value {
        Value::Array(items) => items.iter().map(total).sum(),
        other => other.as_i64().unwrap(),
    }
}

/// What the tasks of `capture.py` replace themselves with.
fn replacement(task: &str, args: &[Value]) -> Option<Canvas> {
    let add = |args: Value| json!({"task": "golden.add", "args": args});
    let tree = match task {
        "golden.replace" => add(json!([args[0], 100])),
        "golden.replace_group" => json!({
            "task": "celery.group", "subtask_type": "group",
            "kwargs": {"tasks": [add(json!([args[0], 1])), add(json!([args[0], 2]))]}}),
        "golden.replace_chain" => json!({
            "task": "celery.chain", "subtask_type": "chain",
            "kwargs": {"tasks": [add(json!([args[0], 1])), add(json!([2]))]}}),
        _ => return None,
    };
    Some(Canvas::from_json(&tree.to_string()).unwrap())
}
