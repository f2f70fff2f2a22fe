//! Who is answered, and what a browser is told of the page.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::PageState;

/// What the page may do: run its own files, and connect to where it is from. Text becomes markup nowhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
    font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::REFERRER_POLICY, "no-referrer"),
    // The camera is for codes alone, and the browser asks before.
    (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=(), geolocation=()"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// The names by which the page is asked for.
pub(super) struct Own {
    /// What a browser has in `Host`. Not `localhost`, which may be another server's: where that listens at the same port by IPv6,
    /// both would be one origin to the browser.
    host: String,
    /// What it has in `Origin`.
    pub(super) origin: String,
}

impl Own {
    /// Those of a page at this address.
    pub(super) fn at(address: SocketAddr) -> Self {
        let host = match (address, address.port()) {
            (SocketAddr::V4(address), 80) => address.ip().to_string(),
            (SocketAddr::V6(address), 80) => format!("[{}]", address.ip()),
            (address, _) => address.to_string(),
        };
        Self { origin: format!("http://{host}"), host }
    }

    fn objection(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let headers = request.headers();
        let aimed = request.uri().authority().map(|authority| authority.as_str());
        if !is_only(headers, &header::HOST, &self.host)
            || aimed.is_some_and(|aimed| aimed != self.host)
        {
            return Some((
                StatusCode::MISDIRECTED_REQUEST,
                "this page has one name, its address and port: `shoal-client open` opens it\n",
            ));
        }
        let foreign = headers.contains_key(header::ORIGIN)
            && !is_only(headers, &header::ORIGIN, &self.origin);
        if foreign || !(is_asked_by_itself(headers) || is_navigation(request)) {
            return Some((StatusCode::FORBIDDEN, "this page answers to nobody but itself\n"));
        }
        None
    }
}

/// True if there is one such header, and this is what it says.
fn is_only(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let mut found = headers.get_all(name).iter();
    found.next().is_some_and(|found| found == value) && found.next().is_none()
}

fn fetch(headers: &HeaderMap, name: &'static str) -> Vec<HeaderValue> {
    headers.get_all(HeaderName::from_static(name)).iter().cloned().collect()
}

/// True if the page asks, or its user, or no browser: another port of this machine is `same-site`.
fn is_asked_by_itself(headers: &HeaderMap) -> bool {
    fetch(headers, "sec-fetch-site").iter().all(|site| site == "same-origin" || site == "none")
}

/// True if a whole tab goes to the page's beginning, wherever it comes from: the file of `shoal-client open` is another origin. What
/// is there has no secret and cannot be framed, and whoever opened the tab has no hold of it (Cross-Origin-Opener-Policy).
fn is_navigation(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.uri().path() == "/"
        && fetch(headers, "sec-fetch-mode") == ["navigate"]
        && fetch(headers, "sec-fetch-dest") == ["document"]
}

/// Answers nobody but the page, its user, and programs of this machine.
pub(super) async fn guard(
    State(shared): State<Arc<PageState>>,
    request: Request,
    next: Next,
) -> Response {
    match shared.own.objection(&request) {
        None => next.run(request).await,
        Some((status, why)) => (status, why).into_response(),
    }
}

/// Puts the headers on an answer, refusals too.
pub(super) async fn headers(mut response: Response) -> Response {
    let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !upgrades {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
