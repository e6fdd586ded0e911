//! Rules about single files: headers, length, leftovers, and that documents name what exists.

use super::{none, rust, sources};
use std::collections::BTreeSet;

/// Files that are longer than 600 lines, with the reason. Look for a second idea in the file before
/// adding a line here.
const LONG_FILES: &[(&str, &str)] = &[];

#[test]
fn every_module_has_a_header() {
    let headless = |text: &str| {
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
        !first.is_some_and(|line| line.starts_with("//!"))
    };
    // The cases of compile-fail tests are what a user would type; a `tests.rs` is told by its module's header.
    let exempt = |path: &str| path.contains("/tests/ui/") || path.ends_with("/tests.rs");
    let bad = rust().into_iter().filter(|file| !exempt(&file.path) && headless(&file.text));
    none(
        &bad.map(|file| file.path).collect::<Vec<_>>(),
        "begin the file with `//!`: what it is, and is not (docs/style.md, rule 5)",
    );
}

#[test]
fn files_have_one_idea() {
    let long = rust().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        let excused = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        (lines > 600 && !excused).then(|| format!("{}: {lines} lines", file.path))
    });
    none(
        &long.collect::<Vec<_>>(),
        "split by ideas, or give the reason in LONG_FILES (docs/style.md, rule 4)",
    );
}

#[test]
fn long_file_list_is_current() {
    let files = rust();
    let stale = LONG_FILES
        .iter()
        .filter(|(path, _)| !files.iter().any(|file| file.path == *path && file.text.lines().count() > 600));
    none(&stale.map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>(), "remove these from LONG_FILES");
}

#[test]
fn macro_crate_stays_small() {
    let ours = rust().into_iter().filter(|file| file.path.starts_with("celery-worker/macros/src/"));
    let lines: usize = ours.map(|file| file.text.lines().count()).sum();
    assert!(lines <= 900, "celery-macros has {lines} lines; behaviour belongs in celery_worker::__private");
}

#[test]
fn no_trailing_whitespace_and_a_newline_at_the_end() {
    let mut bad = Vec::new();
    for file in sources().iter().filter(|file| !captured(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                bad.push(format!("{}:{}", file.path, number + 1));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            bad.push(format!("{}: no newline at the end", file.path));
        }
    }
    none(&bad, "remove trailing whitespace, end with a newline");
}

/// Bytes that a running peer or the compiler wrote are kept as they are.
fn captured(path: &str) -> bool {
    path.contains("/golden/")
        || path.ends_with(".jsonl")
        || path.ends_with(".stderr")
        || path.ends_with(".lock")
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["TO\u{44}O", "FIX\u{4d}E", " XX\u{58} ", "todo\u{21}(", "unimplemented\u{21}("];
    let mut bad = Vec::new();
    for file in sources().iter().filter(|file| !captured(&file.path) && !file.path.starts_with("docs/")) {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                bad.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(&bad, "do it now, or write an issue");
}

#[test]
fn nothing_depends_on_one_machine() {
    let mut bad = Vec::new();
    for file in sources().iter().filter(|file| !captured(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            if ["/home/", "/root/", "/work/", "/Users/"].iter().any(|path| names_path(line, path)) {
                bad.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(&bad, "no path of a developer's machine belongs in the repository");
}

fn names_path(line: &str, path: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    // `x/work/y` is a part of some other path, and this list itself is quoted.
    line.match_indices(path).any(|(at, _)| {
        let follows = line[at + path.len()..].chars().next();
        follows.is_some_and(char::is_alphanumeric)
            && before(at).is_none_or(|c| !c.is_alphanumeric() && !"._-}".contains(c))
    })
}

#[test]
fn documents_exist() {
    let paths: BTreeSet<String> = sources().into_iter().map(|file| file.path).collect();
    for needed in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "Makefile",
        ".ci/run",
        "docs/architecture.md",
        "docs/style.md",
    ] {
        assert!(paths.contains(needed), "{needed} is missing");
    }
}

#[test]
fn changelog_has_an_unreleased_section() {
    let changelog = sources().into_iter().find(|file| file.path == "CHANGELOG.md").map(|file| file.text);
    assert!(changelog.unwrap_or_default().contains("## Unreleased"), "CHANGELOG.md: add `## Unreleased`");
}

#[test]
fn links_between_documents_hold() {
    let mut bad = Vec::new();
    for file in sources().iter().filter(|file| file.path.ends_with(".md") && !file.path.contains("/web/")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, _) in file.text.match_indices("](") {
            let target = file.text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains(':') || target.contains(['<', ' ', '\n', '{']);
            if !outside && !celery_testkit::config::repository().join(folder).join(target).exists() {
                bad.push(format!("{}: {target}", file.path));
            }
        }
    }
    none(&bad, "these links lead nowhere");
}
