//! The commands of README.md and of docs/http.md, run one after the other; what they print is what is written there.

use celery_testkit::document::{Desk, console, fits, shell};
use celery_testkit::kubelet::image;
use celery_testkit::{PythonWorker, Rabbit, Redis};

use crate::app::TestApp;

async fn run_all(document: &str, at_least: usize) {
    let broker = Rabbit::shared().await.vhost("readme").await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&broker, &backend, &[("PRODUCER_API_DASHBOARD", "true")]).await;
    let _worker = PythonWorker::peer(&broker, &backend, &["--pool", "threads", "--concurrency", "4"]).await;
    let commands = console(document);
    assert!(commands.len() >= at_least, "{} commands", commands.len());
    let desk = Desk {
        // A command of a page may end as it likes.
        before: "set +eu +o pipefail".to_owned(),
        replaced: vec![("localhost:8080".to_owned(), app.address().to_owned())],
        folder: Some(image::volume("readme")), // one for all of them
        ..Desk::default()
    };
    for (line, command, expected) in commands {
        let printed = shell(&format!("{command}\ntrue"), &desk).await;
        assert!(
            fits(&expected, &printed),
            "{document}:{line}: {command}\nexpected: {expected}\nprinted:  {printed}"
        );
    }
}

#[tokio::test]
async fn every_command_of_the_readme_answers_as_it_says() {
    run_all("producer-api/README.md", 16).await;
}

#[tokio::test]
async fn every_command_of_the_guide_answers_as_it_says() {
    run_all("docs/http.md", 25).await;
}
