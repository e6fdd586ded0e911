//! Logging in with an identity provider: one of the test's own, on loopback, that signs as real ones do and lies on request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use actix_web::web::{self, Data, Form, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use flower_lite::access::oidc::{Grant, Oidc, OidcOptions};
use flower_lite::access::{AccessOptions, Control, Users, secret};
use flower_lite::startup::Feed;
use flower_lite::{Monitor, MonitorOptions};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::helpers::{now, serve_as};

/// A key for these tests and nothing else.
const RSA: &[u8] = include_bytes!("../idp/rsa.der");

/// What the provider says, and what it saw.
struct Provider {
    issuer: String,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    lies: Mutex<Lies>,
    /// Codes with the challenge and the nonce that they were given for.
    codes: Mutex<HashMap<String, (String, String)>>,
}

/// How it behaves.
#[derive(Clone)]
struct Lies {
    algorithm: &'static str,
    /// Claims in place of the right ones.
    claims: Value,
    /// Signed with a key that is not listed.
    kid: &'static str,
}

impl Default for Lies {
    fn default() -> Lies {
        Lies { algorithm: "RS256", claims: json!({}), kid: "" }
    }
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    fn token(&self, nonce: &str) -> String {
        let lies = self.lies.lock().expect("a lock").clone();
        let mut claims = json!({
            "iss": self.issuer, "aud": "monitor", "sub": "4711", "nonce": nonce, "iat": now(), "exp": now() + 300.0,
            "email": "anna@example.com", "email_verified": true, "groups": ["staff", "sre"],
        });
        if let (Value::Object(claims), Value::Object(lies)) = (&mut claims, lies.claims) {
            claims.extend(lies);
        }
        let kid = if lies.kid.is_empty() { lies.algorithm } else { lies.kid };
        let header = json!({"alg": lies.algorithm, "kid": kid, "typ": "JWT"});
        let signed = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match lies.algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("signed");
                signature
            }
            "ES256" => self.ec.sign(&random, signed.as_bytes()).expect("signed").as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{signed}.{}", part(signature))
    }
}

async fn discover(provider: Data<Provider>) -> HttpResponse {
    let issuer = &provider.issuer;
    HttpResponse::Ok().json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
    }))
}

async fn keys(provider: Data<Provider>) -> HttpResponse {
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(provider.rsa.public());
    let point = provider.ec.public_key().as_ref();
    HttpResponse::Ok().json(json!({"keys": [
        {"kty": "RSA", "kid": "RS256", "use": "sig", "alg": "RS256", "n": part(n), "e": part(e)},
        {"kty": "EC", "crv": "P-256", "kid": "ES256", "x": part(&point[1..33]), "y": part(&point[33..])},
    ]}))
}

/// As if somebody had typed a password here: sends the browser back with a code.
async fn authorize(provider: Data<Provider>, asked: Query<HashMap<String, String>>) -> HttpResponse {
    let of = |name: &str| asked.get(name).cloned().unwrap_or_default();
    assert_eq!(
        [&*of("response_type"), &*of("client_id"), &*of("code_challenge_method")],
        ["code", "monitor", "S256"]
    );
    assert!(of("scope").split(' ').any(|scope| scope == "openid"));
    let mut codes = provider.codes.lock().expect("a lock");
    let code = format!("code-{}", codes.len());
    codes.insert(code.clone(), (of("code_challenge"), of("nonce")));
    let to = format!("{}?code={code}&state={}", of("redirect_uri"), of("state"));
    HttpResponse::SeeOther().insert_header(("Location", to)).finish()
}

