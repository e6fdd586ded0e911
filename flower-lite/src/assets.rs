//! The built pages, embedded from `web/dist`. They may be missing: then the monitor has no pages, but works.
//!
//! A debug build reads them from the folder while it runs, so that pages can be rebuilt without building the program.

use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[cfg_attr(not(test), folder = "$CARGO_MANIFEST_DIR/web/dist")]
#[cfg_attr(test, folder = "$CARGO_MANIFEST_DIR/tests/pages")]
#[allow_missing = true]
struct Dist;

/// A file of the pages.
#[derive(Debug)]
pub struct Asset {
    /// Changes when the content does.
    pub etag: String,
    /// From the file's name.
    pub content_type: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// The file of this name, relative to `web/dist`.
#[must_use]
pub fn get(name: &str) -> Option<Asset> {
    // A debug build looks into the folder, where `..` would have a meaning.
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
    if !name.split('/').all(plain) {
        return None;
    }
    let file = Dist::get(name)?;
    let etag = file.metadata.sha256_hash()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    let content_type = match mime.type_() {
        mime_guess::mime::TEXT => format!("{mime}; charset=utf-8"),
        _ => mime.to_string(),
    };
    Some(Asset { etag, content_type, bytes: file.data.into_owned() })
}

/// The page, if there is one.
#[must_use]
pub fn index() -> Option<String> {
    let file = Dist::get("index.html")?;
    String::from_utf8(file.data.into_owned()).ok()
}
