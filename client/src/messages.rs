//! What members ask their client on the command line about messages.

use std::io::BufRead as _;

use serde_json::{Value, json};
use shoal_client::daemon::people::ask::Asking;
use shoal_host::exit::report;
use shoal_host::stdout::line;
use shoal_topology::is_plain;

/// Lines of a conversation that are shown before what comes.
const BEFORE: u64 = 20;

pub(crate) fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn number(of: &Value, key: &str) -> u64 {
    of.get(key).and_then(Value::as_u64).unwrap_or_default()
}

pub(crate) fn list(of: &Value, key: &str) -> Vec<Value> {
    of.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// A conversation with a person, or that of a group, as a request names it.
fn conversation((name, is_group): (&str, bool)) -> Value {
    if is_group { json!({ "group": name }) } else { json!({ "name": name }) }
}

/// A request with these fields, too.
fn with(mut request: Value, fields: &Value) -> Value {
    if let (Some(request), Some(fields)) = (request.as_object_mut(), fields.as_object()) {
        request.extend(fields.clone());
    }
    request
}

/// A text of somebody else's on one line: what moves the cursor or does not show is written out.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => " / ".to_owned(),
        c if is_plain(c.encode_utf8(&mut [0; 4])) => c.to_string(),
        c => c.escape_unicode().to_string(),
    };
    text.chars().map(shown).collect()
}

/// Has the client send what standard input says.
pub(crate) fn send(
    mut asking: Asking,
    to: (&str, bool),
    expires_s: Option<u32>,
    wait: bool,
) -> anyhow::Result<()> {
    // Not as an argument: others on this machine can read those.
    let said = std::io::read_to_string(std::io::stdin())?;
    if wait {
        asking.listen(false)?;
    }
    let said = said.strip_suffix('\n').unwrap_or(&said);
    let request = with(conversation(to), &json!({ "text": said, "expires_s": expires_s }));
    let sent = asking.once("send", &request)?;
    line(format_args!("number: {}", number(&sent, "number")))?;
    if wait { departs(&mut asking, text(&sent, "message")) } else { Ok(()) }
}

/// Returns when a message has left.
fn departs(asking: &mut Asking, message: &str) -> anyhow::Result<()> {
    let mut said = String::new();
    loop {
        let event = asking.line()?;
        if text(&event, "message") != message {
            continue;
        }
        match text(&event, "state") {
            "left" | "delivered" => return Ok(line("It has left.")?),
            "expired" => anyhow::bail!("it was given up: {}", text(&event, "why")),
            "queued" | "waiting" if said != text(&event, "why") => {
                said = text(&event, "why").to_owned();
                line(format_args!("It waits: {said}."))?;
            }
            _ => {}
        }
    }
}

/// Prints the conversations.
pub(crate) fn inbox(mut asking: Asking, as_json: bool) -> anyhow::Result<()> {
    for conversation in list(&asking.once("conversations", &json!({}))?, "conversations") {
        if as_json {
            line(&conversation)?;
            continue;
        }
        let unread = match number(&conversation, "unread") {
            0 => String::new(),
            unread => format!(" ({unread} new)"),
        };
        let group = if conversation.get("group").is_some() { " (group)" } else { "" };
        line(format_args!("{}{group}{unread}", plain(text(&conversation, "name"))))?;
        if let Some(last) = conversation.get("last").filter(|last| last.is_object()) {
            line(format_args!("    {}", shown(last)))?;
        }
    }
    Ok(())
}

/// A message on one line.
fn shown(message: &Value) -> String {
    let is_own = message.get("own").and_then(Value::as_bool).unwrap_or_default();
    let who = if is_own { "you".to_owned() } else { plain(text(message, "name")) };
    let what = match (message.get("text").and_then(Value::as_str), message.get("done")) {
        (Some(text), _) => plain(text),
        (None, Some(done)) => return format!("[{who} {}]", deed(done)),
        (None, None) => "[something that this version does not know]".into(),
    };
    let why = match text(message, "why") {
        "" => String::new(),
        why => format!(": {why}"),
    };
    let reached = match message.get("of").and_then(Value::as_u64) {
        Some(of) => format!(", {} of {of} have it", number(message, "reached")),
        None => String::new(),
    };
    let state = if is_own {
        format!("  [{}{reached}{why}]", text(message, "state"))
    } else {
        String::new()
    };
    format!("{who}: {what}{state}")
}

/// What somebody did to a group.
fn deed(done: &Value) -> String {
    let people: Vec<String> =
        list(done, "people").iter().filter_map(|name| name.as_str().map(plain)).collect();
    let people = people.join(", ");
    match text(done, "act") {
        "founded" => format!("founded {} with {people}", plain(text(done, "called"))),
        "added" => format!("added {people}"),
        "removed" => format!("removed {people}"),
        "appointed" => format!("made {people} {}", text(done, "role")),
        "renamed" => format!("called it {}", plain(text(done, "called"))),
        "expires" => match number(done, "expires_s") {
            0 => "had messages kept for ever".into(),
            after => format!("had messages erased {after} s after they are read"),
        },
        _ => "stands for what was done before".into(),
    }
}

