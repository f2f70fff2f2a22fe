//! The page of a member, in a browser on the same machine: a messenger that speaks the words of `programs.sock` (docs/messages.md).
//!
//! Whoever can open a port of this machine reaches it: other users, and every web site in the browser. So nothing is given without
//! a bearer token, which a page gets for a code that is good once and for a minute, and which lies in a file that its user alone
//! can read (`shoal-client open`). There are no cookies, since all ports of a host share them. What a browser says of who asks is
//! looked at first (`guard`), and what the page itself may do is said in headers. docs/page.md is for members.

mod assets;
mod guard;
pub mod open;
mod relay;
mod tokens;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;
use shoal_host::control::{ControlError, Socket};
use shoal_host::exit::chain;
use shoal_host::limited::{Limited, Terms};
use shoal_host::secret;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::error;
use zeroize::Zeroizing;

use guard::Own;
use tokens::Tokens;

/// Pages that are open at a time, each a connection to `programs.sock`.
const PAGES: usize = 8;
/// How long a code is good, and the file with it is there.
const CODE_LIFE: Duration = Duration::from_secs(60);

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The port cannot be had.
    #[error("page.listen: the page cannot be served at its port: {why}", why = match .0.kind() {
        std::io::ErrorKind::AddrInUse => "another program uses it; stop that one, or choose another port".to_owned(),
        _ => .0.to_string(),
    })]
    Listen(std::io::Error),
    /// The socket that hands out codes.
    #[error(transparent)]
    Door(#[from] ControlError),
}

/// A page that is served, until this is dropped; then its tokens are worth nothing, and its connections end.
pub struct Page {
    address: SocketAddr,
    task: AbortHandle,
    shared: Arc<PageState>,
    _door: Socket,
    _serves: watch::Sender<()>,
}

/// What all requests share.
struct PageState {
    own: Own,
    tokens: Tokens,
    /// Where the client speaks to programs.
    programs: PathBuf,
    /// The file with a code, while there is one.
    file: PathBuf,
    /// Removes it when its time is over.
    sweeper: Mutex<Option<AbortHandle>>,
    pages: Arc<Semaphore>,
    /// Ends with the page.
    serves: watch::Receiver<()>,
}

impl Page {
    /// Serves the page at `address`, which is on loopback, for the client with this control socket; port 0 is any free one. To be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// The port is taken, or the socket beside the control socket cannot be made.
    pub async fn start(address: SocketAddr, control: &Path) -> Result<Self, PageError> {
        let listener = TcpListener::bind(address).await.map_err(PageError::Listen)?;
        let address = listener.local_addr().map_err(PageError::Listen)?;
        let (sender, serves) = watch::channel(());
        let shared = Arc::new(PageState {
            own: Own::at(address),
            tokens: Tokens::default(),
            programs: control.with_file_name("programs.sock"),
            // Whoever is told of it may be in another directory.
            file: std::path::absolute(control.with_file_name("page.html"))
                .map_err(PageError::Listen)?,
            sweeper: Mutex::default(),
            pages: Arc::new(Semaphore::new(PAGES)),
            serves,
        });
        shared.remove_file();
        let giver = shared.clone();
        let door = open::path(control);
        let door = Socket::serve(&door, move |stream| answer(stream, giver.give())).await?;
        let app = app(shared.clone()).into_make_service_with_connect_info::<Terms>();
        let task = tokio::spawn(async move {
            // `serve` returns on a graceful end only, which is never asked for.
            let _ = axum::serve(Limited::new(listener), app).await;
        });
        Ok(Self { address, task: task.abort_handle(), shared, _door: door, _serves: sender })
    }

    /// Where the page is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.remove_file();
    }
}

/// Serves the page of a client with this configuration, if it has one. A port that is taken leaves the client without a page and
/// nothing else, and `shoal-client open` says so.
///
/// # Errors
/// The socket beside the control socket cannot be made.
pub(super) async fn of(config: &super::Config) -> Result<Option<Served>, ControlError> {
    let Some(address) = config.page.address().filter(|_| config.reachable) else { return Ok(None) };
    let control = super::socket(config);
    match Page::start(address, &control).await {
        Ok(page) => Ok(Some(Served::Page { _page: page })),
        Err(PageError::Door(error)) => Err(error),
        Err(refused @ PageError::Listen(_)) => {
            error!("{refused}");
            let said = refusal(&refused.to_string());
            let door = open::path(&control);
            let door = Socket::serve(&door, move |stream| answer(stream, said.clone())).await?;
            Ok(Some(Served::Reason { _door: door }))
        }
    }
}

/// What `shoal-client open` finds.
pub(super) enum Served {
    /// The page itself.
    Page { _page: Page },
    /// Only why there is none.
    Reason { _door: Socket },
}

/// Says one line to whoever asks at the socket.
async fn answer(mut stream: tokio::net::UnixStream, line: Zeroizing<String>) {
    // Whoever does not read has gone, or is no client of ours.
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(line.as_bytes())).await;
}

/// Why there is no page now, as a line for `shoal-client open`.
fn refusal(why: &str) -> Zeroizing<String> {
    format!("{}\n", json!({ "error": why })).into()
}

/// The way to the page, as a line for `shoal-client open`.
#[derive(Serialize)]
struct PageLink<'a> {
    file: &'a Path,
    address: String,
    code: &'a str,
}

impl PageState {
    /// Makes a code, and the file that takes a browser here with it.
    fn give(self: &Arc<Self>) -> Zeroizing<String> {
        let made = self.tokens.draw(Instant::now() + CODE_LIFE, |code| {
            let given =
                PageLink { file: &self.file, address: format!("{}/", self.own.origin), code };
            let line = serde_json::to_string(&given).map_err(|error| error.to_string())?;
            secret::replace(&self.file, open::file(&self.own.origin, code).as_bytes())
                .map_err(|error| chain(&error))?;
            Ok(Zeroizing::new(line + "\n"))
        });
        match made {
            Ok(line) => {
                let shared = self.clone();
                let sweeper = tokio::spawn(async move {
                    tokio::time::sleep(CODE_LIFE).await;
                    shared.remove_file();
                });
                // The one before would remove the newer file.
                let mut before = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(before) = before.replace(sweeper.abort_handle()) {
                    before.abort();
                }
                line
            }
            Err(why) => refusal(&format!("the page cannot be opened: {why}")),
        }
    }

    fn remove_file(&self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn app(shared: Arc<PageState>) -> Router {
    Router::new()
        .route("/words", get(words))
        .fallback(file)
        .with_state(shared.clone())
        .layer(DefaultBodyLimit::max(0))
        .layer(from_fn_with_state(shared.clone(), guard::guard))
        .layer(map_response(guard::headers))
}

/// One of the files of the page.
async fn file(request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, "this page is read, and nothing is sent to it\n")
            .into_response();
    }
    match assets::find(request.uri().path()) {
        Some((kind, bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        None => (StatusCode::NOT_FOUND, "the page has no such file\n").into_response(),
    }
}

/// The WebSocket of a page: its first message is the token, or a code for one; then lines go both ways.
async fn words(
    State(shared): State<Arc<PageState>>,
    ConnectInfo(Terms(term)): ConnectInfo<Terms>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .max_message_size(relay::LINE)
        .max_frame_size(relay::LINE)
        .max_write_buffer_size(4 * relay::CHUNK)
        .write_buffer_size(0)
        .on_upgrade(move |socket| relay::session(socket, term, shared))
}

#[cfg(test)]
mod tests;
