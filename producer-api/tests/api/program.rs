//! The program itself: flags, messages, signals.

use std::process::Output;
use std::time::Duration;

use celery_testkit::{Program, Rabbit, Redis, ports};

use crate::app::SOON;

const PROGRAM: &str = env!("CARGO_BIN_EXE_producer-api");

async fn run(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(args).env_clear().envs(env.iter().copied()).kill_on_drop(true);
    let Output { status, stdout, stderr } =
        tokio::time::timeout(SOON, command.output()).await.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

#[tokio::test]
async fn help_and_version() {
    let (code, text) = run(&["--help"], &[]).await;
    assert_eq!(code, 0);
    for word in [
        "--port",
        "PRODUCER_API_PORT",
        "--broker",
        "CELERY_BROKER_URL",
        "CELERY_RESULT_BACKEND",
        "--insecure-no-auth",
        "[default: 8080]",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    assert_eq!(run(&["--version"], &[]).await, (0, format!("producer-api {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_wrong_setting_is_named_with_a_remedy() {
    let canary = "amqp://u:canary@127.0.0.1:1//;nonsense://u:canary@h";
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 7] = [
        (&["--prot", "1"], &[], &["--prot"]),
        (&["--port", "http"], &[], &["api_port", "--port", "0 to 65535"]),
        (&[], &[("PRODUCER_API_MAX_WAIT", "soon")], &["max_wait", "PRODUCER_API_MAX_WAIT", "duration"]),
        (&["--bind", "0.0.0.0"], &[], &["api_bind", "PRODUCER_API_TOKENS", "--insecure-no-auth"]),
        (&["--config", "/no/such/file"], &[], &["--config", "/no/such/file"]),
        (&["--log-level", "a=b=c"], &[], &["log_level"]),
        (&[], &[("CELERY_BROKER_URL", canary)], &["broker"]),
    ];
    for (args, env, words) in cases {
        let (code, text) = run(args, env).await;
        assert!(code != 0 && code != 101, "{args:?}: {code}: {text}");
        for word in words {
            assert!(text.contains(word), "{args:?} {env:?}: {word} is not in\n{text}");
        }
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, text) = run(&["--port", &port], &[]).await;
    assert_eq!(code, 1);
    assert!(text.contains("api_port") && text.contains(&port), "{text}");
}

#[tokio::test]
async fn it_starts_without_its_servers_and_ends_on_sigterm() {
    let port = ports::free().to_string();
    let env = [
        ("CELERY_BROKER_URL", "amqp://guest:guest@127.0.0.1:1//"),
        ("CELERY_RESULT_BACKEND", "redis://127.0.0.1:1/0"),
    ];
    let program = Program::start(PROGRAM, &["--port", &port], &env);
    program.wait_for_log(&format!("listening on http://127.0.0.1:{port}"), SOON).await;
    let get = |path: &str| reqwest::get(format!("http://127.0.0.1:{port}{path}"));
    assert_eq!(get("/livez").await.unwrap().status(), 200);
    let ready = get("/readyz").await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("[-] broker not connected"));
    assert_eq!(get("/?stop=3").await.unwrap().status(), 503);
    program.term();
    assert_eq!(program.wait_exit(SOON).await.code(), Some(0), "{}", program.log());
}

#[tokio::test]
async fn sigterm_answers_those_who_wait() {
    let broker = Rabbit::shared().await.vhost("drain").await;
    let backend = Redis::shared().await.database();
    let port = ports::free().to_string();
    let env = [("CELERY_BROKER_URL", broker.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];
    let program = Program::start(PROGRAM, &["--port", &port], &env);
    program.wait_for_log("listening on", SOON).await;
    let base = format!("http://127.0.0.1:{port}");
    celery_testkit::wait::until(SOON, "readiness", async || {
        match reqwest::get(format!("{base}/readyz")).await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let waiting = reqwest::get(format!("{base}/v1/tasks/somebody/result?wait=30&assume_pending=true"));
    let mut stream = reqwest::get(format!("{base}/dashboard/api/v2/stream?topics=overview")).await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some(), "the live stream is open");
    let terminate = async {
        celery_testkit::wait::nothing_for(Duration::from_millis(500)).await;
        program.term();
    };
    let started = std::time::Instant::now();
    let (answer, ()) = futures_util::future::join(waiting, terminate).await;
    assert_eq!(answer.unwrap().status(), 202);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(program.wait_exit(SOON).await.code(), Some(0), "{}", program.log());
    assert!(!program.log().contains("guest:guest"), "{}", program.log());
}

#[tokio::test]
async fn sigterm_lets_a_confirm_arrive() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let port = ports::free().to_string();
    let url = rabbit.url();
    let env = [("CELERY_BROKER_URL", url.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];
    let program = Program::start(PROGRAM, &["--port", &port], &env);
    let base = format!("http://127.0.0.1:{port}");
    celery_testkit::wait::until(SOON, "a submission", async || {
        match reqwest::get(format!("{base}/?stop=3")).await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    rabbit.pause();
    let submitting = reqwest::get(format!("{base}/?stop=3"));
    let stopping = async {
        celery_testkit::wait::nothing_for(Duration::from_millis(300)).await;
        program.term();
        celery_testkit::wait::nothing_for(Duration::from_millis(700)).await;
        rabbit.resume();
    };
    let (answer, ()) = futures_util::future::join(submitting, stopping).await;
    assert_eq!(answer.unwrap().status(), 200, "{}", program.log());
    assert_eq!(program.wait_exit(SOON).await.code(), Some(0), "{}", program.log());
}
