//! Who may come in, and what they may change.
//!
//! Without authentication a monitor only shows: whoever reaches it could otherwise stop workers. Users, tokens or an
//! identity provider turn control on, for those whose [`Role`] is enough; `read_only` turns it off again for everybody.
//!
//! [`gate`] finds out who asks, before anything else does; [`permit`] is asked by whatever changes something. A monitor
//! that is mounted into another program has no gate: that program says who may see it, and nothing can be changed.

pub mod gate;
pub mod jwt;
pub mod login;
pub mod oidc;
pub mod role;
pub mod secret;
pub mod session;
mod throttle;
pub mod users;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest};
use serde::Serialize;
use tokio::sync::Semaphore;

pub use oidc::Oidc;
pub use role::{Action, Role};
pub use users::Users;

use self::secret::Password;
use self::session::Sessions;
use self::throttle::Throttle;
use crate::clock;
use crate::state::time::UnixTime;

/// The header that a page's own script sends with whatever changes something. A page of another site can't.
pub const OWN_HEADER: &str = "X-Requested-With";
/// How many passwords are looked at at a time: each takes 19 MiB and a core.
const AT_ONCE: usize = 2;
/// For how long a password that came with a request needn't be looked at again.
const REMEMBERED: f64 = 300.0;
/// How many such passwords are remembered, as digests.
const MAX_REMEMBERED: usize = 1_000;
/// The longest password.
const MAX_PASSWORD: usize = 1_024;

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
                "Read only mode is enabled: to control workers, set FLOWER_BASIC_AUTH=user:password (--basic-auth) or \
                 FLOWER_USERS, or FLOWER_UNAUTHENTICATED_API=true (--unauthenticated-api) if whoever reaches this \
                 monitor may",
            ),
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Control::On => "on",
            Control::ReadOnly => "read_only",
            Control::NeedsAuthentication => "needs_authentication",
        }
    }
}

/// How somebody showed who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// By a password, with the request.
    Password,
    /// By a token.
    Token,
    /// By a session that a password began.
    Session,
    /// By a session that an identity provider vouches for.
    Oidc,
    /// Not at all: nobody is asked.
    Anonymous,
}

impl Via {
    /// As it is written down.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Password => "password",
            Via::Token => "token",
            Via::Session => "session",
            Via::Oidc => "oidc",
            Via::Anonymous => "anonymous",
        }
    }
}

/// Who asks for something.
#[derive(Clone, Debug, PartialEq)]
pub struct Visitor {
    /// Their name; `None` if nobody is asked.
    pub name: Option<Arc<str>>,
    /// What they may do.
    pub role: Role,
    /// How that is known.
    pub via: Via,
    /// When they have to log in again.
    pub until: Option<f64>,
}

impl Visitor {
    /// Somebody who was not asked who they are.
    #[must_use]
    pub fn anonymous(role: Role) -> Visitor {
        Visitor { name: None, role, via: Via::Anonymous, until: None }
    }

    /// Who sent a request, as [`gate`] found out; where there is no gate, anybody.
    #[must_use]
    pub fn of(request: &HttpRequest, control: Control) -> Visitor {
        let known = request.extensions().get::<Visitor>().cloned();
        known.unwrap_or_else(|| {
            Visitor::anonymous(if control == Control::On { Role::Admin } else { Role::Viewer })
        })
    }

    /// As the log calls them.
    #[must_use]
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or("anonymous")
    }
}

/// Why something may not be done; always for the one who asks to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPermitted(pub String);

/// Whether the one who sent this request may do that now.
///
/// # Errors
/// Says why not.
pub fn permit(control: Control, request: &HttpRequest, action: Action) -> Result<Visitor, NotPermitted> {
    if let Some(refusal) = control.refusal() {
        return Err(NotPermitted(refusal.to_owned()));
    }
    let visitor = Visitor::of(request, control);
    own_request(&visitor, request)?;
    require(&visitor, action.role(), action.name())?;
    Ok(visitor)
}

