//! The document says what the server does: same paths, same methods, and it is the one that is checked in.

use std::collections::BTreeSet;
use std::path::Path;

use producer_api::routes::{self, Groups};
use reqwest::Method;
use serde_json::Value;

use crate::app::TestApp;

fn document() -> Value {
    serde_json::from_str(routes::openapi::json()).unwrap()
}

#[test]
fn the_document_has_the_paths_and_methods_of_the_table() {
    let documented: BTreeSet<(String, String)> = document()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
        })
        .collect();
    let served: BTreeSet<(String, String)> = routes::endpoints(Groups { walkthrough: true })
        .iter()
        .flat_map(|endpoint| {
            let methods = endpoint.methods().iter().filter(|method| **method != "HEAD");
            methods.map(|method| (endpoint.path().to_owned(), (*method).to_owned())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(documented, served);
}

#[test]
fn the_checked_in_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, routes::openapi::json()).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == routes::openapi::json(),
        "the API has changed: UPDATE=1 cargo test -p producer-api --test api openapi, and review the difference"
    );
}

#[test]
fn the_document_is_3_1_with_a_licence_and_problems_everywhere() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["license"]["identifier"], "MIT OR Apache-2.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_default();
            assert!(ids.insert(id.to_owned()), "{method} {path}: operationId {id}");
            assert!(operation["summary"].is_string(), "{method} {path}: no summary");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_error = status.as_str() >= "400" && !path.ends_with('z');
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert!(!is_error || problem == "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn it_is_served_and_shown() {
    let app = TestApp::start().await;
    let answer = app.get("/openapi.json").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.text, routes::openapi::json());
    let page = app.get("/docs/").await;
    assert!(page.status == 200 && page.text.contains("swagger-ui"), "{}", page.text);
    assert!(page.header("content-security-policy").contains("'self'"));
    assert!(app.get("/docs/swagger-initializer.js").await.text.contains("/openapi.json"));
    let redirected = app.get("/docs").await;
    assert_eq!((redirected.status.as_u16(), redirected.header("location")), (307, "/docs/"));
}

#[tokio::test]
async fn every_problem_has_a_page() {
    let app = TestApp::start().await;
    for kind in producer_api::problem::Kind::ALL {
        let page = app.get(&format!("/problems/{}", kind.slug())).await;
        assert!(page.status == 200 && page.text.contains(kind.title()), "{}", kind.slug());
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    }
    app.get("/problems/%3Cscript%3E").await.problem(404, "not-found");
    let head = app.send(app.request(Method::HEAD, "/problems/unroutable")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}
