//! The servers behind the API away, frozen, full or blocked: no 2xx without a queued message, no hanging request.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use celery_testkit::{Rabbit, Redis, wait};
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::json;

use crate::app::{SOON, TestApp};

#[tokio::test]
async fn answers_are_exact_under_concurrency() {
    const TASKS: usize = 10_000;
    const CLIENTS: usize = 64;
    let app = TestApp::start().await;
    let mut queue = app.consume("celery").await;
    let answers: Vec<_> = futures_util::stream::iter(0..TASKS)
        .map(|n| {
            let app = &app;
            async move {
                let target = if n % 7 == 0 { "missing" } else { "celery" };
                let answer = app.post("/v1/tasks", &json!({"task": "t", "args": [n], "queue": target})).await;
                (n, answer)
            }
        })
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    let mut accepted = HashSet::new();
    for (n, answer) in &answers {
        if n % 7 == 0 {
            assert_eq!(answer.problem(422, "unroutable")["outcome"], "not_published");
        } else {
            assert_eq!(answer.status, 202, "{}", answer.text);
            accepted.insert(answer.json()["id"].as_str().unwrap().to_owned());
        }
    }
    let queued: HashSet<String> = queue
        .take(accepted.len())
        .await
        .into_iter()
        .filter_map(|delivery| delivery.raw.properties.correlation_id)
        .collect();
    assert!(queued == accepted, "{} accepted, {} queued", accepted.len(), queued.len());
    // And nothing else is: the next message is the next submission.
    let last = app.submit(&json!({"task": "last"})).await;
    assert_eq!(queue.next().await.raw.properties.correlation_id.as_deref(), Some(last.as_str()));
}

