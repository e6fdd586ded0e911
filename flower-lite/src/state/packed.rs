//! The timeline of a task as bytes: there are hundreds of thousands of them, and as structures they cost more than what
//! they say.
//!
//! First the task's id, then each mark: how long it is, kind, sender, time, clock, and its fields by [`Tag`]. Names that
//! many tasks share (workers, tasks, queues) are numbers in a list that tasks share as well. A task changes a few times and
//! is looked at rarely, so a new mark is written into a copy, and fields are found by walking.

use std::cmp::Ordering;
use std::sync::Arc;

use celery_protocol::TaskState;
use serde_json::{Map, Value};

use super::key::TaskKey;
use super::mark::{Call, Custom, Kind, Mark, Revocation, Sent, Success, Trouble, What};
use super::time::UnixTime;

/// Names that tasks share, and lists of them.
pub(crate) type NameList = Arc<[Arc<str>]>;

/// A timeline: marks in the order of [`Mark::order`].
#[derive(Clone, Debug)]
pub(super) struct Packed {
    bytes: Box<[u8]>,
    names: NameList,
}

/// What a field is; the upper five bits say how it is written.
type Tag = u8;
mod tag {
    use super::Tag;
    pub(super) const ARGS: Tag = TEXT << 4;
    pub(super) const KWARGS: Tag = ARGS + 1;
    pub(super) const ROOT: Tag = ARGS + 2;
    pub(super) const PARENT: Tag = ARGS + 3;
    pub(super) const RESULT: Tag = ARGS + 4;
    pub(super) const EXCEPTION: Tag = ARGS + 5;
    pub(super) const TRACEBACK: Tag = ARGS + 6;
    pub(super) const SIGNAL: Tag = ARGS + 7;
    pub(super) const OWN_NAME: Tag = ARGS + 8;
    pub(super) const FIELDS: Tag = ARGS + 9;
    pub(super) const NAME: Tag = SHARED << 4;
    pub(super) const QUEUE: Tag = NAME + 1;
    pub(super) const EXCHANGE: Tag = NAME + 2;
    pub(super) const ROUTING_KEY: Tag = NAME + 3;
    pub(super) const RETRIES: Tag = NUMBER << 4;
    pub(super) const ETA: Tag = FLOAT << 4;
    pub(super) const EXPIRES: Tag = ETA + 1;
    pub(super) const RUNTIME: Tag = ETA + 2;
    pub(super) const IS_ROOT: Tag = FLAG << 4;
    pub(super) const TERMINATED: Tag = IS_ROOT + 1;
    pub(super) const EXPIRED: Tag = IS_ROOT + 2;
    pub(super) const REQUEUE: Tag = IS_ROOT + 3;

    pub(super) const TEXT: u8 = 0;
    pub(super) const SHARED: u8 = 1;
    pub(super) const NUMBER: u8 = 2;
    pub(super) const FLOAT: u8 = 3;
    pub(super) const FLAG: u8 = 4;
}

const KINDS: [Kind; 9] = [
    Kind::Sent,
    Kind::Received,
    Kind::Started,
    Kind::Custom,
    Kind::Retried,
    Kind::Rejected,
    Kind::Revoked,
    Kind::Failed,
    Kind::Succeeded,
];
/// Beside the kind: it was told by the result backend.
const STORED: u8 = 0x80;

/// One mark of a timeline, to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) at: UnixTime,
    pub(super) clock: u64,
    pub(super) kind: Kind,
    pub(super) stored: bool,
    /// Who sent it, by its number in the list of names.
    pub(super) origin: usize,
    id: &'a str,
    names: &'a [Arc<str>],
    body: &'a [u8],
    /// Where it ends among the bytes.
    end: usize,
}

impl Packed {
    /// That of a task of which nothing is known.
    pub(super) fn new(id: &str) -> Packed {
        let mut bytes = Vec::with_capacity(id.len() + 2);
        put_text(&mut bytes, id);
        Packed { bytes: bytes.into(), names: Arc::from([]) }
    }

    /// The task's id.
    pub(super) fn id(&self) -> &str {
        Reader(&self.bytes).text().unwrap_or_default()
    }

    /// How many bytes it takes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The name with this number.
    pub(super) fn name(&self, index: usize) -> Option<&Arc<str>> {
        self.names.get(index)
    }

