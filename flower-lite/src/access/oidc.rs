//! Logging in with an identity provider: OpenID Connect's code flow with PKCE.
//!
//! The browser is sent to the provider with a state, a nonce and the digest of a verifier, which it keeps in a signed
//! cookie; it comes back with a code, which is exchanged for an ID token here. Nothing is kept on this side meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use celery_protocol::glob;
use hyper::{Method, Uri};
use serde::{Deserialize, Serialize};

use super::gate::{self, Places, encoded};
use super::jwt::{self, Claims, Expected, Keys, Refused};
use super::login::{page, root};
use super::role::Role;
use super::session::{cookie, set_cookie};
use super::{Access, Via, Visitor, secret};
use crate::clock;
use crate::outbound::{self, Client};

/// The cookie of a log-in that is under way.
const COOKIE: &str = "flower_oidc";
/// How long somebody may take to log in at the provider.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the provider may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// For how many seconds its addresses and keys are remembered.
const REMEMBERED: f64 = 3_600.0;
/// Keys are asked for anew at most once in so many seconds, whatever tokens name.
const KEYS_PAUSE: f64 = 30.0;

/// Which provider, and who is what by its claims.
#[derive(Clone)]
pub struct OidcOptions {
    /// The provider's address.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// What proves that we are it, if it has to be proven.
    pub client_secret: Option<String>,
    /// What is asked for.
    pub scopes: String,
    /// What the form says.
    pub label: String,
    /// Who has which role.
    pub roles: Vec<Grant>,
}

/// A role for those with such a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    claim: String,
    pattern: String,
    role: Role,
}

/// A provider.
pub struct Oidc {
    options: OidcOptions,
    client: Client,
    known: Mutex<Known>,
}

#[derive(Clone, Default)]
struct Known {
    provider: Option<(Arc<Provider>, f64)>,
    keys: Option<(Arc<Keys>, f64)>,
}

/// What a provider says of itself.
#[derive(Debug, Deserialize)]
struct Provider {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// A log-in that is under way.
#[derive(Serialize, Deserialize)]
struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    next: String,
    until: f64,
}

/// What the browser comes back with.
#[derive(Debug, Deserialize)]
pub struct Back {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

impl Grant {
    /// Reads `claim:pattern=role`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Grant, String> {
        let (who, role) = text.rsplit_once('=').ok_or("is not claim:pattern=role")?;
        let (claim, pattern) = who.split_once(':').ok_or("is not claim:pattern=role")?;
        if claim.is_empty() || pattern.is_empty() {
            return Err("is not claim:pattern=role".to_owned());
        }
        let role = role.parse().map_err(|error: super::role::NotARole| format!("{error}: the role"))?;
        Ok(Grant { claim: claim.to_owned(), pattern: pattern.to_owned(), role })
    }
}

/// The highest role that somebody's claims give.
#[must_use]
pub fn role(grants: &[Grant], claims: &Claims) -> Option<Role> {
    let given =
        |grant: &&Grant| claims.values(&grant.claim).iter().any(|value| glob::matches(&grant.pattern, value));
    grants.iter().filter(given).map(|grant| grant.role).max()
}

impl Oidc {
    /// A provider, which is asked when somebody logs in.
    ///
    /// # Errors
    /// TLS can't be used.
    pub fn new(options: OidcOptions) -> Result<Oidc, String> {
        Ok(Oidc { options, client: Client::new()?, known: Mutex::default() })
    }

