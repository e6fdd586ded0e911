//! Broker and result-backend URLs as Celery and kombu write them, and their redaction.

use std::fmt;
use std::time::Duration;

use crate::error::BrokerError;

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("**")
    }
}

/// How a TLS peer is checked. There is no way to turn the check off silently.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    /// PEM file of the authorities to trust instead of the system's.
    pub(crate) ca_certs: Option<String>,
    /// PEM file of our certificate.
    pub(crate) certfile: Option<String>,
    /// PEM file of our key.
    pub(crate) keyfile: Option<String>,
    /// `CERT_NONE` was asked for.
    pub(crate) insecure: bool,
}

/// One RabbitMQ node.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) vhost: String,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) heartbeat: Option<u16>,
}

/// The broker nodes to try in turn, from one `;`-separated list.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrls(Vec<BrokerUrl>);

impl BrokerUrls {
    /// Reads `amqp://user:password@host:port/vhost[;…]`.
    ///
    /// `pyamqp://` is the same as `amqp://`; missing parts are `guest:guest@localhost:5672/`; `amqps://` is TLS, with
    /// `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` as query parameters.
    ///
    /// # Errors
    /// An unknown scheme or parameter, or a part out of range; the message never contains the password.
    pub fn parse(text: &str) -> Result<Self, BrokerError> {
        let mut urls = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            urls.push(BrokerUrl::parse(part)?);
        }
        if urls.is_empty() {
            return Err(BrokerError::config("broker_url is empty"));
        }
        Ok(Self(urls))
    }

    pub(crate) fn nodes(&self) -> &[BrokerUrl] {
        &self.0
    }

    /// The first node without its password, for logs.
    pub fn redacted(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
    }
}

impl fmt::Debug for BrokerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let (host, port) = (&self.host, self.port);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "{scheme}://{}:**@{host}:{port}/{}", encode(&self.user), encode(&self.vhost))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BrokerUrl {
    fn parse(text: &str) -> Result<Self, BrokerError> {
        let parts = Parts::parse("broker_url", text)?;
        let tls = match parts.scheme.as_str() {
            "amqp" | "pyamqp" => None,
            "amqps" => Some(TlsOptions::default()),
            other => {
                return Err(BrokerError::config(format!(
                    "broker_url: scheme `{other}` is not supported, use amqp:// or amqps://"
                )));
            }
        };
        // kombu: both `host` and `host/` mean the virtual host `/`.
        let vhost = match parts.path.as_deref() {
            None | Some("") => "/".to_owned(),
            Some(path) => decode("broker_url", path)?,
        };
        if vhost.len() > 255 {
            return Err(BrokerError::config("broker_url: the virtual host is longer than 255 bytes"));
        }
        let mut url = Self {
            host: parts.host.unwrap_or_else(|| "localhost".to_owned()),
            port: parts.port.unwrap_or(if tls.is_some() { 5671 } else { 5672 }),
            user: parts.user.unwrap_or_else(|| "guest".to_owned()),
            password: Secret(parts.password.unwrap_or_else(|| "guest".to_owned())),
            vhost,
            tls,
            heartbeat: None,
        };
        for (key, value) in parts.query {
            if key == "heartbeat" {
                let seconds = value.parse().map_err(|_| {
                    BrokerError::config(format!("broker_url: heartbeat `{value}` is no number of seconds"))
                })?;
                url.heartbeat = Some(seconds);
                continue;
            }
            let known = url.tls.as_mut().map_or(Ok(false), |tls| tls.accept(&key, &value))?;
            if !known {
                return Err(BrokerError::config(format!(
                    "broker_url: parameter `{key}` is not known (heartbeat; with amqps:// also ssl_ca_certs, \
                     ssl_certfile, ssl_keyfile)"
                )));
            }
        }
        if url.tls.as_ref().is_some_and(|tls| tls.insecure) {
            return Err(BrokerError::config(
                "broker_url: ssl_cert_reqs=none is refused; give the authority with ssl_ca_certs instead",
            ));
        }
        Ok(url)
    }
}

