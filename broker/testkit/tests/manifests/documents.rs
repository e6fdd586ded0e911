//! The table of settings of docs/migration.md: each setting of the Celery that is installed has a row, and what stands
//! beside it is what the programs' tables say. And docs/deployment.md: its commands make what the overlay needs.

use crate::tables::{PROGRAMS, started, strangers, table};
use celery_broker::config::{Layered, Setting, Sources};
use celery_testkit::Python;
use celery_testkit::config::repository;
use celery_testkit::document::{Desk, blocks, shell};
use celery_testkit::kubelet::image;
use celery_worker::beat::entry;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The words in backticks of a cell.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// A row of the table of settings.
struct Row<'a> {
    celery: Vec<&'a str>,
    here: Vec<&'a str>,
    note: &'a str,
}

fn rows(document: &str) -> Vec<Row<'_>> {
    let table = document.split("\n| Celery | here | |\n").nth(1).unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        Row { celery: words(cells[1]), here: words(cells[2]), note: cells[3].trim() }
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

    let patterns: Vec<&str> = rows.iter().flat_map(|row| row.celery.clone()).collect();
    let missing = celerys.iter().filter(|name| !patterns.iter().any(|pattern| matches(pattern, name)));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "docs/migration.md has no row for {missing:?}");
    let stale = patterns.iter().filter(|pattern| !celerys.iter().any(|name| matches(pattern, name)));
    let stale: Vec<_> = stale.collect();
    assert!(stale.is_empty(), "Celery has no setting {stale:?} of docs/migration.md");

    let ours: BTreeSet<&str> =
        PROGRAMS.iter().flat_map(|program| table(program)).map(|setting| setting.name).collect();
    let named = rows.iter().flat_map(|row| row.here.clone());
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

/// What a `kubectl` without a cluster makes of the commands of docs/deployment.md: it checks them and prints the objects.
const KUBECTL: &str = r#"
kubectl() {
    case "$1 $2" in
    'create namespace' | 'create secret') "$REAL" "$@" --dry-run=client --output=json ;;
    'config set-context') "$REAL" "$@" >&2 ;;
    'apply --kustomize') "$REAL" kustomize "$3" >built.yaml ;;
    *) echo "kubectl $*: not on the page" >&2; exit 1 ;;
    esac
}
for name in rabbitmq redis; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -keyout $name.key -out $name.crt
done
cp redis.crt ca.crt
REDIS=r1 SHOP_TOKEN=t1 METRICS_TOKEN=t2 MONITOR=m1 KEDA=k1
export KUBECONFIG=$PWD/kubeconfig
"$REAL" config set-cluster test --server=https://127.0.0.1:1 >&2
"$REAL" config set-credentials test --token=none >&2
"$REAL" config set-context test --cluster=test --user=test >&2
"$REAL" config use-context test >&2
"#;

#[tokio::test]
async fn the_commands_of_the_deployment_guide_make_what_prod_needs() {
    let folder = image::volume("overlay");
    let copied = Command::new("cp").arg("-r").arg(repository().join("manifests")).arg(&folder).status();
    assert!(copied.unwrap().success());
    let page = blocks("docs/deployment.md");
    let overlay = page.iter().find(|block| block.language == "yaml").unwrap();
    let own = folder.join("manifests/overlays/shop");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("kustomization.yaml"), &overlay.text).unwrap();
    let kubectl = repository().join(".run/manifests/bin/kubectl");
    let desk = Desk {
        before: KUBECTL.to_owned(),
        env: vec![("REAL".to_owned(), kubectl.display().to_string())],
        folder: Some(folder.clone()),
        ..Desk::default()
    };
    let commands = page.iter().filter(|block| block.language == "sh" && block.text.contains("kubectl"));
    let script: String = commands.map(|block| block.text.as_str()).collect();
    let (context, secret) = (script.find("set-context").unwrap(), script.find("create secret").unwrap());
    assert!(context < secret, "docs/deployment.md: the secrets would be made in another namespace");
    let printed = shell(&script, &desk).await;
    let config = std::fs::read_to_string(folder.join("kubeconfig")).unwrap();
    assert!(config.contains("namespace: celeriac"), "{config}");

    let mut made = BTreeSet::from([("rabbitmq-default-user".to_owned(), "connection_string".to_owned())]); // by the operator
    for object in serde_json::Deserializer::from_str(&printed).into_iter::<Value>() {
        let object = object.unwrap();
        if object["kind"] == "Secret" {
            let name = object["metadata"]["name"].as_str().unwrap();
            made.extend(object["data"].as_object().unwrap().keys().map(|key| (name.to_owned(), key.clone())));
        }
    }
    let list = std::fs::read_to_string(repository().join("manifests/overlays/prod/secrets.txt")).unwrap();
    let lines = list.lines().map(|line| line.split('#').next().unwrap().split_whitespace());
    let pairs = lines.filter_map(|mut words| Some((words.next()?.to_owned(), words.next()?.to_owned())));
    let needed: BTreeSet<_> = pairs.collect();
    let missing: Vec<_> = needed.difference(&made).collect();
    assert!(missing.is_empty(), "docs/deployment.md makes no secret for {missing:?}");
    let names: BTreeSet<_> = needed.iter().map(|(name, _)| name).collect();
    let stale: Vec<_> = made.iter().filter(|(name, _)| !names.contains(name)).collect();
    assert!(stale.is_empty(), "docs/deployment.md makes {stale:?}, which nothing uses");

    let built = std::fs::read_to_string(folder.join("built.yaml")).unwrap();
    assert!(built.contains("image: registry.shop.example/shop-worker:2026.11"), "the image is not replaced");
    for program in ["producer-api", "flower-lite"] {
        assert!(built.contains(&format!("image: registry.example.com/celeriac/{program}:")), "{program}");
    }
}

