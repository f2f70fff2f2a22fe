//! The socket of a user's programs: lines of JSON, a request and its answers each.
//!
//! The first line is the client's: `{"shoal": version, "protocol": 1}`. Requests, each with an `id` that its answers repeat:
//! `{"id": 1, "word": "send", "to": address, "text": text}` is answered by the letter's `number` as soon as it is on the disk;
//! `{"id": 2, "word": "events"}` by what waits and then by all that happens, an `event` each (`received`, `left`, `waits`,
//! `expired`), with `"once": true` by what waits and then `"end": true`; `{"id": 3, "word": "taken", "up_to": number}` by `{"id": 3}`, and what came up to that number is forgotten. What
//! cannot be done is answered by an `error`. `{"word": "join", "code": …, "organisation": name, "device": name}` asks an organisation to let this client
//! in and is answered by the digits; `{"word": "organisation"}` by how that stands, with alarms, which `"seen": true` has forgotten;
//! `{"word": "contacts", "name": …}` by people of the directory. `send` takes the name of one of them as `to`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_host::about;
use shoal_host::control::{ControlError, Socket};
use shoal_topology::directory::address::{ServiceAddress, is_shoal_host};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, Semaphore, oneshot};

use super::{Event, LONGEST, Order, Orders};
use crate::daemon::membership::Membership;

/// The version of what is said on the socket.
const PROTOCOL: u32 = 1;
/// Programs at a time; one more is closed at once.
const PROGRAMS: usize = 32;
/// The longest line, bytes.
const LINE: u64 = 64 << 10;

/// Where programs find a client that has its control socket there.
pub(in crate::daemon) fn path(control: &Path) -> PathBuf {
    control.with_file_name("programs.sock")
}

/// What is asked of whom.
#[derive(Clone)]
pub(in crate::daemon) struct Words {
    pub(in crate::daemon) orders: Orders,
    pub(in crate::daemon) membership: Membership,
}

/// Serves programs until the socket is dropped.
///
/// # Errors
/// Another client runs there, or the socket cannot be made.
pub(in crate::daemon) async fn serve(control: &Path, words: Words) -> Result<Socket, ControlError> {
    let permits = Arc::new(Semaphore::new(PROGRAMS));
    Socket::serve(&path(control), move |stream| {
        let (words, permit) = (words.clone(), permits.clone().try_acquire_owned());
        async move {
            if let Ok(_permit) = permit {
                // A program that goes in the middle of a line has said all that it wanted.
                let _ = program(stream, words).await;
            }
        }
    })
    .await
}

/// Lines to a program: from its requests, and from the events that it listens to.
type Lines = Arc<Mutex<OwnedWriteHalf>>;

async fn say(lines: &Lines, line: &Value) -> std::io::Result<()> {
    let line = format!("{line}\n");
    lines.lock().await.write_all(line.as_bytes()).await
}

async fn program(stream: UnixStream, words: Words) -> std::io::Result<()> {
    let Words { orders, membership } = words;
    let (reads, writes) = stream.into_split();
    let (mut reads, lines) = (BufReader::new(reads), Arc::new(Mutex::new(writes)));
    say(&lines, &json!({ "shoal": about::version(), "protocol": PROTOCOL })).await?;
    let mut listens = tokio::task::JoinSet::new();
    loop {
        let mut line = Vec::new();
        if (&mut reads).take(LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            let why = format!("a line has at most {LINE} bytes, and ends");
            return say(&lines, &json!({ "error": why })).await;
        }
        let request = match serde_json::from_slice::<Value>(&line) {
            Ok(request) if request.is_object() => request,
            _ => {
                say(&lines, &json!({ "error": "the line is no JSON object" })).await?;
                continue;
            }
        };
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let mut answer = match request.get("word").and_then(Value::as_str) {
            Some("send") => send(&request, &orders, &membership).await,
            Some("join") => join(&request, &membership),
            Some("organisation") => organisation(&request, &membership),
            Some("contacts") => {
                let name = request.get("name").and_then(Value::as_str);
                Ok(json!({ "contacts": membership.contacts(name) }))
            }
            Some("taken") => taken(&request, &orders).await,
            Some("events") if listens.is_empty() => {
                let once = request.get("once").and_then(Value::as_bool).unwrap_or_default();
                listens.spawn(listen(lines.clone(), orders.clone(), (id, once)));
                continue;
            }
            Some("events") => Err("this connection listens already".to_owned()),
            Some(word) => Err(format!(
                "there is no word {word:?}: send, events, taken, join, organisation and contacts are"
            )),
            None => Err("the line has no word".to_owned()),
        }
        .unwrap_or_else(|why| json!({ "error": why }));
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("id".into(), id);
        }
        say(&lines, &answer).await?;
    }
}