impl TlsOptions {
    /// Takes one query parameter; `false` if it is none of TLS.
    fn accept(&mut self, key: &str, value: &str) -> Result<bool, BrokerError> {
        match key {
            "ssl_ca_certs" => self.ca_certs = Some(value.to_owned()),
            "ssl_certfile" => self.certfile = Some(value.to_owned()),
            "ssl_keyfile" => self.keyfile = Some(value.to_owned()),
            "ssl_cert_reqs" => {
                self.insecure = match value.to_ascii_lowercase().as_str() {
                    "cert_required" | "required" | "cert_optional" | "optional" => false,
                    "cert_none" | "none" => true,
                    other => {
                        return Err(BrokerError::config(format!(
                            "ssl_cert_reqs `{other}` is not known, use required, optional or none"
                        )));
                    }
                }
            }
            "ssl_check_hostname" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendUrl {
    /// No results are kept.
    Disabled,
    /// Results live in this process (tests and demonstrations).
    Memory,
    /// Results are messages to whoever called.
    Rpc,
    /// Redis.
    Redis(RedisUrl),
}

/// A Redis server.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(crate) address: RedisAddress,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) db: i64,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) timeout: Option<Duration>,
}

/// How to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RedisAddress {
    Tcp(String, u16),
    Unix(String),
}

impl BackendUrl {
    /// Reads `redis://`, `rediss://`, `socket:///path`, `rpc://`, `disabled://` or `memory://` as Celery's `result_backend`.
    ///
    /// # Errors
    /// An unknown scheme or parameter; the message never contains the password.
    pub fn parse(text: &str) -> Result<Self, BrokerError> {
        let text = text.trim();
        if matches!(text, "" | "disabled" | "disabled://") {
            return Ok(Self::Disabled);
        }
        if matches!(text, "memory" | "memory://" | "cache+memory://") {
            return Ok(Self::Memory);
        }
        if matches!(text, "rpc" | "rpc://") {
            return Ok(Self::Rpc);
        }
        RedisUrl::parse(text).map(Self::Redis)
    }
}

impl RedisUrl {
    fn parse(text: &str) -> Result<Self, BrokerError> {
        let parts = Parts::parse("result_backend", text)?;
        let socket = matches!(parts.scheme.as_str(), "socket" | "redis+socket" | "unix");
        let tls = match parts.scheme.as_str() {
            "redis" => None,
            "rediss" => Some(TlsOptions::default()),
            _ if socket => None,
            other => {
                return Err(BrokerError::config(format!(
                    "result_backend: scheme `{other}` is not supported, use redis://, rediss://, socket:// or disabled://"
                )));
            }
        };
        let path = parts.path.as_deref().unwrap_or_default();
        let mut url = Self {
            address: if socket {
                RedisAddress::Unix(format!("/{}", decode("result_backend", path)?))
            } else {
                let host = parts.host.unwrap_or_else(|| "localhost".to_owned());
                RedisAddress::Tcp(host, parts.port.unwrap_or(6379))
            },
            user: parts.user.filter(|user| !user.is_empty()),
            password: parts.password.filter(|password| !password.is_empty()).map(Secret),
            db: if socket { 0 } else { database(path)? },
            tls,
            timeout: None,
        };
        for (key, value) in parts.query {
            url.accept(&key, &value)?;
        }
        Ok(url)
    }