    /// Its marks, in order.
    pub(super) fn entries(&self) -> Entries<'_> {
        let mut rest = Reader(&self.bytes);
        let id = rest.text().unwrap_or_default();
        Entries { id, names: &self.names, whole: self.bytes.len(), rest }
    }

    /// Writes `mark` behind the entry that ends at `place`, or in front of all. `share` gives the one copy of a list of
    /// names.
    pub(super) fn insert(
        &mut self,
        place: Option<usize>,
        mark: &Mark,
        share: &mut dyn FnMut(Vec<Arc<str>>) -> NameList,
    ) {
        let mut names = NamesOf { known: &self.names, more: Vec::new() };
        let entry = write(mark, self.id(), &mut names);
        let more = names.more;
        let place = place.unwrap_or_else(|| self.bytes.len() - self.entries().rest.0.len());
        let (before, after) = self.bytes.split_at(place.min(self.bytes.len()));
        let mut bytes = Vec::with_capacity(self.bytes.len() + entry.len() + 4);
        bytes.extend_from_slice(before);
        put_number(&mut bytes, entry.len() as u64);
        bytes.extend_from_slice(&entry);
        bytes.extend_from_slice(after);
        self.bytes = bytes.into();
        if !more.is_empty() {
            self.names = share(self.names.iter().cloned().chain(more).collect());
        }
    }

    /// Keeps those marks for which `keep` says so, by their place in the order. Names that nothing needs any more go too.
    pub(super) fn retain(
        &mut self,
        mut keep: impl FnMut(usize, &Entry<'_>) -> bool,
        share: &mut dyn FnMut(Vec<Arc<str>>) -> NameList,
    ) {
        let mut names = NamesOf { known: &[], more: Vec::new() };
        let mut bytes = Vec::with_capacity(self.bytes.len());
        put_text(&mut bytes, self.id());
        for (index, entry) in self.entries().enumerate() {
            if keep(index, &entry) {
                let entry = write(&entry.mark(), self.id(), &mut names);
                put_number(&mut bytes, entry.len() as u64);
                bytes.extend_from_slice(&entry);
            }
        }
        let names = names.more;
        self.bytes = bytes.into();
        self.names = share(names);
    }
}

/// The marks of a timeline.
#[derive(Clone, Debug)]
pub(super) struct Entries<'a> {
    id: &'a str,
    names: &'a [Arc<str>],
    whole: usize,
    rest: Reader<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let length = usize::try_from(self.rest.number()?).ok()?;
        let mut bytes = Reader(self.rest.take(length)?);
        let head = bytes.byte()?;
        Some(Entry {
            kind: *KINDS.get(usize::from(head & !STORED))?,
            stored: head & STORED != 0,
            origin: usize::try_from(bytes.number()?).ok()?,
            at: UnixTime::new(bytes.float()?)?,
            clock: bytes.number()?,
            id: self.id,
            names: self.names,
            body: bytes.0,
            end: self.whole - self.rest.0.len(),
        })
    }
}

