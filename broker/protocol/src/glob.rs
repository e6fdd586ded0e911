//! Shell patterns as Python's `fnmatch` reads them: `*`, `?`, `[abc]`, `[!a-z]`; the whole text must fit.
//!
//! Used for task routes, node patterns and the monitor's filters. Linear in memory, and no pattern takes more than
//! `pattern × text` steps.

/// Whether `text` as a whole fits `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one character further.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&current) = text.get(t) {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => set(&pattern, p, current),
            Some(&literal) if literal == current => Some(p + 1),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, from))) => {
                p = after;
                t = from + 1;
                star = Some((after, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&rest| rest == '*')
}

/// Whether a text uses any of the pattern characters.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// `[…]` at `open` against one character: the index behind it when it fits. Without a closing bracket it is a literal.
fn set(pattern: &[char], open: usize, current: char) -> Option<usize> {
    let mut at = open + 1;
    let negated = pattern.get(at) == Some(&'!');
    if negated {
        at += 1;
    }
    // A bracket in first place is a member.
    let first = at;
    let close = (first..pattern.len()).find(|&i| pattern.get(i) == Some(&']') && i > first);
    let Some(close) = close else { return (current == '[').then_some(open + 1) };
    let mut found = false;
    while at < close {
        let low = *pattern.get(at)?;
        let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(&high)) if at + 2 < close => {
                at += 2;
                high
            }
            _ => low,
        };
        found |= (low..=high).contains(&current);
        at += 1;
    }
    (found != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_fit_as_in_fnmatch() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("feed.*", "feed.tasks.add", true),
            ("feed.*", "feeds", false),
            ("*.add", "a.b.add", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("w?@vm", "w1@vm", true),
            ("w[0-9]@*", "w1@vm", true),
            ("w[!0-9]@*", "w1@vm", false),
            ("w[]a]", "w]", true),
            ("w[", "w[", true),
            ("", "a", false),
            ("***", "abc", true),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(5_000)));
    }
}
