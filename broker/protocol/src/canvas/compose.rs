//! Joining workflows, as Python's `|`, `chain(…)`, `link` and `link_error` do.

use super::{Canvas, ChainNode, ChordNode, Frame, Signature, SignatureError};

impl Canvas {
    /// What Python's `self | next` gives: `next` runs with the result of `self`.
    ///
    /// A group before something becomes a chord; what follows a chord becomes part of its body; a group of one is its
    /// member, unless it comes first; an empty group is nothing.
    ///
    /// # Errors
    /// A callback among the options of a chain is not a signature.
    pub fn then(self, next: Canvas) -> Result<Canvas, SignatureError> {
        match (self, next) {
            (group @ Self::Group(_), next) if next.is_empty_group() => Ok(group),
            (group @ Self::Group(_), next) => Ok(ChordNode::of(group, next).into()),
            (Self::Chord(chord), next) => match next {
                next @ (Self::Task(_) | Self::Chord(_)) => chord.extend_body(next),
                Self::Group(group) if group.members.len() == 1 => {
                    chord.extend_body(Self::Group(group).unroll())
                }
                Self::Chain(chain) => {
                    let mut steps = vec![Self::Chord(chord)];
                    steps.extend(chain.unchain()?);
                    Ok(ChainNode::of(steps).into())
                }
                next => Ok(ChainNode::of(vec![Self::Chord(chord), next]).into()),
            },
            (Self::Chain(chain), next) => chain.then(next),
            (task @ Self::Task(_), Self::Chain(chain)) => {
                let mut steps = vec![task];
                steps.extend(chain.unchain()?);
                Ok(ChainNode::of(steps).into())
            }
            (task @ Self::Task(_), next) if next.is_empty_group() => Ok(task),
            (task @ Self::Task(_), next) => Ok(ChainNode::of(vec![task, next.unroll()]).into()),
        }
    }

    /// What Python's `chain(*steps)` gives.
    ///
    /// # Errors
    /// As [`then`](Self::then).
    pub fn chain(steps: impl IntoIterator<Item = Canvas>) -> Result<Canvas, SignatureError> {
        let empty = Canvas::Chain(ChainNode::default());
        steps.into_iter().try_fold(empty, Self::then)
    }

    /// Calls `callback` with the result: of a call; of a chain's last step; of a chord's body. A group calls it once, with
    /// no result, when its first member is done.
    ///
    /// # Errors
    /// What is linked already is not a list of signatures.
    pub fn link(&mut self, callback: &Signature) -> Result<(), SignatureError> {
        match self {
            Self::Task(signature) => signature.options.add_link(callback),
            Self::Chain(chain) => chain.frame.options.add_link(callback),
            Self::Chord(chord) => match &mut chord.body {
                Some(body) => body.link(callback),
                None => Err(SignatureError("a chord without body has nothing to link to".to_owned())),
            },
            Self::Group(group) => match group.members.first_mut() {
                Some(first) => first.link(&callback.clone().immutable()),
                None => Ok(()),
            },
        }
    }

    /// Calls `errback` on failure: of a call; of any step of a chain; of any member of a group; of a chord's body, and of
    /// the bodies of chords in its header.
    ///
    /// # Errors
    /// What is linked already is not a list of signatures.
    pub fn link_error(&mut self, errback: &Signature) -> Result<(), SignatureError> {
        match self {
            Self::Task(signature) => signature.options.add_link_error(errback),
            Self::Chain(chain) => chain.frame.options.add_link_error(errback),
            Self::Group(group) => group.members.iter_mut().try_for_each(|member| member.link_error(errback)),
            Self::Chord(chord) => {
                let inner = chord.header.iter_mut().filter(|member| matches!(member, Self::Chord(_)));
                inner.chain(chord.body.as_deref_mut()).try_for_each(|part| part.link_error(errback))
            }
        }
    }
}

impl ChainNode {
    /// The steps, with the chain's own callbacks at the last and its errbacks at each.
    pub(super) fn unchain(self) -> Result<Vec<Canvas>, SignatureError> {
        let Self { mut steps, frame } = self;
        for callback in frame.options.link()? {
            if let Some(last) = steps.last_mut() {
                last.link(&callback)?;
            }
        }
        for errback in frame.options.link_error()? {
            steps.iter_mut().try_for_each(|step| step.link_error(&errback))?;
        }
        Ok(steps)
    }

    fn then(mut self, next: Canvas) -> Result<Canvas, SignatureError> {
        if next.is_empty_group() {
            return Ok(self.into());
        }
        match next.unroll() {
            Canvas::Chain(chain) => chain.unchain()?.into_iter().try_fold(self.into(), Canvas::then),
            next => {
                match self.steps.pop() {
                    Some(last @ Canvas::Group(_)) if !matches!(next, Canvas::Group(_)) => {
                        self.push_chord(ChordNode::of(last, next))?;
                        Ok(self.into())
                    }
                    Some(Canvas::Chord(chord)) if !matches!(next, Canvas::Chord(_)) => {
                        self.steps.push(chord.extend_body(next)?);
                        Ok(self.into())
                    }
                    // an empty chain before a group is that group
                    None if matches!(next, Canvas::Group(_)) => Ok(next),
                    last => {
                        // a longer chain is another chain: the options were those of the shorter one
                        let frame = Frame { args: self.frame.args.clone(), ..Frame::default() };
                        self.steps.extend(last);
                        let mut steps = self.unchain()?;
                        steps.push(next);
                        Ok(ChainNode { steps, frame }.into())
                    }
                }
            }
        }
    }

    /// A chord that follows another one becomes part of the other's body.
    fn push_chord(&mut self, chord: ChordNode) -> Result<(), SignatureError> {
        match self.steps.pop() {
            Some(Canvas::Chord(before)) => self.steps.push(before.extend_body(chord.into())?),
            before => self.steps.extend(before.into_iter().chain([chord.into()])),
        }
        Ok(())
    }
}

impl ChordNode {
    /// With `next` behind the body.
    fn extend_body(mut self, next: Canvas) -> Result<Canvas, SignatureError> {
        let body = match self.body.take() {
            Some(body) => body.then(next)?,
            None => next,
        };
        self.body = Some(Box::new(body));
        Ok(self.into())
    }
}