impl<'a> Entry<'a> {
    /// Where it ends among the bytes of its timeline.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Who sent it.
    pub(super) fn origin(&self) -> Option<&'a Arc<str>> {
        self.names.get(self.origin)
    }

    /// [`Mark::order`].
    pub(super) fn order(&self, mark: &Mark) -> Ordering {
        self.at
            .cmp(&mark.at)
            .then(self.clock.cmp(&mark.clock))
            .then(self.kind.cmp(&mark.what.kind()))
            .then_with(|| self.origin().map_or("", |origin| origin).cmp(&mark.origin))
            .then_with(|| self.event_name().cmp(mark.what.name()))
    }

    /// What follows `task-` in the event's type.
    fn event_name(&self) -> &'a str {
        if self.kind == Kind::Custom { self.own_name() } else { self.kind.name() }
    }

    fn own_name(&self) -> &'a str {
        self.text(tag::OWN_NAME).unwrap_or_default()
    }

    /// [`What::state`].
    pub(super) fn state(&self) -> TaskState {
        match self.kind {
            Kind::Sent => TaskState::Pending,
            Kind::Received => TaskState::Received,
            Kind::Started => TaskState::Started,
            Kind::Succeeded => TaskState::Success,
            Kind::Failed => TaskState::Failure,
            Kind::Retried => TaskState::Retry,
            Kind::Revoked => TaskState::Revoked,
            Kind::Rejected => TaskState::Rejected,
            Kind::Custom => TaskState::from(self.own_name().to_uppercase().as_str()),
        }
    }

    fn field(&self, wanted: Tag) -> Option<Reader<'a>> {
        let mut rest = Reader(self.body);
        loop {
            let tag = rest.byte()?;
            if tag == wanted {
                return Some(rest);
            }
            match tag >> 4 {
                tag::TEXT => drop(rest.bytes()?),
                tag::SHARED | tag::NUMBER => drop(rest.number()?),
                tag::FLOAT => drop(rest.float()?),
                _ => {}
            }
        }
    }

    fn text(&self, tag: Tag) -> Option<&'a str> {
        self.field(tag)?.text()
    }

    fn shared(&self, tag: Tag) -> Option<&'a Arc<str>> {
        self.names.get(usize::try_from(self.field(tag)?.number()?).ok()?)
    }

    fn float(&self, tag: Tag) -> Option<f64> {
        self.field(tag)?.float()
    }

    fn has(&self, tag: Tag) -> bool {
        self.field(tag).is_some()
    }

    pub(super) fn name(&self) -> Option<&'a Arc<str>> {
        self.shared(tag::NAME)
    }

    pub(super) fn queue(&self) -> Option<&'a Arc<str>> {
        self.shared(tag::QUEUE)
    }

    pub(super) fn exchange(&self) -> Option<&'a Arc<str>> {
        self.shared(tag::EXCHANGE)
    }

    pub(super) fn routing_key(&self) -> Option<&'a Arc<str>> {
        self.shared(tag::ROUTING_KEY)
    }

    pub(super) fn args(&self) -> Option<&'a str> {
        self.text(tag::ARGS)
    }

    pub(super) fn kwargs(&self) -> Option<&'a str> {
        self.text(tag::KWARGS)
    }

    pub(super) fn root(&self) -> Option<&'a str> {
        if self.has(tag::IS_ROOT) { Some(self.id) } else { self.text(tag::ROOT) }
    }

    pub(super) fn parent(&self) -> Option<&'a str> {
        self.text(tag::PARENT)
    }

    pub(super) fn retries(&self) -> u32 {
        let retries = self.field(tag::RETRIES).and_then(|mut rest| rest.number());
        retries.map_or(0, |retries| u32::try_from(retries).unwrap_or(u32::MAX))
    }

    pub(super) fn eta(&self) -> Option<UnixTime> {
        self.float(tag::ETA).and_then(UnixTime::new)
    }

    pub(super) fn expires(&self) -> Option<UnixTime> {
        self.float(tag::EXPIRES).and_then(UnixTime::new)
    }

    pub(super) fn result(&self) -> Option<&'a str> {
        self.text(tag::RESULT)
    }

    pub(super) fn runtime(&self) -> Option<f64> {
        self.float(tag::RUNTIME)
    }

    pub(super) fn exception(&self) -> Option<&'a str> {
        self.text(tag::EXCEPTION)
    }

    pub(super) fn traceback(&self) -> Option<&'a str> {
        self.text(tag::TRACEBACK)
    }

    /// The mark itself.
    pub(super) fn mark(&self) -> Mark {
        let owned = |text: Option<&str>| text.map(Box::from);
        let call = || Call {
            name: self.name().cloned(),
            args: owned(self.args()),
            kwargs: owned(self.kwargs()),
            root: self.root().map(TaskKey::from),
            parent: self.parent().map(TaskKey::from),
            retries: self.retries(),
            eta: self.eta(),
            expires: self.expires(),
        };
        let trouble =
            || Box::new(Trouble { exception: owned(self.exception()), traceback: owned(self.traceback()) });
        let what = match self.kind {
            Kind::Sent => What::Sent(Box::new(Sent {
                call: call(),
                queue: self.queue().cloned(),
                exchange: self.exchange().cloned(),
                routing_key: self.routing_key().cloned(),
            })),
            Kind::Received => What::Received(Box::new(call())),
            Kind::Started => What::Started,
            Kind::Succeeded => {
                What::Succeeded(Box::new(Success { result: owned(self.result()), runtime: self.runtime() }))
            }
            Kind::Failed => What::Failed(trouble()),
            Kind::Retried => What::Retried(trouble()),
            Kind::Revoked => What::Revoked(Box::new(Revocation {
                terminated: self.has(tag::TERMINATED),
                signal: owned(self.text(tag::SIGNAL)),
                expired: self.has(tag::EXPIRED),
            })),
            Kind::Rejected => What::Rejected { requeue: self.has(tag::REQUEUE) },
            Kind::Custom => {
                What::Custom(Box::new(Custom { name: self.own_name().into(), fields: self.fields() }))
            }
        };
        let origin = self.origin().cloned().unwrap_or_else(|| Arc::from(""));
        Mark { at: self.at, clock: self.clock, origin, what, stored: self.stored }
    }

    fn fields(&self) -> Map<String, Value> {
        self.text(tag::FIELDS).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

/// Names while marks are written: those that are known have numbers, others get the next ones.
struct NamesOf<'a> {
    known: &'a [Arc<str>],
    more: Vec<Arc<str>>,
}

