//! `Prefer` (RFC 7240): how long a client would wait, and how much it wants to read.

use std::time::Duration;

/// What the client would like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Preferences {
    /// `wait=N`: hold the answer up to this long for a result.
    pub wait: Option<Duration>,
    /// `return=minimal`: only the id.
    pub minimal: bool,
}

impl Preferences {
    /// Reads all `Prefer` headers of a request. As the RFC says, what is unknown or malformed is ignored, and the first
    /// of two equal preferences counts.
    pub fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Preferences::default();
        let mut seen_return = false;
        for preference in headers.into_iter().flat_map(|header| header.split(',')) {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "wait" if found.wait.is_none() => found.wait = value.parse().ok().map(Duration::from_secs),
                "return" if !seen_return => {
                    seen_return = true;
                    found.minimal = value.eq_ignore_ascii_case("minimal");
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[&str]) -> Preferences {
        Preferences::parse(headers.iter().copied())
    }

    #[test]
    fn reads_what_it_knows_and_ignores_the_rest() {
        let ten = Some(Duration::from_secs(10));
        assert_eq!(parse(&["wait=10"]), Preferences { wait: ten, minimal: false });
        assert_eq!(
            parse(&["respond-async, Wait=\"10\"", "wait=3"]),
            Preferences { wait: ten, minimal: false }
        );
        assert_eq!(parse(&["return=minimal; x=1, wait = 10"]), Preferences { wait: ten, minimal: true });
        assert_eq!(
            parse(&["wait", "wait=-1", "wait=1.5", "wait=1e9", "", ",;=", "return=representation"]),
            Preferences::default()
        );
    }
}
