//! The admin page of a daemon, on loopback: `/livez`, `/readyz`, `/metrics`. One request a connection, at most
//! 64 connections, each at most ten seconds: nothing piles up, whoever connects.
//!
//! A page in a browser on this machine can send requests here too. It gets no answer: a browser names the host that it
//! believes to speak to (another one, after DNS rebinding), and says when another site asks.

#![allow(clippy::disallowed_methods)] // The daemon's own edge of the world: sockets and timers.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::limited::Limited;

/// Says whether a daemon does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The daemon does its work.
    Ready,
    /// It does not yet, or no longer; why, in one line for the operator.
    NotReady(String),
}

/// Why the admin page does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The address can be reached from other machines.
    #[error("the admin address {0} is not on this machine alone: choose 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// Another program listens at the port.
    #[error(
        "the admin address {0} is in use by another program: stop it, or choose another address"
    )]
    PortInUse(SocketAddr),
    /// It cannot be had for another reason.
    #[error("cannot listen on the admin address {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

/// The admin page; it closes when this is dropped.
pub struct AdminServer {
    address: SocketAddr,
    task: AbortHandle,
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    ready: watch::Receiver<Readiness>,
}

impl AdminServer {
    /// Serves `registry` and `ready` at `address`, which must be on loopback (port 0: any free one). Not ready
    /// any more once the sender of `ready` is gone. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When `address` is not on loopback, is taken, or cannot be had.
    pub async fn start(
        address: SocketAddr,
        registry: Registry,
        ready: watch::Receiver<Readiness>,
    ) -> Result<Self, AdminError> {
        if !address.ip().is_loopback() {
            return Err(AdminError::NotLoopback(address));
        }
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => AdminError::PortInUse(address),
            _ => AdminError::Listen(address, error),
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let pages = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Shared { registry, ready })
            .layer(from_fn_with_state(bound.ip(), guard))
            .layer(map_response(last_response));
        let listener = Limited::new(listener);
        let task = tokio::spawn(async move {
            // `serve` returns on a graceful end only, which is never asked for.
            let _ = axum::serve(listener, pages).await;
        });
        Ok(Self { address: bound, task: task.abort_handle() })
    }

    /// The address at which the page is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    // `has_changed` fails when the sender is gone.
    let gone = shared.ready.has_changed().is_err();
    match shared.ready.borrow().clone() {
        Readiness::Ready if !gone => "ready\n".into_response(),
        Readiness::Ready => (StatusCode::SERVICE_UNAVAILABLE, "ended\n").into_response(),
        Readiness::NotReady(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why.replace('\n', " ")))
                .into_response()
        }
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Answers programs of this machine, and no web pages.
async fn guard(State(own): State<IpAddr>, request: Request, next: Next) -> Response {
    match objection(own, &request) {
        None => next.run(request).await,
        Some((status, why)) => (status, why).into_response(),
    }
}

fn objection(own: IpAddr, request: &Request) -> Option<(StatusCode, &'static str)> {
    const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter().peekable();
    let unnamed = hosts.peek().is_none() && request.version() > Version::HTTP_10;
    let foreign = hosts.any(|host| !host.to_str().is_ok_and(|host| is_own(host, own)));
    let aimed = request.uri().authority().is_some_and(|host| !is_own(host.as_str(), own));
    if unnamed || foreign || aimed {
        return Some((
            StatusCode::MISDIRECTED_REQUEST,
            "this page answers to the names of this machine alone: localhost, 127.0.0.1, [::1]\n",
        ));
    }
    let mut sites = headers.get_all(FETCH_SITE).iter();
    let of_a_site = sites.any(|site| site != "none" && site != "same-origin");
    if of_a_site || headers.contains_key(header::ORIGIN) {
        return Some((StatusCode::FORBIDDEN, "this page does not answer to web sites\n"));
    }
    None
}

/// True if a host, with or without a port, is this machine by a name that no resolver is asked for.
fn is_own(host: &str, own: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == own)
}

async fn last_response(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
