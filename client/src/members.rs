//! What members of an organisation ask their client on the command line.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use shoal_client::daemon::people::ask::Asking;
use shoal_host::stdout::line;

/// What is needed of the file that `shoal-org invite --out` writes.
#[derive(Deserialize)]
struct Slip {
    code: String,
    key: String,
}

/// What stands in place of a code where somebody signs in at the organisation's provider.
const SIGN_IN: &str = "sign-in";

/// Says where to sign in. Whoever types a code that somebody else gave him lets that one in, in his name.
fn sign_in(address: &str, code: &str) -> std::io::Result<()> {
    line(format_args!(
        "Sign in at {address} and type {code} there. Type no code that somebody else sends you: it would let him in as you."
    ))
}

/// Asks to be let in, and waits until an admin approves.
pub(crate) fn join(
    mut asking: Asking,
    (code, organisation, device): (Option<&str>, &str, &str),
    no_wait: bool,
) -> anyhow::Result<()> {
    let by_sign_in = code.is_none();
    let code = code.unwrap_or(SIGN_IN);
    let (code, organisation) = match Path::new(code) {
        _ if by_sign_in => (code.to_owned(), organisation.to_owned()),
        path if path.is_file() => {
            let slip: Slip = shoal_host::config::load(path, &[])?.config;
            (slip.code, slip.key)
        }
        // Not as an argument, where others on this machine could read it.
        _ if code == "-" => {
            (std::io::read_to_string(std::io::stdin())?.trim().to_owned(), organisation.to_owned())
        }
        _ => (code.to_owned(), organisation.to_owned()),
    };
    if !no_wait {
        asking.listen(false)?;
    }
    let request = json!({ "code": code, "organisation": organisation, "device": device });
    let said = asking.once("join", &request)?;
    let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let whom = if by_sign_in { "an admin who asks for them" } else { "the admin who invited you" };
    line(format_args!(
        "{}: read these digits to {whom}: {}",
        text("organisation"),
        text("digits")
    ))?;
    if no_wait {
        return Ok(());
    }
    loop {
        let event = asking.line()?;
        match event.get("event").and_then(Value::as_str) {
            Some("enrolled") => {
                return Ok(line("You are in: shoal-client open, or shoal-client chat NAME.")?);
            }
            Some("sign-in") => {
                let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
                sign_in(text("address"), text("code"))?;
            }
            Some("organisation" | "alarm") => {
                line(event.get("text").and_then(Value::as_str).unwrap_or_default())?;
            }
            _ => {}
        }
    }
}

/// Prints the people whom a name means, or all of the organisation.
pub(crate) fn contacts(
    mut asking: Asking,
    name: Option<&str>,
    as_json: bool,
) -> anyhow::Result<()> {
    let said = asking.once("contacts", &json!({ "name": name }))?;
    let contacts = said.get("contacts").and_then(Value::as_array).cloned().unwrap_or_default();
    for contact in contacts {
        if as_json {
            line(&contact)?;
            continue;
        }
        let text = |key: &str| contact.get(key).and_then(Value::as_str).unwrap_or_default();
        let is = |key: &str| contact.get(key).and_then(Value::as_bool).unwrap_or_default();
        let unit =
            if text("unit").is_empty() { String::new() } else { format!(" ({})", text("unit")) };
        let external = if is("external") { ", external" } else { "" };
        let own = if is("own") { ", you" } else { "" };
        line(format_args!("{}{unit}{external}{own}", text("name")))?;
        for device in contact.get("devices").and_then(Value::as_array).into_iter().flatten() {
            if let Some(until) = device.get("held_until").and_then(Value::as_u64) {
                let name = device.get("name").and_then(Value::as_str).unwrap_or_default();
                line(format_args!(
                    "    device {name:?} is new: what is written to it is held back until {until} (Unix time)"
                ))?;
            }
        }
    }
    Ok(())
}

/// Prints how it stands with the organisation.
pub(crate) fn organisation(mut asking: Asking, seen: bool, as_json: bool) -> anyhow::Result<()> {
    let mut said = asking.once("organisation", &json!({ "seen": seen }))?;
    if let Some(said) = said.as_object_mut() {
        said.remove("id");
    }
    if as_json {
        return Ok(line(&said)?);
    }
    let Some(name) = said.get("organisation").and_then(Value::as_str) else {
        return Ok(line("This client belongs to no organisation: `shoal-client join CODE`.")?);
    };
    let number = |key: &str| said.get(key).and_then(Value::as_u64).unwrap_or_default();
    if said.get("member").and_then(Value::as_bool).unwrap_or_default() {
        let behind =
            if number("head") > number("entries") { ", and more are on their way" } else { "" };
        line(format_args!(
            "Member of {name}; the directory has {} entries{behind}.",
            number("entries")
        ))?;
    } else if said.get("removed").and_then(Value::as_bool).unwrap_or_default() {
        line(format_args!(
            "This device was removed from {name}: nobody writes to it any more. What it has stays here; join with a new client."
        ))?;
    } else {
        let digits = said.get("digits").and_then(Value::as_str).unwrap_or_default();
        line(format_args!("Asked {name} to be let in: its admin wants to hear {digits}."))?;
    }
    if let Some(why) = said.get("refused").and_then(Value::as_str) {
        line(why)?;
    }
    if let Some(page) = said.get("sign_in").filter(|page| page.is_object()) {
        let text = |key: &str| page.get(key).and_then(Value::as_str).unwrap_or_default();
        sign_in(text("address"), text("code"))?;
    }
    for text in said.get("announcements").and_then(Value::as_array).into_iter().flatten() {
        // On one line, whatever lines it has.
        line(format_args!("announced: {:?}", text.as_str().unwrap_or_default()))?;
    }
    for alarm in said.get("alarms").and_then(Value::as_array).into_iter().flatten() {
        line(format_args!("ALARM: {}", alarm.as_str().unwrap_or_default()))?;
    }
    Ok(())
}
