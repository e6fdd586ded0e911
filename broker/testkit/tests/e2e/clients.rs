//! producer-api as programs in other languages meet it: clients made from the checked-in `openapi.json` run the examples of
//! the documents, and tools that know what an OpenAPI document promises look for a broken promise.
//!
//! The tools are those of `make peers`.

use crate::stage::Stage;
use celery_testkit::config;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// For one tool; Node and Python start slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the examples print at their end.
const DONE: &str = "submitted, waited, read, grouped, chained";

fn document() -> PathBuf {
    config::repository().join("producer-api/openapi.json")
}

/// The examples, and the tools that npm installs.
fn clients() -> PathBuf {
    config::repository().join("producer-api/tests/clients")
}

/// A tool of the Python environment.
fn python(name: &str) -> Command {
    let path = config::repository().join(".run/peers/bin").join(name);
    assert!(path.exists(), "no {}: run `make peers`", path.display());
    Command::new(path)
}

/// A tool of `node_modules`.
fn node(script: &str) -> Command {
    let path = clients().join("node_modules").join(script);
    assert!(path.exists(), "no {}: run `make peers`", path.display());
    let mut command = Command::new(interpreter());
    command.arg(path);
    command
}

/// Node: the system's, or the one that web.sh installed because there was none.
fn interpreter() -> PathBuf {
    let installed = config::venv().join("bin/node");
    if installed.exists() { installed } else { PathBuf::from("node") }
}

/// Runs a tool to its end, which must be good; what it printed.
async fn run(command: &mut Command) -> String {
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{text}");
    text
}

/// A folder for what is made.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("celeriac-{name}-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_generated_python_client_runs_the_examples() {
    let made = Scratch::new("python-client");
    let client = made.join("producer_client");
    let mut generate = python("openapi-python-client");
    generate.args(["generate", "--meta", "none", "--path"]).arg(document()).arg("--output-path").arg(&client);
    let said = run(&mut generate).await;
    // A streamed body is what it cannot do, and nothing else.
    let warnings = said.matches("WARNING").count();
    assert!(warnings == 1 && said.contains("Unsupported content type application/x-ndjson"), "{said}");

    let stage = Stage::new("python-client").await;
    let _worker = stage.worker(&[]).await;
    let api = stage.producer_api().await;
    let mut examples = python("python");
    examples.arg(clients().join("examples.py")).arg(&api.url).env("PYTHONPATH", &made.0);
    let said = run(&mut examples).await;
    assert_eq!(said.lines().last(), Some(DONE), "{said}");
}

#[tokio::test]
async fn a_generated_typescript_client_runs_the_examples() {
    let made = Scratch::new("typescript-client");
    for file in ["examples.ts", "tsconfig.json", "package.json"] {
        fs::copy(clients().join(file), made.join(file)).unwrap();
    }
    std::os::unix::fs::symlink(clients().join("node_modules"), made.join("node_modules")).unwrap();
    let mut generate = node("openapi-typescript/bin/cli.js");
    run(generate.arg(document()).arg("--output").arg(made.join("schema.d.ts"))).await;
    run(node("typescript/bin/tsc").arg("--project").arg(&made.0)).await;

    let stage = Stage::new("typescript-client").await;
    let _worker = stage.worker(&[]).await;
    let api = stage.producer_api().await;
    let mut examples = Command::new(interpreter());
    let said = run(examples.arg(made.join("made/examples.js")).arg(&api.url)).await;
    assert_eq!(said.lines().last(), Some(DONE), "{said}");
}

#[tokio::test]
async fn the_document_is_clean_under_two_linters() {
    let mut redocly = node("@redocly/cli/bin/cli.js");
    let said = run(redocly.arg("lint").arg(document()).env("REDOCLY_TELEMETRY", "off")).await;
    assert!(said.contains("is valid") && !said.contains("You have "), "{said}");
    let mut spectral = node("@stoplight/spectral-cli/dist/index.js");
    let rules = clients().join("spectral.yaml");
    spectral.arg("lint").arg("--fail-severity=hint").arg("--ruleset").arg(rules).arg(document());
    let said = run(&mut spectral).await;
    assert!(said.contains("No results"), "{said}");
}

/// Every check that schemathesis has, over every address; `schemathesis.toml` says what may be answered to what is valid.
#[tokio::test]
async fn the_document_keeps_its_promises() {
    let stage = Stage::new("schemathesis").await;
    let _worker = stage.worker(&[]).await;
    // Most tasks that it thinks of are nobody's: it need not wait for them long.
    let api = stage.producer_api_with(&[("PRODUCER_API_MAX_WAIT", "100ms")]).await;
    let made = Scratch::new("schemathesis");
    let rules: &Path = &clients().join("schemathesis.toml");
    let mut judge = python("schemathesis");
    judge.arg("--config-file").arg(rules).args(["run", &format!("{}/openapi.json", api.url)]);
    judge.args(["--checks", "all", "--max-examples", "5", "--seed", "1", "--workers", "4"]);
    judge.env("SCHEMATHESIS_HOOKS", clients().join("hooks.py"));
    let said = run(judge.current_dir(&made.0)).await;
    // It says by its exit that nothing was found; this is that it looked.
    assert!(said.contains("Coverage") && said.contains("Stateful") && !said.contains('❌'), "{said}");
}
