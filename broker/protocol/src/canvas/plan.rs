//! What has to be published to run a workflow, in order.
//!
//! Whoever sends (a client, or a worker with a callback, the next step of a chain, or the body of a chord) asks for the
//! [`plan`] and carries it out.

use serde_json::value::RawValue;

use super::{
    Canvas, ChainNode, ChordNode, Frame, GroupNode, IdSource, Signature, SignatureError, SignatureOptions,
    freeze::{CONSUMED, Freeze, freeze_header, freeze_steps, straighten},
};
use crate::{GroupId, RawArgs, RawMap, ResultTuple, TaskId, TaskName};

/// How a workflow is called: what is put before its arguments, and options that override its own.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Put before the arguments of the first calls.
    pub args: Vec<Box<RawValue>>,
    /// Put over the keyword arguments of the first calls.
    pub kwargs: RawMap,
    /// Override the options of the workflow.
    pub options: SignatureOptions,
}

/// What to do to run a workflow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// The workflow's ids; `None` if there is nothing to run.
    pub result: Option<ResultTuple>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Publish a call. All its options are set, the id among them.
    Publish(Signature),
    /// Say how many results a chord waits for. Comes just before the last member is published.
    ChordSize {
        /// The chord's header.
        group: GroupId,
        /// How many.
        size: usize,
    },
    /// Keep the ids of a chord's header, because a member's result is a group. Comes before its members.
    SaveGroup {
        /// The header.
        group: GroupId,
        /// Its ids.
        result: ResultTuple,
    },
}

/// Says what has to be done to run `canvas`.
///
/// # Errors
/// An option is not what it must be, a chord has no body, or a group is to be linked, which only a chord can.
pub fn plan(canvas: Canvas, call: Call, ids: &mut IdSource<'_>) -> Result<Plan, SignatureError> {
    let mut planner = Planner { steps: Vec::new(), ids };
    let result = planner.apply(canvas, call)?;
    Ok(Plan { steps: planner.steps, result })
}

struct Planner<'a, 'b> {
    steps: Vec<Step>,
    ids: &'a mut IdSource<'b>,
}

impl Planner<'_, '_> {
    fn apply(&mut self, canvas: Canvas, call: Call) -> Result<Option<ResultTuple>, SignatureError> {
        match canvas {
            Canvas::Task(signature) if is_chunks(&signature) => self.chunks(&signature, call),
            Canvas::Task(signature) if signature.subtask_type.is_some() => {
                match Canvas::from_signature(signature)? {
                    Canvas::Task(signature) => self.task(signature, call).map(Some),
                    tree => self.apply(tree, call),
                }
            }
            Canvas::Task(signature) => self.task(signature, call).map(Some),
            Canvas::Chain(chain) => self.chain(chain, call),
            Canvas::Group(group) => self.group(group, call).map(Some),
            Canvas::Chord(chord) => self.chord(chord, call).map(Some),
        }
    }

    fn task(&mut self, mut signature: Signature, call: Call) -> Result<ResultTuple, SignatureError> {
        if !signature.immutable {
            signature.args.prepend(call.args);
            signature.kwargs.update(call.kwargs);
        }
        merge(&mut signature.options, call.options)?;
        let id = match signature.options.task_id()? {
            Some(id) => id,
            None => self.ids.next(),
        };
        signature.options.set("task_id", &id);
        self.steps.push(Step::Publish(signature));
        Ok(ResultTuple::task(id))
    }

    fn chain(&mut self, chain: ChainNode, call: Call) -> Result<Option<ResultTuple>, SignatureError> {
        let ChainNode { steps, frame } = chain;
        let mut options = frame.options;
        options.as_map_mut().update(call.options.into_map());
        let args = if frame.immutable { frame.args } else { joined(call.args, frame.args) };
        let mut steps = straighten(steps)?;
        if let Some(first) = steps.first_mut() {
            first.add_arguments(args.as_slice(), call.kwargs);
        } else {
            return Ok(None);
        }
        let around = Freeze {
            id: options.task_id()?,
            group_id: options.group_id()?,
            group_index: options.group_index()?,
            chord: options.get("chord").map(ToOwned::to_owned),
            root_id: options.root_id()?,
            parent_id: None,
        };
        let frozen = freeze_steps(&mut steps, around, self.ids)?;
        for errback in options.link_error()? {
            steps.iter_mut().try_for_each(|step| step.link_error(&errback))?;
        }
        for callback in options.link()? {
            match steps.last_mut() {
                // each member calls it: so does Celery
                Some(Canvas::Group(group)) => group.frame.options.add_link(&callback)?,
                Some(last) => last.link(&callback)?,
                None => {}
            }
        }
        let first = steps.remove(0);
        let alone = steps.is_empty();
        let mut rest: Vec<Signature> = options.chain()?.unwrap_or_default();
        rest.extend(steps.iter().rev().map(Canvas::to_signature));
        let mut passed_on = RawMap::new();
        for (name, value) in options.into_map() {
            if name == "parent_id" || !CONSUMED.contains(&name.as_str()) {
                passed_on.insert_raw(name, value);
            }
        }
        let mut passed_on = SignatureOptions::from(passed_on);
        passed_on.set("chain", &rest);
        let sent = self.apply(first, Call { options: passed_on, ..Call::default() })?;
        Ok(if alone { sent } else { Some(frozen) })
    }

