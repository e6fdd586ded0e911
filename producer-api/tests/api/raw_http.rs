//! What only a raw socket can send: ambiguous framing, endless heads, pipelines, clients that do not read.
//!
//! The parser is actix's; these cases pin what it does, because a request that two servers read differently is a way past
//! the one in front.

use std::time::{Duration, Instant};

use celery_protocol::TaskId;
use celery_testkit::wait;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::app::{SOON, TestApp};

const PATIENCE: Duration = Duration::from_secs(15);

/// Sends bytes as they are, and reads until the server closes or `PATIENCE` is over.
async fn send(app: &TestApp, bytes: &[u8]) -> (String, bool) {
    let mut socket = TcpStream::connect(app.address()).await.unwrap();
    // The server may close before it has read everything.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.is_ok();
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

/// The statuses of all answers in a text.
fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect()
}

/// H13: what could be read in two ways is refused, the connection is closed, and no second request comes out of it.
#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = format!("0\r\n\r\n{inner}");
    let head = |lines: &str| {
        format!("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}\r\n\r\n")
    };
    for (what, request) in [
        ("length and chunked", head("Content-Length: 5\r\nTransfer-Encoding: chunked") + &chunked),
        ("chunked and length", head("Transfer-Encoding: chunked\r\nContent-Length: 5") + &chunked),
        ("two lengths", head("Content-Length: 2\r\nContent-Length: 40") + "{}" + inner),
        ("a list of lengths", head("Content-Length: 2, 40") + "{}" + inner),
        ("a length with a sign", head("Content-Length: +2") + "{}" + inner),
        ("a negative length", head("Content-Length: -2") + "{}" + inner),
        ("a length in hexadecimal", head("Content-Length: 0x2") + "{}" + inner),
        ("another coding", head("Transfer-Encoding: xchunked") + &chunked),
        ("chunked twice", head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") + &chunked),
        ("identity last", head("Transfer-Encoding: chunked, identity") + &chunked),
        ("a space before the colon", head("Content-Length : 2") + "{}" + inner),
        ("a folded header", head("X-A: b\r\n c: d\r\nContent-Length: 2") + "{}" + inner),
        ("a header without a colon", head("nonsense\r\nContent-Length: 2") + "{}" + inner),
        ("NUL in a header", head("X-A: a\0b\r\nContent-Length: 2") + "{}" + inner),
        ("a size that is none", head("Transfer-Encoding: chunked") + "zz\r\n{}\r\n0\r\n\r\n" + inner),
        (
            "a size beyond all bounds",
            head("Transfer-Encoding: chunked") + "fffffffffffffffff\r\n{}\r\n0\r\n\r\n" + inner,
        ),
        ("a bad end of chunk", head("Transfer-Encoding: chunked") + "2\r\n{}XX0\r\n\r\n" + inner),
    ] {
        let (answer, closed) = send(&app, request.as_bytes()).await;
        let statuses = statuses(&answer);
        assert_eq!(statuses.len(), 1, "{what}: {answer}");
        assert!(statuses[0].starts_with('4'), "{what}: {answer}");
        assert!(closed, "{what}: the connection stays open");
        assert!(!answer.contains("/smuggled"), "{what}: {answer}");
    }
    // HTTP/1.0 has no chunks.
    let old = format!(
        "POST /v1/tasks HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
    );
    let (answer, _) = send(&app, old.as_bytes()).await;
    assert!(!answer.contains("/smuggled") && !answer.contains(" 202 "), "{answer}");
    // And what is not ambiguous works.
    let body = "{\"task\":\"t\"}";
    let good = head("Transfer-Encoding: chunked\r\nConnection: close")
        + &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let (answer, _) = send(&app, good.as_bytes()).await;
    assert_eq!(statuses(&answer), ["202"], "{answer}");
}

