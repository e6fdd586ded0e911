//! The commands of README.md, run one after the other; what they print is what the README says they print.

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

#[tokio::test]
async fn every_command_of_the_readme_answers_as_it_says() {
    let broker = Rabbit::shared().await.vhost("readme").await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&broker, &backend, &[("PRODUCER_API_DASHBOARD", "true")]).await;
    let _worker = PythonWorker::peer(&broker, &backend, &["--pool", "solo"]).await;
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.len() > 15);
    for (command, expected) in commands {
        let here = command.replace("localhost:8080", app.address());
        let run = tokio::process::Command::new("bash").args(["-c", &here]).kill_on_drop(true).output();
        let output = tokio::time::timeout(SOON, run).await.unwrap().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(fits(&expected, &printed), "{command}\nexpected: {expected}\nprinted:  {printed}");
    }
}
