//! SCIM 2.0 (RFC 7643, RFC 7644), as much of it as a provider needs to end somebody's account: `active: false` removes him from the
//! directory, by an entry that an issuer's key signs. That entry is the record of it.
//!
//! Nobody is let in by it, and nothing else of what a provider says is kept.

mod accounts;
mod error;
mod messages;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as Segment, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use shoal_host::secret;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{OrgError, Registry};
use accounts::{Known, all, find, known};
use error::ScimError;
use messages::{active_of_patch, active_of_user, filtered, list, provider_config, user};

/// Connections at a time; more wait in the kernel's queue. Each has one request.
const CONNECTIONS: usize = 32;
/// What a connection may last.
const LIFETIME: Duration = Duration::from_secs(30);
/// Most bytes of a request: a user with everything that providers say of one has a few thousand.
const MAX_BODY: usize = 64 << 10;
/// Most users on a page of a list.
const PAGE: usize = 200;

/// How the endpoint runs.
#[derive(Clone, Debug)]
pub struct ScimConfig {
    /// Where it listens; on loopback.
    pub listen: SocketAddr,
    /// As which issuer it signs ([`Registry::issuer`]).
    pub issuer: u16,
    /// Most people whom it removes in a day, so that a mistake at the provider does not end an organisation.
    pub most_a_day: usize,
}

/// The endpoint, which listens.
pub struct Scim {
    listener: TcpListener,
    router: Router,
}

struct ScimState {
    dir: PathBuf,
    config: ScimConfig,
    /// Of the token: it compares in constant time, and is of no use to whoever reads it.
    token: blake3::Hash,
    /// One change at a time.
    turn: Mutex<()>,
}

impl Scim {
    /// Listens, with the token in the file `keys/scim.token`, which is made if it is not there.
    ///
    /// # Errors
    /// The address is not on loopback or taken, or the token cannot be read.
    pub async fn start(dir: &Path, config: ScimConfig) -> Result<Self, OrgError> {
        let refused = |why: String| OrgError::Refused(why);
        let at = config.listen;
        if !at.ip().is_loopback() {
            return Err(refused(format!(
                "{at} can be reached from other machines, and this endpoint speaks without TLS: listen at 127.0.0.1, behind a proxy \
                 that has a certificate"
            )));
        }
        let secret = secret::read_or_create(&token_file(dir))?;
        let token = Zeroizing::new(HEXLOWER.encode(&*secret));
        let token = blake3::hash(token.as_bytes());
        let listener = TcpListener::bind(at)
            .await
            .map_err(|error| refused(format!("cannot listen at {at}: {error}")))?;
        let shared = Arc::new(ScimState { dir: dir.into(), config, token, turn: Mutex::new(()) });
        let router = Router::new()
            .route("/scim/v2/ServiceProviderConfig", get(async || scim(200, &provider_config())))
            .route("/scim/v2/Users", get(users).post(create))
            .route("/scim/v2/Users/{id}", get(one).patch(patch).put(put).delete(remove))
            .method_not_allowed_fallback(async || ScimError::method().into_response())
            .fallback(async || ScimError::nowhere().into_response())
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(shared.clone(), guard))
            .with_state(shared);
        Ok(Self { listener, router })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> Result<SocketAddr, OrgError> {
        Ok(self.listener.local_addr()?)
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of files, as a rule: some may be free soon.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let service = TowerToHyperService::new(self.router.clone());
            tokio::spawn(async move {
                let mut http = hyper::server::conn::http1::Builder::new();
                let served = http.keep_alive(false).serve_connection(TokioIo::new(stream), service);
                let _ = timeout(LIFETIME, served).await;
                drop(permit);
            });
        }
    }
}

/// The file of the token that the provider is given.
pub fn token_file(dir: &Path) -> PathBuf {
    dir.join("keys/scim.token")
}

/// An answer in the type of SCIM.
fn scim(status: u16, body: &serde_json::Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/scim+json")], body.to_string()).into_response()
}