async fn token(
    provider: Data<Provider>,
    request: HttpRequest,
    form: Form<HashMap<String, String>>,
) -> HttpResponse {
    let of = |name: &str| form.get(name).cloned().unwrap_or_default();
    let known = provider.codes.lock().expect("a lock").remove(&of("code"));
    let authorization = request.headers().get("Authorization").and_then(|value| value.to_str().ok());
    let expected = format!("Basic {}", BASE64_STANDARD.encode("monitor:s3cret"));
    match known {
        Some((challenge, nonce))
            if part(secret::digest(&of("code_verifier"))) == challenge
                && authorization == Some(&*expected)
                && of("redirect_uri").ends_with("/login/oidc/callback") =>
        {
            HttpResponse::Ok().json(json!({"id_token": provider.token(&nonce), "token_type": "Bearer"}))
        }
        _ => HttpResponse::BadRequest().json(json!({"error": "invalid_grant"})),
    }
}

/// A provider, a monitor that trusts it, and a browser.
struct World {
    provider: Data<Provider>,
    base: String,
    browser: Client,
    _feed: Feed,
    _stop: oneshot::Sender<()>,
}

impl World {
    fn start(prefix: &str) -> World {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("an address"));
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random)
            .expect("a key");
        let provider = Data::from(Arc::new(Provider {
            issuer: issuer.clone(),
            rsa: RsaKeyPair::from_der(RSA).expect("a key"),
            ec,
            lies: Mutex::default(),
            codes: Mutex::default(),
        }));
        let shared = provider.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .route("/.well-known/openid-configuration", web::get().to(discover))
                .route("/keys", web::get().to(keys))
                .route("/authorize", web::get().to(authorize))
                .route("/token", web::post().to(token))
        });
        let server = server.workers(1).listen(listener).expect("it listens").disable_signals().run();
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(server);
        let roles = ["groups:sre=operator", "email:*@example.com=viewer", "sub:1=admin"];
        let options = OidcOptions {
            issuer,
            client_id: "monitor".into(),
            client_secret: Some("s3cret".into()),
            scopes: "openid email".into(),
            label: "Log in with <Example>".into(),
            roles: roles.map(|text| Grant::parse(text).expect("a grant")).into(),
        };
        let oidc = Some(Oidc::new(options).expect("TLS"));
        let lifetime = std::time::Duration::from_secs(3_600);
        let access =
            AccessOptions { users: Users::default(), secret: None, lifetime, public_url: None, oidc };
        let options = MonitorOptions { control: Control::On, ..MonitorOptions::default() };
        let (monitor, feed) = Monitor::fed_by_hand(options);
        let (base, stop) = serve_as(monitor, prefix, access);
        let browser = Client::builder().redirect(Policy::none()).build().expect("a client");
        World { provider, base, browser, _feed: feed, _stop: stop }
    }

    fn lie(&self, lies: Lies) {
        *self.provider.lies.lock().expect("a lock") = lies;
    }

    async fn get(&self, url: &str, cookie: &str) -> Response {
        self.browser.get(url).header("Cookie", cookie).send().await.expect("an answer")
    }

    /// Goes to the provider and comes back to where it sends the browser; gives that address and the cookie.
    async fn go(&self) -> (String, String) {
        let begun = self.get(&format!("{}/login/oidc?next={}", self.base, "/flower/tasks"), "").await;
        assert_eq!(begun.status(), 303);
        let cookie = cookie(&begun, "flower_oidc").expect("what it began with");
        let provider = self.get(location(&begun), "").await;
        (location(&provider).to_owned(), cookie)
    }

    async fn log_in(&self) -> Response {
        let (back, cookie) = self.go().await;
        self.get(&back, &cookie).await
    }
}

fn location(answer: &Response) -> &str {
    answer.headers().get("location").and_then(|value| value.to_str().ok()).expect("a redirect")
}

fn cookie(answer: &Response, name: &str) -> Option<String> {
    let set = answer.headers().get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let mut ours = set.filter(|set| set.starts_with(&format!("{name}=")));
    ours.next().and_then(|set| set.split(';').next()).map(str::to_owned)
}

