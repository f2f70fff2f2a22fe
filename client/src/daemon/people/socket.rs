//! The socket of a user's programs: lines of JSON, a request and its answers each. docs/messages.md has all words.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_host::about;
use shoal_host::control::{ControlError, Socket};
use shoal_people::GroupRole;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::daemon::events::Event;
use crate::daemon::mail::{GroupDeed, Meant, MessageRequest, Order, Orders, Whom};
use crate::daemon::membership::Membership;

/// The version of what is said on the socket.
const PROTOCOL: u32 = 3;
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
            Some("join") => join(&request, &membership),
            Some("organisation") => organisation(&request, &membership),
            Some("contacts") => {
                let name = request.get("name").and_then(Value::as_str);
                Ok(json!({ "contacts": membership.contacts(name) }))
            }
            Some("events") if listens.is_empty() => {
                let is = |key: &str| request.get(key).and_then(Value::as_bool).unwrap_or_default();
                let wanted = Wanted { id, once: is("once"), new: is("new") };
                listens.spawn(listen(lines.clone(), orders.clone(), wanted));
                continue;
            }
            Some("events") => Err("this connection listens already".to_owned()),
            Some(word) => match read(word, &request) {
                Ok(request) => ask(request, &orders).await,
                Err(why) => Err(why),
            },
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

/// Reads what is asked of the thread of messages.
fn read(word: &str, request: &Value) -> Result<MessageRequest, String> {
    let text = |key: &str| {
        let text = request.get(key).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| format!("{word} wants a text as {key:?}"))
    };
    let number = |key: &str| match request.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64();
            number.map(Some).ok_or_else(|| format!("{word} wants a number as {key:?}"))
        }
    };
    let needed =
        |key: &str| number(key)?.ok_or_else(|| format!("{word} wants a number as {key:?}"));
    let whom = || match number("person")? {
        Some(person) => u32::try_from(person)
            .map(Whom::Number)
            .map_err(|_| format!("there is no person of the number {person}")),
        None => text("name").map(|name| Whom::Name(name.trim().to_owned())),
    };
    let meant = || match request.get("group") {
        None | Some(Value::Null) => whom().map(Meant::Person),
        Some(_) => text("group").map(Meant::Group),
    };
    let seconds = |key: &str| {
        let seconds = u32::try_from(number(key)?.unwrap_or_default());
        seconds.map_err(|_| format!("{key}: too long"))
    };
    Ok(match word {
        "send" => MessageRequest::Send(meant()?, text("text")?, seconds("expires_s")?),
        "groups" => MessageRequest::Groups(None),
        "found" => MessageRequest::Found(text("name")?, people(request, "people")?),
        "group" => {
            let has = |key: &str| request.get(key).is_some_and(|value| !value.is_null());
            let group = text("group")?;
            let deed = match () {
                () if has("add") => GroupDeed::Add(people(request, "add")?),
                () if has("remove") => GroupDeed::Remove(people(request, "remove")?),
                () if has("role") => GroupDeed::Appoint(whom()?, role(&text("role")?)?),
                () if has("rename") => GroupDeed::Rename(text("rename")?),
                () if has("expires_s") => GroupDeed::Expire(seconds("expires_s")?),
                () if has("leave") => GroupDeed::Leave,
                () => return Ok(MessageRequest::Groups(Some(group))),
            };
            MessageRequest::Act(group, deed)
        }
        "conversations" => MessageRequest::Conversations,
        "messages" if request.get("number").is_some() => MessageRequest::Message(needed("number")?),
        "messages" => {
            let last = number("last")?.map(|last| usize::try_from(last).unwrap_or(usize::MAX));
            MessageRequest::Messages(meant()?, number("before")?, last)
        }
        "read" => MessageRequest::Read(meant()?, needed("up_to")?),
        "search" => MessageRequest::Search(text("text")?),
        "edit" => MessageRequest::Edit(needed("number")?, text("text")?),
        "delete" => {
            let for_all = request.get("for_all").and_then(Value::as_bool).unwrap_or_default();
            MessageRequest::Delete(needed("number")?, for_all)
        }
        "verify" => {
            let same = request.get("same").and_then(Value::as_bool);
            let compared = request.get("digits").and_then(Value::as_str).map(str::to_owned);
            MessageRequest::Verify(whom()?, same, compared)
        }
        "taken" => MessageRequest::Taken(needed("up_to")?),
        "status" => MessageRequest::Status,
        _ => {
            return Err(format!(
                "there is no word {word:?}: send, conversations, messages, read, search, edit, delete, verify, groups, found, group, \
                 events, taken, join, organisation, contacts and status are"
            ));
        }
    })
}

/// People, each by name or by number.
fn people(request: &Value, key: &str) -> Result<Vec<Whom>, String> {
    let all = request.get(key).and_then(Value::as_array);
    let one = |value: &Value| match (value.as_str(), value.as_u64()) {
        (Some(name), _) => Some(Whom::Name(name.trim().to_owned())),
        (_, Some(person)) => u32::try_from(person).ok().map(Whom::Number),
        _ => None,
    };
    let all = all.and_then(|all| all.iter().map(one).collect());
    all.ok_or_else(|| format!("{key}: a list of names, or of numbers in the directory"))
}

fn role(text: &str) -> Result<GroupRole, String> {
    match text {
        "owner" => Ok(GroupRole::Owner),
        "admin" => Ok(GroupRole::Admin),
        "member" => Ok(GroupRole::Member),
        _ => Err("role: owner, admin or member".into()),
    }
}

async fn ask(request: MessageRequest, orders: &Orders) -> Result<Value, String> {
    let (answer, answered) = oneshot::channel();
    orders.send(Order::Ask(request, answer)).await.map_err(|_| ENDED)?;
    answered.await.map_err(|_| ENDED)?
}

/// What a program wants to be told.
struct Wanted {
    /// What each line repeats.
    id: Value,
    /// What waits, and no more.
    once: bool,
    /// Nothing of what waits.
    new: bool,
}

/// Tells a program all that happens, until it goes.
async fn listen(lines: Lines, orders: Orders, wanted: Wanted) -> std::io::Result<()> {
    let Wanted { id, once, new } = wanted;
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
    for event in waiting.into_iter().filter(|_| !new) {
        say(&lines, &with_id(event)).await?;
    }
    say(&lines, &with_id(json!({ "end": true }))).await?;
    if once {
        return Ok(());
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
