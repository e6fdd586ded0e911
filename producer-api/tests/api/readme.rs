//! The commands of README.md and of docs/http.md, run one after the other; what they print is what is written there.

use std::path::Path;

use celery_testkit::{PythonWorker, Rabbit, Redis};

use crate::app::{SOON, TestApp};

/// Commands and what is printed, in order.
fn commands(readme: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match (line, line.strip_prefix("$ ")) {
            ("```console", _) => inside = true,
            ("```", _) => inside = false,
            (_, Some(command)) if inside => commands.push((command.to_owned(), String::new())),
            (output, None) if inside => {
                let (_, expected) = commands.last_mut().unwrap();
                expected.push_str(output);
                expected.push('\n');
            }
            _ => {}
        }
    }
    commands
}

/// Whether `text` is `pattern`, in which `…` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.trim_end().split('…');
    let Some(mut rest) = text.trim_end().strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn dots_stand_for_anything() {
    for (pattern, text, expected) in [
        ("a…c", "abc", true),
        ("a…c", "abcd", false),
        ("a", "ab", false),
        ("…b…", "abc", true),
        ("a…b…c", "acb", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
    }
}

async fn run_all(document: &Path, at_least: usize) {
    let broker = Rabbit::shared().await.vhost("readme").await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&broker, &backend, &[("PRODUCER_API_DASHBOARD", "true")]).await;
    let _worker = PythonWorker::peer(&broker, &backend, &["--pool", "threads", "--concurrency", "4"]).await;
    let commands = commands(&std::fs::read_to_string(document).unwrap());
    assert!(commands.len() >= at_least, "{} commands", commands.len());
    let scratch = std::env::temp_dir().join(format!("producer-api-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&scratch).unwrap();
    for (command, expected) in commands {
        let here = command.replace("localhost:8080", app.address());
        let mut bash = tokio::process::Command::new("bash");
        let run = bash.args(["-c", &here]).env("TMPDIR", &scratch).kill_on_drop(true).output();
        let output = tokio::time::timeout(SOON, run).await.unwrap().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(fits(&expected, &printed), "{command}\nexpected: {expected}\nprinted:  {printed}");
    }
    std::fs::remove_dir_all(&scratch).unwrap();
}

#[tokio::test]
async fn every_command_of_the_readme_answers_as_it_says() {
    run_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"), 16).await;
}

#[tokio::test]
async fn every_command_of_the_guide_answers_as_it_says() {
    run_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/http.md"), 25).await;
}