    fn accept(&mut self, key: &str, value: &str) -> Result<(), BrokerError> {
        match key {
            "db" | "virtual_host" => self.db = database(value)?,
            "username" => self.user = Some(value.to_owned()),
            "password" => self.password = Some(Secret(value.to_owned())),
            "socket_timeout" => {
                self.timeout = super::table::parse_duration(value);
                if self.timeout.is_none() {
                    return Err(BrokerError::config("result_backend: socket_timeout is no duration"));
                }
            }
            _ if self.tls.is_none() && key.starts_with("ssl_") => {
                return Err(BrokerError::config(format!(
                    "result_backend: `{key}` needs rediss:// instead of redis://"
                )));
            }
            _ => {
                let known = self.tls.as_mut().map_or(Ok(false), |tls| tls.accept(key, value))?;
                if !known {
                    return Err(BrokerError::config(format!(
                        "result_backend: parameter `{key}` is not known (db, username, password, socket_timeout; \
                         with rediss:// also ssl_cert_reqs, ssl_ca_certs, ssl_certfile, ssl_keyfile)"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = match (&self.user, &self.password) {
            (None, None) => String::new(),
            (user, password) => format!(
                "{}{}@",
                encode(user.as_deref().unwrap_or_default()),
                if password.is_some() { ":**" } else { "" }
            ),
        };
        match &self.address {
            RedisAddress::Tcp(host, port) => {
                let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                write!(f, "{scheme}://{login}{host}:{port}/{}", self.db)
            }
            RedisAddress::Unix(path) => write!(f, "socket://{login}{path}?db={}", self.db),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn database(text: &str) -> Result<i64, BrokerError> {
    let text = text.trim_matches('/');
    if text.is_empty() {
        return Ok(0);
    }
    let wrong = || BrokerError::config(format!("result_backend: `{text}` is no database number"));
    text.parse().ok().filter(|db| *db >= 0).ok_or_else(wrong)
}

/// Masks the password of every URL in `text`, which may be a `;`-separated list.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        shown.push_str(before);
        let end = after.find(['/', '?', '#', ';', ' ', '"', '\'']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((login, host)) => {
                let user = login.split_once(':').map_or(login, |(user, _)| user);
                shown.push_str(user);
                if login.contains(':') {
                    shown.push_str(":**");
                }
                shown.push('@');
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = tail;
    }
    shown.push_str(rest);
    mask_parameter(&shown)
}

/// `?password=…` is a way to give it, too.
fn mask_parameter(text: &str) -> String {
    let Some(start) = text.find("password=") else { return text.to_owned() };
    let (before, after) = text.split_at(start + "password=".len());
    let end = after.find(['&', ';', ' ', '"']).unwrap_or(after.len());
    format!("{before}**{}", mask_parameter(after.get(end..).unwrap_or_default()))
}

/// The parts of a URL, percent-decoded except for the path.
struct Parts {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    query: Vec<(String, String)>,
}

impl Parts {
    fn parse(setting: &str, text: &str) -> Result<Self, BrokerError> {
        let wrong = |what: &str| BrokerError::config(format!("{setting}: {what}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("not a URL, `://` is missing"))?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, query),
            None => (rest, ""),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path.to_owned())),
            None => (rest, None),
        };
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (
                Some(decode(setting, user)?),
                login
                    .is_some_and(|login| login.contains(':'))
                    .then(|| decode(setting, password))
                    .transpose()?,
            ),
            None => (None, None),
        };
        let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match host.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            },
        };
        let port = match port {
            None | Some("") => None,
            Some(port) => Some(
                port.parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| wrong("the port is no number from 1 to 65535"))?,
            ),
        };
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(setting, key)?, decode(setting, value)?));
        }
        let host = decode(setting, host)?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            password,
            host: (!host.is_empty()).then_some(host),
            port,
            path,
            query: parameters,
        })
    }
}

