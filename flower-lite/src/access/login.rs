//! Logging in and out, and who one is: a form that needs no script, and `GET /api/v2/me`.

use actix_web::http::header;
use actix_web::web::{Data, Form, Query};
use actix_web::{HttpRequest, HttpResponse, Resource, web};
use serde::Deserialize;
use serde_json::json;

use super::gate::{self, Places, encoded};
use super::session::{self, COOKIE};
use super::{Access, Action, Found, Oidc, Via, Visitor, is_from_elsewhere, oidc, own_request};
use crate::clock;
use crate::error::Problem;
use crate::monitor::Monitor;

/// The longest form that is read.
const MAX_FORM: usize = 16 << 10;

/// What the form is made of.
#[derive(Deserialize)]
pub struct Filled {
    user: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// Where to go after the log-in.
#[derive(Debug, Deserialize)]
pub struct Next {
    #[serde(default)]
    pub(super) next: String,
}

/// The addresses below `place` that are for logging in and out.
pub(crate) fn services(place: &str) -> Vec<Resource> {
    let at = |path: &str| web::resource(format!("{place}{path}"));
    let only = |methods: &'static str| {
        web::to(
            move || async move { HttpResponse::MethodNotAllowed().insert_header(("Allow", methods)).finish() },
        )
    };
    vec![
        at("/login")
            .app_data(web::FormConfig::default().limit(MAX_FORM))
            .route(web::get().to(show))
            .route(web::post().to(log_in))
            .default_service(only("GET, HEAD, POST")),
        at("/login/oidc").route(web::get().to(oidc::begin)).default_service(only("GET, HEAD")),
        at("/login/oidc/callback").route(web::get().to(oidc::finish)).default_service(only("GET, HEAD")),
        at("/login/style.css").route(web::get().to(style)).default_service(only("GET, HEAD")),
        at("/logout").route(web::post().to(log_out)).default_service(only("POST")),
    ]
}

/// `GET /api/v2/me`: who asks, and what they may do now.
pub async fn me(monitor: Data<Monitor>, access: Option<Data<Access>>, request: HttpRequest) -> HttpResponse {
    let control = monitor.control();
    let asks = access.as_ref().is_some_and(|access| access.asks());
    let visitor = Visitor::of(&request, control);
    let known = visitor.name.is_some();
    let role = (known || !asks).then_some(visitor.role);
    let can: Vec<&str> = match (control.refusal(), role) {
        (None, Some(role)) => {
            Action::ALL.iter().filter(|action| role >= action.role()).map(|action| action.name()).collect()
        }
        _ => Vec::new(),
    };
    HttpResponse::Ok().json(json!({
        "authenticated": known,
        "name": visitor.name,
        "role": role,
        "via": if visitor.via == Via::Session { Via::Password } else { visitor.via },
        "expires_at": visitor.until,
        "login": {
            "password": access.as_ref().is_some_and(|access| access.takes_passwords()),
            "oidc": access.as_ref().and_then(|access| access.oidc()).map(Oidc::label),
        },
        "control": control.as_str(),
        "refusal": control.refusal(),
        "can": can,
    }))
}

async fn show(
    access: Data<Access>,
    places: Data<Places>,
    request: HttpRequest,
    next: Query<Next>,
) -> HttpResponse {
    let place = places.of(request.path());
    if !access.asks() {
        return HttpResponse::SeeOther().insert_header((header::LOCATION, format!("{place}/"))).finish();
    }
    page(&access, place, &next.next, None)
}

/// `POST /login`: begins a session.
async fn log_in(
    access: Data<Access>,
    places: Data<Places>,
    request: HttpRequest,
    form: Form<Filled>,
) -> HttpResponse {
    let place = places.of(request.path()).to_owned();
    if is_from_elsewhere(&request) {
        let mut refused =
            page(&access, &place, "", Some("This came from a page of another site. Log in here."));
        *refused.status_mut() = actix_web::http::StatusCode::FORBIDDEN;
        return refused;
    }
    let Filled { user, password, next } = form.into_inner();
    let told = match access.check(&user, &password, &gate::address(&request), Via::Session).await {
        Found::Known(visitor) => return access.begin(&visitor, None, &request, &places, &next),
        Found::Wait(seconds) => {
            let told = format!("Too many wrong passwords. Try again in {:.0} seconds.", seconds.ceil());
            let mut refused = page(&access, &place, &next, Some(&told));
            *refused.status_mut() = actix_web::http::StatusCode::TOO_MANY_REQUESTS;
            let wait = header::HeaderValue::from_str(&format!("{:.0}", seconds.ceil()));
            if let Ok(wait) = wait {
                refused.headers_mut().insert(header::RETRY_AFTER, wait);
            }
            return refused;
        }
        Found::Nobody | Found::Wrong => "User name or password is wrong.",
    };
    let mut refused = page(&access, &place, &next, Some(told));
    *refused.status_mut() = actix_web::http::StatusCode::UNAUTHORIZED;
    refused
}