/// Files that documents show are read by the programs they are for.
#[test]
fn the_settings_that_documents_show_are_settings() {
    let shown = [
        ("docs/beat.md", "celery-beat"),
        ("docs/configuration.md", "celery-worker"),
        ("docs/operations.md", "celery-worker"),
        ("docs/monitor.md", "flower-lite"),
    ];
    for (document, program) in shown {
        let page = blocks(document);
        let files: Vec<_> = page.iter().filter(|block| block.language == "toml").collect();
        assert!(!files.is_empty(), "{document}");
        for block in files {
            let (rest, _) = entry::take(&block.text).unwrap();
            let sources = Sources { flag: &|_| None, env: &|_| None, file: Some((document, &rest)) };
            if let Err(error) = Layered::load(&[&table(program)], &sources) {
                panic!("{document}:{}: {error}", block.line);
            }
        }
    }
    // Entries of a schedule that is edited, and a variable.
    let page = blocks("docs/beat.md");
    let lines = page.iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines());
    let mut edits = 0;
    for line in lines.filter(|line| line.starts_with("redis-cli HSET ")) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        let value = words[4].trim_matches('\'');
        let written = serde_json::json!({words[3]: serde_json::from_str::<Value>(value).unwrap()});
        entry::read(written.as_object().unwrap())
            .unwrap_or_else(|error| panic!("docs/beat.md: {line}: {error}"));
        edits += 1;
    }
    assert_eq!(edits, 2);
    let page = blocks("docs/operations.md");
    let block = page.iter().find(|block| block.text.starts_with("CELERY_")).unwrap();
    let (name, value) = block.text.trim().split_once('=').unwrap();
    let env = [(name.to_owned(), value.trim_matches('\'').to_owned())].into();
    assert_eq!(strangers("celery-worker", [&name.to_owned()]), Vec::<String>::new());
    started("celery-worker", &env).unwrap();
}

/// A setting that both have has a row that says so.
#[test]
fn no_row_of_the_migration_guide_denies_a_setting() {
    let document = std::fs::read_to_string(repository().join("docs/migration.md")).unwrap();
    let ours: BTreeMap<&str, Setting> =
        PROGRAMS.iter().flat_map(|program| table(program)).map(|setting| (setting.name, setting)).collect();
    let mut wrong = Vec::new();
    for row in rows(&document) {
        let theirs = ours.keys().filter(|name| row.celery.iter().any(|pattern| matches(pattern, name)));
        for name in theirs.filter(|name| !row.here.contains(name)) {
            wrong.push(format!("{name}: the row says {:?}, and there is a setting of that name", row.here));
        }
        // "default 10 s instead of 4 s"
        if let (Some(said), [name]) = (row.note.strip_prefix("default "), row.here.as_slice()) {
            let said = said.split(" instead of ").next().unwrap().replace(' ', "");
            if ours[name].default != Some(&said) {
                wrong.push(format!("{name}: the row says default {said}, it is {:?}", ours[name].default));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/migration.md:\n{}", wrong.join("\n"));
}

#[test]
fn patterns_match_what_they_say() {
    assert!(matches("redis_socket_*", "redis_socket_timeout") && !matches("redis_socket_*", "redis_host"));
    assert!(matches("result_backend_*_retries*", "result_backend_max_sleep_between_retries_ms"));
    assert!(!matches("task_queues", "task_queues_x"));
}
