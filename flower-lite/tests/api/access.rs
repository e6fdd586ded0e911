//! Who is let in, asked as a stranger would: with paths written in other ways.

use flower_lite::access::{Control, Users};
use flower_lite::{Monitor, MonitorOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::helpers::serve_to;

/// The status of an answer to a request whose path goes out exactly as written: clients would tidy it up.
async fn status(base: &str, method: &str, path: &str, authorization: &str) -> u16 {
    let host = base.trim_start_matches("http://").split('/').next().expect("a host");
    let mut stream = TcpStream::connect(host).await.expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 2\r\n\
         Content-Type: application/json\r\n{authorization}\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

#[actix_web::test]
async fn strangers_see_only_what_is_open_however_they_write_its_path() {
    let options = MonitorOptions { control: Control::On, ..MonitorOptions::default() };
    for prefix in ["", "/flower"] {
        let (monitor, _feed) = Monitor::fed_by_hand(options.clone());
        let users = Users::parse(&["admin:secret".into()]).expect("a pair");
        let (base, _stop) = serve_to(monitor, prefix, users);
        for (method, path, expected) in [
            ("GET", "/metrics", 200),
            ("GET", "/%6detrics", 200),
            ("GET", "/healthcheck", 200),
            ("GET", "/livez", 200),
            ("GET", "/readyz", 200),
            ("POST", "/metrics", 401),
            ("GET", "/", 401),
            ("GET", "/api/tasks", 401),
            ("GET", "/%61pi/tasks", 401),
            ("POST", "/%61pi/task/send-task/x/metrics", 401),
            ("POST", "/api/task/revoke/x/healthcheck", 401),
            ("POST", "/%61pi/worker/shutdown/x/livez", 401),
            ("GET", "/task/metrics", 401),
            ("GET", "/api/tasks?/metrics", 401),
        ] {
            let seen = status(&base, method, &format!("{prefix}{path}"), "").await;
            assert_eq!(seen, expected, "{method} {prefix}{path}");
        }
        let known = "Authorization: Basic YWRtaW46c2VjcmV0\r\n";
        assert_eq!(status(&base, "GET", &format!("{prefix}/api/tasks"), known).await, 200);
    }
}