/// `POST /logout`: ends the session, here and in the browser.
async fn log_out(
    access: Data<Access>,
    places: Data<Places>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let visitor = Visitor::anonymous(super::Role::Viewer);
    own_request(&Visitor { via: Via::Session, ..visitor }, &request)
        .map_err(|told| Problem::not_permitted(&told))?;
    let cookies = request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok());
    let now = clock::now();
    if let Some(session) = cookies
        .and_then(|cookies| session::cookie(cookies, COOKIE))
        .and_then(|cookie| access.inner.sessions.read(cookie, now))
    {
        access.inner.sessions.end(&session, now);
        tracing::info!(user = session.name, "logged out");
    }
    let gone =
        session::set_cookie(COOKIE, "", root(&places), std::time::Duration::ZERO, access.is_secure(&request));
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, gone)).finish())
}

impl Access {
    /// Begins a session and sends the browser on. A role is given for those whom an identity provider vouches for.
    pub(super) fn begin(
        &self,
        visitor: &Visitor,
        role: Option<&str>,
        request: &HttpRequest,
        places: &Places,
        next: &str,
    ) -> HttpResponse {
        let session = match self.inner.sessions.begin(visitor.called(), role, clock::now()) {
            Ok(session) => session,
            Err(error) => {
                tracing::error!(error, "no session can be begun");
                return HttpResponse::InternalServerError().finish();
            }
        };
        tracing::info!(
            user = session.name,
            role = visitor.role.as_str(),
            address = gate::address(request),
            "logged in"
        );
        let value = self.inner.sessions.write(&session);
        let secure = self.is_secure(request);
        let cookie = session::set_cookie(COOKIE, &value, root(places), self.inner.lifetime, secure);
        let place = places.of(request.path());
        let to = if is_ours(next, root(places)) { next.to_owned() } else { format!("{place}/") };
        HttpResponse::SeeOther()
            .insert_header((header::SET_COOKIE, cookie))
            .insert_header((header::LOCATION, to))
            .finish()
    }

    /// Whether the browser reaches us over TLS.
    pub(super) fn is_secure(&self, request: &HttpRequest) -> bool {
        match &self.inner.public_url {
            Some(url) => url.starts_with("https://"),
            None => request.connection_info().scheme() == "https",
        }
    }
}

/// The place that all others lie in: cookies are for the whole of it.
pub(super) fn root(places: &Places) -> &str {
    places.0.first().map_or("", String::as_str)
}

/// Whether an address is one of ours, so that nobody can be sent elsewhere by a link to the log-in.
pub(super) fn is_ours(next: &str, root: &str) -> bool {
    let plain =
        next.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>'));
    let inside = next.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    plain && inside && !next.starts_with("//") && !next.contains("/../") && next.len() <= 2_048
}

pub(super) fn page(access: &Access, place: &str, next: &str, told: Option<&str>) -> HttpResponse {
    let place = escaped(place);
    let told = told.map_or(String::new(), |told| format!("<p role=\"alert\">{}</p>", escaped(told)));
    let hidden = escaped(next);
    let form = if access.takes_passwords() {
        format!(
            "<form method=\"post\" action=\"{place}/login\">\
             <input type=\"hidden\" name=\"next\" value=\"{hidden}\">\
             <label>User name <input name=\"user\" autocomplete=\"username\" required autofocus></label>\
             <label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\
             <button>Log in</button></form>"
        )
    } else if access.oidc().is_none() {
        "<p>Only programs with a token can use this monitor.</p>".to_owned()
    } else {
        String::new()
    };
    let provider = access.oidc().map_or(String::new(), |oidc| {
        let (label, next) = (escaped(oidc.label()), escaped(&encoded(next)));
        format!("<a class=\"button\" href=\"{place}/login/oidc?next={next}\">{label}</a>")
    });
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Log in · flower-lite</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\">\
         <link rel=\"stylesheet\" href=\"{place}/login/style.css\"></head>\
         <body><main><h1>flower-lite</h1>{told}{form}{provider}</main></body></html>"
    ))
}

async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(include_str!("login.css"))
}

/// A text inside HTML, also inside an attribute.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut html, c| {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
        html
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for (next, root, ours) in [
            ("/tasks?state=FAILURE", "", true),
            ("/flower/tasks", "/flower", true),
            ("/flowers", "/flower", false),
            ("/other", "/flower", false),
            ("//evil.example", "", false),
            ("/\\evil.example", "", false),
            ("https://evil.example", "", false),
            ("/flower/../x", "/flower", false),
            ("/a\r\nSet-Cookie: x", "", false),
            ("", "", false),
        ] {
            assert_eq!(is_ours(next, root), ours, "{next} below {root}");
        }
    }

    #[test]
    fn what_is_shown_again_is_no_markup() {
        assert_eq!(escaped("\"><script>&"), "&quot;&gt;&lt;script&gt;&amp;");
    }
}
