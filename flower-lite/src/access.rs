//! Who may see the monitor, and whether it may change anything.
//!
//! Without authentication a monitor only shows: whoever reaches it could otherwise stop workers. Basic authentication, or
//! Flower's own switch for an open API, turns control on; `read_only` turns it off again for everybody.

use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

/// Whether workers and tasks may be controlled through the monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Yes.
    On,
    /// No, since nobody is asked who they are.
    #[default]
    NeedsAuthentication,
    /// No, as was asked for.
    ReadOnly,
}

impl Control {
    /// What a request that would change something is told, if it may not.
    #[must_use]
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Control::On => None,
            Control::ReadOnly => Some("Read only mode is enabled"),
            Control::NeedsAuthentication => Some(
                "Read only mode is enabled: to control workers, set FLOWER_BASIC_AUTH=user:password (--basic-auth), or \
                 FLOWER_UNAUTHENTICATED_API=true (--unauthenticated-api) if whoever reaches this monitor may",
            ),
        }
    }
}

/// Who may come in; nobody is asked if there are no users.
#[derive(Clone, Default)]
pub struct Users {
    /// Digests of `user:password`: comparing digests takes as long for a near miss as for any other.
    digests: Arc<[[u8; 32]]>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("known", &self.digests.len()).finish()
    }
}

impl Users {
    /// Reads `user:password` pairs, as Flower's `basic_auth` has them.
    ///
    /// # Errors
    /// Says which entry is no pair, by its place: it may hold a password.
    pub fn parse(pairs: &[String]) -> Result<Users, String> {
        let mut digests = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            match pair.split_once(':') {
                Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                    digests.push(Sha256::digest(pair.as_bytes()).into());
                }
                _ => {
                    let place = index + 1;
                    return Err(format!(
                        "basic_auth (FLOWER_BASIC_AUTH, --basic-auth): entry {place} is not user:password"
                    ));
                }
            }
        }
        Ok(Users { digests: digests.into() })
    }

    /// Whether anybody is asked who they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether an `Authorization` header lets its sender in.
    #[must_use]
    pub fn admit(&self, authorization: Option<&str>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some((scheme, credentials)) = authorization.and_then(|text| text.split_once(' ')) else {
            return false;
        };
        let Ok(pair) = BASE64_STANDARD.decode(credentials.trim()) else { return false };
        let digest: [u8; 32] = Sha256::digest(&pair).into();
        // All are compared, so that the time doesn't tell which one was near.
        let known = self.digests.iter().fold(false, |found, known| found | (*known == digest));
        scheme.eq_ignore_ascii_case("basic") && known
    }
}

/// What is open to everybody: what machines ask for their own ends (`/healthcheck`, `/livez`, `/readyz`), and `/metrics`,
/// as in Flower. The exact paths, and only to be read.
#[derive(Clone, Debug, Default)]
pub struct Open {
    paths: Arc<[String]>,
}

impl Open {
    /// What is open below each of `prefixes` (`""` or `/a/b`).
    #[must_use]
    pub fn below<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> Open {
        const OPEN: [&str; 4] = ["/healthcheck", "/livez", "/readyz", "/metrics"];
        let paths = prefixes.into_iter().flat_map(|prefix| OPEN.map(|path| format!("{prefix}{path}")));
        Open { paths: paths.collect() }
    }

    /// Whether nobody is asked who they are for this. `path` is the one that routes are found by, so without `%61`: what
    /// is judged must be what is answered.
    #[must_use]
    pub fn allow(&self, method: &Method, path: &str) -> bool {
        matches!(*method, Method::GET | Method::HEAD) && self.paths.iter().any(|open| open == path)
    }
}

/// Lets a request through if its sender may come in, or what is asked for is [`Open`].
///
/// # Errors
/// None: who isn't let in gets an answer that says so.
pub async fn only_users(
    users: Data<Users>,
    open: Data<Open>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let open = open.allow(request.method(), request.match_info().as_str());
    let authorization =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if open || users.admit(authorization.as_deref()) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let refused = HttpResponse::Unauthorized()
        .insert_header((header::WWW_AUTHENTICATE, "Basic realm=\"flower\""))
        .content_type("text/plain; charset=UTF-8")
        .body("Access denied");
    Ok(request.into_response(refused))
}

/// Whether a request that changes something was made by a page of another site: browsers say so.
#[must_use]
pub fn is_from_elsewhere(request: &actix_web::HttpRequest) -> bool {
    let value = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    match (value("Sec-Fetch-Site"), value("Origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = request.connection_info().host().to_owned();
            origin.split_once("://").is_none_or(|(_, from)| from != host)
        }
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_pair_comes_in() {
        let users = Users::parse(&["admin:secret".into(), "guest:a:b".into()]).expect("pairs");
        let header = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert!(users.admit(Some(&header("admin:secret"))));
        assert!(users.admit(Some(&header("guest:a:b"))));
        assert!(!users.admit(Some(&header("admin:secre"))));
        assert!(!users.admit(Some(&header("admin:secret").replace("Basic", "Bearer"))));
        assert!(!users.admit(Some("Basic ???")));
        assert!(!users.admit(None));
        assert!(Users::default().admit(None), "nobody is asked");
    }

    #[test]
    fn only_exact_paths_are_open_and_only_to_be_read() {
        let open = Open::below(["", "/brokers/eu"]);
        for (method, path, allowed) in [
            (Method::GET, "/metrics", true),
            (Method::HEAD, "/healthcheck", true),
            (Method::GET, "/brokers/eu/readyz", true),
            (Method::POST, "/metrics", false),
            (Method::GET, "/brokers/us/metrics", false),
            (Method::GET, "/metrics/", false),
            (Method::GET, "/api/task/info/x/metrics", false),
            (Method::GET, "/task/metrics", false),
            (Method::GET, "/", false),
        ] {
            assert_eq!(open.allow(&method, path), allowed, "{method} {path}");
        }
    }

    #[test]
    fn a_mistake_names_no_password() {
        let told = Users::parse(&["a:b".into(), "canary".into()]).expect_err("no pair");
        assert!(told.contains("entry 2") && !told.contains("canary"), "{told}");
        assert!(!format!("{:?}", Users::parse(&["u:canary".into()]).expect("a pair")).contains("canary"));
    }

    #[test]
    fn pages_of_others_are_told_from_our_own() {
        let ask = |headers: &[(&'static str, &'static str)]| {
            let request = headers
                .iter()
                .fold(actix_web::test::TestRequest::post(), |request, header| request.insert_header(*header));
            is_from_elsewhere(&request.insert_header(("Host", "monitor:5555")).to_http_request())
        };
        assert!(!ask(&[]), "no browser");
        assert!(!ask(&[("Sec-Fetch-Site", "same-origin")]));
        assert!(ask(&[("Sec-Fetch-Site", "cross-site")]));
        assert!(ask(&[("Origin", "http://evil.example")]));
        assert!(ask(&[("Origin", "null")]));
        assert!(!ask(&[("Origin", "http://monitor:5555")]));
    }
}
