//! docs/architecture.md against the tree: every folder of the sources is named there, and what is named there exists.

use super::{none, rust, sources};
use celery_testkit::config::repository;
use std::collections::BTreeSet;
use std::path::Path;

const DOCUMENT: &str = "docs/architecture.md";

/// How the document calls the crates, and where their sources are.
const CRATES: &[(&str, &str)] = &[
    ("celery-protocol", "broker/protocol/src"),
    ("protocol", "broker/protocol/src"),
    ("celery-broker", "broker/src"),
    ("broker", "broker/src"),
    ("celery-worker", "celery-worker/src"),
    ("worker", "celery-worker/src"),
    ("producer-api", "producer-api/src"),
    ("flower-lite", "flower-lite/src"),
    ("testkit", "broker/testkit/src"),
];

/// Functions that are named as what decides without IO, and the files that have them.
const DECIDERS: &[(&str, &str, &str)] = &[
    ("consumer::admit", "celery-worker/src/consumer/admit.rs", "fn admit("),
    ("trace::settle", "celery-worker/src/trace/settle.rs", "fn settle("),
    ("Outcome::decide", "celery-worker/src/task/outcome.rs", "pub fn decide("),
    ("flower-lite `ClusterState::apply`", "flower-lite/src/state/mod.rs", "pub fn apply("),
    ("`Router::route`", "broker/src/route.rs", "pub fn route("),
    ("`canvas::freeze`", "broker/protocol/src/canvas/freeze.rs", "pub fn freeze("),
];

fn document() -> String {
    std::fs::read_to_string(repository().join(DOCUMENT)).unwrap()
}

/// The words in backticks of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `a/{b,c}` is `a/b` and `a/c`.
fn alternatives(word: &str) -> Vec<String> {
    match word.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?))) {
        None => vec![word.to_owned()],
        Some((start, (middle, end))) => middle.split(',').map(|each| format!("{start}{each}{end}")).collect(),
    }
}

/// Whether the word can be a module or a path: `amqp/keeper`, `send`, `web/`.
fn is_path(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || "_-/{},0123456789.".contains(c))
}

/// A module or folder below a folder.
fn is_there(folder: &str, path: &str) -> bool {
    let path = repository().join(folder).join(path.trim_end_matches('/'));
    path.exists() || path.with_extension("rs").exists()
}

#[test]
fn every_folder_is_described() {
    let text = document();
    let mut missing = BTreeSet::new();
    for file in rust().iter().filter(|file| file.path.contains("/src/") && file.is_product()) {
        let inside = file.path.split_once("/src/").map_or("", |(_, inside)| inside);
        for folder in inside.split('/').rev().skip(1).filter(|folder| *folder != "bin") {
            if !text.contains(&format!("{folder}/")) && !text.contains(&format!("`{folder}`")) {
                missing.insert(format!("{folder}/ ({})", file.path));
            }
        }
    }
    none(
        &missing.into_iter().collect::<Vec<_>>(),
        "describe these folders in docs/architecture.md, section 3",
    );
}

#[test]
fn modules_that_are_described_exist() {
    let text = document();
    let section = text.split("\n## 3. ").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut seen = 0;
    let mut bad = Vec::new();
    for paragraph in section.split("\n\n").filter(|paragraph| paragraph.starts_with("**")) {
        let name = paragraph.split("**").nth(1).unwrap();
        let (_, folder) = CRATES.iter().find(|(known, _)| *known == name).unwrap();
        // Beside the sources stand `web/`, `scripts/`, …
        let beside = folder.trim_end_matches("/src");
        for path in words(paragraph).filter(|word| is_path(word)).flat_map(alternatives) {
            seen += 1;
            if !is_there(folder, &path) && !is_there(beside, &path) && !is_there("", &path) {
                bad.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(seen > 40, "the modules of section 3 were not found: {seen}");
    none(&bad, "docs/architecture.md, section 3, names modules that do not exist");
}

#[test]
fn places_of_features_exist() {
    let text = document();
    let section = text.split("\n## 5. ").nth(1).unwrap().split("\n## ").next().unwrap();
    let (mut seen, mut bad) = (0, Vec::new());
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        let place = row.split(" | ").nth(1).unwrap_or_default();
        for word in words(place).filter(|word| word.contains('/') && is_path(word)) {
            for path in alternatives(word) {
                seen += 1;
                let (first, rest) = path.split_once('/').unwrap();
                let of_crate = CRATES.iter().any(|(name, folder)| *name == first && is_there(folder, rest));
                // A path without its crate goes on in the worker.
                let of_worker =
                    is_there("celery-worker/src", &path) || is_there("broker/protocol/src", &path);
                if !of_crate && !of_worker && !is_there("", &path) {
                    bad.push(format!("{path} ({})", row.split(" | ").next().unwrap_or_default()));
                }
            }
        }
    }
    assert!(seen > 40, "the places of section 5 were not found: {seen}");
    none(&bad, "docs/architecture.md, section 5, names places that do not exist");
}

#[test]
fn files_that_are_named_exist() {
    let files: Vec<String> = sources().into_iter().map(|file| file.path).collect();
    let mut bad = Vec::new();
    for word in words(&document()).filter(|word| is_path(word)) {
        let is_file = [".rs", ".md", ".py", ".sh", ".toml", ".yaml"].iter().any(|end| word.ends_with(end));
        let known = |word: &str| files.iter().any(|path| path == word || path.ends_with(&format!("/{word}")));
        // `worker/supervisor.rs` is in the sources of `celery-worker`.
        if is_file && !alternatives(word).iter().all(|path| known(path)) {
            bad.push(word.to_owned());
        }
        let top = word.split('/').next().unwrap_or_default();
        if !top.is_empty() && word.contains('/') && Path::new(&repository().join(top)).is_dir() {
            let there = |path: &String| {
                let (_, rest) = path.split_once('/').unwrap();
                is_there("", path) || CRATES.iter().any(|(name, at)| *name == top && is_there(at, rest))
            };
            bad.extend(alternatives(word).into_iter().filter(|path| !there(path)));
        }
    }
    none(&bad, "docs/architecture.md names files that do not exist");
}

#[test]
fn who_decides_is_there() {
    let text = document();
    let bad = DECIDERS.iter().filter(|(name, path, function)| {
        let source = std::fs::read_to_string(repository().join(path)).unwrap_or_default();
        !text.contains(name) || !source.contains(function)
    });
    let bad: Vec<String> = bad.map(|(name, path, _)| format!("{name} in {path}")).collect();
    none(&bad, "docs/architecture.md, I4: say which functions decide, and keep the list of this test");
}

#[test]
fn braces_are_alternatives() {
    assert_eq!(alternatives("a/{b,c}"), ["a/b", "a/c"]);
    assert_eq!(alternatives("a/b"), ["a/b"]);
    assert!(is_path("amqp/keeper") && !is_path("Celery::send") && !is_path("a b"));
}
