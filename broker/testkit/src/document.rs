//! Documents whose commands are run: the fenced blocks of a Markdown file, and output with gaps.

use crate::config;
use crate::program::or_give_up;
use anyhow::Context as _;

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the fence: `sh`, `text`, `rust`, …
    pub language: String,
    /// The lines between the fences.
    pub text: String,
    /// The line of the file that it begins at.
    pub line: usize,
}

/// The fenced blocks of a document of the repository.
///
/// # Panics
/// When it cannot be read.
pub fn blocks(path: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(config::repository().join(path)).with_context(|| path.to_owned());
    fenced(&or_give_up(text))
}

fn fenced(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        // Blocks of lists are indented.
        match line.trim_start().strip_prefix("```") {
            Some(language) if !inside => {
                found.push(Block { language: language.to_owned(), text: String::new(), line: index + 2 });
                inside = true;
            }
            Some(_) => inside = false,
            None if inside => {
                if let Some(block) = found.last_mut() {
                    block.text += line;
                    block.text.push('\n');
                }
            }
            None => {}
        }
    }
    found
}

/// Whether a text is as expected, line by line. In a line `…` stands for any characters; a line that is `…` alone for any
/// lines, also none.
pub fn fits(expected: &str, text: &str) -> bool {
    let expected: Vec<&str> = expected.trim_end().lines().collect();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines_fit(&expected, &lines)
}

fn lines_fit(expected: &[&str], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((&"…", rest)) => (0..=lines.len()).any(|skipped| lines_fit(rest, &lines[skipped..])),
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| line_fits(first, line) && lines_fit(rest, others)),
    }
}

fn line_fits(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_language_text_and_place() {
        let found = fenced("a\n```sh\nls\n\npwd\n```\n```text\n…\n```\n");
        assert_eq!(found.len(), 2);
        assert_eq!((&*found[0].language, &*found[0].text, found[0].line), ("sh", "ls\n\npwd\n", 3));
        assert_eq!((&*found[1].language, found[1].line), ("text", 8));
    }

    #[test]
    fn gaps_are_filled_with_anything_and_nothing_else_is() {
        assert!(fits("5\n", "5\n"));
        assert!(!fits("5\n", "6\n"));
        assert!(!fits("5\n", "5\n6\n"));
        assert!(fits("a…c\n", "abc\n"));
        assert!(fits("a…c…e\n", "abcde\n"));
        assert!(!fits("a…c…e\n", "abde\n"));
        assert!(fits("…\nlast\n…\n", "one\ntwo\nlast\n"));
        assert!(!fits("…\nlast\n", "one\nlast\nmore\n"));
    }
}
