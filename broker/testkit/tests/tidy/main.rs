//! The tidy test: every rule of docs/architecture.md and docs/style.md that a program can check.
//!
//! Each check is a test of its own, so that a failure names the rule. There are no other checks in CI.
#![expect(clippy::unwrap_used, reason = "a test")]

mod architecture;
mod boundaries;
mod dependencies;
mod documents;
mod files;
mod scripts;

use celery_testkit::config::repository;
use std::fs;
use std::path::Path;

/// A text file of the repository.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Not a test: neither in a test folder nor a test module's own file.
    fn is_product(&self) -> bool {
        let in_tests = ["/tests/", "/benches/", "/examples/", "/fuzz/", "broker/testkit/"];
        self.is_rust()
            && !in_tests.iter().any(|part| self.path.contains(part))
            && !self.path.ends_with("/tests.rs")
    }

    /// The lines before the in-file tests, with their numbers.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(number, line)| (number + 1, line));
        lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
    }
}

/// All text files that people write, in a fixed order.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    walk(repository(), &mut found);
    assert!(found.len() > 20, "the repository was not found at {}", repository().display());
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    const SKIPPED: [&str; 8] =
        ["target", ".git", ".venv", ".run", "node_modules", "dist", "__pycache__", ".pytest_cache"];
    const TEXT: [&str; 21] = [
        "rs", "toml", "md", "py", "sh", "yaml", "yml", "json", "jsonl", "ts", "js", "mjs", "svelte", "css",
        "html", "conf", "service", "txt", "lua", "stderr", "lock",
    ];
    const NAMED: [&str; 5] = ["Makefile", "Dockerfile", "LICENSE-MIT", "LICENSE-APACHE", "run"];
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if SKIPPED.contains(&name.as_str()) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if TEXT.contains(&&*extension) || NAMED.contains(&name.as_str()) {
            let relative = path.strip_prefix(repository()).unwrap_or(&path);
            if let Ok(text) = fs::read_to_string(&path) {
                found.push(Source { path: relative.to_string_lossy().into_owned(), text });
            }
        }
    }
}

fn rust() -> Vec<Source> {
    sources().into_iter().filter(Source::is_rust).collect()
}

/// Fails with all offences at once, and the remedy.
fn none(offences: &[String], remedy: &str) {
    assert!(offences.is_empty(), "{remedy}\n  {}", offences.join("\n  "));
}
