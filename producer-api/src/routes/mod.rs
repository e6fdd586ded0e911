//! Every address of this API in one table, and the OpenAPI document that describes the same addresses.
//!
//! Routing goes through [`Endpoint`] and not through actix's attribute macros: those answer a wrong method with 404 and
//! know no HEAD. Here a wrong method is a 405 with `Allow`, every GET answers HEAD, and a test compares the table with
//! the document.
#![expect(unused_qualifications, reason = "written by utoipa::path for every query extractor")]

pub mod batch;
pub mod canvas;
pub mod events;
pub mod groups;
pub mod health;
pub mod list;
pub mod lookup;
pub mod ndjson;
pub mod openapi;
pub mod problems;
pub mod results;
pub mod tasks;
pub mod tickets;
pub mod walkthrough;

use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, Route, web};

use crate::auth;
use crate::problem::{Kind, Problem};

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody: probes, the documentation.
    Public,
    /// Clients with a token, where tokens are configured.
    Token,
    /// As `Token`, or with a one-time ticket.
    Stream,
}

/// One address and what it answers to.
pub struct Endpoint {
    path: &'static str,
    access: Access,
    methods: Vec<&'static str>,
    routes: Vec<Route>,
}

impl Endpoint {
    /// An address without methods.
    pub fn new(path: &'static str, access: Access) -> Self {
        Endpoint { path, access, methods: Vec::new(), routes: Vec::new() }
    }

    /// The path pattern, in the form that OpenAPI uses too.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The methods, in the order of `Allow`.
    pub fn methods(&self) -> &[&'static str] {
        &self.methods
    }

    fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on("GET", web::get(), handler.clone()).on("HEAD", web::head(), handler)
    }

    fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on("POST", web::post(), handler)
    }

    fn put<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on("PUT", web::put(), handler)
    }

    fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on("DELETE", web::delete(), handler)
    }

    fn on<F, Args>(mut self, method: &'static str, route: Route, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.methods.push(method);
        self.routes.push(route.to(handler));
        self
    }

    fn register(self, config: &mut web::ServiceConfig) {
        let allow = self.methods.join(", ");
        let mut resource = web::resource(self.path);
        for route in self.routes {
            resource = resource.route(route);
        }
        let resource = resource.default_service(web::to(move || {
            let allow = allow.clone();
            async move { Err::<HttpResponse, _>(method_not_allowed(&allow)) }
        }));
        match self.access {
            Access::Public => config.service(resource),
            Access::Stream => config.service(resource.wrap(from_fn(auth::require_token_or_ticket))),
            Access::Token => config.service(resource.wrap(from_fn(auth::require_token))),
        };
    }
}

/// Which optional groups of addresses are served.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    /// The endpoints of the 2016 walkthrough.
    pub walkthrough: bool,
}

/// Every address.
pub fn endpoints(groups: Groups) -> Vec<Endpoint> {
    let mut all = vec![
        Endpoint::new("/v1/tasks", Access::Token).get(list::list).post(tasks::submit),
        Endpoint::new("/v1/tasks/lookup", Access::Token).post(lookup::lookup),
        Endpoint::new("/v1/groups/{id}", Access::Token).get(groups::read).delete(groups::forget),
        Endpoint::new("/v1/groups/{id}/results", Access::Token).get(groups::read_results),
        Endpoint::new("/v1/batches/{id}", Access::Token).get(groups::read_batch).delete(groups::forget_batch),
        Endpoint::new("/v1/tasks/batch", Access::Token).post(batch::submit),
        Endpoint::new("/v1/call/{task}", Access::Token).post(tasks::call),
        Endpoint::new("/v1/canvas", Access::Token).post(canvas::submit),
        Endpoint::new("/v1/tasks/{id}", Access::Token)
            .get(results::read)
            .put(tasks::submit_as)
            .delete(results::forget),
        Endpoint::new("/v1/tasks/{id}/result", Access::Token).get(results::result),
        Endpoint::new("/v1/tasks/{id}/events", Access::Stream).get(events::task),
        Endpoint::new("/v1/groups/{id}/events", Access::Stream).get(events::group),
        Endpoint::new("/v1/batches/{id}/events", Access::Stream).get(events::batch),
        Endpoint::new("/v1/events", Access::Stream).get(events::everything),
        Endpoint::new("/v1/tickets", Access::Token).post(tickets::create),
        Endpoint::new("/livez", Access::Public).get(health::livez),
        Endpoint::new("/readyz", Access::Public).get(health::readyz),
        Endpoint::new("/healthz", Access::Public).get(health::healthz),
        Endpoint::new("/metrics", Access::Token).get(health::metrics),
        Endpoint::new("/problems/{slug}", Access::Public).get(problems::explain),
        Endpoint::new("/openapi.json", Access::Public).get(openapi::document),
    ];
    if groups.walkthrough {
        all.push(Endpoint::new("/", Access::Token).get(walkthrough::start).post(walkthrough::start_by_post));
        all.push(Endpoint::new("/results", Access::Token).get(walkthrough::queued));
        all.push(Endpoint::new("/results/{id}", Access::Token).get(walkthrough::result));
    }
    all
}

/// Registers every address.
pub fn configure(config: &mut web::ServiceConfig, groups: Groups) {
    for endpoint in endpoints(groups) {
        endpoint.register(config);
    }
    openapi::configure_ui(config);
    config.default_service(web::to(not_found));
}

async fn not_found(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::new(Kind::NotFound, format!("{} is not an address of this API", request.path())))
}

fn method_not_allowed(allow: &str) -> Problem {
    let value = HeaderValue::from_str(allow).unwrap_or_else(|_| HeaderValue::from_static(""));
    Problem::new(Kind::MethodNotAllowed, format!("this address answers to {allow}"))
        .header(header::ALLOW, value)
}
