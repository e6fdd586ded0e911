//! Which hosts are answered for.
//!
//! A page of a stranger can have its own name resolve to 127.0.0.1 and then read a monitor that trusts whoever can reach
//! it (DNS rebinding). So a monitor that listens on loopback answers only to requests that call it by such a name, and any
//! other one, if it was told its names, by those.

use std::net::IpAddr;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, ResponseError, http::header};

use crate::error::Problem;

/// The hosts that a monitor answers for.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// Whatever it is called.
    Any,
    /// The names of this machine's loopback, and these.
    Loopback(Vec<String>),
    /// These, and any IP address: a stranger's page can't have one for a name.
    Named(Vec<String>),
}

impl Hosts {
    /// Whether `host`, as a request has it, is one of them.
    #[must_use]
    pub fn allow(&self, host: Option<&str>) -> bool {
        let (others, addresses) = match self {
            Hosts::Any => return true,
            Hosts::Loopback(others) => (others, false),
            Hosts::Named(others) => (others, true),
        };
        let Some(name) = host.map(without_port) else { return false };
        if addresses && name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok() {
            return true;
        }
        ["localhost", "127.0.0.1", "[::1]"].contains(&name)
            || name.ends_with(".localhost")
            || others.iter().any(|other| other.eq_ignore_ascii_case(name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Lets a request through if it is for one of the [`Hosts`].
///
/// # Errors
/// None: what isn't is answered with 421.
pub async fn only_own_hosts(
    hosts: Data<Hosts>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().host());
    if hosts.allow(host) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let refused = Problem::wrong_host().error_response();
    Ok(request.into_response(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_resolves_here_is_not_enough() {
        let hosts = Hosts::Loopback(vec!["monitor.example".into()]);
        for (host, allowed) in [
            (Some("127.0.0.1:5555"), true),
            (Some("localhost"), true),
            (Some("[::1]:5555"), true),
            (Some("[::1]"), true),
            (Some("flower.localhost:5555"), true),
            (Some("Monitor.Example:5555"), true),
            (Some("evil.example:5555"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(hosts.allow(host), allowed, "{host:?}");
        }
        assert!(Hosts::Any.allow(Some("evil.example")));
        let named = Hosts::Named(vec!["monitor.example".into()]);
        for (host, allowed) in [
            ("monitor.example", true),
            ("10.1.2.3:5555", true),
            ("[fd00::1]:5555", true),
            ("localhost:5555", true),
            ("evil.example", false),
            ("10.1.2.3.evil.example", false),
        ] {
            assert_eq!(named.allow(Some(host)), allowed, "{host}");
        }
    }
}
