//! The pages: one `index.html` for all of them, and its assets.

use actix_web::http::Method;
use actix_web::http::header::{
    AcceptEncoding, CacheControl, CacheDirective, ContentEncoding, ETag, Encoding, EntityTag, Header,
    IfNoneMatch, VARY,
};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};

use crate::assets::{self, Asset};
use crate::error::Problem;

/// A year: a file whose name has the hash of its content in it never changes.
const FOR_EVER: u32 = 31_536_000;
/// The addresses of pages that have no parameter; `/broker` is Flower's.
const PAGES: [&str; 10] = [
    "",
    "/workers",
    "/tasks",
    "/queues",
    "/broker",
    "/failures",
    "/schedules",
    "/alerts",
    "/audit",
    "/about",
];
/// The place in `index.html` that says where its links start from.
const BASE: &str = "<base href=\"/\" />";

/// Where the monitor is mounted, as the pages need to know it.
#[derive(Clone, Debug)]
pub struct Base {
    prefix: String,
    tag: String,
}

impl Base {
    /// `prefix` is empty or begins with a slash.
    #[must_use]
    pub fn new(prefix: &str) -> Base {
        let href: String = prefix
            .chars()
            .map(|c| match c {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                '"' => "&quot;".to_owned(),
                c => c.to_string(),
            })
            .collect();
        Base { prefix: prefix.to_owned(), tag: format!("<base href=\"{href}/\" />") }
    }

    /// `html` with links that start from here.
    fn apply(&self, html: &str) -> String {
        if html.contains(BASE) {
            html.replacen(BASE, &self.tag, 1)
        } else {
            html.replacen("<head>", &format!("<head>{}", self.tag), 1)
        }
    }

    /// Whether `path` is one of the pages' addresses.
    fn is_page(&self, path: &str) -> bool {
        let path = path.strip_prefix(&self.prefix).unwrap_or(path).trim_end_matches('/');
        PAGES.contains(&path)
            || ["/task/", "/worker/"]
                .iter()
                .any(|start| path.strip_prefix(start).is_some_and(|name| !name.is_empty()))
    }
}

/// Any page; an address that is none gets the same page with status 404, which says so.
pub async fn page(base: Data<Base>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::wrong_method());
    }
    let mut response =
        if base.is_page(request.path()) { HttpResponse::Ok() } else { HttpResponse::NotFound() };
    let Some(html) = assets::index() else {
        return Ok(response.content_type("text/plain; charset=utf-8").body(format!(
            "The pages are not part of this build: run `make web` (needs Node) and build again. \
             The API is at {}/api/v2/overview.\n",
            base.prefix
        )));
    };
    Ok(response
        .content_type("text/html; charset=utf-8")
        .insert_header(CacheControl(vec![CacheDirective::NoCache]))
        .body(base.apply(&html)))
}

