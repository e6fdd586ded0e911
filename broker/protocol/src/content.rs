//! What the bytes of a body are: content type, character encoding, compression. Everything is unpacked under bounds.
//!
//! pickle is refused always: reading it runs code. A type that is allowed but has no reader here says so by name.

use std::{borrow::Cow, io::Read};

use crate::{Limits, message::Reason};

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

/// The JSON text of a body: checks the content type, unpacks, and leaves a plain JSON body where it is.
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
    match ContentType::parse(content_type) {
        Some(ContentType::Json) => {}
        Some(ContentType::Pickle) => {
            return Err((Reason::ContentDisallowed, "pickle is never read".to_owned()));
        }
        Some(ContentType::Text | ContentType::Data) => {
            return Err((Reason::ContentUnsupported, format!("{} cannot hold a call", cut(content_type))));
        }
        Some(_) => return Err((Reason::ContentUnsupported, format!("no reader for {}", cut(content_type)))),
        None => {
            return Err((Reason::ContentDisallowed, format!("unknown content type {}", cut(content_type))));
        }
    }
    if let Some(encoding) = encoding
        && !["utf-8", "utf8", "binary", "us-ascii", "ascii", ""]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(encoding))
    {
        return Err((Reason::ContentUnsupported, format!("unknown content encoding {}", cut(encoding))));
    }
    match compression.filter(|method| !method.is_empty()) {
        None => Ok(Cow::Borrowed(body)),
        Some(method) => decompress(method, body, limits).map(Cow::Owned),
    }
}

/// Unpacks `body`, giving up at `limits.decompressed` bytes and, beyond 1 MiB, at `limits.ratio` times its size.
pub(crate) fn decompress(method: &str, body: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let reader: Box<dyn Read + '_> = match Compression::parse(method) {
        Some(Compression::Zlib) => Box::new(flate2::bufread::ZlibDecoder::new(body)),
        Some(other) => {
            return Err((Reason::UnknownCompression, format!("no reader for {}", other.mime())));
        }
        None => return Err((Reason::UnknownCompression, format!("unknown compression {}", cut(method)))),
    };
    let ceiling = limits.decompressed.min(body.len().saturating_mul(limits.ratio).max(1024 * 1024));
    let mut out = Vec::new();
    let bound = u64::try_from(ceiling).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(bound).read_to_end(&mut out).map_err(|err| (Reason::BadCompression, err.to_string()))?;
    if out.len() > ceiling {
        return Err((
            Reason::TooLarge,
            format!("more than {ceiling} bytes from {} compressed ones", body.len()),
        ));
    }
    Ok(out)
}

/// Packs `body` as Celery's `compression="gzip"` does.
pub fn compress_zlib(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder =
        flate2::write::ZlibEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::default());
    // writing to a Vec cannot fail
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// The beginning of a text from outside, for a message.
fn cut(text: &str) -> String {
    text.chars().take(64).map(|char| if char.is_control() { '?' } else { char }).collect()
}
