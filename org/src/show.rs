//! What the program prints.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use shoal_org::{Approval, Open, Registry, Slip};
use shoal_organisation::enrolment::Invited;
use shoal_organisation::{
    Admin, Device, Directory, Entry, FOUNDER, PersonFlags, Policy, Removed, Request, Role,
    SignedBatch,
};

/// Written to a string, which cannot fail.
macro_rules! line {
    ($text:expr, $($rest:tt)*) => { { let _ = writeln!($text, $($rest)*); } };
}

fn trimmed(mut text: String) -> String {
    text.truncate(text.trim_end().len());
    text
}

pub(crate) fn founded(registry: &Registry) -> String {
    let directory = registry.directory();
    let (dir, name, key) = (registry.dir().display(), directory.name(), directory.organisation());
    format!(
        "{name} is founded in {dir}. Keep {dir}/keys/organisation.key and {dir}/keys/admin-1.key safe, with a copy elsewhere.\n\
         For the operators of the network's authorities, into the configuration of each:\n\
         \n\
         [[authority.organisation]]\n\
         name = \"{name}\"\n\
         key = \"{key}\"\n\
         \n\
         Then: shoal-org --dir {dir} publish; shoal-org --dir {dir} invite 'Alice Example'"
    )
}

pub(crate) fn invitation(slip: &Slip, hours: u64, out: Option<&Path>) -> String {
    let way = match out {
        Some(path) => {
            format!("{} has it, with what else `shoal-client join` needs.", path.display())
        }
        None => format!("The organisation's key is {}.", slip.key),
    };
    format!("{}\n\nThis code lets one device in, once, within {hours} hours. {way}", slip.code)
}

fn role(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Owner) => "owner",
        Some(Role::Issuer) => "issuer",
        Some(Role::Announcer) => "announcer",
        None => "none",
    }
}

fn marks(flags: PersonFlags) -> String {
    let mut text = String::new();
    for (flag, name) in [(PersonFlags::MARKED, "marked"), (PersonFlags::EXTERNAL, "external")] {
        if flags.has(flag) {
            text = text + ", " + name;
        }
    }
    text
}

pub(crate) fn policy(policy: &Policy) -> String {
    format!(
        "approvals {}: admins who sign what gives somebody power\n\
         hold_s {}: how long members hold back what they write to a device that is new to them\n\
         marked_hold_s {}: the same for persons who are marked\n\
         max_age_s {}: who holds a directory older than twice this has to name his device to get what is new",
        policy.approvals, policy.hold_s, policy.marked_hold_s, policy.max_age_s
    )
}

pub(crate) fn requests(registry: &Registry, as_json: bool) -> String {
    if registry.invitations().is_empty() && !as_json {
        return "no invitation is open".into();
    }
    let mut text = String::new();
    for Open { invitation, request, approval, signed_in, .. } in registry.invitations() {
        let name = registry.name_of(invitation);
        let digits = request.as_ref().map(Request::digits);
        if as_json {
            let by = signed_in.as_ref().map(|by| {
                json!({ "account": by.account, "name": by.name, "issuer": by.by.issuer, "subject": by.by.subject })
            });
            line!(
                text,
                "{}",
                json!({
                    "name": name, "expires": invitation.expires, "digits": digits,
                    "auto": *approval == Approval::Service, "signed_in": by,
                })
            );
        } else {
            let state = digits
                .map_or("no request yet".into(), |digits| format!("asks with the digits {digits}"));
            let unseen = match approval {
                Approval::Admin => "",
                Approval::Service => ", let in unseen by `serve --auto`",
            };
            let further = match invitation.invited {
                Invited::Device { .. } => " (a further device)",
                Invited::Person { .. } => "",
            };
            let by = signed_in.as_ref().map_or(String::new(), |by| {
                format!(", signed in as {:?} at {}", by.account, by.by.issuer)
            });
            let until = invitation.expires;
            line!(text, "{name}{further}: {state}{by}{unseen}; over at {until} (Unix time)");
        }
    }
    trimmed(text)
}

pub(crate) fn accounts(registry: &Registry) -> String {
    let mut text = String::new();
    for known in registry.accounts() {
        let person = registry.directory().person(known.person);
        let name = person.map_or("", |member| member.person.name.as_str());
        let gone = if person.is_some_and(|member| member.is_removed) { ", removed" } else { "" };
        let by = known.subject.as_ref().map_or(String::new(), |by| format!(", by {}", by.issuer));
        line!(text, "{:5} {name}: {:?}{by}{gone}", known.person, known.account);
    }
    if text.is_empty() { "no account is known".into() } else { trimmed(text) }
}

pub(crate) fn people(directory: &Directory, all: bool, as_json: bool) -> String {
    if as_json {
        return json_of(directory, all).to_string();
    }
    let mut text = format!(
        "{}, {} entries; key {}\n",
        directory.name(),
        directory.size(),
        directory.organisation()
    );
    for member in directory.people().filter(|member| all || !member.is_removed) {
        let person = &member.person;
        let unit =
            if person.unit.is_empty() { String::new() } else { format!(" ({})", person.unit) };
        let gone = if member.is_removed { ", removed" } else { "" };
        line!(text, "{:5} {}{unit}{}{gone}", person.id, person.name, marks(person.flags));
        let own = directory.devices().filter(|device| device.device.person == person.id);
        for device in own.filter(|device| all || !device.is_removed) {
            let gone = if device.is_removed { ", removed" } else { "" };
            line!(
                text,
                "      device {}: {}, {}{gone}",
                device.device.id,
                device.device.name,
                device.device.key
            );
        }
    }
    for admin in directory.admins() {
        line!(text, "admin {} {}: {}", admin.number, admin.name, role(admin.role));
    }
    trimmed(text)
}