    /// What the form says.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.options.label
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn json<T: for<'a> Deserialize<'a>>(&self, address: &str) -> Result<T, String> {
        let uri = endpoint(address)?;
        let accept = [("Accept", "application/json")];
        let answer = self.client.send(Method::GET, &uri, &accept, Vec::new(), DEADLINE).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("{address} answered {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{address}: {error}"))
    }

    async fn provider(&self) -> Result<Arc<Provider>, String> {
        let now = clock::now().seconds();
        if let Some((provider, at)) = &self.known().provider
            && now - at < REMEMBERED
        {
            return Ok(provider.clone());
        }
        let issuer = &self.options.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let provider: Provider = self.json(&address).await?;
        if provider.issuer != *issuer {
            return Err(format!("{issuer} calls itself {}: oidc_issuer must be just that", provider.issuer));
        }
        let provider = Arc::new(provider);
        self.known().provider = Some((provider.clone(), now));
        Ok(provider)
    }

    /// The provider's keys; asked for anew if those that are known did not do.
    async fn keys(&self, provider: &Provider, known_do: bool) -> Result<Arc<Keys>, String> {
        let now = clock::now().seconds();
        let known = self.known().keys.clone();
        if let Some((keys, at)) = known {
            let age = now - at;
            if age < KEYS_PAUSE || (known_do && age < REMEMBERED) {
                return Ok(keys);
            }
        }
        let keys: Arc<Keys> = Arc::new(self.json(&provider.jwks_uri).await?);
        self.known().keys = Some((keys.clone(), now));
        Ok(keys)
    }

    async fn exchange(
        &self,
        provider: &Provider,
        code: &str,
        verifier: &str,
        back: &str,
    ) -> Result<Tokens, String> {
        let OidcOptions { client_id, client_secret, .. } = &self.options;
        let uri = endpoint(&provider.token_endpoint)?;
        let mut form = format!(
            "grant_type=authorization_code&code={}&redirect_uri={}&code_verifier={}&client_id={}",
            encoded(code),
            encoded(back),
            encoded(verifier),
            encoded(client_id),
        );
        let methods = provider.token_endpoint_auth_methods_supported.as_ref();
        let basic = methods.is_none_or(|all| all.iter().any(|method| method == "client_secret_basic"));
        let mut authorization = None;
        match client_secret {
            Some(secret) if basic => {
                let pair = format!("{}:{}", encoded(client_id), encoded(secret));
                authorization = Some(format!("Basic {}", BASE64_STANDARD.encode(pair)));
            }
            Some(secret) => form.push_str(&format!("&client_secret={}", encoded(secret))),
            None => {}
        }
        let mut headers =
            vec![("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")];
        if let Some(authorization) = &authorization {
            headers.push(("Authorization", authorization));
        }
        let answer = self.client.send(Method::POST, &uri, &headers, form.into_bytes(), DEADLINE).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("the token endpoint answered {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|_| "the token endpoint gave no ID token".to_owned())
    }

    /// Who a code is for.
    async fn claims(&self, code: &str, begun: &Begun, back: &str) -> Result<Claims, String> {
        let provider = self.provider().await?;
        let Tokens { id_token } = self.exchange(&provider, code, &begun.verifier, back).await?;
        let expected = Expected {
            issuer: &self.options.issuer,
            client: &self.options.client_id,
            nonce: &begun.nonce,
            now: clock::now().seconds(),
        };
        let keys = self.keys(&provider, true).await?;
        let claims = match jwt::verify(&id_token, &keys, expected) {
            Err(Refused::UnknownKey) => {
                jwt::verify(&id_token, &*self.keys(&provider, false).await?, expected)
            }
            claims => claims,
        };
        claims.map_err(|refused| refused.to_string())
    }
}

/// An address that secrets may be sent to: over TLS, or on this machine.
///
/// # Errors
/// Says what is wrong with it.
pub fn endpoint(address: &str) -> Result<Uri, String> {
    let uri = outbound::address(address).map_err(|what| format!("{address} {what}"))?;
    let here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if uri.scheme_str() == Some("https") || here { Ok(uri) } else { Err(format!("{address} is not https")) }
}

fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(secret::digest(verifier))
}

/// Where the provider sends the browser back to.
fn back(access: &Access, places: &Places, request: &HttpRequest) -> String {
    let here = || {
        let info = request.connection_info();
        format!("{}://{}", info.scheme(), info.host())
    };
    let base = access.public_url().map_or_else(here, str::to_owned);
    format!("{base}{}/login/oidc/callback", root(places))
}

/// `GET /login/oidc`: sends the browser to the provider.
pub(super) async fn begin(
    access: Data<Access>,
    places: Data<Places>,
    request: HttpRequest,
    next: Query<super::login::Next>,
) -> HttpResponse {
    let Some(oidc) = access.oidc() else { return HttpResponse::NotFound().finish() };
    let place = places.of(request.match_info().as_str()).to_owned();
    let begun = async {
        let provider = oidc.provider().await?;
        let random = || secret::random::<32>().map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let until = clock::now().plus(PATIENCE.as_secs_f64()).seconds();
        let next = next.into_inner().next;
        let next = if super::login::is_ours(&next, root(&places)) { next } else { format!("{place}/") };
        let begun = Begun { state: random()?, nonce: random()?, verifier: random()?, next, until };
        Ok::<_, String>((provider, begun))
    };
    let (provider, begun) = match begun.await {
        Ok(begun) => begun,
        Err(error) => return trouble(&access, &place, StatusCode::BAD_GATEWAY, &error),
    };
    let OidcOptions { client_id, scopes, .. } = &oidc.options;
    let address = &provider.authorization_endpoint;
    if let Err(error) = endpoint(address) {
        return trouble(&access, &place, StatusCode::BAD_GATEWAY, &error);
    }
    let to = format!(
        "{address}{}response_type=code&client_id={}&redirect_uri={}&scope={}&state={}&nonce={}&code_challenge={}\
         &code_challenge_method=S256",
        if address.contains('?') { '&' } else { '?' },
        encoded(client_id),
        encoded(&back(&access, &places, &request)),
        encoded(scopes),
        begun.state,
        begun.nonce,
        challenge(&begun.verifier),
    );
    let sealed = access.inner.sessions.seal("oidc", &begun);
    let kept = set_cookie(COOKIE, &sealed, root(&places), PATIENCE, access.is_secure(&request));
    HttpResponse::SeeOther()
        .insert_header((header::SET_COOKIE, kept))
        .insert_header((header::LOCATION, to))
        .finish()
}