/// A body that is refused unread must not be read as the next request.
#[tokio::test]
async fn a_refused_body_is_not_the_next_request() {
    let app = TestApp::start().await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for lines in ["Content-Type: text/plain", "Content-Type: application/json\r\nContent-Encoding: gzip"] {
        let request = format!(
            "POST /v1/tasks HTTP/1.1\r\nHost: x\r\n{lines}\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        );
        let (answer, closed) = send(&app, request.as_bytes()).await;
        assert_eq!((statuses(&answer), closed), (vec!["415"], true), "{answer}");
    }
}

/// H14, H18: heads are bounded in time, in bytes, in lines.
#[tokio::test]
async fn heads_are_bounded() {
    let app = TestApp::start().await;
    let started = Instant::now();
    let (answer, closed) = send(&app, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    assert!(closed && answer.starts_with("HTTP/1.1 408"), "{answer} after {:?}", started.elapsed());
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "y".repeat(300_000));
    for (what, request) in [
        ("200 headers", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n")),
        ("a head of 300 kB", format!("GET /livez HTTP/1.1\r\nHost: x\r\n{large}\r\n")),
        ("an address of 300 kB", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(300_000))),
    ] {
        let (answer, closed) = send(&app, request.as_bytes()).await;
        assert!(closed, "{what}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{what}: {}",
            &answer[..answer.len().min(300)]
        );
    }
    assert_eq!(app.get("/livez").await.status, 200);
}

/// H19: a pipeline is answered in order.
#[tokio::test]
async fn a_thousand_pipelined_requests_have_a_thousand_answers() {
    let app = TestApp::start().await;
    let mut requests = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(999);
    requests.push_str("GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let socket = TcpStream::connect(app.address()).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let mut answer = Vec::new();
    let (written, read) =
        futures_util::future::join(writer.write_all(requests.as_bytes()), reader.read_to_end(&mut answer))
            .await;
    written.unwrap();
    read.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let statuses = statuses(&text);
    assert_eq!(statuses.len(), 1000);
    assert!(statuses[..999].iter().all(|status| *status == "200"));
    assert_eq!(statuses[999], "404");
}

/// H38: methods and headers that are rarely sent.
#[tokio::test]
async fn rare_methods_and_headers_have_right_answers() {
    let app = TestApp::start().await;
    app.declare("celery").await;
    let one = async |lines: &str, body: &str| {
        let request = format!("{lines}\r\nHost: x\r\nConnection: close\r\n\r\n{body}");
        send(&app, request.as_bytes()).await.0
    };
    let (head, whole) = (
        one("HEAD /openapi.json HTTP/1.1", "").await,
        one("GET /openapi.json HTTP/1.1\r\nRange: bytes=0-9", "").await,
    );
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(whole.starts_with("HTTP/1.1 200") && whole.trim_end().ends_with('}'), "a range is not a must");
    for (line, status) in [
        ("OPTIONS /v1/tasks HTTP/1.1", "405"),
        ("TRACE /v1/tasks HTTP/1.1", "405"),
        ("BREW /v1/tasks HTTP/1.1", "405"),
        ("CONNECT x:1 HTTP/1.1", "404"),
        ("GET /v1/tasks/x HTTP/1.1\r\nAccept: image/png", "404"),
        ("GET //v1/tasks HTTP/1.1", "404"),
        ("GET /v1/tasks/%00 HTTP/1.1", "400"),
        ("GET /v1/tasks/%c0%af HTTP/1.1", "400"),
        ("GET /docs/..%2f..%2fetc/passwd HTTP/1.1", "404"),
    ] {
        let answer = one(line, "").await;
        let first = statuses(&answer).first().copied().unwrap_or_default();
        assert!(
            first == status || (line.starts_with("CONNECT") && first.starts_with('4')),
            "{line}: {answer}"
        );
    }
    // A body that is announced and too large is refused before it is sent.
    let expecting = "POST /v1/tasks HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 99999999";
    let answer = one(expecting, "").await;
    assert_eq!(statuses(&answer).last(), Some(&"413"), "{answer}");
    let small = "POST /v1/tasks HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 12";
    assert_eq!(statuses(&one(small, "{\"task\":\"t\"}").await), ["100", "202"]);
}

/// H17: connections that do nothing are bounded in number. Who comes beyond that waits for one of them to end.
#[tokio::test]
async fn connections_are_bounded_in_number() {
    const LIMIT: usize = 8;
    let app = TestApp::start_with(&[("PRODUCER_API_MAX_CONNECTIONS", "8")]).await;
    // Those of the client that the test itself asks with count too.
    let address = app.address().to_owned();
    let ask = async || {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        socket
    };
    let mut open = Vec::new();
    for _ in 0..4 * LIMIT {
        open.push(ask().await);
    }
    let answered = async |open: &mut Vec<TcpStream>| {
        let mut yes = Vec::new();
        for (at, socket) in open.iter_mut().enumerate() {
            let mut start = [0; 12];
            let peek = tokio::time::timeout(Duration::from_millis(20), socket.peek(&mut start)).await;
            if matches!(peek, Ok(Ok(read)) if read > 0) {
                yes.push(at);
            }
        }
        yes
    };
    let first = wait::until(SOON, "those who fit in to be answered", async || {
        let first = answered(&mut open).await;
        if first.len() >= LIMIT - 1 { Ok(first) } else { Err(format!("{} are answered", first.len())) }
    })
    .await;
    wait::nothing_for(Duration::from_millis(500)).await;
    let later = answered(&mut open).await;
    assert!(later.len() <= LIMIT, "{} connections are served, {LIMIT} may be", later.len());
    // When they go, others are served.
    for at in first.into_iter().rev() {
        drop(open.remove(at));
    }
    wait::until(SOON, "others to be answered", async || {
        let second = answered(&mut open).await;
        if second.is_empty() { Err("nobody") } else { Ok(()) }
    })
    .await;
}

/// H16: who does not read a stream is cut, and what the server holds for it is bounded.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let app = TestApp::start_with(&[("PRODUCER_API_READ_TIMEOUT", "1s")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(app.address().parse().unwrap()).await.unwrap();
    socket.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let open = async |wanted: bool| {
        wait::until(SOON * 2, "the number of open streams", async || {
            let text = app.get("/metrics").await.text;
            let one = text.contains("producer_api_in_flight{what=\"waits\"} 1");
            if one == wanted { Ok(()) } else { Err(one.to_string()) }
        })
        .await;
    };
    open(true).await;
    let large = json!("x".repeat(60_000)).to_string();
    let filling = async {
        for n in 0..2000 {
            let id = TaskId::parse(format!("s{n}")).unwrap();
            app.succeed(&id, &large).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = filling => {}
        () = open(false) => {}
    }
}
