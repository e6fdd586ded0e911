//! docs/walkthrough.md, run: each of its commands, on the stand-in for a cluster, and what it prints against the page.

use celery_testkit::document::{Block, blocks, fits};
use celery_testkit::kubelet::{Cluster, Kubectl};
use celery_testkit::ports;

/// Stands between the outputs of two blocks.
const CUT: &str = "-- 8< --";

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_walkthrough_does_what_it_says() {
    let document = blocks("docs/walkthrough.md");
    let commands: Vec<&Block> = document.iter().filter(|block| block.language == "sh").collect();
    assert!(commands.len() >= 10, "the blocks of the walkthrough were not found");
    let cluster = Cluster::without_images();
    let kubectl = Kubectl::new(&cluster).await;

    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for block in &commands {
        script += &format!("{}echo '{CUT}'\n", block.text);
    }
    // Those of the page may be taken on this machine.
    for port in ["8080", "5555"] {
        let free = ports::free().to_string();
        script = script.replace(&format!("localhost:{port}"), &format!("localhost:{free}"));
        script = script.replace(&format!(" {port}:80"), &format!(" {free}:80"));
    }
    let output = kubectl.script(&script).await;
    let outputs: Vec<&str> = output.split(&format!("{CUT}\n")).collect();
    assert_eq!(outputs.len(), commands.len() + 1, "{output}");

    let (mut compared, mut wrong) = (0, Vec::new());
    for (block, output) in commands.iter().zip(outputs) {
        let next = document.iter().find(|other| other.line > block.line);
        if let Some(expected) = next.filter(|next| next.language == "text") {
            compared += 1;
            if !fits(&expected.text, output) {
                let (line, text) = (expected.line, &expected.text);
                wrong.push(format!(
                    "docs/walkthrough.md:{line}: the page says\n{text}\nand printed was\n{output}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(compared, document.iter().filter(|block| block.language == "text").count());

    // What was deployed went away in an orderly way.
    for pod in cluster.all_pods() {
        let end = pod.status().end.unwrap();
        assert!(!end.killed && pod.status().restarts == 0, "{}: {:?}\n{}", pod.name, pod.status(), pod.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_built_is_not_run() {
    let cluster = Cluster::without_images();
    let kubectl = Kubectl::new(&cluster).await;
    let said = kubectl.script("kubectl apply --kustomize manifests/overlays/dev 2>&1 || true").await;
    assert!(said.contains("celeriac/celery-worker:0.1.0 was neither built nor loaded"), "{said}");
    let said = kubectl.script(
        "docker build --file manifests/docker/Dockerfile --target x --tag celeriac/x:1 . 2>&1 || true",
    );
    assert!(said.await.contains("the Dockerfile has no target x"));
    let said = kubectl.script("kubectl rollout undo deployment/celery-worker 2>&1 || true").await;
    assert!(said.contains("does not know"), "{said}");
}