fn json_of(directory: &Directory, all: bool) -> Value {
    let device = |device: &Device, removed: bool| {
        json!({
            "id": device.id, "name": device.name, "key": device.key.to_string(),
            "gateways": device.gateways.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "removed": removed,
        })
    };
    let people: Vec<Value> = directory
        .people()
        .filter(|member| all || !member.is_removed)
        .map(|member| {
            let person = &member.person;
            let own = directory
                .devices()
                .filter(|d| d.device.person == person.id && (all || !d.is_removed));
            json!({
                "id": person.id, "name": person.name, "unit": person.unit,
                "marked": person.flags.has(PersonFlags::MARKED),
                "external": person.flags.has(PersonFlags::EXTERNAL),
                "removed": member.is_removed,
                "devices": own.map(|d| device(&d.device, d.is_removed)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let admins: Vec<Value> = directory
        .admins()
        .map(
            |admin| json!({ "number": admin.number, "name": admin.name, "role": role(admin.role) }),
        )
        .collect();
    let policy = directory.policy();
    json!({
        "name": directory.name(),
        "key": directory.organisation().to_string(),
        "size": directory.size(),
        "people": people,
        "admins": admins,
        "policy": {
            "approvals": policy.approvals, "hold_s": policy.hold_s,
            "marked_hold_s": policy.marked_hold_s, "max_age_s": policy.max_age_s,
        },
    })
}

/// An entry in words, as the directory knows the persons and devices in it.
fn said(directory: &Directory, entry: &Entry) -> String {
    let name =
        |id: u32| directory.person(id).map_or("somebody new", |member| member.person.name.as_str());
    match entry {
        Entry::Founded { name } => format!("{name} is founded"),
        Entry::Admin(Admin { number, name, role: given, key }) => {
            format!("admin {number}, {name}: {} ({key})", role(*given))
        }
        Entry::Person(person) => {
            let unit =
                if person.unit.is_empty() { String::new() } else { format!(" ({})", person.unit) };
            format!("person {}, {}{unit}{}", person.id, person.name, marks(person.flags))
        }
        Entry::Device(device) => {
            let gateways: Vec<String> = device.gateways.iter().map(ToString::to_string).collect();
            let vouched = device
                .vouched
                .as_ref()
                .map(|vouch| format!(", on the word of device {}", vouch.device));
            format!(
                "device {}, {}, of {} ({}), at {}{}",
                device.id,
                device.name,
                name(device.person),
                device.key,
                gateways.join(" and "),
                vouched.unwrap_or_default()
            )
        }
        Entry::Remove(Removed::Person(id)) => format!("{} is removed", name(*id)),
        Entry::Remove(Removed::Device(id)) => match directory.device(*id) {
            Some(device) => {
                format!(
                    "device {id}, {}, of {} is removed",
                    device.device.name,
                    name(device.device.person)
                )
            }
            None => format!("device {id} is removed"),
        },
        Entry::Policy(policy) => format!(
            "policy: approvals {}, hold_s {}, marked_hold_s {}, max_age_s {}",
            policy.approvals, policy.hold_s, policy.marked_hold_s, policy.max_age_s
        ),
        // On one line, whatever lines it has.
        Entry::Announce { text } => format!("announcement: {text:?}"),
    }
}

fn signer(directory: &Directory, number: u16) -> String {
    let name = directory.admins().find(|admin| admin.number == number);
    match name {
        _ if number == FOUNDER => "the organisation's key".into(),
        Some(admin) => format!("{} ({number})", admin.name),
        None => format!("admin {number}"),
    }
}

fn signers(directory: &Directory, signed: &SignedBatch) -> String {
    let names: Vec<String> =
        signed.signatures.iter().map(|(admin, _)| signer(directory, *admin)).collect();
    if names.is_empty() { "nobody yet".into() } else { names.join(" and ") }
}

/// A batch, for whoever is about to sign it.
pub(crate) fn batch(directory: &Directory, signed: &SignedBatch) -> String {
    let mut text = format!("made at {} (Unix time)\n", signed.batch.at);
    for entry in &signed.batch.entries {
        let known = match entry {
            Entry::Admin(admin) => directory.admins().any(|known| known.number == admin.number),
            Entry::Person(person) => directory.person(person.id).is_some(),
            Entry::Device(device) => directory.device(device.id).is_some(),
            _ => true,
        };
        line!(text, "{}{}", if known { "" } else { "NEW: " }, said(directory, entry));
    }
    line!(text, "signed by {}", signers(directory, signed));
    trimmed(text)
}

pub(crate) fn log(directory: &Directory, as_json: bool) -> String {
    let mut text = String::new();
    for listed in directory.entries(0..directory.size()) {
        let (number, at) = (listed.number, listed.batch.batch.at);
        let what = said(directory, listed.entry);
        if as_json {
            let by: Vec<u16> = listed.batch.signatures.iter().map(|(admin, _)| *admin).collect();
            line!(text, "{}", json!({ "number": number, "at": at, "what": what, "by": by }));
        } else {
            line!(text, "{number:5} {at} {what}; by {}", signers(directory, listed.batch));
        }
    }
    trimmed(text)
}