impl NamesOf<'_> {
    fn number(&mut self, name: &Arc<str>) -> u64 {
        let same = |known: &Arc<str>| Arc::ptr_eq(known, name) || **known == **name;
        let known = self.known.iter().chain(&self.more).position(same);
        known.unwrap_or_else(|| {
            self.more.push(name.clone());
            self.known.len() + self.more.len() - 1
        }) as u64
    }
}

fn write(mark: &Mark, id: &str, names: &mut NamesOf<'_>) -> Vec<u8> {
    let mut fields = Fields { bytes: Vec::with_capacity(256), names };
    fields.bytes.push(mark.what.kind() as u8 | if mark.stored { STORED } else { 0 });
    let origin = fields.names.number(&mark.origin);
    put_number(&mut fields.bytes, origin);
    fields.bytes.extend_from_slice(&mark.at.seconds().to_le_bytes());
    put_number(&mut fields.bytes, mark.clock);
    match &mark.what {
        What::Sent(sent) => {
            fields.call(&sent.call, id);
            fields.shared(tag::QUEUE, sent.queue.as_ref());
            fields.shared(tag::EXCHANGE, sent.exchange.as_ref());
            fields.shared(tag::ROUTING_KEY, sent.routing_key.as_ref());
        }
        What::Received(call) => fields.call(call, id),
        What::Started => {}
        What::Succeeded(success) => {
            fields.text(tag::RESULT, success.result.as_deref());
            fields.float(tag::RUNTIME, success.runtime);
        }
        What::Failed(trouble) | What::Retried(trouble) => {
            fields.text(tag::EXCEPTION, trouble.exception.as_deref());
            fields.text(tag::TRACEBACK, trouble.traceback.as_deref());
        }
        What::Revoked(revocation) => {
            fields.flag(tag::TERMINATED, revocation.terminated);
            fields.text(tag::SIGNAL, revocation.signal.as_deref());
            fields.flag(tag::EXPIRED, revocation.expired);
        }
        What::Rejected { requeue } => fields.flag(tag::REQUEUE, *requeue),
        What::Custom(custom) => {
            fields.text(tag::OWN_NAME, Some(&custom.name));
            if !custom.fields.is_empty() {
                fields.text(tag::FIELDS, serde_json::to_string(&custom.fields).ok().as_deref());
            }
        }
    }
    fields.bytes
}

struct Fields<'a, 'n> {
    bytes: Vec<u8>,
    names: &'a mut NamesOf<'n>,
}

impl Fields<'_, '_> {
    fn call(&mut self, call: &Call, id: &str) {
        // What is asked for most comes first: it is found by walking.
        self.shared(tag::NAME, call.name.as_ref());
        if call.retries > 0 {
            self.bytes.push(tag::RETRIES);
            put_number(&mut self.bytes, u64::from(call.retries));
        }
        let root = call.root.as_ref().map(TaskKey::as_str);
        self.flag(tag::IS_ROOT, root == Some(id));
        self.text(tag::ROOT, root.filter(|root| *root != id));
        self.text(tag::PARENT, call.parent.as_ref().map(TaskKey::as_str));
        self.float(tag::ETA, call.eta.map(UnixTime::seconds));
        self.float(tag::EXPIRES, call.expires.map(UnixTime::seconds));
        self.text(tag::ARGS, call.args.as_deref());
        self.text(tag::KWARGS, call.kwargs.as_deref());
    }

    fn text(&mut self, tag: Tag, text: Option<&str>) {
        if let Some(text) = text {
            self.bytes.push(tag);
            put_text(&mut self.bytes, text);
        }
    }

    fn shared(&mut self, tag: Tag, name: Option<&Arc<str>>) {
        if let Some(name) = name {
            self.bytes.push(tag);
            let number = self.names.number(name);
            put_number(&mut self.bytes, number);
        }
    }

    fn float(&mut self, tag: Tag, number: Option<f64>) {
        if let Some(number) = number {
            self.bytes.push(tag);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn flag(&mut self, tag: Tag, set: bool) {
        if set {
            self.bytes.push(tag);
        }
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// Bytes that are read from the front. What isn't there reads as `None`.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn float(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}