    fn group(&mut self, group: GroupNode, call: Call) -> Result<ResultTuple, SignatureError> {
        if call.options.get("link").is_some() || call.options.get("link_error").is_some() {
            return Err(SignatureError("a group cannot be linked: use a chord, or its members".to_owned()));
        }
        let GroupNode { members, frame } = group;
        let mut options = frame.options;
        merge(&mut options, call.options)?;
        let id: GroupId = match options.task_id()? {
            Some(id) => id.into(),
            None => self.ids.next_group(),
        };
        options.remove("task_id");
        options.remove("group_index");
        options.set("group_id", &id);
        let root_id = options.root_id()?;
        let own_chord = options.remove("chord").filter(|chord| chord.get() != "null");
        options.remove("add_to_parent");
        let args = if frame.immutable { frame.args } else { joined(call.args, frame.args) };

        let mut flat = Vec::with_capacity(members.len());
        flatten(members, &mut flat);
        let mut frozen = Vec::with_capacity(flat.len());
        for (index, mut member) in flat {
            let around = Freeze {
                group_id: Some(id.clone()),
                root_id: root_id.clone(),
                group_index: Some(index),
                ..Freeze::default()
            };
            let result = member.freeze(around, self.ids)?;
            frozen.push((member, result));
        }
        let count = frozen.len();
        let mut size = 0;
        let mut results = Vec::with_capacity(count);
        for (index, (member, result)) in frozen.into_iter().enumerate() {
            let chord = own_chord.clone().or_else(|| member.options().get("chord").map(ToOwned::to_owned));
            size += member.chord_size();
            let mut call_options = SignatureOptions::new();
            call_options.set("add_to_parent", &false);
            if let Some(chord) = chord {
                if index + 1 == count {
                    self.steps.push(Step::ChordSize { group: id.clone(), size });
                }
                call_options.set_raw("chord", chord);
            }
            call_options.as_map_mut().update(options.as_map().clone());
            let call =
                Call { args: args.as_slice().to_vec(), kwargs: call.kwargs.clone(), options: call_options };
            self.apply(member, call)?;
            results.push(result);
        }
        // a group whose only member ends in a group stands for that one
        if let [only] = results.as_slice()
            && only.members.is_some()
        {
            return Ok(results.remove(0));
        }
        Ok(ResultTuple::group(id, results))
    }

