//! Tokens: `Authorization: Bearer <token>`, compared by digest in constant time.
//!
//! A token is one of a configured list; there are no users and no scopes yet. Without tokens the server listens on
//! loopback only, unless it is told otherwise (`config.rs`).

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, ResponseError, web};
use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

use crate::problem::{Kind, Problem};
use crate::state::Api;
use crate::tickets;

/// The accepted tokens, as digests: the secrets themselves are not kept.
#[derive(Clone, Default)]
pub struct Tokens(Vec<[u8; 32]>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Tokens {
    /// Tokens from a comma-separated list.
    pub fn parse(list: &str) -> Self {
        Tokens(list.split(',').map(str::trim).filter(|token| !token.is_empty()).map(digest).collect())
    }

    /// Whether there are none, so that nothing is asked of clients.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `token` is one of them. Every entry is compared in full, so that the time tells nothing.
    pub fn accept(&self, token: &str) -> bool {
        let given = digest(token);
        self.0.iter().fold(false, |found, known| {
            let difference = known.iter().zip(&given).fold(0, |sum, (a, b)| sum | (a ^ b));
            found | (difference == 0)
        })
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Middleware of every resource that is not public: answers `unauthenticated` where a bearer token is missing.
///
/// # Errors
/// Only what the inner service fails with.
pub async fn require_token<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let accepted = accepts(&request, bearer(&request));
    guard(request, next, accepted, "Bearer realm=\"producer-api\"").await
}

/// As [`require_token`], for pages: a token is also accepted as the password of basic authentication.
///
/// # Errors
/// Only what the inner service fails with.
pub async fn require_token_or_password<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let accepted = accepts(&request, bearer(&request).or_else(|| password(&request)));
    guard(request, next, accepted, "Basic realm=\"producer-api\", charset=\"UTF-8\"").await
}

/// As [`require_token`], for streams: a one-time ticket in the address is accepted too. What it grants is left with the
/// request, for the next ticket.
///
/// # Errors
/// Only what the inner service fails with.
pub async fn require_token_or_ticket<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let mut accepted = accepts(&request, bearer(&request));
    if let (Some(ticket), Some(api)) = (ticket(&request), request.app_data::<web::Data<Api>>().cloned()) {
        let grant = tickets::redeem(&api, &ticket, request.path()).await;
        // A ticket that is no good is an error, also where none is needed: the page should notice.
        accepted = grant.is_some();
        if let Some(grant) = grant {
            request.extensions_mut().insert(grant);
        }
    }
    guard(request, next, accepted, "Bearer realm=\"producer-api\"").await
}

async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    accepted: bool,
    challenge: &'static str,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if accepted {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let problem = Problem::new(Kind::Unauthenticated, "the Authorization header has no valid token")
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        .closing();
    // Answered here, inside the request's scope: an error would be answered outside of it, without the request's id.
    Ok(request.into_response(problem.error_response()).map_into_right_body())
}

fn accepts(request: &ServiceRequest, token: Option<String>) -> bool {
    match request.app_data::<web::Data<Api>>() {
        Some(api) => api.tokens.is_empty() || token.is_some_and(|token| api.tokens.accept(&token)),
        None => false,
    }
}

/// The ticket in the query.
fn ticket(request: &ServiceRequest) -> Option<String> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?.into_inner();
    pairs.into_iter().find(|(name, _)| name == "ticket").map(|(_, value)| value)
}

fn bearer(request: &ServiceRequest) -> Option<String> {
    credentials(request, "bearer").map(str::to_owned)
}

fn password(request: &ServiceRequest) -> Option<String> {
    let decoded = BASE64_STANDARD.decode(credentials(request, "basic")?).ok()?;
    let (_user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

/// What follows the scheme in `Authorization`.
fn credentials<'a>(request: &'a ServiceRequest, scheme: &str) -> Option<&'a str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (given, credentials) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_exactly_the_configured_tokens() {
        let tokens = Tokens::parse(" one,two , ,");
        assert!(tokens.accept("one") && tokens.accept("two"));
        for wrong in ["", "on", "onee", "ONE", "one,two"] {
            assert!(!tokens.accept(wrong), "{wrong}");
        }
        assert!(Tokens::parse(" , ").is_empty());
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }
}