/// A script, style or picture.
pub async fn asset(path: Path<String>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let name = format!("assets/{path}");
    let missing = || Problem::not_found(format!("there is no {name}"));
    let Asset { etag, content_type, bytes } = assets::get(&name).ok_or_else(missing)?;
    let (encoding, bytes) = packed(&request, &name).unwrap_or((None, bytes));
    let etag = EntityTag::new_strong(match encoding {
        Some(ContentEncoding::Brotli) => format!("{etag}-br"),
        Some(_) => format!("{etag}-gz"),
        None => etag,
    });

    let mut response = HttpResponse::Ok();
    let forever = CacheDirective::Extension("immutable".into(), None);
    response
        .insert_header(CacheControl(vec![CacheDirective::Public, CacheDirective::MaxAge(FOR_EVER), forever]))
        .insert_header(ETag(etag.clone()))
        .insert_header((VARY, "Accept-Encoding"));
    let known = match IfNoneMatch::parse(&request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(&etag)),
        Err(_) => false,
    };
    if known {
        return Ok(response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    if let Some(encoding) = encoding {
        response.insert_header(encoding);
    }
    Ok(response.content_type(content_type).body(bytes))
}

/// The best of the packed forms that lie beside a file and that the client takes.
fn packed(request: &HttpRequest, name: &str) -> Option<(Option<ContentEncoding>, Vec<u8>)> {
    let accepted = AcceptEncoding::parse(request).ok()?;
    let forms = [
        (ContentEncoding::Brotli, Encoding::brotli(), "br"),
        (ContentEncoding::Gzip, Encoding::gzip(), "gz"),
    ];
    forms.into_iter().find_map(|(header, encoding, suffix)| {
        // Asked one at a time: the client's own ranking of two good ones doesn't matter, the smaller one is better.
        let takes = accepted.negotiate([encoding.clone(), Encoding::identity()].iter()) == Some(encoding);
        let asset = takes.then(|| assets::get(&format!("{name}.{suffix}"))).flatten()?;
        Some((Some(header), asset.bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_links_is_where_the_monitor_is_mounted() {
        let base = Base::new("/dash&\"board");
        let html = "<html><head>\n<base href=\"/\" />\n<title>x</title>";
        assert_eq!(
            base.apply(html),
            "<html><head>\n<base href=\"/dash&amp;&quot;board/\" />\n<title>x</title>"
        );
        assert_eq!(Base::new("").apply("<head><title>"), "<head><base href=\"/\" /><title>");
    }

    #[test]
    fn addresses_of_pages() {
        let base = Base::new("/d");
        for (path, page) in [
            ("/d", true),
            ("/d/", true),
            ("/d/workers", true),
            ("/d/tasks", true),
            ("/d/task/4711", true),
            ("/d/worker/celery%40host", true),
            ("/d/queues", true),
            ("/d/broker", true),
            ("/d/audit/", true),
            ("/d/task/", false),
            ("/d/wp-admin", false),
        ] {
            assert_eq!(base.is_page(path), page, "{path}");
        }
    }

    async fn ask(path: &str, headers: &[(&str, &str)]) -> actix_web::dev::ServiceResponse {
        let (monitor, _) = crate::Monitor::fed_by_hand(crate::MonitorOptions::default());
        let app = actix_web::App::new().service(crate::scope(monitor, "/d"));
        let app = actix_web::test::init_service(app).await;
        let request =
            headers.iter().fold(actix_web::test::TestRequest::get().uri(path), |request, header| {
                request.insert_header(*header)
            });
        actix_web::test::call_service(&app, request.to_request()).await.map_into_boxed_body()
    }

    fn header<'a>(response: &'a actix_web::dev::ServiceResponse, name: &str) -> Option<&'a str> {
        response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    const SCRIPT: &str = "/d/assets/app-4f3a2b1c.js";

    #[actix_web::test]
    async fn the_page_is_asked_for_anew_and_its_files_never() {
        let page = ask("/d/task/4711", &[]).await;
        assert_eq!((page.status().as_u16(), header(&page, "cache-control")), (200, Some("no-cache")));
        let html = actix_web::test::read_body(page).await;
        assert!(String::from_utf8_lossy(&html).contains("<base href=\"/d/\" />"));

        let script = ask(SCRIPT, &[]).await;
        assert_eq!(header(&script, "cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(header(&script, "content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(header(&script, "content-encoding"), None);
        let etag = header(&script, "etag").map(str::to_owned).unwrap_or_default();
        let again = ask(SCRIPT, &[("if-none-match", &etag)]).await;
        assert_eq!(again.status(), 304);
        assert_eq!(ask(SCRIPT, &[("if-none-match", "\"another\"")]).await.status(), 200);
        assert_eq!(
            header(&ask("/d/assets/icon-0a1b2c3d.svg", &[]).await, "content-type"),
            Some("image/svg+xml")
        );
        assert_eq!(ask("/d/assets/none.js", &[]).await.status(), 404);
    }

    #[actix_web::test]
    async fn a_file_is_sent_packed_as_the_client_can_unpack_it() {
        for (accepts, encoding, body) in [
            ("gzip, deflate, br", Some("br"), "packed by brotli\n"),
            ("gzip", Some("gzip"), "packed by gzip\n"),
            ("br;q=0, gzip;q=0.5", Some("gzip"), "packed by gzip\n"),
            ("zstd", None, "console.log('for the tests');\n"),
            ("identity", None, "console.log('for the tests');\n"),
        ] {
            let answer = ask(SCRIPT, &[("accept-encoding", accepts)]).await;
            assert_eq!(header(&answer, "content-encoding"), encoding, "{accepts}");
            assert!(header(&answer, "vary").is_some_and(|vary| vary.eq_ignore_ascii_case("accept-encoding")));
            assert_eq!(actix_web::test::read_body(answer).await, body, "{accepts}");
        }
        let plain = ask("/d/assets/icon-0a1b2c3d.svg", &[("accept-encoding", "br, gzip")]).await;
        assert_eq!(header(&plain, "content-encoding"), None, "there is no packed form of it");
    }
}
