//! Giving ids to all calls of a workflow, and with them its final shape.
//!
//! A frozen chain is spliced: chains in it are part of it, a group before a step has become a chord with the step as its
//! body, empty groups are gone, a chord whose body is a chain hands the chain's rest over. Celery does the same when it
//! sends a chain; here it is done once, so that ids stay.

use std::{collections::VecDeque, fmt};

use serde_json::value::RawValue;

use super::{Canvas, ChainNode, ChordNode, Frame, GroupNode, Signature, SignatureError, SignatureOptions};
use crate::{GroupId, RawMap, ResultTuple, TaskId};

/// Where new ids come from, and what else every new call gets.
pub struct IdSource<'a> {
    next: &'a mut dyn FnMut() -> TaskId,
    reply_to: Option<String>,
}

/// What a frozen node gets from what is around it.
#[derive(Debug, Clone, Default)]
pub struct Freeze {
    /// Its id, unless it has one.
    pub id: Option<TaskId>,
    /// The group that it is a member of, unless it has one.
    pub group_id: Option<GroupId>,
    /// Its position there.
    pub group_index: Option<u32>,
    /// The body of the chord that it is a header member of, as JSON.
    pub chord: Option<Box<RawValue>>,
    /// The first call of the workflow.
    pub root_id: Option<TaskId>,
    /// The call that sends it.
    pub parent_id: Option<TaskId>,
}

impl<'a> IdSource<'a> {
    /// Ids from a function.
    pub fn new(next: &'a mut dyn FnMut() -> TaskId) -> Self {
        Self { next, reply_to: None }
    }

    /// With a queue for results, which the RPC backend needs.
    #[must_use]
    pub fn reply_to(mut self, queue: Option<String>) -> Self {
        self.reply_to = queue;
        self
    }

    pub(super) fn next(&mut self) -> TaskId {
        (self.next)()
    }

    pub(super) fn next_group(&mut self) -> GroupId {
        self.next().into()
    }
}

impl fmt::Debug for IdSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdSource").field("reply_to", &self.reply_to).finish_non_exhaustive()
    }
}

impl Canvas {
    /// Gives every call its id and its place, and brings chains into their final shape.
    ///
    /// The result is the tree of ids: of a chain's last step, with the steps before as parents.
    ///
    /// # Errors
    /// An option is not what it must be.
    pub fn freeze(&mut self, with: Freeze, ids: &mut IdSource<'_>) -> Result<ResultTuple, SignatureError> {
        match self {
            Self::Task(signature) => freeze_options(&mut signature.options, with, ids).map(ResultTuple::task),
            Self::Chain(chain) => chain.freeze(with, ids),
            Self::Group(group) => group.freeze(&with, ids),
            Self::Chord(chord) => chord.freeze(with, ids),
        }
    }
}

fn freeze_options(
    options: &mut SignatureOptions,
    with: Freeze,
    ids: &mut IdSource<'_>,
) -> Result<TaskId, SignatureError> {
    let id = match options.task_id()? {
        Some(id) => id,
        None => with.id.unwrap_or_else(|| ids.next()),
    };
    options.set("task_id", &id);
    if let Some(root_id) = &with.root_id {
        options.set("root_id", root_id);
    }
    if let Some(parent_id) = &with.parent_id {
        options.set("parent_id", parent_id);
    }
    if let Some(reply_to) = &ids.reply_to
        && !options.as_map().contains("reply_to")
    {
        options.set("reply_to", reply_to);
    }
    if let Some(group_id) = &with.group_id
        && !options.as_map().contains("group_id")
    {
        options.set("group_id", group_id);
    }
    if let Some(chord) = with.chord {
        options.set_raw("chord", chord);
    }
    if let Some(group_index) = with.group_index {
        options.set("group_index", &group_index);
    }
    Ok(id)
}