fn decode(setting: &str, text: &str) -> Result<String, BrokerError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| BrokerError::config(format!("{setting}: not UTF-8 after decoding")))
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(text: &str) -> BrokerUrl {
        BrokerUrls::parse(text).unwrap().nodes()[0].clone()
    }

    fn redis(text: &str) -> RedisUrl {
        match BackendUrl::parse(text).unwrap() {
            BackendUrl::Redis(url) => url,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kombus_forms_of_a_virtual_host() {
        for (text, vhost) in [
            ("amqp://", "/"),
            ("amqp://h", "/"),
            ("amqp://h/", "/"),
            ("amqp://h//", "/"),
            ("amqp://h/%2F", "/"),
            ("pyamqp://u:p@h:1/prod", "prod"),
            ("amqp://h//prod", "/prod"),
        ] {
            assert_eq!(broker(text).vhost, vhost, "{text}");
        }
    }

    #[test]
    fn login_host_and_port() {
        let url = broker("amqp://us%40er:p%3Aw%2F@[::1]:5673/v?heartbeat=30");
        assert_eq!((url.user.as_str(), url.password.reveal()), ("us@er", "p:w/"));
        assert_eq!((url.host.as_str(), url.port, url.heartbeat), ("::1", 5673, Some(30)));
        let plain = broker("amqp://");
        assert_eq!((plain.user.as_str(), plain.password.reveal()), ("guest", "guest"));
        assert_eq!((plain.host.as_str(), plain.port), ("localhost", 5672));
    }

    /// Defect 21 of rusty-celery: amqps:// and rediss:// made it panic.
    #[test]
    fn defect_21_tls_schemes_are_understood() {
        let url = broker("amqps://h/v?ssl_ca_certs=/etc/ca.pem&ssl_certfile=c&ssl_keyfile=k");
        assert_eq!(url.port, 5671);
        assert_eq!(url.tls.unwrap().ca_certs.as_deref(), Some("/etc/ca.pem"));
        let url = redis("rediss://:pw@h:7000/2?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=%2Fca.pem");
        assert_eq!((url.db, url.tls.unwrap().ca_certs.as_deref()), (2, Some("/ca.pem")));
    }

    #[test]
    fn a_failover_list() {
        let urls = BrokerUrls::parse("amqp://u:secret@a;amqp://u:secret@b:5673/v").unwrap();
        assert_eq!(urls.redacted(), "amqp://u:**@a:5672/%2F;amqp://u:**@b:5673/v");
        assert_eq!(format!("{urls:?}"), urls.redacted());
    }

    #[test]
    fn redis_forms() {
        assert_eq!(redis("redis://h/0").address, RedisAddress::Tcp("h".into(), 6379));
        assert_eq!(redis("redis://").db, 0);
        assert_eq!(redis("redis://h/3").db, 3);
        assert_eq!(redis("redis://h?db=4").db, 4);
        let url = redis("redis://user:pa%40ss@h:6380/5?socket_timeout=2");
        assert_eq!(
            (url.user.as_deref(), url.password.as_ref().map(Secret::reveal)),
            (Some("user"), Some("pa@ss"))
        );
        assert_eq!((url.db, url.timeout), (5, Some(Duration::from_secs(2))));
        assert_eq!(url.to_string(), "redis://user:**@h:6380/5");
        let url = redis("redis+socket:///run/redis.sock?virtual_host=2");
        assert_eq!((url.address, url.db), (RedisAddress::Unix("/run/redis.sock".into()), 2));
        assert_eq!(BackendUrl::parse("disabled://").unwrap(), BackendUrl::Disabled);
        assert_eq!(BackendUrl::parse("").unwrap(), BackendUrl::Disabled);
    }

    #[test]
    fn mistakes_are_named_and_never_show_the_password() {
        for (text, expected) in [
            ("redis", "broker_url: not a URL, `://` is missing"),
            ("sqs://k:secret@x", "broker_url: scheme `sqs` is not supported, use amqp:// or amqps://"),
            ("amqp://u:secret@h:x", "broker_url: the port is no number from 1 to 65535"),
            (
                "amqps://u:secret@h?ssl_cert_reqs=CERT_NONE",
                "broker_url: ssl_cert_reqs=none is refused; give the authority with ssl_ca_certs instead",
            ),
        ] {
            let err = BrokerUrls::parse(text).unwrap_err();
            assert_eq!(err.to_string(), format!("configuration: {expected}"));
            assert!(!format!("{err:?}").contains("secret"));
        }
        for (text, expected) in [
            ("redis://h/x", "result_backend: `x` is no database number"),
            (
                "redis://h?ssl_ca_certs=f",
                "result_backend: `ssl_ca_certs` needs rediss:// instead of redis://",
            ),
        ] {
            assert_eq!(
                BackendUrl::parse(text).unwrap_err().to_string(),
                format!("configuration: {expected}")
            );
        }
    }

    #[test]
    fn redaction() {
        for (text, shown) in [
            ("amqp://u:p@h/v", "amqp://u:**@h/v"),
            ("amqp://u:p@ss@h/v;amqp://u:q@i", "amqp://u:**@h/v;amqp://u:**@i"),
            ("redis://:p@h", "redis://:**@h"),
            ("redis://h/0?password=x&db=1", "redis://h/0?password=**&db=1"),
            ("no url", "no url"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