const ENDED: &str = "the client ends";

fn join(request: &Value, membership: &Membership) -> Result<Value, String> {
    let text = |key: &str| request.get(key).and_then(Value::as_str);
    let code = text("code").ok_or("join wants a text as \"code\"")?;
    membership.join(
        code,
        text("organisation").unwrap_or_default(),
        text("device").unwrap_or("computer"),
    )
}

fn organisation(request: &Value, membership: &Membership) -> Result<Value, String> {
    membership.show(request.get("seen").and_then(Value::as_bool).unwrap_or_default())
}

async fn send(request: &Value, orders: &Orders, membership: &Membership) -> Result<Value, String> {
    let text = |key: &str| {
        let text = request.get(key).and_then(Value::as_str);
        text.ok_or_else(|| format!("send wants a text as {key:?}"))
    };
    let to = text("to")?.trim();
    // An address, or the name of somebody in the directory.
    let to: Vec<ServiceAddress> = match to.parse() {
        Ok(address) => vec![address],
        Err(error) if is_shoal_host(to) => return Err(format!("to: {error}")),
        Err(_) => membership.addresses(to).map_err(|why| format!("to: {why}"))?,
    };
    let message = text("text")?.as_bytes().to_vec();
    if message.len() > LONGEST {
        return Err(format!("text: a letter has at most {LONGEST} bytes, not {}", message.len()));
    }
    let mut numbers = Vec::new();
    for to in to {
        let (answer, answered) = oneshot::channel();
        orders.send(Order::Send(to, message.clone(), answer)).await.map_err(|_| ENDED)?;
        numbers.push(answered.await.map_err(|_| ENDED)??);
    }
    Ok(json!({ "number": numbers.first(), "numbers": numbers }))
}

async fn taken(request: &Value, orders: &Orders) -> Result<Value, String> {
    let up_to = request.get("up_to").and_then(Value::as_u64);
    let up_to = up_to.ok_or("taken wants a number as \"up_to\"")?;
    let (answer, answered) = oneshot::channel();
    orders.send(Order::Taken(up_to, answer)).await.map_err(|_| ENDED)?;
    answered.await.map_err(|_| ENDED)?;
    Ok(json!({}))
}

/// Tells a program all that happens, until it goes.
async fn listen(lines: Lines, orders: Orders, (id, once): (Value, bool)) -> std::io::Result<()> {
    let (answer, answered) = oneshot::channel();
    if orders.send(Order::Listen(answer)).await.is_err() {
        return Ok(());
    }
    let Ok((waiting, mut events)) = answered.await else { return Ok(()) };
    // It holds up nobody: who waits for a program that does not read is this task.
    drop(orders);
    let with_id = |mut event: Event| {
        if let Some(event) = event.as_object_mut() {
            event.insert("id".into(), id.clone());
        }
        event
    };
    for event in waiting {
        say(&lines, &with_id(event)).await?;
    }
    if once {
        return say(&lines, &with_id(json!({ "end": true }))).await;
    }
    loop {
        match events.recv().await {
            Ok(event) => say(&lines, &with_id(event)).await?,
            Err(RecvError::Lagged(_)) => {
                let why = "events were missed, as this program read too slowly: ask for them again";
                say(&lines, &with_id(json!({ "error": why }))).await?;
                return lines.lock().await.shutdown().await;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}