impl ChainNode {
    /// Freezes in place.
    pub(super) fn freeze(
        &mut self,
        with: Freeze,
        ids: &mut IdSource<'_>,
    ) -> Result<ResultTuple, SignatureError> {
        let args = std::mem::take(&mut self.frame.args);
        let steps = std::mem::take(&mut self.steps);
        let mut steps = straighten(steps)?;
        if let Some(first) = steps.first_mut() {
            first.add_arguments(args.as_slice(), RawMap::new());
        }
        let result = freeze_steps(&mut steps, with, ids)?;
        self.steps = steps;
        self.frame.options.set("task_id", &result.id);
        Ok(result)
    }
}

/// Freezes the steps of a chain from its end; only the last one gets an id, a group and a chord from around the chain.
pub(super) fn freeze_steps(
    steps: &mut [Canvas],
    with: Freeze,
    ids: &mut IdSource<'_>,
) -> Result<ResultTuple, SignatureError> {
    let inner = Freeze { root_id: with.root_id.clone(), ..Freeze::default() };
    let mut with = Some(with);
    let mut results = Vec::with_capacity(steps.len());
    for step in steps.iter_mut().rev() {
        results.push(step.freeze(with.take().unwrap_or_else(|| inner.clone()), ids)?);
    }
    results.into_iter().rev().reduce(|before, next| next.behind(before)).ok_or_else(empty_chain)
}

fn empty_chain() -> SignatureError {
    SignatureError("a chain without steps".to_owned())
}

/// Brings the steps of a chain into their final shape.
pub(super) fn straighten(steps: Vec<Canvas>) -> Result<Vec<Canvas>, SignatureError> {
    let mut pending: VecDeque<Canvas> = steps.into();
    let mut straight = Vec::with_capacity(pending.len());
    let mut empty_group = None;
    while let Some(step) = pending.pop_front() {
        match step.unroll() {
            Canvas::Chain(chain) => {
                chain.unchain()?.into_iter().rev().for_each(|step| pending.push_front(step));
            }
            step if step.is_empty_group() => empty_group = Some(step),
            Canvas::Chord(chord) if chord.body_is_chain_of_tasks() => {
                chord.unroll_body()?.into_iter().rev().for_each(|step| pending.push_front(step));
            }
            // unrolled from a group of one, it may be anything
            Canvas::Group(group) if group.members.len() == 1 => pending.push_front(Canvas::Group(group)),
            step => straight.push(step),
        }
    }
    let mut upgraded: Vec<Canvas> = Vec::with_capacity(straight.len());
    while let Some(step) = straight.pop() {
        match (step, upgraded.pop()) {
            (Canvas::Group(group), Some(next)) => upgraded.push(upgrade(group, next)),
            (step, next) => upgraded.extend(next.into_iter().chain([step])),
        }
    }
    upgraded.reverse();
    // a chain of nothing but empty groups has an empty result
    if upgraded.is_empty() {
        upgraded.extend(empty_group);
    }
    Ok(upgraded)
}

/// A group before a step, as a chord. Arguments for the group's members stay theirs.
fn upgrade(group: GroupNode, body: Canvas) -> Canvas {
    let args = group.frame.args.clone();
    let mut chord = ChordNode::of(group.into(), body);
    chord.frame.args = args;
    chord.into()
}

impl GroupNode {
    fn freeze(&mut self, with: &Freeze, ids: &mut IdSource<'_>) -> Result<ResultTuple, SignatureError> {
        let (id, members) = freeze_header(&mut self.frame, &mut self.members, with, ids)?;
        Ok(ResultTuple::group(id, members))
    }
}

