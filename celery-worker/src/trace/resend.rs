//! The message of a retry: the call as it came, and what a retry changes of it.
//!
//! Everything that is not named here is sent again as it was, unknown headers and properties too. Only the headers
//! that RabbitMQ adds when it dead-letters are left out: with them it would take the retry for a message that runs in
//! circles, and drop it.

use std::time::SystemTime;

use celery_broker::Route;
use celery_protocol::{Body, Message, WireTime, repr};

use crate::context::Request;
use crate::task::Resend;

/// Where to send the retry, and the message.
pub(super) fn message(request: &Request, resend: &Resend, now: SystemTime) -> (Route, Message) {
    let original = request.message();
    let mut headers = original.headers.clone();
    headers.retries = headers.retries.saturating_add(1);
    headers.root_id = Some(headers.root().clone());
    headers.parent_id = Some(headers.id.clone());
    headers.eta = Some(WireTime::from(resend.due));
    headers.extra = headers.extra_to_resend();
    let mut properties = original.properties.clone();
    if let Some(expires) = resend.expires {
        headers.expires = Some(WireTime::from(expires));
    }
    properties.expiration = headers.expires.map(|expires| expiration(SystemTime::from(expires), now));
    if resend.priority.is_some() {
        properties.priority = resend.priority;
    }
    let body = match (&resend.args, &resend.kwargs) {
        (None, None) => original.body.clone(),
        (args, kwargs) => {
            let args = args.as_ref().unwrap_or(request.args()).clone();
            let kwargs = kwargs.as_ref().unwrap_or(request.kwargs()).clone();
            headers.argsrepr = Some(repr::argsrepr(args.as_slice()));
            headers.kwargsrepr = Some(repr::kwargsrepr(kwargs.as_slice()));
            headers.compression = None;
            properties.content_type = Some("application/json".to_owned());
            properties.content_encoding = Some("utf-8".to_owned());
            Body { args, kwargs, embed: request.embed().clone() }.encode_json()
        }
    };
    (route(request, resend), Message { properties, headers, body })
}

/// To the queue it came from, unless the task named another.
fn route(request: &Request, resend: &Resend) -> Route {
    match &resend.queue {
        Some(queue) => Route::queue(queue.as_str()),
        None => origin(request),
    }
}

/// The way a message came, so that it can go the same way again. One that came through Celery's delayed delivery
/// carries 28 bits of delay before its routing key, and an exchange that is part of the ladder.
pub(crate) fn origin(request: &Request) -> Route {
    let delivery = request.delivery();
    if delivery.exchange.starts_with("celery_delayed_") {
        return Route::queue(delivery.queue.as_str());
    }
    Route { exchange: delivery.exchange.clone(), routing_key: delivery.routing_key.clone() }
}

/// The AMQP property: milliseconds left, in digits.
fn expiration(expires: SystemTime, now: SystemTime) -> String {
    expires.duration_since(now).unwrap_or_default().as_millis().to_string()
}
