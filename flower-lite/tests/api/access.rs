//! Who is let in: strangers with paths written in other ways, people with passwords and sessions, programs with tokens.

use flower_lite::access::{Access, AccessOptions, Control, Users, secret};
use flower_lite::guard::Hosts;
use flower_lite::startup::{Application, Feed, ServeOptions};
use flower_lite::{Monitor, MonitorOptions};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

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
        let users = Users::parse(&["admin:secret".into()], &[], &[]).expect("a pair");
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

/// A monitor with a user of each role, whose password is the role, and a browser that follows no redirect.
pub(crate) struct Door {
    base: String,
    token: String,
    client: Client,
    _feed: Feed,
    _stop: oneshot::Sender<()>,
}

impl Door {
    pub(crate) fn open(prefix: &str, control: Control) -> Door {
        let (monitor, feed) = Monitor::fed_by_hand(MonitorOptions { control, ..MonitorOptions::default() });
        let line = |role: &str| {
            let hash = secret::hash_password(role).expect("random numbers");
            format!("{role}:{role}:{hash}")
        };
        let token = secret::new_token().expect("random numbers");
        let digest = secret::hex(&secret::digest(&token));
        let users = ["viewer", "operator", "admin"].map(line);
        let users = Users::parse(&[], &users, &[format!("ci:operator:{digest}")]).expect("right");
        let (base, stop) = serve_to(monitor, prefix, users);
        let client = Client::builder().redirect(Policy::none()).build().expect("a client");
        Door { base, token, client, _feed: feed, _stop: stop }
    }

    async fn log_in(&self, user: &str, password: &str, next: &str) -> Response {
        let form = format!("user={user}&password={password}&next={next}");
        let request = self.client.post(format!("{}/login", self.base)).body(form);
        request.header("Content-Type", "application/x-www-form-urlencoded").send().await.expect("an answer")
    }

    /// The cookie of a session, as a browser sends it back.
    pub(crate) async fn session(&self, user: &str) -> String {
        let answer = self.log_in(user, user, "").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        header(&answer, "set-cookie").split(';').next().expect("a cookie").to_owned()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.client.get(format!("{}{path}", self.base));
        with(request, headers).send().await.expect("an answer")
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send(path, headers, "{}").await
    }

    pub(crate) async fn send(&self, path: &str, headers: &[(&str, &str)], body: &'static str) -> Response {
        let request = self.client.post(format!("{}{path}", self.base)).body(body);
        with(request, headers).send().await.expect("an answer")
    }

    async fn me(&self, headers: &[(&str, &str)]) -> Value {
        self.get("/api/v2/me", headers).await.json().await.expect("JSON")
    }
}

