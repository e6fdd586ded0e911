//! Rules about crates: who may depend on whom, on what, and under which licences.

use super::none;
use celery_testkit::config::repository;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Which crates of the workspace a crate may use. Section 2 of docs/architecture.md.
const DIRECTION: [(&str, &[&str]); 7] = [
    ("celery-protocol", &[]),
    ("celery-testkit", &[]),
    ("celery-macros", &[]),
    ("celery-broker", &["celery-protocol"]),
    ("celery-worker", &["celery-protocol", "celery-broker", "celery-macros"]),
    ("flower-lite", &["celery-protocol", "celery-broker"]),
    ("producer-api", &["celery-protocol", "celery-broker", "flower-lite"]),
];

/// All that the pure crate is built on (I1).
const PURE: [&str; 14] = [
    "base64",
    "brotli-decompressor",
    "bytes",
    "bzip2-rs",
    "flate2",
    "jiff",
    "lzma-rust2",
    "regex-lite",
    "ruzstd",
    "saphyr-parser",
    "serde",
    "serde_json",
    "thiserror",
    "uuid",
];

#[test]
fn crates_depend_downwards() {
    let mut bad = Vec::new();
    for package in workspace() {
        let allowed = DIRECTION.iter().find(|(name, _)| *name == package.name);
        let Some((_, allowed)) = allowed else {
            bad.push(format!("{}: not in the list of this test", package.name));
            continue;
        };
        let ours = package.dependencies.iter().filter(|name| DIRECTION.iter().any(|(ours, _)| ours == name));
        bad.extend(
            ours.filter(|name| !allowed.contains(&name.as_str()))
                .map(|name| format!("{} -> {name}", package.name)),
        );
    }
    none(&bad, "a dependency against the direction of docs/architecture.md, section 2");
}

#[test]
fn protocol_is_pure() {
    let protocol = workspace().into_iter().find(|package| package.name == "celery-protocol");
    let dependencies = protocol.map(|package| package.dependencies).unwrap_or_default();
    let foreign: Vec<_> = dependencies.into_iter().filter(|name| !PURE.contains(&name.as_str())).collect();
    none(&foreign, "celery-protocol does no IO and uses only data crates (I1)");
}

#[test]
fn versions_are_kept_in_one_place() {
    let mut bad = Vec::new();
    for file in super::sources() {
        // celery-rs, which the benchmarks compare with, is built by itself.
        let apart = ["/fuzz/", "/benches/celery-rs/"].iter().any(|folder| file.path.contains(folder));
        if !file.path.ends_with("/Cargo.toml") || apart {
            continue;
        }
        let mut in_dependencies = false;
        for line in file.text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                bad.push(format!("{}: {line}", file.path));
            }
        }
    }
    none(&bad, "take the version from [workspace.dependencies]: `name.workspace = true`");
}

#[test]
fn licences_are_permissive() {
    const FINE: [&str; 14] = [
        "MIT",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "MPL-2.0",
        "Unicode-3.0",
        "Unicode-DFS-2016",
        "CC0-1.0",
        "0BSD",
        "BSL-1.0",
        "CDLA-Permissive-2.0",
    ];
    let metadata = metadata(&["--locked"]);
    let mut bad = Vec::new();
    for package in list(&metadata["packages"]) {
        let licence = package["license"].as_str().unwrap_or("none stated").replace('/', " OR ");
        // `A OR B` leaves the choice; `(A OR B) AND C` asks for each part of the conjunction.
        let fine = licence
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|one| FINE.contains(&one.trim_matches(['(', ')', ' ']))));
        if !fine {
            bad.push(format!("{} {}: {licence}", text(&package["name"]), text(&package["version"])));
        }
    }
    none(&bad, "only permissive licences (docs/architecture.md, D12)");
}

struct Package {
    name: String,
    /// What it is built from; not what only its tests use.
    dependencies: BTreeSet<String>,
}

fn workspace() -> Vec<Package> {
    let metadata = metadata(&["--no-deps"]);
    let packages = list(&metadata["packages"]).iter().map(|package| Package {
        name: text(&package["name"]),
        dependencies: list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| text(&dependency["name"]))
            .collect(),
    });
    packages.collect()
}

#[test]
fn no_two_major_versions_of_what_we_name() {
    let metadata = metadata(&["--locked"]);
    let named = ["actix-web", "lapin", "redis", "serde_json", "tokio", "uuid"];
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let name = text(&package["name"]);
        if named.contains(&name.as_str()) {
            versions.entry(name).or_default().insert(text(&package["version"]));
        }
    }
    let twice = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    none(
        &twice.map(|(name, versions)| format!("{name}: {versions:?}")).collect::<Vec<_>>(),
        "one version of each",
    );
}

fn metadata(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1"])
        .args(args)
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
