//! The calls of README.md, and the commands of docs/configuration.md, as they stand there.

use crate::stage::Stage;
use celery_testkit::document::{self, Desk, blocks, shell};
use celery_testkit::{binary, config};

fn desk() -> Desk {
    let programs = binary("celery-worker").parent().unwrap().to_owned();
    Desk { path: vec![programs, config::venv().join("bin")], ..Desk::default() }
}

#[tokio::test]
async fn the_calls_of_the_readme_are_answered() {
    let stage = Stage::new("readme").await;
    let _worker = stage.worker(&[]).await;
    let api = stage.producer_api().await;
    let address = api.url.trim_start_matches("http://").to_owned();
    let replaced = [
        ("amqp://guest:guest@localhost//", stage.broker.clone()),
        ("redis://localhost", stage.backend.clone()),
        ("localhost:8080", address),
    ];
    let replaced = replaced.map(|(word, here)| (word.to_owned(), here)).into();
    let desk = Desk { replaced, ..desk() };
    let page = blocks("README.md");
    let block = |language: &str, word: &str| {
        page.iter()
            .find(|block| block.language == language && block.text.contains(word))
            .unwrap()
            .text
            .clone()
    };
    let python = block("python", "send_task");
    let printed = shell(&format!("python3 - <<'END'\n{python}END\n"), &desk).await;
    assert_eq!(printed, "5\n");
    let printed = shell(&block("sh", "curl"), &desk).await;
    let answer: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answer["result"], 5, "{printed}");
}

#[tokio::test]
async fn every_program_prints_its_table() {
    let printed = document::run("docs/configuration.md", &desk()).await;
    for word in ["--broker", "--shared-schedule", "--tokens", "--basic-auth"] {
        assert!(printed.contains(word), "{word}");
    }
}
