//! What the bytes of a body are: content type, character encoding, compression. Everything is unpacked under bounds
//! and becomes JSON, which is all that the rest of the crate knows.
//!
//! pickle is refused always: reading it runs code. A type that is allowed but has no reader here says so by name.

mod compress;
mod msgpack;
mod yaml;

use std::borrow::Cow;

pub(crate) use compress::{compress, decompress};

use crate::{Limits, message::Reason, options::Serializer, pyjson};

/// The kinds of content that messages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/x-msgpack`
    Msgpack,
    /// `application/x-yaml`
    Yaml,
    /// `application/x-python-serialize`; never read
    Pickle,
    /// `text/plain`
    Text,
    /// `application/data`
    Data,
}

impl ContentType {
    /// The content type of messages made here.
    pub const JSON: &str = "application/json";

    /// Recognises a MIME type or one of Celery's short names; parameters behind `;` are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.split(';').next().unwrap_or(text).trim();
        let known: [(&[&str], Self); 6] = [
            (&["application/json", "json"], Self::Json),
            (&["application/x-msgpack", "application/msgpack", "msgpack"], Self::Msgpack),
            (&["application/x-yaml", "application/yaml", "yaml"], Self::Yaml),
            (&["application/x-python-serialize", "pickle"], Self::Pickle),
            (&["text/plain", "application/text", "text"], Self::Text),
            (&["application/data", "raw"], Self::Data),
        ];
        known
            .iter()
            .find(|(names, _)| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
            .map(|known| known.1)
    }
}

/// The content types that a receiver takes, as `accept_content` says. pickle can't be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    json: bool,
    msgpack: bool,
    yaml: bool,
}

impl Accept {
    /// JSON alone, Celery's default.
    pub const JSON: Accept = Accept { json: true, msgpack: false, yaml: false };
    /// Everything that has a reader here.
    pub const ALL: Accept = Accept { json: true, msgpack: true, yaml: true };

    /// From names such as `json` or `application/x-msgpack`.
    ///
    /// # Errors
    /// The first name that can't be accepted.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut accept = Accept { json: false, msgpack: false, yaml: false };
        for name in names {
            match ContentType::parse(name) {
                Some(ContentType::Json) => accept.json = true,
                Some(ContentType::Msgpack) => accept.msgpack = true,
                Some(ContentType::Yaml) => accept.yaml = true,
                Some(ContentType::Pickle) => {
                    return Err("pickle: reading it runs code, so it is never accepted".to_owned());
                }
                _ => return Err(format!("{}: not a content type that is read here", cut(name))),
            }
        }
        Ok(accept)
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let all = [("json", self.json), ("msgpack", self.msgpack), ("yaml", self.yaml)];
        all.into_iter().filter(|(_, taken)| *taken).map(|(name, _)| name).collect()
    }

    fn takes(self, kind: ContentType) -> bool {
        match kind {
            ContentType::Json => self.json,
            ContentType::Msgpack => self.msgpack,
            ContentType::Yaml => self.yaml,
            ContentType::Pickle | ContentType::Text | ContentType::Data => false,
        }
    }
}

/// The ways in which a body may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// `application/x-gzip`: in spite of its name a zlib stream (RFC 1950).
    Zlib,
    /// `application/x-bz2`
    Bzip2,
    /// `application/x-lzma`: the .xz container.
    Xz,
    /// `application/zstd`
    Zstd,
    /// `application/x-brotli`
    Brotli,
}

impl Compression {
    /// Recognises the MIME type in the header `compression`, or one of Celery's aliases.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "application/x-gzip" | "gzip" | "zlib" => Self::Zlib,
            "application/x-bz2" | "bzip2" | "bzip" => Self::Bzip2,
            "application/x-lzma" | "lzma" | "xz" => Self::Xz,
            "application/zstd" | "zstd" | "zstandard" => Self::Zstd,
            "application/x-brotli" | "brotli" => Self::Brotli,
            _ => return None,
        })
    }

    /// What stands in the header `compression`.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Zlib => "application/x-gzip",
            Self::Bzip2 => "application/x-bz2",
            Self::Xz => "application/x-lzma",
            Self::Zstd => "application/zstd",
            Self::Brotli => "application/x-brotli",
        }
    }
}

/// Why bytes could not be turned into JSON: the reason and its detail.
pub(crate) type Refusal = (Reason, String);

/// The JSON text of a body: checks the content type, unpacks and converts; a plain JSON body is left where it is.
pub(crate) fn json<'a>(
    content_type: Option<&str>,
    encoding: Option<&str>,
    compression: Option<&str>,
    body: &'a [u8],
    limits: &Limits,
) -> Result<Cow<'a, [u8]>, Refusal> {
    if body.len() > limits.body {
        return Err((Reason::TooLarge, format!("a body of {} bytes", body.len())));
    }
    let Some(content_type) = content_type else {
        return Err((Reason::ContentMissing, "no content type".to_owned()));
    };
    let kind = match ContentType::parse(content_type) {
        Some(kind @ (ContentType::Json | ContentType::Msgpack | ContentType::Yaml)) => kind,
        Some(ContentType::Pickle) => {
            return Err((Reason::ContentDisallowed, "pickle is never read".to_owned()));
        }
        Some(ContentType::Text | ContentType::Data) => {
            return Err((Reason::ContentUnsupported, format!("{} cannot hold a call", cut(content_type))));
        }
        None => {
            return Err((Reason::ContentDisallowed, format!("unknown content type {}", cut(content_type))));
        }
    };
    if !limits.accept.takes(kind) {
        return Err((Reason::ContentDisallowed, format!("{} is not accepted", cut(content_type))));
    }
    if let Some(encoding) = encoding
        && !["utf-8", "utf8", "binary", "us-ascii", "ascii", ""]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(encoding))
    {
        return Err((Reason::ContentUnsupported, format!("unknown content encoding {}", cut(encoding))));
    }
    let body = match compression.filter(|method| !method.is_empty()) {
        None => Cow::Borrowed(body),
        Some(method) => Cow::Owned(decompress(method, body, limits)?),
    };
    let json = match kind {
        ContentType::Msgpack => msgpack::to_json(&body, limits),
        ContentType::Yaml => yaml::to_json(&body, limits),
        _ => return Ok(body),
    };
    json.map(Cow::Owned).map_err(|err| (Reason::BadBody, err.to_string()))
}

/// A body of JSON in the form that `serializer` writes, with its content type and encoding.
pub(crate) fn written(
    serializer: Serializer,
    json: Vec<u8>,
) -> Result<(&'static str, &'static str, Vec<u8>), pyjson::EncodeError> {
    Ok(match serializer {
        Serializer::Json => (ContentType::JSON, "utf-8", json),
        Serializer::Msgpack => ("application/x-msgpack", "binary", msgpack::from_json(&json)?),
        Serializer::Yaml => ("application/x-yaml", "utf-8", yaml::from_json(&json)?),
    })
}

/// The beginning of a text from outside, for a message.
fn cut(text: &str) -> String {
    text.chars().take(64).map(|char| if char.is_control() { '?' } else { char }).collect()
}
