//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): the same request twice has one effect and one answer.
//!
//! A note in the result backend says what became of the first request. Its ids are derived from a seed in the note, so
//! that a request whose outcome is unknown publishes under the same ids when it is sent again.

use std::future::Future;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use celery_protocol::TaskId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::dto::submit::hex;
use crate::problem::{Kind, Outcome, Problem};
use crate::request_id;
use crate::state::Api;
use crate::submit::{Identity, within};

/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// How long keys are remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// A request that has been in progress for longer is dead.
const PATIENCE: f64 = 120.0;
/// Answers that are kept for replay; of a longer one only its address is, and whoever sends the request again is told.
const MAX_KEPT: usize = 1 << 20;
/// The longest key.
const MAX_KEY: usize = 255;

/// Where the ids of a request come from.
#[derive(Debug, Clone)]
pub struct Ids {
    seed: Option<Uuid>,
}

impl Ids {
    /// Random ids.
    pub const RANDOM: Ids = Ids { seed: None };

    /// The id of the part `index` of the request.
    pub fn id(&self, index: usize) -> TaskId {
        match self.seed {
            None => Uuid::new_v4().into(),
            Some(seed) => {
                let mut digest = Sha256::new();
                digest.update(seed.as_bytes());
                digest.update((index as u64).to_be_bytes());
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&digest.finalize()[..16]);
                uuid::Builder::from_random_bytes(bytes).into_uuid().into()
            }
        }
    }

    /// Whether the ids can come again.
    pub fn identity(&self) -> Identity {
        if self.seed.is_some() { Identity::Chosen } else { Identity::Fresh }
    }
}

/// How a request ended, for those who send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Its answer stands.
    Done,
    /// Part of it may have been published: it is to be run again, under the same ids.
    Unknown,
    /// Nothing was published: it is as if it had not been.
    Nothing,
    /// Part of it was published and revoked: it may be run again, but under new ids.
    CalledBack,
}

/// What is known of a request.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    state: State,
    fingerprint: String,
    seed: Uuid,
    /// Since when, in seconds since 1970.
    at: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    /// The address in an answer that was too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    InFlight,
    Done,
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// The key of a request, if it has one.
///
/// # Errors
/// `invalid-parameter`: it is not one string.
pub fn key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let mut values = request.headers().get_all("idempotency-key");
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |detail: &str| {
        Err(Problem::field(Kind::InvalidParameter, "Idempotency-Key", detail).outcome(Outcome::NotPublished))
    };
    if values.next().is_some() {
        return refuse("is given twice");
    }
    match value.to_str().ok().and_then(parse) {
        Some(key) => Ok(Some(key)),
        None => refuse("must be a string in double quotes, of 1 to 255 visible ASCII characters"),
    }
}

/// Reads a structured field's string; one without quotes is taken too.
fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    let key = match text.strip_prefix('"') {
        None if text.contains(['"', ';', ',', ' ', '\\']) => return None,
        None => text.to_owned(),
        Some(rest) => {
            let mut key = String::new();
            let mut letters = rest.strip_suffix('"')?.chars();
            while let Some(letter) = letters.next() {
                match letter {
                    '"' => return None,
                    '\\' => key.push(letters.next().filter(|next| matches!(next, '"' | '\\'))?),
                    letter => key.push(letter),
                }
            }
            key
        }
    };
    let visible = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (visible && (1..=MAX_KEY).contains(&key.len())).then_some(key)
}

/// Runs a request once. `what` is everything that makes it this request and no other. Once begun it goes on to its end,
/// also when the client has gone: who comes back gets the answer.
///
/// # Errors
/// `idempotency-in-progress`, `idempotency-key-reused`, or whatever `run` fails with.
pub async fn once<F>(
    api: web::Data<Api>,
    request: &HttpRequest,
    what: &str,
    run: impl FnOnce(Ids) -> F + 'static,
) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<(HttpResponse, Settled), Problem>> + 'static,
{
    let Some(given) = key(request)? else { return Ok(run(Ids::RANDOM).await?.0) };
    let place = place(request, &given);
    let fingerprint = hex(&Sha256::digest(format!("{}\n{what}", request.query_string()).as_bytes()));
    let tracker = api.under_way.clone();
    let id = request_id::current().unwrap_or_default();
    let running = tracker.spawn_local(request_id::scope(id, keyed(api, place, fingerprint, run)));
    running.await.unwrap_or_else(|err| {
        let problem = Problem::new(Kind::Internal, format!("the request broke off: {err}"));
        Err(problem.outcome(Outcome::Unknown))
    })
}