/// `GET /login/oidc/callback`: begins a session for whom the provider vouches.
pub(super) async fn finish(
    access: Data<Access>,
    places: Data<Places>,
    request: HttpRequest,
    came: Query<Back>,
) -> HttpResponse {
    let Some(oidc) = access.oidc() else { return HttpResponse::NotFound().finish() };
    let place = places.of(request.match_info().as_str()).to_owned();
    let cookies = request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok());
    let begun = cookies
        .and_then(|cookies| cookie(cookies, COOKIE))
        .and_then(|sealed| access.inner.sessions.open::<Begun>("oidc", sealed))
        .filter(|begun| begun.until > clock::now().seconds());
    let Some(begun) = begun else {
        let told = "this browser began no log-in in the last ten minutes";
        return trouble(&access, &place, StatusCode::BAD_REQUEST, told);
    };
    let Back { code, state, error, iss } = came.into_inner();
    let same =
        state.is_some_and(|state| secret::same(&secret::digest(&state), &secret::digest(&begun.state)));
    if !same || iss.is_some_and(|iss| iss != oidc.options.issuer) {
        return trouble(&access, &place, StatusCode::BAD_REQUEST, "this answer is for another log-in");
    }
    let Some(code) = code.filter(|_| error.is_none()) else {
        let error = error.unwrap_or_else(|| "no code".to_owned());
        let error: String =
            error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
        return trouble(
            &access,
            &place,
            StatusCode::UNAUTHORIZED,
            &format!("the identity provider said {error}"),
        );
    };
    let claims = match oidc.claims(&code, &begun, &back(&access, &places, &request)).await {
        Ok(claims) => claims,
        Err(error) => return trouble(&access, &place, StatusCode::UNAUTHORIZED, &error),
    };
    let known = claims.values("email").into_iter().next();
    let subject = claims.text("sub").unwrap_or_default();
    let name = known.or_else(|| claims.text("preferred_username")).unwrap_or(subject);
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    let Some(role) = role(&oidc.options.roles, &claims) else {
        tracing::warn!(
            user = name,
            address = gate::address(&request),
            "somebody without a role has logged in"
        );
        let told = format!("{name} has no role here: oidc_roles gives them");
        return trouble(&access, &place, StatusCode::FORBIDDEN, &told);
    };
    let visitor = Visitor { name: Some(name.into()), role, via: Via::Oidc, until: None };
    let mut response = access.begin(&visitor, Some(role.as_str()), &request, &places, &begun.next);
    let gone = set_cookie(COOKIE, "", root(&places), Duration::ZERO, access.is_secure(&request));
    if let Ok(gone) = header::HeaderValue::from_str(&gone) {
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    response
}

fn trouble(access: &Access, place: &str, status: StatusCode, told: &str) -> HttpResponse {
    tracing::warn!(told, "a log-in with the identity provider failed");
    let mut response = page(access, place, "", Some(&format!("The log-in failed: {told}.")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_give_the_highest_role() {
        let grants: Vec<Grant> =
            ["groups:ops=operator", "email:*@example.com=viewer", "sub:7=admin", "groups:ops-*=admin"]
                .map(|text| Grant::parse(text).expect("a grant"))
                .into();
        let of =
            |value: serde_json::Value| role(&grants, &Claims(value.as_object().cloned().expect("claims")));
        assert_eq!(of(json!({"groups": ["x", "ops"]})), Some(Role::Operator));
        assert_eq!(of(json!({"groups": "ops", "sub": "7"})), Some(Role::Admin));
        assert_eq!(of(json!({"email": "a@example.com", "email_verified": true})), Some(Role::Viewer));
        assert_eq!(of(json!({"email": "a@example.com", "email_verified": false})), None);
        assert_eq!(of(json!({"email": "a@example.com.evil", "email_verified": true})), None);
        assert_eq!(of(json!({"sub": "77", "groups": ["cops"]})), None);
        for wrong in ["", "ops=operator", "groups:ops", "groups:ops=root", ":x=admin", "groups:=admin"] {
            assert!(Grant::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_go_over_tls_or_stay_here() {
        assert!(
            endpoint("https://idp.example/token").is_ok() && endpoint("http://127.0.0.1:1/token").is_ok()
        );
        assert!(endpoint("http://idp.example/token").is_err() && endpoint("idp").is_err());
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }
}
