//! Sessions: a signed cookie that says who logged in, and until when. Nothing is kept of them here but which were ended
//! before their time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::secret;
use crate::state::time::UnixTime;

/// The cookie's name.
pub const COOKIE: &str = "flower_session";
/// The longest cookie that is looked at.
const MAX_COOKIE: usize = 4_096;
/// How many sessions that were ended are remembered until their time is over.
const MAX_ENDED: usize = 10_000;

/// What a cookie says, once its signature is found to be ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Tells it from others.
    pub id: String,
    /// Who.
    pub name: String,
    /// The role that an identity provider's claims gave; `None`: the settings tell.
    pub role: Option<String>,
    /// When it ends, whatever is done in it.
    pub until: f64,
}

/// Makes and reads cookies.
pub struct Sessions {
    key: hmac::Key,
    lifetime: Duration,
    ended: Mutex<HashMap<String, f64>>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Sessions {
    /// With the secret of the settings, or one that lasts as long as this process.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn new(secret: Option<&str>, lifetime: Duration) -> Result<Sessions, String> {
        let key = match secret {
            Some(secret) => secret::digest(secret),
            None => secret::random::<32>()?,
        };
        Ok(Sessions { key: hmac::Key::new(hmac::HMAC_SHA256, &key), lifetime, ended: Mutex::default() })
    }

    /// A new session.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn begin(&self, name: &str, role: Option<&str>, now: UnixTime) -> Result<Session, String> {
        Ok(Session {
            id: BASE64_URL_SAFE_NO_PAD.encode(secret::random::<16>()?),
            name: name.to_owned(),
            role: role.map(str::to_owned),
            until: now.plus(self.lifetime.as_secs_f64()).seconds(),
        })
    }

    /// Something as text that only we can have made, for this one purpose.
    pub(crate) fn seal(&self, purpose: &str, value: &impl Serialize) -> String {
        let body = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default());
        let tag = hmac::sign(&self.key, format!("{purpose}.{body}").as_bytes());
        format!("{body}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    }

    /// What [`Sessions::seal`] made for this purpose.
    pub(crate) fn open<T: for<'a> Deserialize<'a>>(&self, purpose: &str, text: &str) -> Option<T> {
        let (body, tag) = text.split_once('.').filter(|_| text.len() <= MAX_COOKIE)?;
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, format!("{purpose}.{body}").as_bytes(), &tag).ok()?;
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }

    /// A session's cookie.
    #[must_use]
    pub fn write(&self, session: &Session) -> String {
        self.seal("session", session)
    }

    /// The session of a cookie, if it is ours and goes on.
    #[must_use]
    pub fn read(&self, cookie: &str, now: UnixTime) -> Option<Session> {
        let session: Session = self.open("session", cookie)?;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        (session.until > now.seconds() && !ended.contains_key(&session.id)).then_some(session)
    }

    /// Ends a session before its time.
    pub fn end(&self, session: &Session, now: UnixTime) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, until| *until > now.seconds());
        if ended.len() >= MAX_ENDED
            && let Some(first) = ended.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id.clone())
        {
            ended.remove(&first);
        }
        ended.insert(session.id.clone(), session.until);
    }
}

/// The value of one cookie among those of a `Cookie` header.
#[must_use]
pub fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header
        .split(';')
        .find_map(|pair| pair.trim().split_once('=').filter(|(known, _)| *known == name))
        .map(|(_, value)| value)
}

/// A `Set-Cookie` header. `age` of zero takes the cookie away.
#[must_use]
pub fn set_cookie(name: &str, value: &str, path: &str, age: Duration, secure: bool) -> String {
    let path = if path.is_empty() { "/" } else { path };
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Lax{secure}", age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: f64) -> UnixTime {
        UnixTime::EPOCH.plus(seconds)
    }

    #[test]
    fn a_session_lasts_as_long_as_it_says() {
        let sessions = Sessions::new(Some("key"), HOUR).expect("a key");
        let session = sessions.begin("anna", None, at(10.0)).expect("random numbers");
        let cookie = sessions.write(&session);
        assert_eq!(sessions.read(&cookie, at(3_609.0)), Some(session.clone()));
        assert_eq!(sessions.read(&cookie, at(3_610.0)), None, "it ends, whatever is done in it");
        let again = Sessions::new(Some("key"), HOUR).expect("a key");
        assert!(again.read(&cookie, at(11.0)).is_some(), "another process with the same secret");
        sessions.end(&session, at(20.0));
        assert_eq!(sessions.read(&cookie, at(21.0)), None, "logged out");
    }

    #[test]
    fn nobody_else_can_make_a_session() {
        let sessions = Sessions::new(None, HOUR).expect("random numbers");
        let session = sessions.begin("anna", Some("viewer"), at(0.0)).expect("random numbers");
        let cookie = sessions.write(&session);
        let (body, tag) = cookie.split_once('.').expect("two parts");
        let admin = Session { role: Some("admin".into()), ..session.clone() };
        let forged = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&admin).expect("JSON"));
        let other = Sessions::new(None, HOUR).expect("random numbers").write(&session);
        let purpose = sessions.seal("login", &session);
        for wrong in [
            "",
            ".",
            body,
            &format!("{body}."),
            &format!("{forged}.{tag}"),
            &other,
            &purpose,
            &format!("{cookie}x"),
        ] {
            assert_eq!(sessions.read(wrong, at(1.0)), None, "{wrong}");
        }
        assert!(!format!("{sessions:?}").contains("key"));
    }

    #[test]
    fn cookies_are_found_among_others() {
        assert_eq!(cookie("a=1; flower_session=x.y ;b=2", COOKIE), Some("x.y"));
        assert_eq!(cookie("xflower_session=1", COOKIE), None);
        let set = set_cookie(COOKIE, "v", "/flower", HOUR, true);
        assert_eq!(set, "flower_session=v; Path=/flower; Max-Age=3600; HttpOnly; SameSite=Lax; Secure");
    }
}
