//! The tree of a workflow, to and from Celery's JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::{Signature, SignatureError, SignatureOptions};
use crate::{
    RawArgs, RawMap, TaskName,
    pyjson::{self, MAX_DEPTH, Scanner},
};

/// A workflow.
#[derive(Debug, Clone, PartialEq)]
pub enum Canvas {
    /// One call. Map, starmap and chunks are calls too.
    Task(Signature),
    /// One step after the other, each with the result of the one before.
    Chain(ChainNode),
    /// All at once.
    Group(GroupNode),
    /// A group, and a body that is called with the results of all its members.
    Chord(ChordNode),
}

/// What every kind of node has besides its parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Arguments for the first calls.
    pub args: RawArgs,
    /// Keyword arguments other than the parts.
    pub kwargs: RawMap,
    /// How to call it.
    pub options: SignatureOptions,
    /// Takes no arguments from the call before.
    pub immutable: bool,
    /// Keys of the signature that this crate does not model.
    pub extra: RawMap,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChainNode {
    /// The steps in order.
    pub steps: Vec<Canvas>,
    /// Everything else.
    pub frame: Frame,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupNode {
    /// The members in order.
    pub members: Vec<Canvas>,
    /// Everything else.
    pub frame: Frame,
}

/// A chord.
#[derive(Debug, Clone, PartialEq)]
pub struct ChordNode {
    /// What runs first, at once.
    pub header: Vec<Canvas>,
    /// The group that the header is written as; `None`: as a list. Freezing makes it a group.
    pub header_frame: Option<Frame>,
    /// What is called with the results; Celery allows to leave it open until the chord is called.
    pub body: Option<Box<Canvas>>,
    /// Everything else.
    pub frame: Frame,
}

impl Canvas {
    /// The tree that a signature stands for.
    ///
    /// # Errors
    /// The parts of a chain, group or chord are missing or not signatures.
    pub fn from_signature(signature: Signature) -> Result<Self, SignatureError> {
        let kind = signature.subtask_type.as_deref();
        if !matches!(kind, Some("chain" | "group" | "chord")) {
            return Ok(Self::Task(signature));
        }
        let kind = kind.unwrap_or_default().to_owned();
        let Signature { args, mut kwargs, options, immutable, extra, .. } = signature;
        let part = |kwargs: &mut RawMap, name: &str| {
            kwargs.remove(name).ok_or_else(|| SignatureError(format!("a {kind} without {name}")))
        };
        match kind.as_str() {
            "chain" => {
                let steps = list(&part(&mut kwargs, "tasks")?)?;
                Ok(Self::Chain(ChainNode { steps, frame: Frame { args, kwargs, options, immutable, extra } }))
            }
            "group" => {
                let members = list(&part(&mut kwargs, "tasks")?)?;
                Ok(Self::Group(GroupNode {
                    members,
                    frame: Frame { args, kwargs, options, immutable, extra },
                }))
            }
            _ => {
                let header = part(&mut kwargs, "header")?;
                let (header, header_frame) = match header.get().as_bytes().first() {
                    Some(b'{') => match Self::from_json(header.get())? {
                        Self::Group(GroupNode { members, frame }) => (members, Some(frame)),
                        Self::Chain(chain) => (chain.steps, None),
                        other => (vec![other], None),
                    },
                    _ => (list(&header)?, None),
                };
                let body = kwargs.remove("body").filter(|body| body.get() != "null");
                let body = body.map(|body| Self::from_json(body.get())).transpose()?.map(Box::new);
                let frame = Frame { args, kwargs, options, immutable, extra };
                Ok(Self::Chord(ChordNode { header, header_frame, body, frame }))
            }
        }
    }

    /// The tree that a signature in JSON stands for.
    ///
    /// # Errors
    /// As [`Signature::from_json`] and [`from_signature`](Self::from_signature).
    pub fn from_json(text: &str) -> Result<Self, SignatureError> {
        Self::from_signature(Signature::from_json(text)?)
    }

    /// The signature of this tree.
    pub fn to_signature(&self) -> Signature {
        match self {
            Self::Task(signature) => signature.clone(),
            Self::Chain(chain) => chain.frame.signature("chain", vec![("tasks", raw_list(&chain.steps))]),
            Self::Group(group) => group.frame.signature("group", vec![("tasks", raw_list(&group.members))]),
            Self::Chord(chord) => {
                let header = match &chord.header_frame {
                    None => raw_list(&chord.header),
                    Some(frame) => {
                        frame.signature("group", vec![("tasks", raw_list(&chord.header))]).to_raw()
                    }
                };
                let body = chord.body.as_ref().map_or_else(pyjson::null, |body| body.to_signature().to_raw());
                let mut signature = chord.frame.signature("chord", vec![("header", header), ("body", body)]);
                if !signature.kwargs.contains("kwargs") {
                    // Celery's reader of chords unpacks this key
                    let parts = std::mem::take(&mut signature.kwargs);
                    signature.kwargs.insert_raw("kwargs", RawMap::new().to_raw());
                    signature.kwargs.update(parts);
                }
                signature
            }
        }
    }

    /// How the node is called.
    pub fn options(&self) -> &SignatureOptions {
        match self {
            Self::Task(signature) => &signature.options,
            Self::Chain(ChainNode { frame, .. })
            | Self::Group(GroupNode { frame, .. })
            | Self::Chord(ChordNode { frame, .. }) => &frame.options,
        }
    }

    /// How the node is called.
    pub fn options_mut(&mut self) -> &mut SignatureOptions {
        match self {
            Self::Task(signature) => &mut signature.options,
            Self::Chain(ChainNode { frame, .. })
            | Self::Group(GroupNode { frame, .. })
            | Self::Chord(ChordNode { frame, .. }) => &mut frame.options,
        }
    }

    /// How many results a chord that has this in its header waits for: a call one, a group its members, a chain its last
    /// step that has any, a chord its body.
    pub fn chord_size(&self) -> usize {
        match self {
            Self::Task(_) => 1,
            Self::Group(group) => group.members.iter().map(Self::chord_size).sum(),
            Self::Chain(chain) => {
                chain.steps.iter().rev().map(Self::chord_size).find(|size| *size > 0).unwrap_or(0)
            }
            Self::Chord(chord) => chord.body.as_ref().map_or(0, |body| body.chord_size()),
        }
    }

    /// Puts `args` before the arguments of the node, and `kwargs` over them, unless it is immutable.
    pub(super) fn add_arguments(&mut self, args: &[Box<RawValue>], kwargs: RawMap) {
        let (own_args, own_kwargs, immutable) = match self {
            Self::Task(Signature { args, kwargs, immutable, .. }) => (args, Some(kwargs), *immutable),
            Self::Chain(ChainNode { frame, .. })
            | Self::Group(GroupNode { frame, .. })
            | Self::Chord(ChordNode { frame, .. }) => (&mut frame.args, None, frame.immutable),
        };
        if immutable {
            return;
        }
        own_args.prepend(args.iter().cloned());
        if let Some(own_kwargs) = own_kwargs {
            own_kwargs.update(kwargs);
        }
    }

    /// A group without members.
    pub(super) fn is_empty_group(&self) -> bool {
        matches!(self, Self::Group(group) if group.members.is_empty())
    }

    /// A chain without steps.
    pub(super) fn is_empty_chain(&self) -> bool {
        matches!(self, Self::Chain(chain) if chain.steps.is_empty())
    }

    /// A group of one is its member.
    pub(super) fn unroll(self) -> Self {
        match self {
            Self::Group(mut group) if group.members.len() == 1 => group.members.remove(0),
            other => other,
        }
    }
}

impl Frame {
    fn signature(&self, kind: &'static str, parts: Vec<(&str, Box<RawValue>)>) -> Signature {
        let mut kwargs = self.kwargs.clone();
        for (name, part) in parts {
            kwargs.insert_raw(name, part);
        }
        Signature {
            task: TaskName::builtin(kind),
            args: self.args.clone(),
            kwargs,
            options: self.options.clone(),
            subtask_type: Some(kind.to_owned()),
            immutable: self.immutable,
            extra: self.extra.clone(),
        }
    }
}

impl ChainNode {
    /// A chain of these steps, as they are.
    pub fn of(steps: Vec<Canvas>) -> Self {
        Self { steps, frame: Frame::default() }
    }
}

impl GroupNode {
    /// A group of these members.
    pub fn of(members: Vec<Canvas>) -> Self {
        Self { members, frame: Frame::default() }
    }
}

impl ChordNode {
    /// A chord. A group, or a chain, in place of the header stands for its parts; anything else is a header of one.
    pub fn of(header: Canvas, body: Canvas) -> Self {
        let header = match header {
            Canvas::Group(group) => group.members,
            Canvas::Chain(chain) => chain.steps,
            other => vec![other],
        };
        Self { header, header_frame: None, body: Some(Box::new(body)), frame: Frame::default() }
    }
}

fn list(raw: &RawValue) -> Result<Vec<Canvas>, SignatureError> {
    let mut scanner = Scanner::new(raw.get().as_bytes(), MAX_DEPTH)?;
    let mut array = scanner.array()?;
    let mut items = Vec::new();
    while scanner.next_element(&mut array)? {
        items.push(Canvas::from_json(scanner.value()?)?);
    }
    Ok(items)
}

fn raw_list(items: &[Canvas]) -> Box<RawValue> {
    let items: Vec<_> = items.iter().map(|item| item.to_signature().to_raw()).collect();
    RawArgs::from(items).to_raw()
}

impl From<Signature> for Canvas {
    /// The signature as one call, whatever it stands for.
    fn from(signature: Signature) -> Self {
        Self::Task(signature)
    }
}

impl From<ChainNode> for Canvas {
    fn from(chain: ChainNode) -> Self {
        Self::Chain(chain)
    }
}

impl From<GroupNode> for Canvas {
    fn from(group: GroupNode) -> Self {
        Self::Group(group)
    }
}

impl From<ChordNode> for Canvas {
    fn from(chord: ChordNode) -> Self {
        Self::Chord(chord)
    }
}

impl Serialize for Canvas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_signature().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Canvas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_signature(Signature::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