/// Shows a conversation, then sends each line that is typed and shows what comes, until standard input ends.
pub(crate) fn chat(
    mut asking: Asking,
    mut other: Asking,
    with_whom: (&str, bool),
) -> anyhow::Result<()> {
    let last = json!({ "last": BEFORE });
    let said = asking.once("messages", &with(conversation(with_whom), &last))?;
    let before = list(&said, "messages");
    // By number from here on: a name could come to mean another.
    let (of, title) = if with_whom.1 {
        let group = asking.once("group", &conversation(with_whom))?;
        (json!({ "group": text(&group, "group") }), plain(text(&group, "name")))
    } else {
        let person = asking.once("verify", &conversation(with_whom))?;
        let is_verified = person.get("verified").and_then(Value::as_bool).unwrap_or_default();
        let note = if is_verified { "" } else { ", whose digits were not compared" };
        let title = format!("{}{note}", plain(text(&person, "name")));
        (json!({ "person": number(&person, "person") }), title)
    };
    line(format_args!("With {title}. An empty line shows nothing; the end of input ends it."))?;
    for message in &before {
        line(shown(message))?;
    }
    // The last one that is shown need not be the last one that came.
    let last = before.iter().max_by_key(|message| number(message, "number"));
    if let Some(last) = last {
        let up_to = json!({ "up_to": number(last, "number") });
        asking.once("read", &with(of.clone(), &up_to))?;
    }
    asking.listen(false)?;
    let followed = of.clone();
    std::thread::spawn(move || {
        if let Err(error) = follow(asking, &followed) {
            // The other thread waits for what is typed, which has nowhere to go now.
            report(error.as_ref());
            std::process::exit(1);
        }
    });
    for typed in std::io::stdin().lock().lines() {
        let typed = typed?;
        if typed.is_empty() {
            continue;
        }
        if let Err(error) = other.once("send", &with(of.clone(), &json!({ "text": typed }))) {
            report(&error);
        }
    }
    Ok(())
}

/// Prints what happens in a conversation.
fn follow(mut asking: Asking, of: &Value) -> anyhow::Result<()> {
    let mut is_new = false;
    // What is written to a group names its writer as well.
    let is_it = |event: &Value| match of.get("group") {
        Some(group) => event.get("group") == Some(group),
        None => event.get("group").is_none() && event.get("person") == of.get("person"),
    };
    loop {
        let event = asking.line()?;
        is_new |= event.get("end").is_some();
        if !is_it(&event) {
            continue;
        }
        match (text(&event, "event"), text(&event, "why")) {
            // What waited was shown before.
            ("received" | "done", _) if is_new => {
                line(shown(&event))?;
                let up_to = json!({ "up_to": number(&event, "number") });
                asking.tell("read", &with(of.clone(), &up_to))?;
            }
            ("reached", _) => {
                let (reached, of) = (number(&event, "reached"), number(&event, "of"));
                line(format_args!("    [{reached} of {of} have it]"))?;
            }
            ("state", "") => line(format_args!("    [{}]", text(&event, "state")))?,
            ("state", why) => line(format_args!("    [{}: {why}]", text(&event, "state")))?,
            _ => {}
        }
    }
}

/// Prints the digits of a person, or keeps that they were the same at both ends.
pub(crate) fn verify(mut asking: Asking, name: &str, same: Option<bool>) -> anyhow::Result<()> {
    let said = asking.once("verify", &json!({ "name": name, "same": same }))?;
    let name = plain(text(&said, "name"));
    line(format_args!("{name} has to see the same digits: {}", text(&said, "digits")))?;
    let is_verified = said.get("verified").and_then(Value::as_bool).unwrap_or_default();
    if is_verified {
        line("You have said that they were the same.")?;
    } else {
        line(format_args!(
            "Nobody has compared them. When you have: shoal-client verify --same {name:?}"
        ))?;
    }
    Ok(())
}

/// Prints messages that have a text in them.
pub(crate) fn search(mut asking: Asking, wanted: &str) -> anyhow::Result<()> {
    for message in list(&asking.once("search", &json!({ "text": wanted }))?, "messages") {
        let with = match text(&message, "group_name") {
            "" => format!("with {}", plain(text(&message, "name"))),
            group => format!("in {}", plain(group)),
        };
        line(format_args!("{} {with}: {}", number(&message, "number"), shown(&message)))?;
    }
    Ok(())
}

/// Prints all that happens, as lines of JSON.
pub(crate) fn events(mut asking: Asking, take: bool, once: bool) -> anyhow::Result<()> {
    asking.listen(once)?;
    let mut last = 0;
    loop {
        let mut event = asking.line()?;
        if once && event.get("end").is_some() {
            break;
        }
        if event.get("event").is_none() {
            continue;
        }
        if let Some(fields) = event.as_object_mut() {
            fields.remove("id");
        }
        line(&event)?;
        if text(&event, "event") == "received" {
            last = number(&event, "number");
            if take && !once {
                asking.tell("taken", &json!({ "up_to": last }))?;
            }
        }
    }
    if take && last > 0 {
        asking.once("taken", &json!({ "up_to": last }))?;
    }
    Ok(())
}