#[actix_web::test]
async fn whom_the_provider_vouches_for_comes_in() {
    let world = World::start("/flower");
    let form = world.get(&format!("{}/login", world.base), "").await.text().await.expect("HTML");
    assert!(form.contains("Log in with &lt;Example&gt;") && !form.contains("type=\"password\""), "{form}");
    let me = world.get(&format!("{}/api/v2/me", world.base), "").await.json::<Value>().await.expect("JSON");
    assert_eq!((&me["role"], &me["login"]["oidc"]), (&Value::Null, &json!("Log in with <Example>")));
    for algorithm in ["RS256", "ES256"] {
        world.lie(Lies { algorithm, ..Lies::default() });
        let done = world.log_in().await;
        assert_eq!((done.status().as_u16(), location(&done)), (303, "/flower/tasks"), "{algorithm}");
        assert_eq!(cookie(&done, "flower_oidc").as_deref(), Some("flower_oidc="), "it is taken away");
        let session = cookie(&done, "flower_session").expect("a session");
        let me = world
            .get(&format!("{}/api/v2/me", world.base), &session)
            .await
            .json::<Value>()
            .await
            .expect("JSON");
        assert_eq!(
            (&me["name"], &me["role"], &me["via"]),
            (&json!("anna@example.com"), &json!("operator"), &json!("oidc"))
        );
        assert_eq!(world.get(&format!("{}/api/tasks", world.base), &session).await.status(), 200);
    }
}

#[actix_web::test]
async fn whatever_is_wrong_with_a_token_nobody_comes_in() {
    let world = World::start("");
    let claims = |claims: Value| Lies { claims, ..Lies::default() };
    for (lies, status, told) in [
        (claims(json!({"iss": "https://evil.example"})), 401, "another issuer"),
        (claims(json!({"aud": "somebody else"})), 401, "another client"),
        (claims(json!({"exp": now() - 120.0})), 401, "is over"),
        (claims(json!({"nonce": "of another log-in"})), 401, "another log-in"),
        (Lies { algorithm: "none", ..Lies::default() }, 401, "RS256 or ES256"),
        (Lies { kid: "unlisted", ..Lies::default() }, 401, "does not list"),
        (Lies { kid: "ES256", ..Lies::default() }, 401, "does not list"),
        (
            claims(json!({"groups": [], "email": "eve@evil.example"})),
            403,
            "eve@evil.example has no role here",
        ),
        (claims(json!({"groups": [], "email_verified": false})), 403, "4711 has no role here"),
    ] {
        world.lie(lies);
        let answer = world.log_in().await;
        assert_eq!((answer.status().as_u16(), cookie(&answer, "flower_session")), (status, None), "{told}");
        let text = answer.text().await.expect("HTML");
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[actix_web::test]
async fn an_answer_counts_only_for_the_log_in_that_asked_for_it() {
    let world = World::start("");
    let (back, kept) = world.go().await;
    let refused = async |url: &str, cookies: &str| {
        let answer = world.get(url, cookies).await;
        (answer.status().as_u16(), cookie(&answer, "flower_session"))
    };
    let (other, other_kept) = world.go().await;
    assert_eq!(refused(&back, "").await, (400, None), "another browser");
    assert_eq!(refused(&back, &other_kept).await, (400, None), "the state of another log-in");
    let forged = format!("{kept}x");
    assert_eq!(refused(&back, &forged).await, (400, None), "a cookie that is not ours");
    let state = back.split("state=").nth(1).expect("a state");
    let stolen = other.split("code=").nth(1).and_then(|rest| rest.split('&').next()).expect("a code");
    let mixed = format!("{}/login/oidc/callback?code={stolen}&state={state}", world.base);
    assert_eq!(refused(&mixed, &kept).await, (401, None), "a code that was given to another verifier");
    let denied = format!("{}/login/oidc/callback?error=access_denied&state={state}", world.base);
    assert_eq!(refused(&denied, &kept).await, (401, None), "the provider said no");
    let elsewhere = format!("{back}&iss=https://evil.example");
    assert_eq!(refused(&elsewhere, &kept).await, (400, None), "another provider answered");
    assert_eq!(world.get(&back, &kept).await.status(), 303, "the right one still counts");
    assert_eq!(refused(&back, &kept).await, (401, None), "once");
}
