//! From the body of `POST /v1/canvas` to a judged tree. Pure.

use celery_protocol::canvas::{ChainNode, ChordNode, Frame, GroupNode};
use celery_protocol::{Canvas, RawArgs, Signature, SignatureOptions, TaskName};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::dto::form::{Form, escaped, members, tidy};
use crate::dto::submit::SubmitTask;
use crate::plan::{self, Context};
use crate::problem::{Kind, Problem};

/// Calls in one workflow.
pub const MAX_CALLS: usize = 1000;
/// Nodes on the way from the root to a call.
pub const MAX_DEPTH: usize = 32;
/// Options that `defaults` may have.
const DEFAULTABLE: [&str; 11] = [
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "expires",
    "time_limit",
    "soft_time_limit",
    "ignore_result",
    "serializer",
    "compression",
    "headers",
];
/// Options that say where to: one of them makes the others' defaults void.
const DESTINATION: [&str; 3] = ["queue", "exchange", "routing_key"];
/// Options that Celery itself puts into signatures, beside those of `apply_async`.
const INTERNAL: [&str; 3] = ["add_to_parent", "replaced_task_nesting", "stamped_headers"];
/// Members of a submission that are no options of a call.
const NO_OPTIONS: [&str; 8] =
    ["task", "args", "kwargs", "dedupe", "queue_limit", "publish", "store_args", "meta"];
/// Members of Celery's dictionary of a signature.
const SIGNATURE: [&str; 7] = ["task", "args", "kwargs", "options", "subtask_type", "immutable", "chord_size"];

/// A workflow as read.
#[derive(Debug)]
pub struct Workflow {
    /// The tree, with its links and stamps.
    pub canvas: Canvas,
    /// What the submitter noted, and how to publish.
    pub envelope: SubmitTask,
}

/// Reads and judges a body.
///
/// # Errors
/// 403 or 422, with the place of what is wrong.
pub fn read(text: &str, context: &Context<'_>) -> Result<Workflow, Problem> {
    let mut form = Form::split(text)?;
    let root: Option<&RawValue> = form.required("canvas");
    let defaults: Option<&RawValue> = form.optional("defaults");
    let defaults = match defaults {
        Some(raw) if !raw.get().starts_with('{') => {
            form.refuse("defaults", "must be an object");
            Vec::new()
        }
        Some(raw) => members(raw.get()),
        None => Vec::new(),
    };
    for (name, _) in &defaults {
        if !DEFAULTABLE.contains(&name.as_str()) {
            form.refuse("defaults", format!("{name} cannot be a default; {} can", DEFAULTABLE.join(", ")));
        }
    }
    // The rest is judged as what a submission is.
    let mut envelope = String::from("{\"task\":\"celery.canvas\"");
    for name in ["link", "link_error", "stamps", "meta", "publish"] {
        if let Some(raw) = form.optional::<&RawValue>(name) {
            envelope.push_str(&format!(",\"{name}\":{raw}"));
        }
    }
    envelope.push('}');
    form.finish()?;
    let envelope = SubmitTask::parse(&envelope)?;
    plan::check_members(&envelope, context)?;

    let Some(root) = root else { return Err(invalid("/canvas", "is required")) };
    let mut reader = Reader { context, defaults, calls: 0 };
    let mut canvas = reader.node(root, "/canvas", 0)?;
    let wrong = |err: celery_protocol::SignatureError| invalid("/canvas", err.to_string());
    for callback in &envelope.link {
        canvas.link(callback).map_err(wrong)?;
    }
    for errback in &envelope.link_error {
        canvas.link_error(errback).map_err(wrong)?;
    }
    if !envelope.stamps.is_empty() {
        canvas.stamp(&envelope.stamps).map_err(wrong)?;
    }
    Ok(Workflow { canvas, envelope })
}

struct Reader<'a> {
    context: &'a Context<'a>,
    defaults: Vec<(String, &'a RawValue)>,
    calls: usize,
}

