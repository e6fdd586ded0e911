//! lapin's errors and RabbitMQ's reply texts as errors of ours.

use lapin::ErrorKind;

use super::backoff::Failure;
use crate::error::{BrokerError, BrokerErrorKind, Mismatch};

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
/// What RabbitMQ closes the connection with when the virtual host does not exist or is not permitted.
const NOT_ALLOWED: u16 = 530;

/// An error of an operation on an open channel.
pub(super) fn on_channel(err: lapin::Error, what: &str) -> BrokerError {
    let kind = match err.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.get_id() {
            ACCESS_REFUSED => BrokerErrorKind::AccessRefused,
            NOT_FOUND => BrokerErrorKind::NotFound,
            RESOURCE_LOCKED => BrokerErrorKind::ResourceLocked,
            PRECONDITION_FAILED => match mismatch(amqp.get_message().as_str()) {
                Some(mismatch) => BrokerErrorKind::PreconditionFailed(Box::new(mismatch)),
                None => BrokerErrorKind::ChannelClosed,
            },
            _ if err.is_amqp_hard_error() => BrokerErrorKind::ConnectionLost,
            _ => BrokerErrorKind::ChannelClosed,
        },
        ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::ChannelsLimitReached => BrokerErrorKind::ChannelClosed,
        ErrorKind::SerialisationError(_) => BrokerErrorKind::Encode,
        _ => BrokerErrorKind::ConnectionLost,
    };
    BrokerError::new(kind, format!("{what}: {err}")).caused_by(err)
}

/// An error while connecting, and how it counts for the next attempt.
pub(super) fn on_connect(err: lapin::Error, node: &str) -> (BrokerError, Failure) {
    let (kind, failure) = match err.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.get_id() {
            ACCESS_REFUSED | NOT_ALLOWED => (BrokerErrorKind::Auth, Failure::Refused),
            _ => (BrokerErrorKind::Connect, Failure::Unreachable),
        },
        ErrorKind::AuthProviderError(_) => (BrokerErrorKind::Auth, Failure::Refused),
        // RabbitMQ before 3.2 hangs up on a bad login instead of saying so; so does a TLS port spoken to in plain.
        _ => (BrokerErrorKind::Connect, Failure::Unreachable),
    };
    (BrokerError::new(kind, format!("{node}: {err}")).caused_by(err), failure)
}

/// Reads RabbitMQ's text for a declaration that differs from what exists, for instance
/// `PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received none but current is
/// the value '10' of type 'signedint'`.
fn mismatch(text: &str) -> Option<Mismatch> {
    let rest = text.split_once("inequivalent arg '")?.1;
    let (argument, rest) = rest.split_once("' for ")?;
    let (entity, rest) = rest.split_once(" '")?;
    let (name, rest) = rest.split_once("' in vhost '")?;
    let values = rest.split_once("': received ")?.1;
    let (ours, theirs) = values.split_once(" but current is ").unwrap_or((values, "something else"));
    Some(Mismatch {
        entity: entity.to_owned(),
        name: name.to_owned(),
        argument: argument.to_owned(),
        ours: value(ours),
        theirs: value(theirs),
    })
}

/// `the value '10' of type 'signedint'`, `'true'` or `none` → `10`, `true`, `none`.
fn value(text: &str) -> String {
    let text = text.strip_prefix("the value ").unwrap_or(text);
    let text = text.split_once(" of type ").map_or(text, |(value, _)| value);
    text.trim().trim_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rabbitmqs_mismatch_texts() {
        for (text, expected) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received none but \
                 current is the value '10' of type 'signedint'",
                ("queue", "q", "x-max-priority", "none", "10"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'a b' in vhost 'v': received 'false' but \
                 current is 'true'",
                ("queue", "a b", "durable", "false", "true"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but \
                 current is 'direct'",
                ("exchange", "x", "type", "topic", "direct"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value \
                 'quorum' of type 'longstr' but curr",
                ("queue", "q", "x-queue-type", "quorum", "something else"),
            ),
        ] {
            let found = mismatch(text).unwrap();
            let seen = (
                found.entity.as_str(),
                found.name.as_str(),
                found.argument.as_str(),
                found.ours.as_str(),
                found.theirs.as_str(),
            );
            // The last text is cut off at 255 bytes as RabbitMQ does.
            let (entity, name, argument, ours, theirs) = expected;
            assert_eq!((seen.0, seen.1, seen.2, seen.4), (entity, name, argument, theirs));
            assert!(seen.3.starts_with(ours), "{}", seen.3);
        }
        assert_eq!(mismatch("PRECONDITION_FAILED - unknown delivery tag 7"), None);
    }
}