#[tokio::test]
async fn without_a_broker_submissions_are_503_and_reads_go_on() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("celery").await;
    let before = app.submit(&json!({"task": "t"})).await;
    rabbit.kill();
    wait::until(SOON, "the loss to be noticed", async || {
        let answer = app.get("/readyz").await;
        if answer.status == 503 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    let started = Instant::now();
    let answer = app.post("/v1/tasks", &json!({"task": "t"})).await;
    let problem = answer.problem(503, "broker-unavailable");
    assert_eq!((&problem["outcome"], &problem["retryable"]), (&json!("not_published"), &json!(true)));
    assert_eq!(answer.header("retry-after"), "2");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(app.get(&format!("/v1/tasks/{before}")).await.status, 200);
    assert_eq!(app.get("/livez").await.status, 200);
    // A dry run needs no broker.
    assert_eq!(app.post("/v1/tasks?dry_run=true", &json!({"task": "t"})).await.status, 200);
    rabbit.restart().await;
    wait::until(SOON * 2, "submissions to work again", async || {
        let answer = app.post("/v1/tasks", &json!({"task": "t"})).await;
        if answer.status == 202 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

#[tokio::test]
async fn what_is_in_flight_when_the_broker_dies_is_unknown_and_can_be_sent_again() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("celery").await;
    rabbit.pause();
    let body = json!({"task": "t", "args": [1], "publish": {"timeout": 1}});
    let started = Instant::now();
    let problem = app.put("/v1/tasks/in-flight", &body).await.problem(504, "publish-unconfirmed");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((&problem["outcome"], &problem["task_id"]), (&json!("unknown"), &json!("in-flight")));
    // It may be queued, so it is pending and not unknown.
    assert_eq!(app.get("/v1/tasks/in-flight").await.json()["state"], "PENDING");
    app.put("/v1/tasks/in-flight", &json!({"task": "other"})).await.problem(409, "task-exists");
    rabbit.resume();
    wait::until(SOON * 2, "the submission to be settled", async || {
        let answer = app.put("/v1/tasks/in-flight", &body).await;
        if answer.status == 202 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(app.put("/v1/tasks/in-flight", &body).await.json()["deduplicated"], true);
}

/// What was unknown once stays unknown until it is accepted: that a second attempt failed says nothing of the first.
#[tokio::test]
async fn a_failed_repetition_does_not_make_the_unknown_known() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("short-lived").await;
    rabbit.pause();
    let body = json!({"task": "t", "queue": "short-lived", "publish": {"timeout": 1}});
    let keyed = || app.request(Method::POST, "/v1/tasks").header("idempotency-key", "\"k\"").json(&body);
    app.put("/v1/tasks/mine", &body).await.problem(504, "publish-unconfirmed");
    let first = app.send(keyed()).await.problem(504, "publish-unconfirmed");
    rabbit.resume();
    let settle = async |send: &dyn Fn() -> reqwest::RequestBuilder, status: u16| {
        wait::until(SOON * 2, "the broker to answer", async || {
            let answer = app.send(send()).await;
            if answer.status == status { Ok(answer) } else { Err(answer.text) }
        })
        .await
    };
    rabbit.ctl(&["delete_queue", "short-lived"]).await;
    let put = || app.request(Method::PUT, "/v1/tasks/mine").json(&body);
    assert_eq!(settle(&put, 422).await.problem(422, "unroutable")["outcome"], "unknown");
    assert_eq!(settle(&keyed, 422).await.problem(422, "unroutable")["outcome"], "unknown");
    assert_eq!(app.get("/v1/tasks/mine").await.json()["state"], "PENDING");
    app.declare("short-lived").await;
    settle(&put, 202).await;
    assert_eq!(settle(&keyed, 202).await.json()["id"], first["task_id"]);
}

#[tokio::test]
async fn an_alarm_is_answered_and_not_waited_for() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("celery").await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let body = json!({"task": "t", "publish": {"timeout": 2}});
    // The broker tells of the alarm after the first message, whose fate is unknown then.
    wait::until(SOON, "the alarm to be told", async || {
        let started = Instant::now();
        let answer = app.post("/v1/tasks", &body).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        match answer.status.as_u16() {
            503 => Ok(answer.problem(503, "broker-blocked")),
            _ => Err(answer.text),
        }
    })
    .await;
    let started = Instant::now();
    let answer = app.post("/v1/tasks", &body).await;
    assert_eq!(answer.problem(503, "broker-blocked")["outcome"], "not_published");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(app.get("/readyz").await.text.contains("[-] broker blocked"));
    assert!(app.get("/metrics").await.text.contains("producer_api_broker_blocked 1"));
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    wait::until(SOON, "submissions to work again", async || {
        let answer = app.post("/v1/tasks", &body).await;
        if answer.status == 202 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_is_a_503() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("small").await;
    let limits = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    rabbit.ctl(&["set_policy", "small", "^small$", limits, "--apply-to", "queues"]).await;
    let answer = wait::until(SOON, "the queue to be full", async || {
        let answer = app.post("/v1/tasks", &json!({"task": "t", "queue": "small"})).await;
        if answer.status == 202 { Err(answer.text) } else { Ok(answer) }
    })
    .await;
    assert_eq!(answer.problem(503, "broker-nack")["outcome"], "not_published");
}

#[tokio::test]
async fn without_redis_submissions_go_on_and_reads_are_503() {
    let broker = Rabbit::shared().await.vhost("api").await;
    let redis = Redis::start().await;
    let app = TestApp::start_on(&broker, &redis.url(0), &[]).await;
    let mut queue = app.consume("celery").await;
    redis.kill();
    let answer = app.post("/v1/tasks", &json!({"task": "t"})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json()["warnings"][0]["code"], "submission-not-recorded");
    let answer = app.put("/v1/tasks/mine", &json!({"task": "t"})).await;
    assert_eq!(answer.json()["warnings"][0]["code"], "id-not-checked", "{}", answer.text);
    queue.take(2).await;
    for path in ["/v1/tasks/mine", "/v1/tasks/mine/result", "/results", "/results/mine"] {
        assert_eq!(app.get(path).await.problem(503, "result-backend-unavailable")["retryable"], true);
    }
    assert!(app.get("/readyz").await.text.contains("[-] backend"));
    assert_eq!(app.get("/readyz?exclude=backend").await.status, 200);
    redis.restart().await;
    wait::until(SOON, "reads to work again", async || {
        let answer = app.put("/v1/tasks/later", &json!({"task": "t"})).await;
        let recorded = answer.status == 200 || answer.json()["warnings"] == json!([]);
        let known = app.get("/v1/tasks/later").await;
        if recorded && known.status == 200 { Ok(()) } else { Err(known.text) }
    })
    .await;
}

#[tokio::test]
async fn more_submissions_than_allowed_are_shed() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[("PRODUCER_API_MAX_IN_FLIGHT", "4")]).await;
    app.declare("celery").await;
    rabbit.pause();
    let body = json!({"task": "t", "publish": {"timeout": 2}});
    let answers = futures_util::future::join_all((0..20).map(|_| app.post("/v1/tasks", &body))).await;
    rabbit.resume();
    let shed: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(shed.len(), 16);
    for answer in shed {
        assert_eq!(answer.problem(503, "overloaded")["outcome"], "not_published");
        assert_eq!(answer.header("retry-after"), "1");
    }
}

/// Over a restart of the broker: whatever was answered with 2xx is queued, whatever is unknown is settled by sending its id
/// again, and nothing else is queued.
#[tokio::test]
async fn nothing_is_lost_and_nothing_invented_over_a_restart() {
    const TASKS: usize = 10_000;
    const CLIENTS: usize = 64;
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("celery").await;
    let settle = async |n: usize| {
        let path = format!("/v1/tasks/r{n:05}");
        // Of every seventh no queue takes the message, before the restart and after it.
        let missing = n.is_multiple_of(7);
        let queue = if missing { "missing" } else { "celery" };
        let body = json!({"task": "t", "args": [n], "queue": queue, "publish": {"timeout": 2}});
        let unknown = std::cell::Cell::new(false);
        wait::until(SOON * 3, "the submission to be settled", async || {
            let answer = app.put(&path, &body).await;
            match answer.status.as_u16() {
                200 | 202 if !missing => Ok(()),
                422 | 503 => {
                    // Nothing was published by this request; an earlier one may have.
                    let problem = answer.json();
                    let outcome = problem["outcome"].clone();
                    assert!(
                        outcome == "not_published" || (unknown.get() && outcome == "unknown"),
                        "{problem:#}"
                    );
                    match problem["type"] == "/problems/unroutable" {
                        true if missing => Ok(()),
                        true => panic!("its queue is there: {problem:#}"),
                        false => Err(answer.text),
                    }
                }
                504 => {
                    unknown.set(true);
                    assert_eq!(answer.problem(504, "publish-unconfirmed")["outcome"], "unknown");
                    Err(answer.text)
                }
                _ => {
                    answer.problem(409, "submission-in-progress");
                    Err(answer.text)
                }
            }
        })
        .await;
    };
    let submitting = futures_util::stream::iter(0..TASKS).map(settle).buffer_unordered(CLIENTS).count();
    let restarting = async {
        wait::until(SOON, "some to be queued", async || {
            let queued = app.get("/metrics").await.text.contains("outcome=\"confirmed\"} ");
            if queued { Ok(()) } else { Err("none yet") }
        })
        .await;
        rabbit.kill();
        rabbit.restart().await;
    };
    let (settled, ()) = futures_util::future::join(submitting, restarting).await;
    assert_eq!(settled, TASKS);
    let last = app.submit(&json!({"task": "last"})).await;
    let mut queue = app.consume("celery").await;
    let mut seen = HashSet::new();
    loop {
        let id = queue.next().await.raw.properties.correlation_id.unwrap();
        if id == last.as_str() {
            break;
        }
        // A resend may be there twice, under the same id.
        seen.insert(id);
    }
    let routable = (0..TASKS).filter(|n| !n.is_multiple_of(7));
    let expected: HashSet<String> = routable.map(|n| format!("r{n:05}")).collect();
    assert!(seen == expected, "{} of {TASKS} are queued", seen.len());
}

/// The client goes away while its message waits for the confirm: what became of it is recorded all the same.
#[tokio::test]
async fn a_submission_ends_well_without_its_client() {
    let rabbit = Rabbit::start().await;
    let backend = Redis::shared().await.database();
    let app = TestApp::start_on(&rabbit.url(), &backend, &[]).await;
    app.declare("celery").await;
    rabbit.pause();
    let body = r#"{"task":"t","publish":{"timeout":25}}"#;
    let mut socket = tokio::net::TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "PUT /v1/tasks/gone HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    wait::until(SOON, "the submission to be recorded", async || {
        let answer = app.get("/v1/tasks/gone").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    drop(socket);
    rabbit.resume();
    wait::until(SOON, "the confirm to be recorded", async || {
        let answer = app.put("/v1/tasks/gone", &serde_json::from_str(body).unwrap()).await;
        match answer.status.as_u16() {
            200 => {
                assert_eq!(answer.json()["deduplicated"], true);
                Ok(())
            }
            _ => Err(answer.problem(409, "submission-in-progress").to_string()),
        }
    })
    .await;
}
