//! The table of settings of docs/migration.md: each setting of the Celery that is installed has a row, and what stands
//! beside it is a setting of one of our programs. And the secrets of docs/deployment.md: those that the overlay needs.

use crate::tables::{PROGRAMS, table};
use celery_testkit::Python;
use celery_testkit::config::repository;
use celery_testkit::document::blocks;
use celery_testkit::kubelet::image;
use std::collections::BTreeSet;
use std::process::Command;

/// The words in backticks of a cell.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The first two columns of the table of settings.
fn rows(document: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let table = document.split("\n| Celery | here | |\n").nth(1).unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (words(cells[1]), words(cells[2]))
    })
    .collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            let mut tails = (0..=tail.len()).filter_map(|at| tail.get(at..));
            tails.any(|tail| matches(rest, tail))
        }),
    }
}

#[tokio::test]
async fn every_setting_of_celery_is_in_the_migration_guide() {
    let program =
        "import json; from celery.app.defaults import DEFAULTS; print(json.dumps(sorted(DEFAULTS)))";
    let celerys: Vec<String> = Python::new("amqp://", "redis://").run(program).await.json();
    assert!(celerys.len() > 150, "{celerys:?}");
    let document = std::fs::read_to_string(repository().join("docs/migration.md")).unwrap();
    let rows = rows(&document);
    assert!(rows.len() > 40, "the table was not found");

    let patterns: Vec<&str> = rows.iter().flat_map(|(theirs, _)| theirs.clone()).collect();
    let missing = celerys.iter().filter(|name| !patterns.iter().any(|pattern| matches(pattern, name)));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "docs/migration.md has no row for {missing:?}");
    let stale = patterns.iter().filter(|pattern| !celerys.iter().any(|name| matches(pattern, name)));
    let stale: Vec<_> = stale.collect();
    assert!(stale.is_empty(), "Celery has no setting {stale:?} of docs/migration.md");

    let ours: BTreeSet<&str> =
        PROGRAMS.iter().flat_map(|program| table(program)).map(|setting| setting.name).collect();
    let named = rows.iter().flat_map(|(_, ours)| ours.clone());
    let unknown: Vec<_> = named.filter(|name| !ours.contains(name)).collect();
    assert!(unknown.is_empty(), "docs/migration.md names {unknown:?}, which no program has");
}

#[tokio::test]
async fn what_the_migration_guide_shows_of_python_runs() {
    let python = Python::new("amqp://", "redis://");
    let blocks = blocks("docs/migration.md");
    let blocks: Vec<_> = blocks.iter().filter(|block| block.language.trim() == "python").collect();
    for block in &blocks {
        let text: Vec<&str> = block.text.lines().map(str::trim).collect();
        python.run(&format!("from celery import Celery\napp = Celery()\n{}", text.join("\n"))).await;
    }
    assert!(!blocks.is_empty());
}

#[test]
fn the_secrets_of_prod_are_made_by_the_commands_of_the_guide() {
    let list = repository().join("manifests/overlays/prod/secrets.txt");
    let list = std::fs::read_to_string(list).unwrap();
    let needed =
        list.lines().map(|line| line.split('#').next().unwrap().split_whitespace().collect::<Vec<_>>());
    let needed: BTreeSet<(&str, &str)> =
        needed.filter(|words| words.len() == 2).map(|words| (words[0], words[1])).collect();
    let blocks = blocks("docs/deployment.md");
    let mut made = BTreeSet::from([("rabbitmq-default-user", "connection_string")]); // by the operator
    for line in blocks.iter().flat_map(|block| block.text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["kubectl", "create", "secret", "generic", name, rest @ ..] => {
                // A value may contain spaces; what follows in it is no flag.
                for flag in rest {
                    let pair = flag.strip_prefix("--from-literal=").or(flag.strip_prefix("--from-file="));
                    made.extend(pair.map(|pair| (*name, pair.split('=').next().unwrap())));
                }
            }
            ["kubectl", "create", "secret", "tls", name, ..] => made.extend([(*name, "tls.crt")]),
            _ => {}
        }
    }
    let missing: Vec<_> = needed.difference(&made).collect();
    assert!(missing.is_empty(), "docs/deployment.md makes no secret for {missing:?}");
    let names: BTreeSet<_> = needed.iter().map(|(name, _)| name).collect();
    let stale: Vec<_> = made.iter().filter(|(name, _)| !names.contains(name)).collect();
    assert!(stale.is_empty(), "docs/deployment.md makes {stale:?}, which nothing uses");
}

#[test]
fn an_overlay_of_ones_own_builds_as_the_guide_shows_it() {
    let blocks = blocks("docs/deployment.md");
    let overlay = blocks.iter().find(|block| block.language == "yaml").unwrap();
    let folder = image::volume("overlay");
    let copied =
        Command::new("cp").arg("-r").arg(repository().join("manifests")).arg(&folder).status().unwrap();
    assert!(copied.success());
    let own = folder.join("manifests/overlays/shop");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("kustomization.yaml"), &overlay.text).unwrap();
    let kubectl = repository().join(".run/manifests/bin/kubectl");
    let output = Command::new(kubectl).arg("kustomize").arg(&own).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(
        out.contains("image: registry.shop.example/shop-worker:2026.11"),
        "the image is not replaced: {out}"
    );
}

#[test]
fn patterns_match_what_they_say() {
    assert!(matches("redis_socket_*", "redis_socket_timeout") && !matches("redis_socket_*", "redis_host"));
    assert!(matches("result_backend_*_retries*", "result_backend_max_sleep_between_retries_ms"));
    assert!(!matches("task_queues", "task_queues_x"));
}