    fn chord(&mut self, chord: ChordNode, call: Call) -> Result<ResultTuple, SignatureError> {
        let ChordNode { mut header, header_frame, body, frame } = chord;
        let Some(mut body) = body else {
            return Err(SignatureError("a chord without body".to_owned()));
        };
        let args = if frame.immutable { frame.args } else { joined(call.args, frame.args) };
        let own_id = frame.options.task_id()?;
        // what the chord is called with is for its body, except when to start
        let mut options = frame.options;
        options.as_map_mut().update(call.options.into_map());
        let mut header_options = RawMap::new();
        for name in ["countdown", "eta"] {
            if let Some(value) = options.remove(name).filter(|value| value.get() != "null") {
                header_options.insert_raw(name, value);
            }
        }
        let (links, errbacks) = (options.link()?, options.link_error()?);
        options.remove("link");
        options.remove("link_error");
        let body_id: Option<TaskId> = options.task_id()?;
        options.remove("task_id");
        for (name, value) in options.as_map().iter().filter(|(name, _)| *name != "parent_id") {
            // `merge` for one option at a time, nulls included: Celery's body keeps them
            let fixed =
                matches!(name, "group_id" | "stamped_headers") && body.options().as_map().contains(name);
            if !fixed {
                body.options_mut().set_raw(name, value.to_owned());
            }
        }
        links.iter().try_for_each(|callback| body.link(callback))?;
        errbacks.iter().try_for_each(|errback| body.link_error(errback))?;

        let mut header_frame = header_frame.unwrap_or_default();
        let group: GroupId = match header_frame.options.task_id()?.or(own_id) {
            Some(id) => id.into(),
            None => self.ids.next_group(),
        };
        let root_id = body.options().root_id()?;
        let around = Freeze {
            id: Some(body_id.unwrap_or_else(|| self.ids.next())),
            group_id: Some(group.clone()),
            root_id: root_id.clone(),
            ..Freeze::default()
        };
        let body_result = body.freeze(around, self.ids)?;
        header_frame.options.set("task_id", &group);
        let around = Freeze {
            group_id: Some(group.clone()),
            chord: Some(body.to_signature().to_raw()),
            root_id,
            ..Freeze::default()
        };
        let (_, members) = freeze_header(&mut header_frame, &mut header, &around, self.ids)?;
        let nested = members.iter().any(|member| member.members.is_some());
        let header_result = ResultTuple::group(group.clone(), members);
        if header.is_empty() {
            let nothing = crate::pyjson::raw_owned("[]".to_owned());
            self.apply(*body, Call { args: vec![nothing], ..Call::default() })?;
            return Ok(body_result.after(header_result));
        }
        if nested {
            self.steps.push(Step::SaveGroup { group: group.clone(), result: header_result.clone() });
        }
        for (name, value) in options.into_map() {
            if !matches!(name.as_str(), "chain" | "chord" | "group_id" | "group_index") {
                header_options.insert_raw(name, value);
            }
        }
        header_options.insert("task_id", &group)?;
        let node =
            GroupNode { members: header, frame: Frame { options: header_frame.options, ..Frame::default() } };
        let args = args.into_iter().collect();
        self.group(node, Call { args, kwargs: call.kwargs, options: header_options.into() })?;
        // as in Celery: from the last step of the body straight to the header
        Ok(body_result.after(header_result))
    }

    /// `celery.chunks`: a group of starmaps over pieces of the arguments.
    fn chunks(&mut self, signature: &Signature, call: Call) -> Result<Option<ResultTuple>, SignatureError> {
        let kwargs = SignatureOptions::from(signature.kwargs.clone());
        let size: usize =
            kwargs.read("n")?.filter(|size| *size > 0).ok_or_else(|| missing("a size n above 0"))?;
        let items: RawArgs = kwargs.read("it")?.ok_or_else(|| missing("it"))?;
        let task = kwargs.get("task").ok_or_else(|| missing("task"))?;
        let members = items.as_slice().chunks(size).map(|piece| {
            let mut starmap = Signature::new(TaskName::builtin("starmap")).immutable();
            starmap.kwargs.insert_raw("task", task.to_owned());
            starmap.kwargs.insert_raw("it", RawArgs::from(piece.to_vec()).to_raw());
            Canvas::Task(starmap)
        });
        let frame = Frame { options: signature.options.clone(), ..Frame::default() };
        self.group(GroupNode { members: members.collect(), frame }, call).map(Some)
    }
}

/// What Celery's `chunks` makes; a call with positional arguments is one of the task of that name.
fn is_chunks(signature: &Signature) -> bool {
    signature.task.as_str() == "celery.chunks" && signature.args.is_empty()
}

fn missing(what: &str) -> SignatureError {
    SignatureError(format!("celery.chunks needs {what}"))
}

fn joined(before: Vec<Box<RawValue>>, mut own: RawArgs) -> RawArgs {
    own.prepend(before);
    own
}

/// Puts `call` over `own`, as Celery does: nulls count as not given; a group, the list of stamps and the stamps that are
/// set already stay.
fn merge(own: &mut SignatureOptions, call: SignatureOptions) -> Result<(), SignatureError> {
    let stamps = own.stamped_headers()?;
    let mut fixed: Vec<&str> = stamps.iter().map(String::as_str).collect();
    fixed.extend(["group_id", "stamped_headers"]);
    for (name, value) in call.into_map() {
        let stays = fixed.contains(&name.as_str()) && own.as_map().contains(&name);
        if value.get() != "null" && !stays {
            own.set_raw(&name, value);
        }
    }
    Ok(())
}

/// The members of a group with their indexes; inner groups are part of it, each counting from 0.
fn flatten(members: Vec<Canvas>, flat: &mut Vec<(u32, Canvas)>) {
    for (index, member) in members.into_iter().enumerate() {
        match member {
            Canvas::Group(inner) => flatten(inner.members, flat),
            empty if empty.is_empty_chain() => {}
            member => flat.push((u32::try_from(index).unwrap_or(u32::MAX), member)),
        }
    }
}
