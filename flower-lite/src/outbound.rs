//! Requests of our own, to webhooks and identity providers: HTTP/1.1, over TLS with the system's certificates, with one
//! deadline for all of it and a bound on what is read. No redirects, no proxies, no cookies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// The longest answer.
const MAX_ANSWER: usize = 1 << 20;

/// Whoever sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer. It names the host, never path or query: those may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// An address that requests can go to.
///
/// # Errors
/// Says what is wrong with it, without showing it.
pub fn address(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.authority() {
        Some(authority) if known && !authority.as_str().contains('@') && !authority.host().is_empty() => {
            Ok(uri)
        }
        _ => Err("must be like https://host/path, without user and password"),
    }
}

impl Client {
    /// With the system's certificates.
    ///
    /// # Errors
    /// TLS can't be used.
    pub fn new() -> Result<Client, String> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::debug!("no certificates were found: only http:// can be asked");
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Asks, within `deadline`.
    ///
    /// # Errors
    /// No connection, no answer in time, or one that is too long.
    pub async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Answer, NoAnswer> {
        let host = uri.host().unwrap_or_default().to_owned();
        let told = |what: &str| NoAnswer(format!("{host}: {what}"));
        let asked = self.ask(method, uri, headers, body);
        match tokio::time::timeout(deadline, asked).await {
            Ok(answer) => answer.map_err(|what| told(&what)),
            Err(_) => Err(told(&format!("no answer within {deadline:?}"))),
        }
    }

    async fn ask(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, String> {
        let host = uri.host().ok_or("no host")?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("flower-lite/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        if !secure {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(stream, request).await
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(told)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the answer can't be read: {error}"))?.to_bytes().to_vec();
        Ok(Answer { status, body })
    };
    // The connection is driven here, beside the answer, and ends with it.
    let mut answer = std::pin::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(told)?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_not_shown() {
        for right in ["http://h", "https://h:8443/a?b=c", "http://[::1]:80/x", "http://127.0.0.1/x"] {
            assert!(address(right).is_ok(), "{right}");
        }
        for wrong in ["", "h", "/x", "ftp://h/x", "https://u:canary@h/x", "https:///x", "https://"] {
            let told = address(wrong).expect_err(wrong);
            assert!(!told.contains("canary"));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_without_the_path() {
        let client = Client::new().expect("TLS");
        let uri = address("http://127.0.0.1:1/canary").expect("an address");
        let told = client.send(Method::GET, &uri, &[], Vec::new(), Duration::from_secs(5)).await;
        let told = told.expect_err("nobody listens").to_string();
        assert!(told.starts_with("127.0.0.1: ") && !told.contains("canary"), "{told}");
    }
}
