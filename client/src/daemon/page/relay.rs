//! The WebSocket of a page: a token first, then lines of JSON both ways between the browser and `programs.sock`.
//!
//! From the browser each text message is one line. To it go binary messages, which are the bytes of the socket as they come: lines
//! may be long, and are put together where they are read. Nothing is kept here but one message up and one chunk down.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use serde_json::{Value, json};
use shoal_host::limited::Term;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::PageState;

/// The longest line from a browser, with its end.
pub(super) const LINE: usize = 64 << 10;
/// What goes to it at once.
pub(super) const CHUNK: usize = 16 << 10;
/// A browser that takes nothing for so long loses its connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection ends, as the page is told: codes of its own, after RFC 6455, section 7.4.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    /// The first message is no token and no code.
    Unknown = 4401,
    /// The browser does not read.
    Slow = 4408,
    /// Too many pages are open.
    Full = 4429,
    /// The client does not speak, or no longer.
    Gone = 4503,
    /// A message is no line.
    NoLine = 1007,
}

impl Closing {
    fn why(self) -> &'static str {
        match self {
            Self::Unknown => "this page was not opened by its user",
            Self::Slow => "the browser does not read",
            Self::Full => "too many pages are open",
            Self::Gone => "the client does not answer",
            Self::NoLine => "a message is one line of text, of at most 64 KiB",
        }
    }
}

/// A page, from its first message to its end.
pub(super) async fn session(mut socket: WebSocket, term: Arc<Term>, shared: Arc<PageState>) {
    let mut serves = shared.serves.clone();
    let ended = tokio::select! {
        ended = talk(&mut socket, &term, &shared) => ended,
        // Its sender went, with the page.
        _ = serves.changed() => Some(Closing::Gone),
    };
    if let Some(end) = ended {
        let frame = CloseFrame { code: end as u16, reason: end.why().into() };
        let _ = timeout(PATIENCE, socket.send(Message::Close(Some(frame)))).await;
    }
}

/// Why the connection ends; none if the browser went.
async fn talk(socket: &mut WebSocket, term: &Term, shared: &PageState) -> Option<Closing> {
    // The listener ends a connection that says nothing.
    let Some(Ok(Message::Text(first))) = socket.recv().await else { return Some(Closing::Unknown) };
    let Some(mut greeting) = admit(first.as_str(), shared) else { return Some(Closing::Unknown) };
    drop(first);
    let Ok(_place) = shared.pages.clone().try_acquire_owned() else { return Some(Closing::Full) };
    term.lift();
    let said = send(socket, Message::Text(greeting.to_string().into())).await;
    if let Some(Value::String(token)) = greeting.get_mut("token") {
        zeroize::Zeroize::zeroize(token);
    }
    if let Err(end) = said {
        return end;
    }
    match UnixStream::connect(&shared.programs).await {
        Ok(programs) => relay(socket, programs).await,
        Err(_) => Some(Closing::Gone),
    }
}

/// What a page is told whose first message is a token, or a code: then it gets a token. None for all else.
fn admit(first: &str, shared: &PageState) -> Option<Value> {
    let first: Value = serde_json::from_str(first).ok()?;
    let text = |key: &str| first.get(key).and_then(Value::as_str);
    if let Some(token) = text("token") {
        return shared.tokens.knows(token).then(|| json!({ "open": true }));
    }
    let token = shared.tokens.exchange(text("code")?, Instant::now())?;
    shared.remove_file();
    Some(json!({ "open": true, "token": *token }))
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Option<Closing>> {
    match timeout(PATIENCE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some(Closing::Slow)),
    }
}

async fn relay(socket: &mut WebSocket, programs: UnixStream) -> Option<Closing> {
    let (mut reads, mut writes) = programs.into_split();
    let mut chunk = vec![0; CHUNK];
    // What the browser said and the client has not taken yet. Nothing more is read of it until then.
    let mut waits: Vec<u8> = Vec::new();
    loop {
        tokio::select! {
            read = reads.read(&mut chunk) => {
                let Ok(length @ 1..) = read else { return Some(Closing::Gone) };
                let bytes = chunk.get(..length).unwrap_or_default().to_vec();
                if let Err(end) = send(socket, Message::Binary(bytes.into())).await {
                    return end;
                }
            }
            wrote = writes.write(&waits), if !waits.is_empty() => {
                let Ok(length @ 1..) = wrote else { return Some(Closing::Gone) };
                waits.drain(..length);
            }
            message = socket.recv(), if waits.is_empty() => match message {
                Some(Ok(Message::Text(line))) => {
                    if line.len() >= LINE || line.contains('\n') {
                        return Some(Closing::NoLine);
                    }
                    waits.extend_from_slice(line.as_bytes());
                    waits.push(b'\n');
                }
                // The library answers a ping by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return Some(Closing::NoLine),
                Some(Ok(Message::Close(_))) | None => return None,
                // Too long, no UTF-8, or gone.
                Some(Err(_)) => return Some(Closing::NoLine),
            },
        }
    }
}