/// Freezes the members of a group, or of a chord's header.
pub(super) fn freeze_header(
    frame: &mut Frame,
    members: &mut Vec<Canvas>,
    with: &Freeze,
    ids: &mut IdSource<'_>,
) -> Result<(GroupId, Vec<ResultTuple>), SignatureError> {
    let options = &mut frame.options;
    let id = options.task_id()?.unwrap_or_else(|| ids.next());
    options.set("task_id", &id);
    if let Some(group_id) = &with.group_id {
        options.set("group_id", group_id);
    }
    if let Some(chord) = &with.chord {
        options.set_raw("chord", chord.clone());
    }
    if let Some(group_index) = with.group_index {
        options.set("group_index", &group_index);
    }
    for (name, id) in [("root_id", &with.root_id), ("parent_id", &with.parent_id)] {
        if !options.as_map().contains(name) {
            options.set(name, id);
        }
    }
    let root_id = options.root_id()?;
    let parent_id = options.read("parent_id")?;
    let mut results = Vec::with_capacity(members.len());
    let mut pending: VecDeque<Canvas> = std::mem::take(members).into();
    while let Some(member) = pending.pop_front() {
        match member {
            // the members of an inner group come in reverse order: so does Celery, and the order of results depends on it
            Canvas::Group(inner) => inner.members.into_iter().for_each(|member| pending.push_front(member)),
            empty if empty.is_empty_chain() => {}
            mut member => {
                let with = Freeze {
                    id: None,
                    group_id: with.group_id.clone(),
                    group_index: u32::try_from(results.len()).ok(),
                    chord: with.chord.clone(),
                    root_id: root_id.clone(),
                    parent_id: parent_id.clone(),
                };
                results.push(member.freeze(with, ids)?);
                members.push(member);
            }
        }
    }
    Ok((id.into(), results))
}

impl ChordNode {
    fn freeze(&mut self, with: Freeze, ids: &mut IdSource<'_>) -> Result<ResultTuple, SignatureError> {
        let Freeze { id, group_id, group_index, chord, root_id, parent_id } = with;
        let header_frame = self.header_frame.get_or_insert_with(Frame::default);
        // the header's calls get their group and the body when the chord is sent: until then the body is here already
        let around = Freeze { root_id: root_id.clone(), parent_id, ..Freeze::default() };
        let (header_id, members) = freeze_header(header_frame, &mut self.header, &around, ids)?;
        self.frame.options.set("task_id", &header_id);
        let header = ResultTuple::group(header_id, members);
        match &mut self.body {
            None => Ok(header),
            Some(body) => {
                let around = Freeze { id, group_id, group_index, chord, root_id, parent_id: None };
                Ok(body.freeze(around, ids)?.behind(header))
            }
        }
    }

    /// Whether the body is a chain that starts with something else than a group.
    pub(super) fn body_is_chain_of_tasks(&self) -> bool {
        match self.body.as_deref() {
            Some(Canvas::Chain(chain)) => {
                chain.steps.first().is_some_and(|first| !matches!(first, Canvas::Group(_)))
            }
            _ => false,
        }
    }

    /// `chord(h, chain(a, b, c))` as `chord(h, a), b, c`: every header call carries the body, so the body should be short.
    fn unroll_body(mut self) -> Result<Vec<Canvas>, SignatureError> {
        let Some(Canvas::Chain(chain)) = self.body.take().map(|body| *body) else {
            return Ok(vec![self.into()]);
        };
        let passed_on: Vec<_> = chain
            .frame
            .options
            .as_map()
            .iter()
            .filter(|(name, _)| !CONSUMED.contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let args = chain.frame.args.clone();
        let mut steps = chain.unchain()?.into_iter();
        let mut first = steps.next().ok_or_else(empty_chain)?;
        first.add_arguments(args.as_slice(), RawMap::new());
        for (name, value) in passed_on {
            first.options_mut().set_raw(&name, value);
        }
        self.body = Some(Box::new(first));
        Ok([self.into()].into_iter().chain(steps).collect())
    }
}

/// Options that a chain uses itself and does not hand to its first step.
pub(super) const CONSUMED: [&str; 8] =
    ["chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id"];

impl Signature {
    /// As [`Canvas::freeze`] does it with one call, and nothing around.
    ///
    /// # Errors
    /// An option is not what it must be.
    pub fn freeze(&mut self, id: Option<TaskId>, ids: &mut IdSource<'_>) -> Result<TaskId, SignatureError> {
        freeze_options(&mut self.options, Freeze { id, ..Freeze::default() }, ids)
    }
}
