//! Small text tools: bounds for what strangers send, and a search that ignores case.

/// `text`, cut to at most `limit` bytes; a cut text ends in `…`.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> Box<str> {
    const ELLIPSIS: char = '…';
    if text.len() <= limit {
        return text.into();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len_utf8()));
    let mut cut = String::with_capacity(end + ELLIPSIS.len_utf8());
    cut.push_str(&text[..end]);
    cut.push(ELLIPSIS);
    cut.into()
}

/// Whether `text` was cut: by [`bounded`], or by Python's own `saferepr`.
#[must_use]
pub fn looks_cut(text: &str) -> bool {
    text.ends_with('…') || text.contains("...")
}

/// Whether `needle` occurs in `hay`; the case of ASCII letters doesn't matter.
#[must_use]
pub fn contains_ignoring_case(hay: &str, needle: &str) -> bool {
    let (hay, needle) = (hay.as_bytes(), needle.as_bytes());
    let Some(first) = needle.first() else { return true };
    if needle.len() > hay.len() {
        return false;
    }
    let last = hay.len() - needle.len();
    (0..=last).any(|at| {
        hay[at].eq_ignore_ascii_case(first) && hay[at..at + needle.len()].eq_ignore_ascii_case(needle)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(&*bounded("short", 5), "short");
        assert_eq!(&*bounded("longer", 5), "lo…");
        assert_eq!(&*bounded("ääääää", 7), "ää…");
        assert_eq!(&*bounded("€€€", 1), "…");
        assert!(looks_cut(&bounded("longer", 5)));
        assert!(looks_cut("[1, 2, ...]"));
        assert!(!looks_cut("[1, 2]"));
    }

    #[test]
    fn search_ignores_the_case_of_ascii() {
        assert!(contains_ignoring_case("ValueError('Boom')", "valueerror"));
        assert!(contains_ignoring_case("anything", ""));
        assert!(contains_ignoring_case("größe", "GRö"));
        assert!(!contains_ignoring_case("ab", "abc"));
        assert!(!contains_ignoring_case("abab", "abb"));
    }
}