impl Reader<'_> {
    fn node(&mut self, raw: &RawValue, place: &str, depth: usize) -> Result<Canvas, Problem> {
        if depth > MAX_DEPTH {
            return Err(invalid(place, format!("is nested more than {MAX_DEPTH} deep")));
        }
        if !raw.get().starts_with('{') {
            return Err(invalid(
                place,
                "must be an object: a signature, or one of chain, group, chord, map, starmap, chunks",
            ));
        }
        let members = members(raw.get());
        let is_kind = |name: &str| matches!(name, "chain" | "group" | "chord" | "map" | "starmap" | "chunks");
        if members.iter().any(|(name, _)| name == "task") {
            return self.signature(raw, &members, place, depth);
        }
        let kinds: Vec<_> = members.iter().filter(|(name, _)| is_kind(name)).collect();
        let [(kind, part)] = kinds.as_slice() else {
            return Err(invalid(
                place,
                "must have exactly one of task, chain, group, chord, map, starmap, chunks",
            ));
        };
        if let Some((name, _)) = members.iter().find(|(name, _)| name != kind && name != "options") {
            return Err(unknown(place, name));
        }
        let options = match members.iter().find(|(name, _)| name == "options") {
            Some((_, raw)) => self.options(raw, &format!("{place}/options"))?,
            None => SignatureOptions::new(),
        };
        let frame = Frame { options, ..Frame::default() };
        let inner = format!("{place}/{kind}");
        match kind.as_str() {
            "chain" => Ok(ChainNode { steps: self.list(part, &inner, depth)?, frame }.into()),
            "group" => Ok(GroupNode { members: self.list(part, &inner, depth)?, frame }.into()),
            "chord" => self.chord(part, &inner, frame, depth),
            kind => self.each(kind, part, &inner, frame.options, depth),
        }
    }

    /// The parts of a chain or group.
    fn list(&mut self, raw: &RawValue, place: &str, depth: usize) -> Result<Vec<Canvas>, Problem> {
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
            return Err(invalid(place, "must be an array"));
        };
        if parts.is_empty() {
            return Err(invalid(place, "is empty"));
        }
        let read =
            |(index, part): (usize, &&RawValue)| self.node(part, &format!("{place}/{index}"), depth + 1);
        parts.iter().enumerate().map(read).collect()
    }

    /// `{"header": [...], "body": {...}, "link_error": [...]}`
    fn chord(&mut self, raw: &RawValue, place: &str, frame: Frame, depth: usize) -> Result<Canvas, Problem> {
        let mut form = Form::split_at(raw.get(), place)?;
        let header: Option<&RawValue> = form.required("header");
        let body: Option<&RawValue> = form.required("body");
        let link_error: Vec<Signature> = form.list("link_error");
        form.finish()?;
        let (Some(header), Some(body)) = (header, body) else {
            return Err(invalid(place, "needs a header and a body"));
        };
        let mut budget = crate::policy::MAX_SIGNATURES;
        for (index, errback) in link_error.iter().enumerate() {
            self.context.policy.judge(errback, &format!("{place}/link_error/{index}"), &mut budget)?;
        }
        let mut canvas =
            self.joined(header, &format!("{place}/header"), body, &format!("{place}/body"), frame, depth)?;
        for errback in &link_error {
            canvas.link_error(errback).map_err(|err| invalid(place, err.to_string()))?;
        }
        Ok(canvas)
    }

    /// A chord from its parts.
    fn joined(
        &mut self,
        header: &RawValue,
        header_place: &str,
        body: &RawValue,
        body_place: &str,
        frame: Frame,
        depth: usize,
    ) -> Result<Canvas, Problem> {
        let (header, header_frame) = if header.get().starts_with('[') {
            (self.list(header, header_place, depth)?, None)
        } else {
            match self.node(header, header_place, depth + 1)? {
                Canvas::Group(group) => (group.members, Some(group.frame)),
                Canvas::Chain(chain) => (chain.steps, None),
                other => (vec![other], None),
            }
        };
        for (index, member) in header.iter().enumerate() {
            if ignores_result(member) {
                let place = format!("{header_place}/{index}");
                return Err(invalid(&place, "has ignore_result, so the body of the chord would never run"));
            }
        }
        let body = Some(Box::new(self.node(body, body_place, depth + 1)?));
        Ok(ChordNode { header, header_frame, body, frame }.into())
    }

    /// `{"task": ..., "it": [...], "n": 10}`
    fn each(
        &mut self,
        kind: &str,
        raw: &RawValue,
        place: &str,
        mut options: SignatureOptions,
        depth: usize,
    ) -> Result<Canvas, Problem> {
        let mut form = Form::split_at(raw.get(), place)?;
        let task: Option<&RawValue> = form.required("task");
        let items: Option<RawArgs> = form.required("it");
        let size: Option<u32> = if kind == "chunks" { form.required("n") } else { None };
        if size == Some(0) {
            form.refuse("n", "must be at least 1");
        }
        form.finish()?;
        let (Some(task), Some(items)) = (task, items) else {
            return Err(invalid(place, "needs task and it"));
        };
        let task_place = format!("{place}/task");
        // A name alone is a call without arguments of its own.
        let inner = match serde_json::from_str::<TaskName>(task.get()) {
            Ok(name) => {
                let raw = serde_json::value::to_raw_value(&Signature::new(name))
                    .map_err(|err| invalid(&task_place, err.to_string()))?;
                self.node(&raw, &task_place, depth + 1)?
            }
            Err(_) => self.node(task, &task_place, depth + 1)?,
        };
        let Canvas::Task(inner) = inner else { return Err(invalid(&task_place, "must be a single call")) };
        if options.get("queue").is_none() && options.get("exchange").is_none() {
            // As in Celery: the message goes where the task inside goes.
            match inner.options.get("queue") {
                Some(queue) => options.set_raw("queue", queue.to_owned()),
                None => {
                    let target = celery_broker::route::Target::default();
                    if let Some(queue) = self.context.router.route(&inner.task, &target).queue {
                        options.set("queue", &queue);
                    }
                }
            }
        }
        let name = match kind {
            "map" => TaskName::builtin("map"),
            "starmap" => TaskName::builtin("starmap"),
            _ => TaskName::builtin("chunks"),
        };
        let mut signature = Signature::new(name).immutable();
        signature.kwargs.insert_raw("task", inner.to_raw());
        signature.kwargs.insert_raw("it", items.to_raw());
        if let Some(size) = size {
            signature.kwargs.insert("n", &size).map_err(|err| invalid(place, err.to_string()))?;
        }
        signature.options = options;
        Ok(Canvas::Task(signature))
    }

    /// Celery's dictionary of a signature.
    fn signature(
        &mut self,
        raw: &RawValue,
        members: &[(String, &RawValue)],
        place: &str,
        depth: usize,
    ) -> Result<Canvas, Problem> {
        if let Some((name, _)) = members.iter().find(|(name, _)| !SIGNATURE.contains(&name.as_str())) {
            return Err(unknown(place, name));
        }
        let mut signature = Signature::from_json(raw.get()).map_err(|err| invalid(place, err.to_string()))?;
        let options = format!("{place}/options");
        let kind = signature.subtask_type.clone();
        let structure = matches!(kind.as_deref(), Some("chain" | "group" | "chord"));
        if !structure {
            return match signature.task.as_str() {
                "celery.map" | "celery.starmap" | "celery.chunks" => {
                    let kind = signature.task.function().to_owned();
                    let raw = signature.kwargs.to_raw();
                    self.each(&kind, &raw, &format!("{place}/kwargs"), signature.options, depth)
                }
                _ => {
                    self.call(&mut signature, place, &options)?;
                    Ok(Canvas::Task(signature))
                }
            };
        }
        self.judge_options(&signature.task, &signature.options, &options)?;
        let part = |name: &str| {
            let raw = signature.kwargs.get_some(name).map(ToOwned::to_owned);
            raw.ok_or_else(|| invalid(&format!("{place}/kwargs/{name}"), "is required"))
        };
        let frame = |without: &[&str]| {
            let mut kwargs = signature.kwargs.clone();
            without.iter().for_each(|name| drop(kwargs.remove(name)));
            Frame {
                args: signature.args.clone(),
                kwargs,
                options: signature.options.clone(),
                immutable: signature.immutable,
                extra: signature.extra.clone(),
            }
        };
        let tasks = format!("{place}/kwargs/tasks");
        match kind.as_deref() {
            Some("chain") => {
                Ok(ChainNode { steps: self.list(&part("tasks")?, &tasks, depth)?, frame: frame(&["tasks"]) }
                    .into())
            }
            Some("group") => Ok(GroupNode {
                members: self.list(&part("tasks")?, &tasks, depth)?,
                frame: frame(&["tasks"]),
            }
            .into()),
            _ => {
                let (header, body) = (part("header")?, part("body")?);
                let (at_header, at_body) = (format!("{place}/kwargs/header"), format!("{place}/kwargs/body"));
                self.joined(&header, &at_header, &body, &at_body, frame(&["header", "body"]), depth)
            }
        }
    }

    /// Judges one call, and gives it the defaults that it lacks.
    fn call(&mut self, signature: &mut Signature, place: &str, options: &str) -> Result<(), Problem> {
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(invalid(place, format!("the workflow has more than {MAX_CALLS} calls")));
        }
        let directed = DESTINATION.iter().any(|name| signature.options.get(name).is_some());
        for (name, raw) in &self.defaults {
            let void = directed && DESTINATION.contains(&name.as_str());
            if !void && signature.options.get(name).is_none() {
                signature.options.set_raw(name, (*raw).to_owned());
            }
        }
        if !self.context.policy.allows_task(signature.task.as_str()) {
            return Err(Problem::field(
                Kind::TaskForbidden,
                format!("{place}/task"),
                signature.task.to_string(),
            ));
        }
        let judged = self.judge_options(&signature.task, &signature.options, options)?;
        plan::check_destination(&judged, self.context).map_err(|problem| problem.within(options))
    }

    /// Reads the options of a chain, group, chord, map, starmap or chunks.
    fn options(&self, raw: &RawValue, place: &str) -> Result<SignatureOptions, Problem> {
        let options: SignatureOptions =
            serde_json::from_str(raw.get()).map_err(|err| invalid(place, tidy(&err)))?;
        let judged = self.judge_options(&TaskName::builtin("group"), &options, place)?;
        if DESTINATION.iter().any(|name| options.get(name).is_some()) {
            plan::check_destination(&judged, self.context).map_err(|problem| problem.within(place))?;
        }
        Ok(options)
    }

    /// Judges options as those of a submission.
    fn judge_options(
        &self,
        task: &TaskName,
        options: &SignatureOptions,
        place: &str,
    ) -> Result<SubmitTask, Problem> {
        let wrong = |err: celery_protocol::SignatureError| invalid(place, err.to_string());
        let stamps = options.stamped_headers().map_err(wrong)?;
        let mut text = format!("{{\"task\":{}", Value::from(task.as_str()));
        let mut stamped = Map::new();
        for (name, raw) in options.as_map().iter().filter(|(_, raw)| raw.get() != "null") {
            if NO_OPTIONS.contains(&name) {
                return Err(unknown(place, name));
            }
            if INTERNAL.contains(&name) || (name == "delivery_mode" && matches!(raw.get(), "1" | "2")) {
                continue;
            }
            if stamps.iter().any(|stamp| stamp == name) {
                stamped.insert(name.to_owned(), serde_json::from_str(raw.get()).unwrap_or(Value::Null));
                continue;
            }
            let one = matches!(name, "link" | "link_error") && raw.get().starts_with('{');
            let value = if one { format!("[{raw}]") } else { raw.get().to_owned() };
            text.push_str(&format!(",{}:{value}", Value::from(name)));
        }
        text.push_str(&format!(",\"stamps\":{}}}", Value::Object(stamped)));
        let judged = SubmitTask::read(Form::split_at(&text, place)?)?;
        plan::check_members(&judged, self.context).map_err(|problem| problem.within(place))?;
        Ok(judged)
    }
}

/// Whether nobody would see the result of a chord's header member.
fn ignores_result(member: &Canvas) -> bool {
    match member {
        Canvas::Task(signature) => {
            signature.options.get("ignore_result").is_some_and(|value| value.get() == "true")
        }
        Canvas::Chain(chain) => chain.steps.last().is_some_and(ignores_result),
        Canvas::Group(group) => group.members.iter().any(ignores_result),
        Canvas::Chord(chord) => chord.body.as_deref().is_some_and(ignores_result),
    }
}

fn invalid(place: &str, detail: impl Into<String>) -> Problem {
    Problem::field(Kind::CanvasInvalid, place, detail)
}

fn unknown(place: &str, name: &str) -> Problem {
    Problem::field(Kind::UnknownField, format!("{place}/{}", escaped(name)), "is not a known member")
}
