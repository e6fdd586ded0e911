//! Properties of what is made up: whatever is written is read back, and a workflow frozen and planned keeps its promises.

use std::{collections::BTreeSet, time::Duration};

use celery_protocol::{
    Canvas, Headers, Limits, Message, RawMap, Signature, TaskId, TaskName, WireTime,
    canvas::{Call, ChainNode, ChordNode, Freeze, GroupNode, IdSource, Plan, Step, plan},
    message::TimeLimits,
    pyjson,
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;

fn id() -> impl Strategy<Value = TaskId> {
    "[A-Za-z0-9._~:@+-]{1,40}".prop_map(|text| TaskId::parse(text).unwrap())
}

fn moment() -> impl Strategy<Value = WireTime> {
    any::<u32>().prop_map(|seconds| WireTime::from_unix_micros(i64::from(seconds) * 1_000_003).unwrap())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn headers()(
        (task, id, root_id, parent_id) in ("\\PC{1,40}", id(), option::of(id()), option::of(id())),
        (eta, expires) in (option::of(moment()), option::of(moment())),
        (group, group_index, retries, nesting) in (option::of(id()), option::of(any::<u32>()), any::<u32>(), any::<u32>()),
        (hard, soft) in (option::of(1_u32..1_000_000), option::of(1_u32..1_000_000)),
        (shadow, argsrepr, origin) in (option::of("\\PC{0,40}"), option::of("\\PC{0,200}"), option::of("\\PC{0,40}")),
        ignore_result in option::of(any::<bool>()),
        stamps in proptest::collection::btree_map("s[a-z]{0,6}", json(), 0..3),
        extra in proptest::collection::btree_map("x-[a-z]{1,6}", json(), 0..3),
    ) -> Headers {
        let time_limits = TimeLimits {
            hard: hard.map(|seconds| Duration::from_secs(seconds.into())),
            soft: soft.map(|millis| Duration::from_millis(millis.into())),
        };
        let mut headers = Headers::new(TaskName::parse(task).unwrap(), id);
        headers.root_id = root_id;
        headers.parent_id = parent_id;
        headers.eta = eta;
        headers.expires = expires;
        headers.group = group.map(Into::into);
        headers.group_index = group_index;
        headers.retries = retries;
        headers.replaced_task_nesting = nesting;
        headers.time_limits = time_limits;
        headers.shadow = shadow;
        headers.argsrepr = argsrepr;
        headers.origin = origin;
        headers.ignore_result = ignore_result;
        headers.stamped_headers = Some(stamps.keys().cloned().collect());
        headers.stamps = stamps.into_iter().collect();
        headers.extra = extra.into_iter().collect();
        headers
    }
}

prop_compose! {
    fn signature()(
        task in "[a-z.]{1,20}",
        args in vec(json(), 0..4),
        kwargs in proptest::collection::btree_map("[a-z]{1,6}", json(), 0..3),
        options in proptest::collection::btree_map("[a-z_]{1,10}x", json(), 0..3),
        immutable in any::<bool>(),
    ) -> Signature {
        let mut signature = Signature::new(TaskName::parse(task).unwrap());
        for arg in &args {
            signature.args.push(arg).unwrap();
        }
        for (name, value) in &kwargs {
            signature.kwargs.insert(name, value).unwrap();
        }
        for (name, value) in &options {
            signature.options.set(name, value);
        }
        signature.immutable = immutable;
        signature
    }
}

fn canvas() -> impl Strategy<Value = Canvas> {
    let leaf = signature().prop_map(Canvas::Task);
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(|steps| ChainNode::of(steps).into()),
            vec(inner.clone(), 0..4).prop_map(|members| GroupNode::of(members).into()),
            (vec(inner.clone(), 0..4), inner).prop_map(|(header, body)| ChordNode::of(
                GroupNode::of(header).into(),
                body
            )
            .into()),
        ]
    })
}