fn with(request: reqwest::RequestBuilder, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[actix_web::test]
async fn a_session_begins_and_ends() {
    for prefix in ["", "/flower"] {
        let door = Door::open(prefix, Control::On);
        let page = door.get("/tasks?state=FAILURE", &[("Accept", "text/html")]).await;
        let login = format!("{prefix}/login?next={prefix}/tasks%3Fstate%3DFAILURE");
        assert_eq!((page.status(), header(&page, "location")), (StatusCode::SEE_OTHER, &*login));
        let form = door.get("/login?next=%22%3E%3Cscript%3E", &[]).await;
        assert!(header(&form, "content-security-policy").contains("script-src 'self'"));
        assert_eq!(header(&form, "x-frame-options"), "DENY");
        let form = form.text().await.expect("HTML");
        assert!(form.contains(&format!("action=\"{prefix}/login\"")) && !form.contains("<script>"), "{form}");
        assert_eq!(door.get("/login/style.css", &[]).await.status(), StatusCode::OK);

        let wrong = door.log_in("viewer", "canary", "").await;
        assert_eq!((wrong.status(), header(&wrong, "set-cookie")), (StatusCode::UNAUTHORIZED, ""));
        let next = format!("{prefix}/tasks");
        let right = door.log_in("viewer", "viewer", &next).await;
        assert_eq!((right.status(), header(&right, "location")), (StatusCode::SEE_OTHER, &*next));
        let set = header(&right, "set-cookie");
        let path = if prefix.is_empty() { "/" } else { prefix };
        assert!(set.ends_with(&format!("; Path={path}; Max-Age=3600; HttpOnly; SameSite=Lax")), "{set}");
        let elsewhere = door.log_in("viewer", "viewer", "//evil.example").await;
        assert_eq!(header(&elsewhere, "location"), format!("{prefix}/"));

        let cookie = door.session("viewer").await;
        assert_eq!(door.get("/api/tasks", &[("Cookie", &cookie)]).await.status(), StatusCode::OK);
        let forged = format!("{cookie}x");
        assert_eq!(door.get("/api/tasks", &[("Cookie", &forged)]).await.status(), StatusCode::UNAUTHORIZED);
        let no_header = door.post("/logout", &[("Cookie", &cookie)]).await;
        assert_eq!(no_header.status(), StatusCode::FORBIDDEN);
        let out = door.post("/logout", &[("Cookie", &cookie), ("X-Requested-With", "flower-lite")]).await;
        assert_eq!(out.status(), StatusCode::NO_CONTENT);
        assert!(header(&out, "set-cookie").contains("Max-Age=0"));
        assert_eq!(door.get("/api/tasks", &[("Cookie", &cookie)]).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[actix_web::test]
async fn everybody_learns_what_they_may_do() {
    let door = Door::open("", Control::On);
    let stranger = door.me(&[]).await;
    assert_eq!((&stranger["role"], &stranger["authenticated"]), (&Value::Null, &Value::Bool(false)));
    assert_eq!(stranger["login"]["password"], true);
    let cookie = door.session("viewer").await;
    let viewer = door.me(&[("Cookie", &cookie)]).await;
    assert_eq!(
        (&viewer["name"], &viewer["role"], &viewer["via"]),
        (&"viewer".into(), &"viewer".into(), &"password".into())
    );
    assert!(viewer["can"].as_array().is_some_and(Vec::is_empty) && viewer["expires_at"].is_f64());
    let bearer = format!("Bearer {}", door.token);
    let program = door.me(&[("Authorization", &bearer)]).await;
    assert_eq!(
        (&program["name"], &program["role"], &program["via"]),
        (&"ci".into(), &"operator".into(), &"token".into())
    );
    let can = |me: &Value, action: &str| me["can"].as_array().is_some_and(|all| all.contains(&action.into()));
    assert!(can(&program, "task.revoke") && !can(&program, "queue.purge"));
    let cookie = door.session("admin").await;
    assert!(can(&door.me(&[("Cookie", &cookie)]).await, "queue.purge"));

    let wrong = door.get("/api/v2/tasks", &[("Authorization", "Bearer fl_canary")]).await;
    assert_eq!(
        (wrong.status(), header(&wrong, "content-type")),
        (StatusCode::UNAUTHORIZED, "application/problem+json")
    );
    assert!(header(&wrong, "www-authenticate").starts_with("Basic"));
    let script = door.get("/api/v2/tasks", &[("Sec-Fetch-Mode", "cors")]).await;
    assert_eq!(header(&script, "www-authenticate"), "", "the browser is not to ask");

    let closed = Door::open("", Control::ReadOnly);
    let cookie = closed.session("admin").await;
    let me = closed.me(&[("Cookie", &cookie)]).await;
    assert_eq!((&me["control"], &me["can"]), (&"read_only".into(), &Value::Array(Vec::new())));
}

#[actix_web::test]
async fn flowers_api_asks_for_roles_too() {
    let door = Door::open("", Control::On);
    let own = ("X-Requested-With", "flower-lite");
    for (path, least) in [
        ("/api/task/revoke/x", 1),
        ("/api/task/abort/x", 1),
        ("/api/task/send-task/x", 1),
        ("/api/task/async-apply/x", 1),
        ("/api/task/apply/x", 1),
        ("/api/task/timeout/x", 1),
        ("/api/task/rate-limit/x", 1),
        ("/api/worker/queue/add-consumer/w", 1),
        ("/api/worker/queue/cancel-consumer/w", 1),
        ("/api/worker/pool/grow/w", 2),
        ("/api/worker/pool/shrink/w", 2),
        ("/api/worker/pool/autoscale/w", 2),
        ("/api/worker/pool/restart/w", 2),
        ("/api/worker/shutdown/w", 2),
    ] {
        for (rank, role) in ["viewer", "operator", "admin"].into_iter().enumerate() {
            let cookie = door.session(role).await;
            let answer = door.post(path, &[("Cookie", &cookie), own]).await;
            // There is no broker: whoever may, is told that.
            let expected =
                if rank >= least { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
            assert_eq!(answer.status(), expected, "{role} {path}");
        }
        assert_eq!(door.post(path, &[own]).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[actix_web::test]
async fn one_session_is_for_all_brokers_below_the_prefix() {
    let monitors: Vec<(String, Monitor)> = ["", "/brokers/east"]
        .map(|path| (path.to_owned(), Monitor::fed_by_hand(MonitorOptions::default()).0))
        .into();
    let users = Users::parse(&["admin:secret".into()], &[], &[]).expect("a pair");
    let lifetime = std::time::Duration::from_secs(60);
    let public_url = Some("https://monitor.example".to_owned());
    let access = Access::new(AccessOptions { users, secret: None, lifetime, public_url, oidc: None });
    let options = ServeOptions {
        address: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        prefix: "/f".into(),
        hosts: Hosts::Loopback(Vec::new()),
        access: access.expect("random numbers"),
    };
    let application = Application::build_all(monitors, options).expect("a free port");
    let base = format!("http://{}", application.address());
    let (_stop, stopped) = oneshot::channel::<()>();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(application.run_until(async {
        let _ = stopped.await;
    }));
    let client = Client::builder().redirect(Policy::none()).build().expect("a client");
    let get = async |path: &str, headers: &[(&str, &str)]| {
        with(client.get(format!("{base}{path}")), headers).send().await.expect("an answer")
    };
    let page = get("/f/brokers/east/tasks", &[("Accept", "text/html")]).await;
    assert_eq!(header(&page, "location"), "/f/brokers/east/login?next=/f/brokers/east/tasks");
    assert!(header(&page, "strict-transport-security").starts_with("max-age="));
    let form = client.post(format!("{base}/f/brokers/east/login")).body("user=admin&password=secret");
    let form = form.header("Content-Type", "application/x-www-form-urlencoded");
    let answer = form.send().await.expect("an answer");
    assert_eq!(header(&answer, "location"), "/f/brokers/east/");
    let set = header(&answer, "set-cookie");
    assert!(set.contains("; Path=/f; ") && set.ends_with("; Secure"), "{set}");
    let cookie = set.split(';').next().expect("a cookie");
    for path in ["/f/api/tasks", "/f/brokers/east/api/tasks", "/f/brokers/east/api/v2/me"] {
        assert_eq!(get(path, &[("Cookie", cookie)]).await.status(), StatusCode::OK, "{path}");
    }
    let stream = get("/f/brokers/east/api/v2/stream", &[("Cookie", cookie)]).await;
    assert_eq!((stream.status(), header(&stream, "content-type")), (StatusCode::OK, "text/event-stream"));
    assert_eq!(get("/f/brokers/east/api/v2/stream", &[]).await.status(), StatusCode::UNAUTHORIZED);
    let elsewhere = get("/f/api/v2/me", &[("Host", "evil.example"), ("Cookie", cookie)]).await;
    assert_eq!(elsewhere.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(header(&elsewhere, "content-security-policy").contains("default-src 'none'"));
}
