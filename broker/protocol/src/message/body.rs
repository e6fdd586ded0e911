//! The body of a task message: `[args, kwargs, embed]`.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;

use super::{Malformed, Reason};
use crate::{
    Limits, RawArgs, RawKwargs, RawMap, Signature, content,
    pyjson::{self, ErrorKind, Scanner},
};

/// How a body without workflow ends, as Celery writes it.
const NO_EMBED: &str = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}"#;

/// Arguments, and what is to happen after the call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Body {
    /// Positional arguments.
    pub args: RawArgs,
    /// Keyword arguments.
    pub kwargs: RawKwargs,
    /// What follows the call.
    pub embed: Embed,
}

/// What follows a call. Celery embeds it in the call's own message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embed {
    /// Sent with the result when the call has succeeded.
    pub callbacks: Signatures,
    /// Sent when it has failed.
    pub errbacks: Signatures,
    /// The remaining steps of the chain **in reverse order**: the next one is the last.
    pub chain: Signatures,
    /// The body of the chord that the call is a header member of.
    pub chord: Option<Box<Signature>>,
    /// Keys that this crate does not model.
    pub extra: RawMap,
}

/// A list of signatures that may be `null`. It derefs to the list; `null` is an empty one that was never set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signatures {
    list: Vec<Signature>,
    /// Written as `[]` when empty, as Celery does in the last step of a chain.
    set: bool,
}

impl Body {
    /// Reads a body.
    ///
    /// # Errors
    /// The content is of a kind that is not read, is not `[args, kwargs, embed]`, or breaks a limit.
    pub fn decode(
        content_type: Option<&str>,
        encoding: Option<&str>,
        compression: Option<&str>,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Body, Malformed> {
        let json = content::json(content_type, encoding, compression, bytes, limits)
            .map_err(|(reason, detail)| Malformed::new(reason, detail))?;
        let mut scanner = Scanner::new(&json, limits.depth).map_err(bad_body)?;
        if scanner.peek() != Some(b'[') {
            return Err(Malformed::new(Reason::BadBody, "the body is not a list of three"));
        }
        scanner.expect(b'[', "a list of three").map_err(bad_body)?;
        let args = match scanner.peek() {
            Some(b'[') => RawArgs::scan(&mut scanner, limits.arguments).map_err(bad_body)?,
            _ => return Err(Malformed::new(Reason::BadBody, "args is not a list")),
        };
        scanner.expect(b',', "three elements").map_err(bad_body)?;
        let kwargs = match scanner.peek() {
            Some(b'{') => RawKwargs::scan(&mut scanner, limits.arguments).map_err(bad_body)?,
            _ => return Err(Malformed::new(Reason::BadBody, "kwargs is not an object")),
        };
        scanner.expect(b',', "three elements").map_err(bad_body)?;
        let embed = scanner.value().map_err(bad_body)?;
        scanner.expect(b']', "the end of a list of three").map_err(bad_body)?;
        scanner.end().map_err(bad_body)?;
        Ok(Body { args, kwargs, embed: Embed::decode(embed, limits)? })
    }

    /// The body as Celery writes it in JSON.
    pub fn encode_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(128);
        out.push(b'[');
        self.args.write(&mut out);
        out.extend_from_slice(b", ");
        self.kwargs.write(&mut out);
        out.extend_from_slice(b", ");
        self.embed.write(&mut out);
        out.push(b']');
        out.into()
    }
}

impl Embed {
    /// Whether nothing follows the call.
    pub fn is_empty(&self) -> bool {
        self.callbacks.is_empty() && self.errbacks.is_empty() && self.chain.is_empty() && self.chord.is_none()
    }

