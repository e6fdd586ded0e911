//! docs/tutorial.md: the program on the page is the example `tutorial`, and the page's commands are run with it.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;

use celery_testkit::document::{self, Desk, blocks};
use celery_testkit::{Rabbit, Redis, binary, config, ports};

/// Its own tests run here.
#[path = "../examples/tutorial.rs"]
#[expect(dead_code, reason = "its main function is for the example")]
mod page;

/// `cargo`, for the words of the page: what it would build is the example, whose tests are those of `page`.
const CARGO: &str = r#"case "$1 $2" in
"new shop") mkdir shop ;;
"add celery-worker" | "add tokio" | "test --quiet" | "build --manifest-path") ;;
"run --quiet") shift 3; exec "$TUTORIAL" "$@" ;;
*) echo "cargo $*: not on the page" >&2; exit 1 ;;
esac"#;

fn example() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.ancestors().nth(2).unwrap().join("examples/tutorial")
}

#[test]
fn the_page_shows_the_example() {
    let page = blocks("docs/tutorial.md");
    let shown = page.iter().find(|block| block.text.contains("#[tokio::main]")).unwrap();
    let source =
        std::fs::read_to_string(config::repository().join("celery-worker/examples/tutorial.rs")).unwrap();
    let source = source.split_once("\n\n").unwrap().1;
    assert_eq!(shown.text, source, "docs/tutorial.md and examples/tutorial.rs must show the same");
}

#[tokio::test]
async fn the_commands_do_what_the_page_says() {
    let broker = Rabbit::shared().await.vhost("tutorial").await;
    let backend = Redis::shared().await.database();
    assert!(
        example().is_file(),
        "the examples are not built: cargo test builds them, or cargo build --examples"
    );
    let port = ports::free().to_string();
    let replaced = [
        ("amqp://localhost", broker),
        ("redis://localhost", backend),
        ("../celeriac/target/debug/producer-api", "producer-api".to_owned()),
        ("localhost:8080", format!("localhost:{port}")),
    ];
    let env = [("PRODUCER_API_PORT", port), ("TUTORIAL", example().display().to_string())];
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    let desk = Desk {
        before: format!("cargo() {{\n{CARGO}\n}}\n"),
        replaced: replaced.map(owned).into(),
        path: vec![binary("producer-api").parent().unwrap().to_owned(), config::venv().join("bin")],
        env: env.map(owned).into(),
        folder: None,
    };
    document::run("docs/tutorial.md", &desk).await;
}