/// Whether a role is enough.
///
/// # Errors
/// Says which one is needed.
pub fn require(visitor: &Visitor, role: Role, what: &str) -> Result<(), NotPermitted> {
    if visitor.role >= role {
        return Ok(());
    }
    Err(NotPermitted(format!(
        "{what} needs the role {role}; {} has the role {}",
        visitor.called(),
        visitor.role
    )))
}

/// Refuses what a browser sends for a page of another site, with cookies or passwords that it knows.
fn own_request(visitor: &Visitor, request: &HttpRequest) -> Result<(), NotPermitted> {
    let by_cookie = matches!(visitor.via, Via::Session | Via::Oidc);
    if visitor.via != Via::Token && is_from_elsewhere(request) {
        return Err(NotPermitted("Cross-site request forbidden".to_owned()));
    }
    if by_cookie && !request.headers().contains_key(OWN_HEADER) {
        return Err(NotPermitted(format!(
            "the header {OWN_HEADER} is missing: with a session every change needs it"
        )));
    }
    Ok(())
}

/// Whether a request that changes something was made by a page of another site: browsers say so.
#[must_use]
pub fn is_from_elsewhere(request: &HttpRequest) -> bool {
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

/// How people come in.
pub struct AccessOptions {
    /// Who is known.
    pub users: Users,
    /// What signs sessions; `None`: something that lasts as long as this process.
    pub secret: Option<String>,
    /// How long a session lasts.
    pub lifetime: Duration,
    /// The address that browsers know this monitor by, where a proxy stands in front of it.
    pub public_url: Option<String>,
    /// Who vouches for people.
    pub oidc: Option<Oidc>,
}

/// Who may come in. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    users: Users,
    sessions: Sessions,
    lifetime: Duration,
    public_url: Option<String>,
    oidc: Option<Oidc>,
    throttle: Mutex<Throttle>,
    remembered: Mutex<HashMap<[u8; 32], f64>>,
    /// Makes digests of passwords that are of no use to anybody else.
    pepper: [u8; 32],
    busy: Semaphore,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { users, sessions, public_url, .. } = &*self.inner;
        let mut shown = f.debug_struct("Access");
        shown
            .field("users", users)
            .field("sessions", sessions)
            .field("public_url", public_url)
            .finish_non_exhaustive()
    }
}

/// What came of looking at somebody's credentials.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Somebody who is known.
    Known(Visitor),
    /// Nobody said who they are.
    Nobody,
    /// What they said is wrong.
    Wrong,
    /// They were wrong too often, and have to wait for so many seconds.
    Wait(f64),
}