    /// Appends the JSON object to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if *self == Embed::default() {
            out.extend_from_slice(NO_EMBED.as_bytes());
            return;
        }
        out.extend_from_slice(b"{\"callbacks\": ");
        self.callbacks.write(out);
        out.extend_from_slice(b", \"errbacks\": ");
        self.errbacks.write(out);
        out.extend_from_slice(b", \"chain\": ");
        self.chain.write(out);
        out.extend_from_slice(b", \"chord\": ");
        match &self.chord {
            Some(chord) => chord.write(out),
            None => out.extend_from_slice(b"null"),
        }
        self.extra.write_pairs(out, false);
        out.push(b'}');
    }

    fn decode(json: &str, limits: &Limits) -> Result<Self, Malformed> {
        if json == NO_EMBED || json == "null" {
            return Ok(Self::default());
        }
        let mut scanner = Scanner::new(json.as_bytes(), limits.depth).map_err(bad_body)?;
        if scanner.peek() != Some(b'{') {
            return Err(Malformed::new(Reason::BadEmbed, "embed is not an object"));
        }
        let mut object = scanner.object().map_err(bad_body)?;
        let mut embed = Self::default();
        while let Some(key) = scanner.next_key(&mut object).map_err(bad_body)? {
            match &*key {
                "callbacks" => embed.callbacks = Signatures::scan(&mut scanner, "callbacks", limits)?,
                "errbacks" => embed.errbacks = Signatures::scan(&mut scanner, "errbacks", limits)?,
                "chain" => embed.chain = Signatures::scan(&mut scanner, "chain", limits)?,
                "chord" => {
                    let value = scanner.value().map_err(bad_body)?;
                    embed.chord = match value {
                        "null" => None,
                        _ => Some(Box::new(signature(value, "chord")?)),
                    };
                }
                _ => {
                    let value = scanner.value().map_err(bad_body)?;
                    embed.extra.insert_raw(key.into_owned(), pyjson::raw_owned(value.to_owned()));
                    if embed.extra.len() > limits.signatures {
                        return Err(Malformed::new(Reason::BadEmbed, "embed has too many keys"));
                    }
                }
            }
        }
        Ok(embed)
    }
}

impl Signatures {
    /// The list, written as `[]` when empty.
    pub fn new(list: Vec<Signature>) -> Self {
        Self { list, set: true }
    }

    /// The signatures.
    pub fn into_vec(self) -> Vec<Signature> {
        self.list
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.list.is_empty() && !self.set {
            out.extend_from_slice(b"null");
            return;
        }
        out.push(b'[');
        for (index, signature) in self.list.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            signature.write(out);
        }
        out.push(b']');
    }

    fn scan(scanner: &mut Scanner<'_>, name: &str, limits: &Limits) -> Result<Self, Malformed> {
        match scanner.peek() {
            Some(b'[') => {}
            _ if scanner.value().map_err(bad_body)? == "null" => return Ok(Self::default()),
            _ => return Err(Malformed::new(Reason::BadEmbed, format!("{name} is not a list"))),
        }
        let mut array = scanner.array().map_err(bad_body)?;
        let mut list = Vec::new();
        while scanner.next_element(&mut array).map_err(bad_body)? {
            if list.len() == limits.signatures {
                let detail = format!("{name} has more than {} signatures", limits.signatures);
                return Err(Malformed::new(Reason::BadEmbed, detail));
            }
            list.push(signature(scanner.value().map_err(bad_body)?, name)?);
        }
        Ok(Self::new(list))
    }
}

impl From<Vec<Signature>> for Signatures {
    fn from(list: Vec<Signature>) -> Self {
        Self::new(list)
    }
}

impl Deref for Signatures {
    type Target = Vec<Signature>;

    fn deref(&self) -> &Vec<Signature> {
        &self.list
    }
}

impl DerefMut for Signatures {
    fn deref_mut(&mut self) -> &mut Vec<Signature> {
        &mut self.list
    }
}

fn signature(json: &str, name: &str) -> Result<Signature, Malformed> {
    Signature::from_json(json).map_err(|err| Malformed::new(Reason::BadEmbed, format!("{name}: {err}")))
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn bad_body(err: pyjson::Error) -> Malformed {
    let reason = if *err.kind() == ErrorKind::TooMany { Reason::TooLarge } else { Reason::BadBody };
    Malformed::new(reason, err.to_string())
}
