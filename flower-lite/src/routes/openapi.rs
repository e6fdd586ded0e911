//! `GET /api/v2/openapi.json`: what the API is, for generators of clients. A test compares it with what is served.

use actix_web::HttpResponse;

/// The description, OpenAPI 3.1.
pub const TEXT: &str = include_str!("../openapi.json");

/// The description.
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(TEXT)
}