impl Access {
    /// As the settings say.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn new(options: AccessOptions) -> Result<Access, String> {
        let AccessOptions { users, secret, lifetime, public_url, oidc } = options;
        let inner = Inner {
            users,
            sessions: Sessions::new(secret.as_deref(), lifetime)?,
            lifetime,
            public_url,
            oidc,
            throttle: Mutex::default(),
            remembered: Mutex::default(),
            pepper: secret::random()?,
            busy: Semaphore::new(AT_ONCE),
        };
        Ok(Access { inner: Arc::new(inner) })
    }

    /// Nobody is asked who they are.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn open() -> Result<Access, String> {
        let (users, lifetime) = (Users::default(), Duration::ZERO);
        Access::new(AccessOptions { users, secret: None, lifetime, public_url: None, oidc: None })
    }

    /// Whether anybody is asked who they are.
    #[must_use]
    pub fn asks(&self) -> bool {
        !self.inner.users.is_empty() || self.inner.oidc.is_some()
    }

    /// Who vouches for people.
    #[must_use]
    pub fn oidc(&self) -> Option<&Oidc> {
        self.inner.oidc.as_ref()
    }

    /// Whether a log-in with a password is possible.
    #[must_use]
    pub fn takes_passwords(&self) -> bool {
        self.inner.users.have_passwords()
    }

    /// The address that browsers know this monitor by.
    #[must_use]
    pub fn public_url(&self) -> Option<&str> {
        self.inner.public_url.as_deref()
    }

    /// Who a request says it is from. `address` is where it came from, for those who guess.
    pub async fn identify(&self, headers: &header::HeaderMap, address: &str) -> Found {
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(authorization) = text(header::AUTHORIZATION) {
            return match gate::Credentials::of(authorization) {
                Some(gate::Credentials::Password { user, password }) => {
                    self.check(&user, &password, address, Via::Password).await
                }
                Some(gate::Credentials::Token(token)) => self.of_token(&token),
                None => Found::Wrong,
            };
        }
        let cookie = text(header::COOKIE).and_then(|cookies| session::cookie(cookies, session::COOKIE));
        cookie.and_then(|cookie| self.of_session(cookie, clock::now())).map_or(Found::Nobody, Found::Known)
    }

    fn of_token(&self, token: &str) -> Found {
        match self.inner.users.token(token) {
            Some(known) => Found::Known(Visitor {
                name: Some(known.name.clone()),
                role: known.role,
                via: Via::Token,
                until: None,
            }),
            None => {
                tracing::warn!("a request came with a token that is not known");
                Found::Wrong
            }
        }
    }

    fn of_session(&self, cookie: &str, now: UnixTime) -> Option<Visitor> {
        let session = self.inner.sessions.read(cookie, now)?;
        let (role, via) = match &session.role {
            // Whoever is taken out of the settings is out at once.
            None => (self.inner.users.user(&session.name)?.role, Via::Session),
            Some(role) => (role.parse().ok().filter(|_| self.inner.oidc.is_some())?, Via::Oidc),
        };
        Some(Visitor { name: Some(session.name.into()), role, via, until: Some(session.until) })
    }

    /// Looks at a password.
    pub async fn check(&self, user: &str, password: &str, address: &str, via: Via) -> Found {
        let who = format!("{address} {}", user.chars().take(64).collect::<String>());
        let now = clock::now();
        if let Some(seconds) = lock(&self.inner.throttle).wait(&who, now) {
            return Found::Wait(seconds);
        }
        let known = self.inner.users.user(user);
        if password.len() <= MAX_PASSWORD
            && self.matches(known.map(|user| &user.password), user, password, now).await
        {
            lock(&self.inner.throttle).succeeded(&who);
            let Some(known) = known else { return Found::Wrong };
            return Found::Known(Visitor {
                name: Some(known.name.clone()),
                role: known.role,
                via,
                until: None,
            });
        }
        lock(&self.inner.throttle).failed(&who, clock::now());
        // A name that is not known may be a password that was typed into the wrong field.
        let user = known.map_or("somebody who is not known", |known| &known.name);
        tracing::warn!(user, address, "a log-in failed");
        Found::Wrong
    }

    async fn matches(&self, known: Option<&Password>, user: &str, password: &str, now: UnixTime) -> bool {
        let digest = secret::digest(&format!("{}{user}\0{password}", secret::hex(&self.inner.pepper)));
        if lock(&self.inner.remembered).get(&digest).is_some_and(|until| *until > now.seconds()) {
            return true;
        }
        let Ok(_turn) = self.inner.busy.acquire().await else { return false };
        let (known, password) = (known.cloned(), password.to_owned());
        let looked = actix_web::web::block(move || match known {
            Some(known) => known.is(&password),
            None => {
                secret::waste_time(&password);
                false
            }
        });
        let right = looked.await.unwrap_or(false);
        if right {
            let mut remembered = lock(&self.inner.remembered);
            remembered.retain(|_, until| *until > now.seconds());
            if remembered.len() < MAX_REMEMBERED {
                remembered.insert(digest, now.plus(REMEMBERED).seconds());
            }
        }
        right
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> TestRequest {
        let begun = TestRequest::post().insert_header(("Host", "monitor:5555"));
        headers.iter().fold(begun, |request, header| request.insert_header(*header))
    }

    #[test]
    fn pages_of_others_are_told_from_our_own() {
        let ask =
            |headers: &[(&'static str, &'static str)]| is_from_elsewhere(&request(headers).to_http_request());
        assert!(!ask(&[]), "no browser");
        assert!(!ask(&[("Sec-Fetch-Site", "same-origin")]));
        assert!(ask(&[("Sec-Fetch-Site", "cross-site")]));
        assert!(ask(&[("Sec-Fetch-Site", "same-site")]));
        assert!(ask(&[("Origin", "http://evil.example")]));
        assert!(ask(&[("Origin", "null")]));
        assert!(!ask(&[("Origin", "http://monitor:5555")]));
    }

    #[test]
    fn a_change_needs_a_role_and_an_own_request() {
        let ask = |role: Role, via: Via, headers: &[(&'static str, &'static str)], action: Action| {
            let request = request(headers).to_http_request();
            request.extensions_mut().insert(Visitor { name: Some("anna".into()), role, via, until: None });
            permit(Control::On, &request, action).map_err(|told| told.0)
        };
        let own = [("X-Requested-With", "flower-lite"), ("Sec-Fetch-Site", "same-origin")];
        let foreign = [("X-Requested-With", "flower-lite"), ("Origin", "http://evil.example")];
        let told = ask(Role::Viewer, Via::Session, &own, Action::TaskRevoke).expect_err("too low");
        assert_eq!(told, "task.revoke needs the role operator; anna has the role viewer");
        assert!(ask(Role::Operator, Via::Session, &own, Action::TaskRevoke).is_ok());
        assert!(ask(Role::Operator, Via::Session, &own, Action::QueuePurge).is_err());
        assert!(ask(Role::Admin, Via::Session, &own, Action::QueuePurge).is_ok());
        assert!(
            ask(Role::Admin, Via::Session, &[], Action::QueuePurge)
                .is_err_and(|told| told.contains(OWN_HEADER))
        );
        for via in [Via::Session, Via::Oidc, Via::Password, Via::Anonymous] {
            assert!(ask(Role::Admin, via, &foreign, Action::TaskRevoke).is_err(), "{via:?}");
        }
        assert!(
            ask(Role::Admin, Via::Token, &[("Origin", "http://tool.example")], Action::TaskRevoke).is_ok()
        );
        assert!(ask(Role::Admin, Via::Password, &[], Action::TaskRevoke).is_ok(), "a script");
    }

    #[test]
    fn nobody_changes_anything_where_nobody_is_asked() {
        let request = request(&[]).to_http_request();
        for action in Action::ALL {
            assert!(permit(Control::NeedsAuthentication, &request, *action).is_err());
            assert!(permit(Control::ReadOnly, &request, *action).is_err());
            assert!(permit(Control::On, &request, *action).is_ok(), "an open API, as was asked for");
        }
        assert_eq!(Visitor::of(&request, Control::NeedsAuthentication).role, Role::Viewer);
    }

    #[actix_web::test]
    async fn whoever_guesses_waits() {
        let users = Users::parse(&["anna:right".into()], &[], &[]).expect("a pair");
        let lifetime = Duration::ZERO;
        let options = AccessOptions { users, secret: None, lifetime, public_url: None, oidc: None };
        let access = Access::new(options).expect("random numbers");
        for _ in 0..3 {
            assert_eq!(access.check("anna", "canary", "1.2.3.4", Via::Password).await, Found::Wrong);
        }
        let found = access.check("anna", "right", "1.2.3.4", Via::Password).await;
        assert!(matches!(found, Found::Wait(_)), "also with the right one: {found:?}");
        assert!(matches!(access.check("anna", "right", "5.6.7.8", Via::Password).await, Found::Known(_)));
        assert!(matches!(access.check("anna", "right", "5.6.7.8", Via::Password).await, Found::Known(_)));
        assert!(!format!("{access:?}").contains("right"));
    }
}
