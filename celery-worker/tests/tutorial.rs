//! docs/tutorial.md: the program on the page is the example `tutorial`, and the page's commands are run with it.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use celery_testkit::document::{blocks, fits};
use celery_testkit::{Rabbit, Redis, binary, config, ports};

/// Its own tests run here.
#[path = "../examples/tutorial.rs"]
#[expect(dead_code, reason = "its main function is for the example")]
mod page;

/// Stands between the outputs of two blocks.
const CUT: &str = "-- 8< --";
/// `cargo`, for the words of the page: what it would build is the example, whose tests are those of `page`.
const CARGO: &str = r#"case "$1 $2" in
"new shop") mkdir shop ;;
"add celery-worker" | "add tokio" | "test --quiet") ;;
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
    let page = blocks("docs/tutorial.md");
    let commands: Vec<_> = page.iter().filter(|block| block.language == "sh").collect();
    assert!(commands.len() >= 6, "the commands were not found");

    let folder = std::env::temp_dir().join(format!("celeriac-tutorial-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut script = format!(
        "trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf {}' EXIT\ncargo() {{\n{CARGO}\n}}\n",
        folder.display()
    );
    for block in &commands {
        script += &format!("{}echo '{CUT}'\n", block.text);
    }
    let port = ports::free().to_string();
    let script = script
        .replace("amqp://localhost", &broker)
        .replace("redis://localhost", &backend)
        .replace("localhost:8080", &format!("localhost:{port}"));
    assert!(
        example().is_file(),
        "the examples are not built: cargo test builds them, or cargo build --examples"
    );
    let programs = binary("producer-api");
    let path =
        [programs.parent().unwrap(), &config::venv().join("bin")].map(|folder| folder.display().to_string());
    let run = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(&folder)
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", path.join(":")))
        .env("PRODUCER_API_PORT", &port)
        .env("TUTORIAL", example())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), run).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");

    let outputs: Vec<&str> = out.split(&format!("{CUT}\n")).collect();
    let mut compared = 0;
    for (block, output) in commands.iter().zip(outputs) {
        let next = page.iter().find(|other| other.line > block.line);
        if let Some(expected) = next.filter(|next| next.language == "text") {
            compared += 1;
            let line = expected.line;
            assert!(fits(&expected.text, output), "docs/tutorial.md:{line}: printed was\n{output}\n{err}");
        }
    }
    assert_eq!(compared, page.iter().filter(|block| block.language == "text").count());
}
