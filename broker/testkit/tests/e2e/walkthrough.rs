//! docs/walkthrough.md, run: each of its commands, on the stand-in for a cluster, and what it prints against the page.

use celery_testkit::document;
use celery_testkit::kubelet::{Cluster, Kubectl};
use celery_testkit::ports;

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_walkthrough_does_what_it_says() {
    let cluster = Cluster::without_images();
    let kubectl = Kubectl::new(&cluster).await;
    let mut desk = kubectl.desk();
    // Those of the page may be taken on this machine.
    for port in ["8080", "5555"] {
        let free = ports::free();
        desk.replaced.push((format!("localhost:{port}"), format!("localhost:{free}")));
        desk.replaced.push((format!(" {port}:80"), format!(" {free}:80")));
    }
    document::run("docs/walkthrough.md", &desk).await;

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
    assert!(said.contains("celeriac/celery-beat:0.1.0 was neither built nor loaded"), "{said}");
    let said = kubectl.script(
        "docker build --file manifests/docker/Dockerfile --target x --tag celeriac/x:1 . 2>&1 || true",
    );
    assert!(said.await.contains("the Dockerfile has no target x"));
    let said = kubectl.script("kubectl rollout undo deployment/celery-worker 2>&1 || true").await;
    assert!(said.contains("does not know"), "{said}");
}
