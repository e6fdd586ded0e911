//! Whether a call may run now, later or never. Pure: asked on arrival, again when its time has come, and again right
//! before it starts.

use std::time::SystemTime;

use celery_protocol::{Headers, TaskId};

use super::revoked::Revoked;

/// What to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start it.
    Run,
    /// Hold it until then.
    Later(SystemTime),
    /// Do not run it: REVOKED.
    Never(Revocation),
}

/// Why a call is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revocation {
    /// Its `expires` has passed.
    Expired,
    /// It was revoked by id or by stamp.
    Revoked,
    /// It was ended by `terminate` while it ran.
    Terminated,
}

impl Revocation {
    /// The argument of the stored `TaskRevokedError`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Revocation::Expired => "expired",
            Revocation::Revoked => "revoked",
            Revocation::Terminated => "terminated",
        }
    }
}

/// Decides. Expiry comes before revocation, as in Celery, which shows in the stored reason.
pub(crate) fn admit(headers: &Headers, revoked: &Revoked<TaskId>, now: SystemTime) -> Verdict {
    if headers.expires.is_some_and(|expires| now > SystemTime::from(expires)) {
        return Verdict::Never(Revocation::Expired);
    }
    if !revoked.is_empty() && is_revoked(headers, revoked) {
        return Verdict::Never(Revocation::Revoked);
    }
    match headers.eta.map(SystemTime::from) {
        Some(eta) if eta > now => Verdict::Later(eta),
        _ => Verdict::Run,
    }
}

fn is_revoked(headers: &Headers, revoked: &Revoked<TaskId>) -> bool {
    let stamps = headers.stamped_headers.iter().flatten();
    let stamps = stamps.filter_map(|name| Some((name.as_str(), headers.stamps.get(name)?)));
    revoked.has(&headers.id) || revoked.has_stamp(stamps)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use celery_protocol::TaskName;
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn headers(eta: Option<u64>, expires: Option<u64>) -> Headers {
        let mut headers = Headers::new(TaskName::parse("t").unwrap(), TaskId::parse("a").unwrap());
        headers.eta = eta.map(|seconds| at(seconds).into());
        headers.expires = expires.map(|seconds| at(seconds).into());
        headers
    }

    #[test]
    fn a_call_runs_now_later_or_never() {
        let none = Revoked::default();
        let mut some = Revoked::default();
        some.add(TaskId::parse("a").unwrap(), at(0));
        for (eta, expires, revoked, expected) in [
            (None, None, &none, Verdict::Run),
            (Some(100), None, &none, Verdict::Run),
            (Some(50), None, &none, Verdict::Run),
            (Some(101), None, &none, Verdict::Later(at(101))),
            (None, Some(99), &none, Verdict::Never(Revocation::Expired)),
            (None, Some(100), &none, Verdict::Run),
            (Some(200), Some(150), &none, Verdict::Later(at(200))),
            (None, None, &some, Verdict::Never(Revocation::Revoked)),
            (Some(200), None, &some, Verdict::Never(Revocation::Revoked)),
            (None, Some(99), &some, Verdict::Never(Revocation::Expired)),
        ] {
            assert_eq!(
                admit(&headers(eta, expires), revoked, at(100)),
                expected,
                "eta {eta:?} expires {expires:?}"
            );
        }
    }

    #[test]
    fn only_declared_stamps_revoke() {
        let mut revoked = Revoked::default();
        revoked.add_stamp("job", [json!("j1")]);
        let mut call = headers(None, None);
        call.stamps.insert("job".into(), json!("j1"));
        assert_eq!(admit(&call, &revoked, at(0)), Verdict::Run);
        call.stamped_headers = Some(vec!["job".into()]);
        assert_eq!(admit(&call, &revoked, at(0)), Verdict::Never(Revocation::Revoked));
    }
}
