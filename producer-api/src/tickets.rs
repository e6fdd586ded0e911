//! One-time tickets: how a browser opens a stream, since `EventSource` can send no token.
//!
//! A ticket is a random text in the address, good for the named streams, once and for a short time; only its digest is
//! stored. The stream that it opens begins with the next ticket, so that a page can come back after a break.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dto::stream::Ticket;
use crate::dto::submit::hex;
use crate::problem::{Kind, Problem};
use crate::state::Api;
use crate::submit::within;

/// What a ticket opens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    /// Paths of streams.
    pub paths: Vec<String>,
    /// Seconds for which it, and the next one, can be used.
    pub ttl: u64,
}

/// Makes a ticket.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn issue(api: &Api, grant: &Grant) -> Result<Ticket, Problem> {
    let unavailable = |reason: String| Problem::new(Kind::ResultBackendUnavailable, reason).retry_after(2);
    let Some(notes) = api.celery.notes() else {
        return Err(unavailable("the result backend keeps no notes".to_owned()));
    };
    let ticket = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let ttl = Duration::from_secs(grant.ttl);
    let value = serde_json::to_vec(grant).unwrap_or_default();
    within(notes.put(&key(&ticket), &value, ttl)).await.map_err(unavailable)?;
    let expires = crate::clock::now().checked_add(ttl).map(celery_protocol::WireTime::isoformat);
    Ok(Ticket { ticket, expires_at: expires.unwrap_or_default() })
}

/// Uses a ticket up for the stream at `path`.
pub async fn redeem(api: &Api, ticket: &str, path: &str) -> Option<Grant> {
    let notes = api.celery.notes()?;
    let value = within(notes.take(&key(ticket))).await.ok()??;
    let grant: Grant = serde_json::from_slice(&value).ok()?;
    grant.paths.iter().any(|granted| granted == path).then_some(grant)
}

fn key(ticket: &str) -> String {
    format!("ticket:{}", hex(&Sha256::digest(ticket.as_bytes())))
}
