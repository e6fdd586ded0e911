//! The Redis client's errors as errors of ours.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::{BackendError, BackendErrorKind};

/// Classifies an error by what can be done about it.
pub(super) fn of(err: RedisError, what: &str) -> BackendError {
    let kind = match err.kind() {
        ErrorKind::AuthenticationFailed => BackendErrorKind::Auth,
        ErrorKind::InvalidClientConfig => BackendErrorKind::Config,
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
            BackendErrorKind::ReadOnly
        }
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain) => {
            BackendErrorKind::Loading
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => BackendErrorKind::Auth,
        _ if err.is_timeout() => BackendErrorKind::Timeout,
        _ if err.is_io_error() || err.is_connection_dropped() || err.is_connection_refusal() => {
            BackendErrorKind::Connect
        }
        _ => by_text(&err),
    };
    BackendError::new(kind, what).caused_by(err)
}

/// What the client does not tell apart: the code before the server's text, and errors inside of scripts, where the code
/// stands in the text.
fn by_text(err: &RedisError) -> BackendErrorKind {
    let text = err.to_string();
    let has = |word: &str| err.code() == Some(word) || text.contains(word);
    if has("NOAUTH") || has("WRONGPASS") || has("NOPERM") {
        BackendErrorKind::Auth
    } else if has("READONLY") {
        BackendErrorKind::ReadOnly
    } else if has("LOADING") || has("BUSY ") {
        BackendErrorKind::Loading
    } else if has("OOM") {
        BackendErrorKind::OutOfMemory
    } else if text.contains("max number of clients") {
        BackendErrorKind::Connect
    } else {
        BackendErrorKind::Server
    }
}

/// Whether a script must be loaded first.
pub(super) fn is_unknown_script(err: &RedisError) -> bool {
    err.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the connection is of no use any more.
pub(super) fn breaks_connection(err: &RedisError) -> bool {
    // A replica that was a master: the master is found by connecting again.
    err.is_unrecoverable_error() || err.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}