/// Runs `with` on ids that count up.
fn ids<T>(with: impl FnOnce(&mut IdSource<'_>) -> T) -> T {
    let mut count = 0;
    let mut next = || {
        count += 1;
        TaskId::parse(format!("id-{count}")).unwrap()
    };
    with(&mut IdSource::new(&mut next))
}

/// The ids of all calls in a tree.
fn task_ids(canvas: &Canvas, found: &mut Vec<TaskId>) {
    match canvas {
        Canvas::Task(signature) => found.extend(signature.options.task_id().unwrap()),
        Canvas::Chain(chain) => chain.steps.iter().for_each(|step| task_ids(step, found)),
        Canvas::Group(group) => group.members.iter().for_each(|member| task_ids(member, found)),
        Canvas::Chord(chord) => {
            chord.header.iter().chain(chord.body.as_deref()).for_each(|part| task_ids(part, found));
        }
    }
}

fn calls(canvas: &Canvas) -> usize {
    match canvas {
        Canvas::Task(_) => 1,
        Canvas::Chain(chain) => chain.steps.iter().map(calls).sum(),
        Canvas::Group(group) => group.members.iter().map(calls).sum(),
        Canvas::Chord(chord) => chord.header.iter().chain(chord.body.as_deref()).map(calls).sum(),
    }
}

proptest! {
    #[test]
    fn headers_round_trip(headers in headers()) {
        let map = headers.to_map();
        prop_assert!(Headers::NAMES.iter().filter(|name| **name != "compression").all(|name| map.contains_key(*name)));
        let mut expected = headers;
        expected.lang = "rust".into();
        prop_assert_eq!(Headers::from_map(map).unwrap(), expected);
    }

    #[test]
    fn signatures_round_trip(signature in signature()) {
        let text = signature.to_raw();
        let read = Signature::from_json(text.get()).unwrap();
        prop_assert_eq!(read.to_raw().get().to_owned(), text.get());
        prop_assert_eq!(read, signature);
    }

    #[test]
    fn trees_round_trip(canvas in canvas()) {
        let signature = canvas.to_signature();
        prop_assert_eq!(Canvas::from_json(signature.to_raw().get()).unwrap().to_signature(), signature.clone());
        let through_serde: Signature = serde_json::from_str(&serde_json::to_string(&signature).unwrap()).unwrap();
        prop_assert_eq!(through_serde.task, signature.task);
    }

    #[test]
    fn freezing_gives_every_call_one_id_and_freezing_again_changes_nothing(canvas in canvas()) {
        let mut frozen = canvas.clone();
        let outcome = ids(|ids| frozen.freeze(Freeze::default(), ids));
        prop_assume!(outcome.is_ok());
        let mut found = Vec::new();
        task_ids(&frozen, &mut found);
        prop_assert_eq!(found.len(), calls(&frozen));
        prop_assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "an id was given twice");
        prop_assert_eq!(calls(&frozen), calls(&canvas), "a call was lost or made up");
        let mut again = frozen.clone();
        let result = ids(|ids| again.freeze(Freeze::default(), ids)).unwrap();
        let mut same = Vec::new();
        task_ids(&again, &mut same);
        prop_assert_eq!(&same, &found);
        prop_assert_eq!(result.id, outcome.unwrap().id);
    }

    #[test]
    fn a_plan_publishes_each_call_once_and_counts_each_chord_before_its_last_member(canvas in canvas()) {
        let Ok(Plan { steps, result }) = ids(|ids| plan(canvas.clone(), Call::default(), ids)) else {
            return Ok(());
        };
        let mut published = BTreeSet::new();
        let mut counted = BTreeSet::new();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Publish(signature) => {
                    let id = signature.options.task_id().unwrap().expect("an id");
                    prop_assert!(published.insert(id), "published twice");
                    // it is a call, and what is embedded in it can be read
                    prop_assert!(signature.subtask_type.is_none());
                    signature.options.chord().unwrap();
                    signature.options.chain().unwrap();
                }
                Step::ChordSize { group, size } => {
                    prop_assert!(*size > 0);
                    prop_assert!(counted.insert(group.clone()), "counted twice");
                    prop_assert!(steps[at + 1..].iter().any(|step| matches!(step, Step::Publish(_))));
                }
                Step::SaveGroup { result, .. } => prop_assert!(result.members.is_some()),
            }
        }
        prop_assert_eq!(result.is_some(), !matches!(&canvas, Canvas::Chain(chain) if chain.steps.is_empty()));
    }

    #[test]
    fn decoding_never_panics(body in vec(any::<u8>(), 0..200), headers in proptest::collection::btree_map("[a-z_]{1,12}", json(), 0..8)) {
        let raw = celery_protocol::RawMessage {
            properties: celery_protocol::Properties { content_type: Some("application/json".into()), ..Default::default() },
            headers: headers.into_iter().collect(),
            body: body.into(),
        };
        if let Ok(message) = Message::decode(raw, &Limits::DEFAULT) {
            let _ = message.body(&Limits::DEFAULT);
        }
    }

    #[test]
    fn json_like_bodies_never_panic(body in "[\\[\\]{}\",:0-9a-z \\\\]{0,60}") {
        let mut raw = celery_protocol::RawMessage { body: body.clone().into(), ..Default::default() };
        raw.properties.content_type = Some("application/json".into());
        let _ = Message::decode(raw.clone(), &Limits::DEFAULT);
        raw.headers.insert("task".into(), "t".into());
        raw.headers.insert("id".into(), "i".into());
        let _ = Message::decode(raw, &Limits::DEFAULT).map(|message| message.body(&Limits::DEFAULT));
        let _ = Canvas::from_json(&body);
        let _ = celery_protocol::ResultMeta::decode(body.as_bytes());
        let _: Result<RawMap, _> = pyjson::from_str(&body);
    }
}
