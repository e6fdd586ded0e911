//! Every fenced block of a document is compiled or run by some test, or says above it why not.

use super::{none, sources};

/// What tests run: document, language, the test.
const RUN: &[(&str, &str, &str)] = &[
    ("README.md", "python", "broker/testkit/tests/e2e/pages_of_text.rs"),
    ("README.md", "sh", "broker/testkit/tests/e2e/pages_of_text.rs"),
    ("docs/beat.md", "toml", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/beat.md", "sh", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/configuration.md", "sh", "broker/testkit/tests/e2e/pages_of_text.rs"),
    ("docs/configuration.md", "toml", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/deployment.md", "sh", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/deployment.md", "yaml", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/http.md", "console", "producer-api/tests/api/readme.rs"),
    ("docs/migration.md", "python", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/monitor.md", "toml", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/operations.md", "sh", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/operations.md", "toml", "broker/testkit/tests/manifests/documents.rs"),
    ("docs/tutorial.md", "sh", "celery-worker/tests/tutorial.rs"),
    ("docs/tutorial.md", "text", "celery-worker/tests/tutorial.rs"),
    ("docs/walkthrough.md", "sh", "broker/testkit/tests/e2e/walkthrough.rs"),
    ("docs/walkthrough.md", "text", "broker/testkit/tests/e2e/walkthrough.rs"),
    ("producer-api/README.md", "console", "producer-api/tests/api/readme.rs"),
];

/// The blocks of a text: the line above, the language, the line number.
fn blocks(text: &str) -> Vec<(&str, &str, usize)> {
    let (mut found, mut inside, mut above) = (Vec::new(), false, "");
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if !inside {
                found.push((above, language, index + 1));
            }
            inside = !inside;
        }
        above = line.trim();
    }
    found
}

/// `<!-- not run: why -->` stands above.
fn excused(above: &str) -> bool {
    let reason = above.strip_prefix("<!-- not run: ").and_then(|rest| rest.strip_suffix(" -->"));
    reason.is_some_and(|reason| reason.len() > 10)
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let sources = sources();
    let compiled = |path: &str| {
        let name = format!("{path}\")]");
        sources.iter().any(|file| {
            let mut lines = file.text.lines().filter(|line| line.contains("doc = include_str!("));
            file.path.ends_with(".rs") && lines.any(|line| line.contains(&format!("/{name}")))
        })
    };
    let mut bad = Vec::new();
    for file in sources.iter().filter(|file| file.path.ends_with(".md")) {
        for (above, language, line) in blocks(&file.text) {
            let language = language.trim();
            let run = match language.split(',').next().unwrap_or_default() {
                // A picture made of letters.
                "" => true,
                "rust" => compiled(&file.path) && !language.contains("ignore"),
                other => RUN.iter().any(|(path, kind, _)| *path == file.path && *kind == other),
            };
            if !run && !excused(above) {
                bad.push(format!("{}:{line}: {language}", file.path));
            }
        }
    }
    none(
        &bad,
        "let a test run these blocks and name it in broker/testkit/tests/tidy/documents.rs, or write \
         <!-- not run: the reason --> above them",
    );
}

#[test]
fn the_tests_that_are_said_to_run_documents_name_them() {
    let sources = sources();
    let text =
        |path: &str| sources.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let stale = RUN.iter().filter(|(document, language, test)| {
        let there =
            blocks(text(document)).iter().any(|(_, known, _)| known.split(',').next() == Some(language));
        !there || !text(test).contains(&format!("\"{document}\""))
    });
    let stale: Vec<String> = stale.map(|each| format!("{each:?}")).collect();
    none(&stale, "these entries of RUN name no block, or a test that does not read the document");
}

#[test]
fn a_reason_is_a_reason() {
    assert!(excused("<!-- not run: it would stop the machine -->"));
    assert!(!excused("<!-- not run:  -->") && !excused("some text"));
    assert_eq!(blocks("a\n```sh\nx\n```\n"), [("a", "sh", 2)]);
}
