//! `GET /problems/{slug}`: what a problem's `type` points to.

use actix_web::{HttpResponse, web};

use crate::problem::{Kind, Problem};

/// Explains a kind of problem.
#[utoipa::path(
    get,
    path = "/problems/{slug}",
    tag = "system",
    params(("slug" = String, Path, description = "The last part of a problem's `type`.", example = "unroutable")),
    responses(
        (status = 200, description = "A page about this kind of problem.", body = String, content_type = "text/html"),
        (status = 404, description = "There is no such kind.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn explain(slug: web::Path<String>) -> Result<HttpResponse, Problem> {
    let kind =
        Kind::from_slug(&slug).ok_or_else(|| Problem::new(Kind::NotFound, "no problem has this name"))?;
    // Catalogue text only: nothing of the request is in this page.
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<h1>{title}</h1>\n<p><code>{slug}</code>, answered with status {status}.</p>\n<p>{explanation}</p>\n\
         <p>{retry}</p>\n</body>\n</html>\n",
        title = kind.title(),
        slug = kind.slug(),
        status = kind.status(),
        explanation = kind.explanation().replace('<', "&lt;"),
        retry = if kind.retryable() {
            "The same request may succeed later."
        } else {
            "Sending the same request again will not help."
        },
    );
    Ok(HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page))
}
