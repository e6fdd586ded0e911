//! Files of the repository that are made from code: a test compares them, and `UPDATE=1` writes them anew.

use anyhow::Context as _;

use crate::config;
use crate::program::{give_up, or_give_up};

/// Compares the part of a document between `<!-- begin NAME -->` and `<!-- end NAME -->` with what it should be. With
/// `UPDATE=1` in the environment it is replaced first.
///
/// # Panics
/// When they differ, or the document has no such part.
pub fn section(path: &str, name: &str, expected: &str) {
    let file = config::repository().join(path);
    let text = or_give_up(std::fs::read_to_string(&file).context(path.to_owned()));
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let Some((before, (present, after))) = parts else {
        give_up(&format!("{path} has no part between {} and {end}", begin.trim_end()));
    };
    if present == expected {
        return;
    }
    assert!(
        config::update(),
        "{path}: the part `{name}` is not what the code says now; run this test with UPDATE=1 and review the difference"
    );
    let text = format!("{before}{begin}{expected}{end}{after}");
    or_give_up(std::fs::write(&file, text).context(path.to_owned()));
}
