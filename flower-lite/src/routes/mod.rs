//! What is served, listed in one place.

pub mod aggregates;
pub mod health;
pub mod history;
pub mod live;
pub mod openapi;
pub mod overview;
pub mod pages;
pub mod parameters;
pub mod tasks;
pub mod workers;

use actix_web::middleware::{Compress, DefaultHeaders, from_fn};
use actix_web::web;
use actix_web::{HttpResponse, Scope};

use crate::access::login;
use crate::actions::{self, bulk};
use crate::alerts;
use crate::error::Problem;
use crate::monitor::Monitor;
use crate::{failures, flower};

/// What the pages may load: their own files, and nothing from elsewhere; nobody may frame them.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'self'; \
     frame-ancestors 'none'";

/// The monitor as an actix scope under `prefix` (`""` or `/` for the root), to be mounted into any program.
///
/// Pages, their assets, `/api/v2`, `/healthcheck`, `/livez`, `/readyz` and `/metrics` to read, and Flower's API, which
/// changes something if [`Control`](crate::access::Control) says that it may. The program that mounts it decides who may
/// come in.
#[must_use]
pub fn scope(monitor: Monitor, prefix: &str) -> Scope {
    let prefix = normal_prefix(prefix);
    let inner = web::scope("")
        .app_data(web::Data::new(monitor))
        .app_data(web::Data::new(pages::Base::new(&prefix)))
        // Not compressed: a compressor would hold events back.
        .route("/api/v2/stream", web::get().to(live::stream))
        .service(api())
        .service(flower::workers_table())
        .service(resource("/healthcheck", web::get().to(health::healthcheck)))
        .service(resource("/livez", web::get().to(health::livez)))
        .service(resource("/readyz", web::get().to(health::readyz)))
        .service(resource("/metrics", web::get().to(health::metrics)))
        .service(resource("/assets/{path:.+}", web::get().to(pages::asset)))
        .default_service(web::get().to(pages::page))
        .wrap(headers(None));
    web::scope(&prefix).service(inner)
}

/// What every answer says to browsers. `public_url` is the address that they know.
pub(crate) fn headers(public_url: Option<&str>) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        .add(("Content-Security-Policy", CONTENT_SECURITY_POLICY))
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("X-Frame-Options", "DENY"))
        .add(("Referrer-Policy", "no-referrer"))
        .add(("Cross-Origin-Opener-Policy", "same-origin"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
        // Where a route doesn't say otherwise: what is shown here is of this moment, and maybe confidential.
        .add(("Cache-Control", "no-store"));
    if public_url.is_some_and(|url| url.starts_with("https://")) {
        headers.add(("Strict-Transport-Security", "max-age=31536000"))
    } else {
        headers
    }
}

fn api() -> impl actix_web::dev::HttpServiceFactory {
    flower::services()
        .into_iter()
        .fold(web::scope("/api"), Scope::service)
        .service(resource("/v2/me", web::get().to(login::me)))
        .service(resource("/v2/overview", web::get().to(overview::overview)))
        .service(resource("/v2/workers", web::get().to(workers::list)))
        .service(resource("/v2/workers/{name}/answers", web::get().to(workers::answers)))
        .service(resource("/v2/queues", web::get().to(workers::queues)))
        .service(resource("/v2/openapi.json", web::get().to(openapi::openapi)))
        .service(resource("/v2/workers/{name:.+}", web::get().to(workers::one)))
        .service(resource("/v2/tasks", web::get().to(tasks::list)))
        .service(resource("/v2/tasks/{id:.+}", web::get().to(tasks::one)))
        .service(resource("/v2/history", web::get().to(history::list)))
        .service(resource("/v2/workflows/{root:.+}", web::get().to(history::workflow)))
        .service(changes("/v2/actions/{action}", web::post().to(actions::act)))
        .service(
            web::resource("/v2/bulk")
                .route(web::get().to(bulk::list))
                .route(web::post().to(bulk::begin))
                .default_service(web::to(wrong_method)),
        )
        .service(
            web::resource("/v2/bulk/{id}")
                .route(web::get().to(bulk::one))
                .route(web::delete().to(bulk::cancel))
                .default_service(web::to(wrong_method)),
        )
        .service(resource("/v2/aggregates", web::get().to(aggregates::aggregates)))
        .service(resource("/v2/alerts", web::get().to(alerts::list)))
        .service(resource("/v2/failures", web::get().to(failures::list)))
        .service(resource("/v2/schedules", web::get().to(actions::schedules::list)))
        .service(resource("/v2/audit", web::get().to(actions::audit)))
        .service(resource("/v2/arguments/{id:.+}", web::get().to(actions::arguments::show)))
        .service(resource("/v2/dead-letters", web::get().to(actions::dead::list)))
        .service(resource("/v2/dead-letters/{queue:.+}", web::get().to(actions::dead::peek)))
        .default_service(web::to(no_such_api))
        .wrap(from_fn(flower::audited))
        .wrap(Compress::default())
}

/// A path with one way to be asked; every other method is answered with 405.
fn resource(path: &str, get: actix_web::Route) -> actix_web::Resource {
    web::resource(path).route(get).default_service(web::to(wrong_method))
}

/// A path that changes something when it is posted to.
fn changes(path: &str, post: actix_web::Route) -> actix_web::Resource {
    web::resource(path).route(post).default_service(web::to(only_post))
}

async fn only_post() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header(("Allow", "POST")).finish()
}

async fn wrong_method() -> Result<HttpResponse, Problem> {
    Err(Problem::wrong_method())
}

async fn no_such_api(request: actix_web::HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::not_found(format!("there is no {}", request.path())))
}

/// `""` for the root, else with a slash in front and none behind.
pub(crate) fn normal_prefix(prefix: &str) -> String {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { String::new() } else { format!("/{prefix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_may_be_written_in_any_way() {
        for (written, normal) in
            [("", ""), ("/", ""), ("dashboard", "/dashboard"), ("/dashboard/", "/dashboard"), ("a/b", "/a/b")]
        {
            assert_eq!(normal_prefix(written), normal);
        }
    }
}