/// Nobody is answered who does not have the token.
async fn guard(State(shared): State<Arc<ScimState>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|given| {
        let (kind, token) = given.split_once(' ')?;
        kind.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    // Hashes compare in constant time, whatever was given.
    if token.is_some_and(|token| blake3::hash(token.as_bytes()) == shared.token) {
        return next.run(request).await;
    }
    let mut refused = ScimError::new(401, "the bearer token is missing or wrong").into_response();
    refused
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    refused
}

async fn users(
    State(shared): State<Arc<ScimState>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ScimError> {
    let query = query.unwrap_or_default();
    let wanted = |name: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.into_owned())
    };
    // What is no number, or below the least, means the least (RFC 7644, section 3.4.2.4).
    let number = |text: Option<String>, default: usize| {
        text.map_or(default, |text| {
            text.parse::<i64>().map_or(0, |n| usize::try_from(n).unwrap_or(0))
        })
    };
    let start = number(wanted("startIndex"), 1).max(1);
    let count = number(wanted("count"), PAGE).min(PAGE);
    let filter = wanted("filter").as_deref().map(filtered).transpose()?;
    let found = shared.read(move |registry| match filter {
        Some(filter) => find(registry, filter.as_deref()),
        None => all(registry),
    });
    let found = found.await?;
    let page: Vec<_> = found.iter().skip(start - 1).take(count).map(user).collect();
    Ok(scim(200, &list(found.len(), start, page)))
}

async fn one(
    State(shared): State<Arc<ScimState>>,
    Segment(id): Segment<String>,
) -> Result<Response, ScimError> {
    let found = shared.read(move |registry| known(registry, &id)).await?;
    Ok(scim(200, &user(&found.ok_or_else(ScimError::nobody)?)))
}

async fn create() -> ScimError {
    ScimError::new(
        501,
        "people are let in by an invitation or a sign-in, and not by SCIM: switch the creation of users off at the provider",
    )
}

async fn patch(
    State(shared): State<Arc<ScimState>>,
    Segment(id): Segment<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, ScimError> {
    let active = active_of_patch(&body.map_err(|_| ScimError::large())?)?;
    shared.change(id, active).await
}

async fn put(
    State(shared): State<Arc<ScimState>>,
    Segment(id): Segment<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, ScimError> {
    let active = active_of_user(&body.map_err(|_| ScimError::large())?)?;
    shared.change(id, active).await
}

async fn remove(
    State(shared): State<Arc<ScimState>>,
    Segment(id): Segment<String>,
) -> Result<Response, ScimError> {
    shared.change(id, Some(false)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl ScimState {
    /// Looks into the files, which are verified whole.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, ScimError> {
        let _turn = self.turn.lock().await;
        let dir = self.dir.clone();
        let work = move || Registry::open(&dir).map(|registry| look(&registry));
        tokio::task::spawn_blocking(work).await.map_err(|_| ScimError::ours())?.map_err(failed)
    }

    /// Does what a provider says of somebody's `active`, once, however often it says so.
    async fn change(&self, id: String, active: Option<bool>) -> Result<Response, ScimError> {
        let _turn = self.turn.lock().await;
        let (dir, config) = (self.dir.clone(), self.config.clone());
        let work = move || {
            let mut registry = Registry::open(&dir).map_err(failed)?;
            let before = known(&registry, &id).ok_or_else(ScimError::nobody)?;
            match (active, before.active) {
                (Some(false), true) => accounts::end(&mut registry, &before, &config)?,
                (Some(true), false) => return Err(ScimError::gone()),
                _ => return Ok(before),
            }
            Ok(Known { active: false, ..before })
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|_| ScimError::ours())??;
        Ok(scim(200, &user(&done)))
    }
}

/// What the provider is told of trouble on this side; the log has why.
fn failed(error: OrgError) -> ScimError {
    let why = shoal_host::exit::chain(&error);
    tracing::warn!("a request of SCIM was not done: {why}");
    ScimError::new(503, "the organisation's files cannot be changed now: again later")
}
