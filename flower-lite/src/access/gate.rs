//! The gate that every request goes through: finds out who asks, and turns away whoever has to say it first.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Access, Found};
use crate::error::Problem;

/// Where the monitors of this program are: their paths, without a slash at the end; the first one is the prefix of all.
#[derive(Clone, Debug, Default)]
pub struct Places(pub Vec<String>);

/// What machines ask for their own ends; open, as in Flower.
const FOR_MACHINES: [&str; 4] = ["/healthcheck", "/livez", "/readyz", "/metrics"];
/// What a page has to know before anybody has logged in.
const FOR_EVERYBODY: [&str; 5] =
    ["/api/v2/me", "/login", "/login/style.css", "/login/oidc", "/login/oidc/callback"];
const LOG_OUT: &str = "/logout";

impl Places {
    /// What is below one of the places.
    fn below<'a>(&self, path: &'a str) -> Option<(&str, &'a str)> {
        // The longest one, since they lie within each other.
        let fits = |place: &&String| {
            path.strip_prefix(place.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let place = self.0.iter().filter(fits).max_by_key(|place| place.len())?;
        Some((place, path.strip_prefix(place.as_str())?))
    }

    /// The place that a path belongs to.
    #[must_use]
    pub fn of(&self, path: &str) -> &str {
        self.below(path).map_or("", |(place, _)| place)
    }
}

/// What an `Authorization` header says.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials {
    Password { user: String, password: String },
    Token(String),
}

impl Credentials {
    pub(super) fn of(header: &str) -> Option<Credentials> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Credentials::Token(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Where a request came from, for the log and against guessing. What a proxy claims is not believed.
#[must_use]
pub fn address(request: &actix_web::HttpRequest) -> String {
    request.peer_addr().map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string())
}

/// Lets a request through with what is known of its sender, as a [`Visitor`](super::Visitor) among its extensions.
///
/// # Errors
/// None: who isn't let in gets an answer that says so.
pub async fn gate(
    access: Data<Access>,
    places: Data<Places>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // The path that routes are found by, so without `%61`: what is judged must be what is answered.
    let path = request.match_info().as_str().to_owned();
    let (place, below) = places.below(&path).unwrap_or(("", &path));
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !access.asks() || (reads && FOR_MACHINES.contains(&below)) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let found = access.identify(request.headers(), &address(request.request())).await;
    let open = FOR_EVERYBODY.contains(&below) || below == LOG_OUT;
    let response = match found {
        Found::Known(visitor) => {
            request.extensions_mut().insert(visitor);
            return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
        }
        _ if open => return next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        Found::Wait(seconds) => Problem::wait(seconds).error_response(),
        Found::Nobody | Found::Wrong => turn_away(&request, place, below, access.takes_passwords()),
    };
    Ok(request.into_response(response))
}

fn turn_away(request: &ServiceRequest, place: &str, below: &str, passwords: bool) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let of_api = below.starts_with("/api");
    let page = *request.method() == Method::GET
        && !of_api
        && header("Accept").is_some_and(|accept| accept.contains("text/html"))
        && header("Authorization").is_none();
    if page {
        let asked = request.uri().path_and_query().map_or("", |asked| asked.as_str());
        let to = format!("{place}/login?next={}", encoded(asked));
        return HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish();
    }
    let mut response = if below.starts_with("/api/v2") {
        Problem::who_is_it().error_response()
    } else {
        HttpResponse::Unauthorized().content_type("text/plain; charset=UTF-8").body("Access denied")
    };
    // A browser's script shows its own way to log in: the browser is not to ask for a password.
    if passwords && header("Sec-Fetch-Mode").is_none_or(|mode| mode == "navigate") {
        let basic = header::HeaderValue::from_static("Basic realm=\"flower\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}

/// A text as a value in a query.
pub(super) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_innermost_place() {
        let places = Places(vec!["/f".into(), "/f/brokers/east".into()]);
        assert_eq!(places.below("/f/metrics"), Some(("/f", "/metrics")));
        assert_eq!(places.below("/f/brokers/east/login"), Some(("/f/brokers/east", "/login")));
        assert_eq!(places.below("/f"), Some(("/f", "")));
        assert_eq!((places.below("/flower"), places.of("/x")), (None, ""));
        assert_eq!(Places(vec![String::new()]).below("/api"), Some(("", "/api")));
    }

    #[test]
    fn credentials_are_read_as_they_are_written() {
        let header = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let read = |text: &str| match Credentials::of(text) {
            Some(Credentials::Password { user, password }) => format!("{user} {password}"),
            Some(Credentials::Token(token)) => token,
            None => String::new(),
        };
        assert_eq!(read(&header("guest:a:b")), "guest a:b");
        assert_eq!(read(&header("guest:a").replace("Basic", "basic")), "guest a");
        assert_eq!(read("Bearer fl_x"), "fl_x");
        for wrong in ["", "Basic", "Basic ???", "Digest x", &header("nobody")] {
            assert_eq!(read(wrong), "", "{wrong}");
        }
        assert_eq!(encoded("/a?b=c&d=ü"), "/a%3Fb%3Dc%26d%3D%C3%BC");
    }
}
