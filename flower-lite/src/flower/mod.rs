//! Flower 2.2's HTTP API: the same paths, parameters, statuses and JSON keys, so that scripts written for it go on
//! working. Errors are plain text, as there.
//!
//! Differences on purpose: reading needs no `FLOWER_UNAUTHENTICATED_API` (pages and API have one rule), control is off
//! until it is switched on (see [`crate::access`]), a task is known when some worker has registered it or an event has
//! named it (there is no Python registry here), and a list without a limit has at most 10,000 rows.

mod answer;
mod control;
mod lists;
mod parameters;
pub mod search;
mod shape;
mod submit;

use actix_web::dev::HttpServiceFactory;
use actix_web::web;
use actix_web::{HttpResponse, guard};

pub use answer::Refused;
pub(crate) use control::audited;

/// Everything below `/api` that is Flower's; to be put into a scope of that name.
pub(crate) fn services() -> Vec<actix_web::Resource> {
    let get = |path: &str, route: actix_web::Route| {
        web::resource(path).route(route).default_service(web::to(only_get))
    };
    let post = |path: &str, route: actix_web::Route| {
        web::resource(path).route(route).default_service(web::to(only_post))
    };
    vec![
        get("/workers", web::get().to(lists::workers)),
        get("/tasks", web::get().to(lists::tasks)),
        get("/task/types", web::get().to(lists::types)),
        get("/task/info/{id:.*}", web::get().to(lists::info)),
        get("/task/result/{id:.+}", web::get().to(submit::result)),
        get("/queues/length", web::get().to(lists::queues)),
        post("/task/apply/{name:.+}", web::post().to(submit::apply)),
        post("/task/async-apply/{name:.+}", web::post().to(submit::async_apply)),
        post("/task/send-task/{name:.+}", web::post().to(submit::send_task)),
        post("/task/abort/{id:.+}", web::post().to(submit::abort)),
        post("/task/revoke/{id:.+}", web::post().to(control::revoke)),
        post("/task/timeout/{name:.+}", web::post().to(control::timeout)),
        post("/task/rate-limit/{name:.+}", web::post().to(control::rate_limit)),
        post("/worker/shutdown/{name:.+}", web::post().to(control::shutdown)),
        post("/worker/pool/restart/{name:.+}", web::post().to(control::restart)),
        post("/worker/pool/grow/{name:.+}", web::post().to(control::grow)),
        post("/worker/pool/shrink/{name:.+}", web::post().to(control::shrink)),
        post("/worker/pool/autoscale/{name:.+}", web::post().to(control::autoscale)),
        post("/worker/queue/add-consumer/{name:.+}", web::post().to(control::add_consumer)),
        post("/worker/queue/cancel-consumer/{name:.+}", web::post().to(control::cancel_consumer)),
    ]
}

async fn only_get() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header(("Allow", "GET, HEAD")).finish()
}

async fn only_post() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header(("Allow", "POST")).finish()
}

/// `GET /workers?json=1`: the table behind Flower's page of workers. Without `json` the address is a page.
pub(crate) fn workers_table() -> impl HttpServiceFactory {
    let asks_for_json = |context: &guard::GuardContext<'_>| {
        let query = context.head().uri.query().unwrap_or_default();
        query.split('&').any(|pair| matches!(pair, "json=1" | "json=true" | "json=True" | "json=yes"))
    };
    web::resource("/workers").guard(guard::fn_guard(asks_for_json)).route(web::get().to(lists::workers_table))
}
