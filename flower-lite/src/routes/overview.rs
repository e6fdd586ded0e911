//! `GET /api/v2/overview`.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::clock;
use crate::monitor::Monitor;
use crate::view::Overview;

/// The whole at a glance, with the last 300 seconds.
pub async fn overview(monitor: Data<Monitor>) -> HttpResponse {
    let view = Overview::of(&monitor.state(), monitor.link(), clock::now(), i64::MIN);
    HttpResponse::Ok().json(view)
}