async fn keyed<F>(
    api: web::Data<Api>,
    place: String,
    fingerprint: String,
    run: impl FnOnce(Ids) -> F,
) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<(HttpResponse, Settled), Problem>>,
{
    let Some(notes) = api.celery.notes() else {
        return unprotected(run, "the result backend keeps no notes").await;
    };
    let now = crate::clock::now().unix_seconds();
    let seed = Uuid::new_v4();
    let mut note = Note { state: State::InFlight, fingerprint, seed, at: now, answer: None, location: None };
    let mut mine = encode(&note);
    let earlier = match within(notes.put_new(&place, &mine, REMEMBERED)).await {
        Ok(earlier) => earlier,
        Err(reason) => return unprotected(run, &reason).await,
    };
    // What an earlier request with this key may have published stays possible, whatever becomes of this one.
    let resumed = earlier.is_some();
    if let Some(bytes) = earlier {
        let Ok(earlier) = serde_json::from_slice::<Note>(&bytes) else {
            return unprotected(run, "what is stored under this key cannot be read").await;
        };
        if earlier.fingerprint != note.fingerprint {
            let detail = "an earlier request with this key was another one";
            return Err(Problem::new(Kind::IdempotencyKeyReused, detail).outcome(Outcome::NotPublished));
        }
        if let Some(answer) = earlier.answer {
            return Ok(answer.replay());
        }
        if earlier.state == State::Done {
            return Err(not_kept(earlier.location));
        }
        note.seed = earlier.seed;
        mine = encode(&note);
        let alive = earlier.state == State::InFlight && now - earlier.at < PATIENCE;
        let taken = !alive && within(notes.replace(&place, &bytes, &mine, REMEMBERED)).await == Ok(true);
        if !taken {
            let problem =
                Problem::new(Kind::IdempotencyInProgress, "the first request has not been answered yet");
            return Err(problem.outcome(Outcome::Unknown).retry_after(1));
        }
    }
    let ran = run(Ids { seed: Some(note.seed) }).await;
    let (answer, settled) = match ran {
        Ok((response, settled)) => {
            let (answer, response) = Answer::of(response).await;
            (Ok((answer, response)), settled)
        }
        Err(problem) if resumed => (Err(problem.outcome(Outcome::Unknown)), Settled::Unknown),
        Err(problem) => {
            let settled = match problem.known_outcome() {
                Some(Outcome::Unknown) => Settled::Unknown,
                _ => Settled::Nothing,
            };
            (Err(problem), settled)
        }
    };
    let noted = match settled {
        Settled::Nothing if !resumed => within(notes.remove(&place, &mine)).await,
        Settled::CalledBack => within(notes.remove(&place, &mine)).await,
        Settled::Nothing | Settled::Done | Settled::Unknown => {
            note.state = if settled == Settled::Done { State::Done } else { State::Unknown };
            if let (Settled::Done, Ok((answer, _))) = (settled, &answer) {
                match answer.body.len() <= MAX_KEPT {
                    true => note.answer = Some(answer.clone()),
                    false => note.location = answer.location(),
                }
            }
            within(notes.replace(&place, &mine, &encode(&note), REMEMBERED)).await
        }
    };
    if let Err(reason) = noted {
        tracing::warn!(reason, "what became of an idempotent request could not be noted");
    }
    answer.map(|(_, response)| response)
}

impl Clone for Answer {
    fn clone(&self) -> Self {
        Answer { status: self.status, headers: self.headers.clone(), body: self.body.clone() }
    }
}

impl Answer {
    /// Reads a response, which is given back whole.
    async fn of(response: HttpResponse) -> (Answer, HttpResponse) {
        let (head, body) = response.into_parts();
        let bytes = actix_web::body::to_bytes(body).await.unwrap_or_default();
        let kept = [header::CONTENT_TYPE, header::LOCATION, header::RETRY_AFTER];
        let headers = kept.iter().filter_map(|name| {
            let value = head.headers().get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        let answer = Answer {
            status: head.status().as_u16(),
            headers: headers.collect(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
        };
        (answer, head.set_body(bytes).map_into_boxed_body())
    }

    fn location(&self) -> Option<String> {
        let found = self.headers.iter().find(|(name, _)| name == header::LOCATION.as_str());
        found.map(|(_, value)| value.clone())
    }

    fn replay(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = HttpResponse::build(status);
        for (name, value) in self.headers {
            response.insert_header((name, value));
        }
        response
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((REPLAYED, "true"))
            .body(self.body)
    }
}

/// The answer to a repetition when that of the first request was too long.
fn not_kept(location: Option<String>) -> Problem {
    let detail = "the first request was carried out; its answer was too long to be kept, and nothing was published now";
    let problem = Problem::new(Kind::AnswerNotKept, detail).outcome(Outcome::Published);
    match location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        Some(location) => problem.header(header::LOCATION, location),
        None => problem,
    }
}

/// Runs without the protection that a note gives, and says so in a header.
async fn unprotected<F>(run: impl FnOnce(Ids) -> F, reason: &str) -> Result<HttpResponse, Problem>
where
    F: Future<Output = Result<(HttpResponse, Settled), Problem>>,
{
    tracing::warn!(reason, "an idempotency key could not be honoured");
    let (mut response, _) = run(Ids::RANDOM).await?;
    let warning = HeaderValue::from_static("199 - \"idempotency-not-enforced\"");
    response.headers_mut().insert(header::WARNING, warning);
    Ok(response)
}

/// Where the note of a request is kept: keys of other clients and addresses do not meet.
fn place(request: &HttpRequest, key: &str) -> String {
    let mut digest = Sha256::new();
    let client = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    for part in [client, request.method().as_str().as_bytes(), request.path().as_bytes(), key.as_bytes()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    format!("idempotency:{}", hex(&digest.finalize()))
}

fn encode(note: &Note) -> Vec<u8> {
    serde_json::to_vec(note).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_string() {
        let long = "x".repeat(256);
        for (text, key) in [
            ("\"8e03\"", Some("8e03")),
            (" 8e03 ", Some("8e03")),
            ("\"a \\\" b\\\\\"", Some("a \" b\\")),
            ("", None),
            ("\"\"", None),
            ("\"a", None),
            ("a\"", None),
            ("\"a\"b\"", None),
            ("\"a\\x\"", None),
            ("a, b", None),
            (long.as_str(), None),
        ] {
            assert_eq!(parse(text).as_deref(), key, "{text}");
        }
    }

    #[test]
    fn derived_ids_come_again_and_differ_from_each_other() {
        let ids = Ids { seed: Some(Uuid::new_v4()) };
        assert_eq!(ids.id(3), ids.id(3));
        assert_ne!(ids.id(3), ids.id(4));
        assert_ne!(Ids::RANDOM.id(0), Ids::RANDOM.id(0));
    }
}
