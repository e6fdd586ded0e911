//! Pages, assets, headers, hosts.

use flower_lite::MonitorOptions;

use crate::helpers::TestMonitor;

const ADDRESSES: [&str; 5] = ["", "workers", "tasks", "task/4711", "worker/a%40host"];

#[tokio::test]
async fn every_page_has_its_address_built_or_not() {
    for prefix in ["", "/dashboard"] {
        let monitor = TestMonitor::start_with(MonitorOptions::default(), prefix).await;
        for path in ADDRESSES {
            let answer = monitor.ask(path).await;
            assert_eq!(answer.status(), 200, "{path}");
            let html =
                answer.headers()["content-type"].to_str().is_ok_and(|kind| kind.starts_with("text/html"));
            let text = answer.text().await.expect("text");
            if html {
                assert!(text.contains(&format!("<base href=\"{prefix}/\" />")), "{text}");
            } else {
                assert!(
                    text.contains("make web") && text.contains(&format!("{prefix}/api/v2/overview")),
                    "{text}"
                );
                assert_eq!(text.lines().count(), 1);
            }
        }
        let bare = monitor.client.get(&monitor.base).send().await.expect("an answer");
        assert_eq!(bare.status(), 200, "without a slash at its end");
        let unknown = monitor.ask("wp-admin").await;
        assert_eq!(unknown.status(), 404);
    }
}

#[tokio::test]
async fn every_answer_says_what_may_be_loaded_and_who_may_frame_it() {
    let monitor = TestMonitor::start().await;
    for path in [
        "",
        "tasks",
        "api/v2/overview",
        "api/v2/tasks/none",
        "healthcheck",
        "assets/none.js",
        "api/v2/stream",
    ] {
        let answer = monitor.ask(path).await;
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().expect("text");
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{path}");
        if path.starts_with("api") {
            assert_eq!(headers["cache-control"], "no-store", "{path}");
        }
    }
}

#[tokio::test]
async fn nothing_but_the_pages_own_files_is_served() {
    let monitor = TestMonitor::start().await;
    for path in [
        "assets/../index.html",
        "assets/..%2f..%2f..%2fCargo.toml",
        "assets/%2e%2e/%2e%2e/package.json",
        "assets//etc/passwd",
        "assets/%00",
        "assets/..%5c..%5cCargo.toml",
    ] {
        // The client would tidy the path up: the request is written by hand.
        let answer = raw(&monitor.base, path, None).await;
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        assert!(!answer.contains("[package]") && !answer.contains("root:"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_page_of_a_stranger_cannot_borrow_the_monitors_address() {
    let monitor = TestMonitor::start().await;
    for (host, status) in
        [("evil.example", 421), ("localhost", 200), ("127.0.0.1:99", 200), ("127.0.0.1.evil.example", 421)]
    {
        let answer = raw(&monitor.base, "api/v2/overview", Some(host)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn json_is_packed_for_those_who_can_unpack_it_but_a_stream_is_not() {
    let monitor = TestMonitor::start().await;
    let ask = |path: &str| {
        monitor.client.get(format!("{}/{path}", monitor.base)).header("accept-encoding", "gzip").send()
    };
    assert_eq!(ask("api/v2/overview").await.expect("an answer").headers()["content-encoding"], "gzip");
    assert!(!ask("api/v2/stream").await.expect("an answer").headers().contains_key("content-encoding"));
}

/// The answer to a request that is written by hand.
async fn raw(base: &str, path: &str, host: Option<&str>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = base.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let host = host.unwrap_or(address);
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}
